"""SMTP as it is spoken, where only the whole program shows the answer."""
import re
import unittest

import smtp
from bridge import World, wait_for
from messages import RECIPIENTS, SENDER, difference_after_received, head


class Dialog(unittest.TestCase):
    """One bridge for all."""

    @classmethod
    def setUpClass(cls):
        cls.world = World()
        cls.addClassCleanup(cls.world.close)
        cls.bridge = cls.world.start_bridge()
        cls.addClassCleanup(cls.bridge.kill)

    def setUp(self):
        self.session = smtp.Session(self.bridge.port)
        self.addCleanup(self.session.close)

    def arrived(self, subject):
        """The entry of the message with this subject, as soon as there is one."""
        def look():
            return next((e for e in self.world.sandbox.inbox() if e["subject"] == subject), None)
        return wait_for(f"{subject!r} in the inbox", look, evidence=self.bridge.log)

    def test_ehlo(self):
        """What is offered, and nothing that does not exist yet."""
        offered = {line[4:].split()[0] for line in self.session.command("EHLO client.test").splitlines()[1:]}
        self.assertLessEqual({"SIZE", "8BITMIME", "PIPELINING", "ENHANCEDSTATUSCODES"}, offered)
        self.assertEqual(offered & {"AUTH", "STARTTLS", "CHUNKING"}, set())

    def test_a_size_that_is_too_large(self):
        """Refused at MAIL, before the device sends it all."""
        self.session.command(f"MAIL FROM:<{SENDER}> SIZE=2900001", "552")
        self.session.command(f"MAIL FROM:<{SENDER}> SIZE=2900000", "250")

    def test_a_message_that_is_too_large(self):
        """Refused at the end of DATA, never accepted and dropped; the session goes on."""
        self.session.envelope(SENDER, RECIPIENTS)
        self.session.socket.sendall(smtp.on_the_wire(head("large") + b"\r\n" + (b"x" * 98 + b"\r\n") * 30_000))
        self.assertTrue(self.session.reply().startswith("552"))
        self.bridge.wait_log(r" refused .*552")
        self.session.send(SENDER, RECIPIENTS, head("small") + b"\r\nsmall\r\n")
        self.arrived("small")
        self.assertEqual([path for path in self.world.bodies() if path.stat().st_size > 10**6], [])

    def test_the_largest_message(self):
        """2,900,000 octets go through."""
        start = head("largest") + b"\r\n"
        rest = 2_900_000 - len(start)
        message = start + (b"x" * 98 + b"\r\n") * (rest // 100 - 1) + b"y" * (rest % 100 + 98) + b"\r\n"
        self.assertEqual(len(message), 2_900_000)
        self.session.send(SENDER, RECIPIENTS, message)
        entry = self.arrived("largest")
        self.assertEqual(difference_after_received(self.world.sandbox.raw(entry), message), "")

    def test_the_null_sender(self):
        """`MAIL FROM:<>` is mail too (RFC 5321 §4.5.5)."""
        self.session.command("MAIL FROM:<>", "250")
        self.session.command(f"RCPT TO:<{RECIPIENTS[0]}>", "250")

    def test_pipelining(self):
        """Commands in one packet, answered in order."""
        message = head("pipelined") + b"\r\nall at once\r\n"
        self.session.socket.sendall(
            (f"MAIL FROM:<{SENDER}>\r\n" + "".join(f"RCPT TO:<{r}>\r\n" for r in RECIPIENTS) + "DATA\r\n").encode())
        self.assertEqual([self.session.reply()[:3] for _ in range(4)], ["250", "250", "250", "354"])
        self.session.socket.sendall(smtp.on_the_wire(message) + b"NOOP\r\nQUIT\r\n")
        self.assertEqual([self.session.reply()[:3] for _ in range(3)], ["250", "250", "221"])
        entry = self.arrived("pipelined")
        self.assertEqual(difference_after_received(self.world.sandbox.raw(entry), message), "")

    def test_a_broken_connection(self):
        """Half a message is no message, and the log says so."""
        before = len(re.findall(r" lost: the connection broke", self.bridge.log()))
        self.session.envelope(SENDER, RECIPIENTS)
        self.session.socket.sendall(head("half") + b"\r\nhalf of a li")
        self.session.close()
        self.bridge.wait_log(r" lost: the connection broke", count=before + 1)
        self.assertNotIn("half", [entry["subject"] for entry in self.world.sandbox.inbox()])

    def test_no_smuggling(self):
        """A dot between bare line feeds does not end a message."""
        self.session.envelope(SENDER, RECIPIENTS)
        inner = b"\n.\nMAIL FROM:<eve@example.org>\r\nRCPT TO:<mallory@example.org>\r\nDATA\r\nsmuggled\r\n.\r\n"
        self.session.socket.sendall(head("outer") + b"\r\nouter" + inner)
        self.session.reply()
        self.session.command("NOOP")
        mallory = [e for e in self.world.sandbox.inbox() if any("mallory" in r["address"] for r in e["recipients"])]
        self.assertEqual(mallory, [])

    def test_logins_and_strangers(self):
        """What is not spoken here is refused without ending the session."""
        self.session.command("AUTH PLAIN AAAA", "50")
        self.session.command("STARTTLS", "50")
        self.session.command("BOGUS", "500")
        self.session.command("NOOP", "250")
