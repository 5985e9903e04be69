"""SMTP as it is spoken, where only the whole program shows the answer."""
import random
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
        self.assertLessEqual({"SIZE", "8BITMIME", "PIPELINING", "ENHANCEDSTATUSCODES", "CHUNKING", "SMTPUTF8", "DSN",
                              "LIMITS", "HELP"}, offered)
        self.assertEqual(offered & {"AUTH", "STARTTLS", "BINARYMIME"}, set())

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

    def test_chunks(self):
        """A message in chunks (BDAT), cut anywhere, with lines that are dots and look like commands, arrives as it is."""
        noise = random.Random(3030)
        lines = [noise.choice([b".", b"..", b"", b"QUIT", b"BDAT 5 LAST", b"x" * 70]) for _ in range(30_000)]
        message = head("chunked") + b"\r\n" + b"".join(line + b"\r\n" for line in lines)
        self.session.command(f"MAIL FROM:<{SENDER}>")
        for recipient in RECIPIENTS:
            self.session.command(f"RCPT TO:<{recipient}>")
        replies, rest, wire = 1, message, b""
        while rest:
            size = noise.choice([0, 1, 7, 5_000, 100_000])
            chunk, rest = rest[:size], rest[size:]
            wire += b"BDAT %d%s\r\n" % (len(chunk), b"" if rest else b" LAST") + chunk
            replies += 1
        self.session.socket.sendall(wire + b"NOOP\r\n")
        self.assertEqual({self.session.reply()[:3] for _ in range(replies)}, {"250"})
        entry = self.arrived("chunked")
        self.assertEqual(difference_after_received(self.world.sandbox.raw(entry), message), "")

    def test_addresses_in_utf8(self):
        """Who is outside ASCII gets mail too, and our Received says how it came (RFC 6531)."""
        name = "jörg@müller.example"
        message = head("utf8").replace(RECIPIENTS[1].encode(), name.encode()) + b"\r\nGr\xc3\xbc\xc3\x9fe\r\n"
        self.session.command(f"MAIL FROM:<{SENDER}> SMTPUTF8 BODY=8BITMIME RET=HDRS ENVID=a+2Bb")
        self.session.command(f"RCPT TO:<{RECIPIENTS[0]}> NOTIFY=NEVER")
        self.session.command(f"RCPT TO:<{name}> ORCPT=utf-8;j\\x{{F6}}rg@m\\x{{FC}}ller.example")
        self.session.command("DATA", "3")
        self.session.socket.sendall(smtp.on_the_wire(message))
        self.session.expect("2", self.session.reply())
        entry = self.arrived("utf8")
        self.assertEqual({r["address"] for r in entry["recipients"]}, {RECIPIENTS[0], name})
        raw = self.world.sandbox.raw(entry)
        self.assertIn(b" with UTF8SMTP\r\n", smtp.split_received(raw)[0])
        self.assertEqual(difference_after_received(raw, message), "")

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
