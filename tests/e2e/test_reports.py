"""Reports (RFC 3464) to those whose mail failed: what arrives, to whom, how often, and after kill -9.

The reports are read with Python's email package, which shares nothing with the bridge.
"""
import email
import email.policy
import os
import random
import re
import sqlite3
import time
import unittest

import smtp
from bridge import World, wait_for
from messages import SENDER

ADMIN = "it@fabrikam.example"
SEED = os.environ.get("SEED") or str(random.SystemRandom().randrange(10**9))


def message(name, sender="stranger@elsewhere.example"):
    """A message that the sandbox refuses, because its mailbox may not send as this sender."""
    return (f"From: {sender}\r\nTo: bob@example.org\r\nSubject: {name}\r\nMessage-ID: <{name}@client.test>\r\n"
            "Date: Sat, 21 Nov 2026 08:47:00 +0000\r\n\r\nbody\r\n").encode()


class Reports(unittest.TestCase):
    """Each test has a sandbox and a bridge of its own."""

    def setUp(self):
        self.world = World()
        self.addCleanup(self.world.close)
        self.world.sandbox.tenant(send_as_strict=True)

    def start(self, report="", **options):
        """The bridge, stopped at the end of the test."""
        bridge = self.world.start_bridge(more=f"[report]\n{report}\n", **options)
        self.addCleanup(bridge.kill)
        return bridge

    def send(self, bridge, name, sender=SENDER, mail="", rcpt="", to="bob@example.org"):
        """Sends a message that fails; its queue id."""
        with smtp.Session(bridge.port) as session:
            session.command(f"MAIL FROM:<{sender}>{mail}")
            session.command(f"RCPT TO:<{to}>{rcpt}")
            session.command("DATA", "3")
            session.socket.sendall(smtp.on_the_wire(message(name)))
            return re.search(r"\b[0-9a-f]{32}\b", session.expect("250", session.reply())).group()

    def reports(self):
        """The reports that arrived: recipients, and what Python reads."""
        found = []
        for entry in self.world.sandbox.inbox():
            mail = email.message_from_bytes(self.world.sandbox.raw(entry), policy=email.policy.default)
            if mail.get_content_type() == "multipart/report":
                self.assertNotIn("Received", mail)
                found.append(([r["address"] for r in entry["recipients"]], mail))
        return found

    def nothing_more(self, bridge, count):
        """A message that goes through comes after all that was queued before it: no more than `count` reports."""
        with smtp.Session(bridge.port) as session:
            session.send(SENDER, ["last@example.org"], message("last", SENDER).replace(b"bob@", b"last@"))
        bridge.wait_log(r" released id=.*", count=count + 1)
        self.assertEqual(len(self.world.sandbox.inbox()), count + 1, bridge.log())

    def test_a_report_has_every_field(self):
        """The sender's report: text first, all that the client had said, and the message whole because it asked."""
        bridge = self.start()
        queue_id = self.send(bridge, "Scan-17", mail=" RET=FULL ENVID=QQ+2B17",
                             rcpt=" NOTIFY=FAILURE ORCPT=rfc822;list+2B1@example.net")
        self.world.sandbox.wait_inbox(1, evidence=bridge.log)
        [(to, report)] = self.reports()
        self.assertEqual(to, [SENDER])
        self.assertEqual(report.get_content_type(), "multipart/report")
        self.assertEqual(report.get_param("report-type"), "delivery-status")
        self.assertEqual(report["From"], f"Mail bridge <{self.world.sandbox.facts['mailbox']}>")
        self.assertEqual(report["To"], SENDER)
        self.assertEqual(report["Subject"], "Not delivered: Scan-17")
        self.assertEqual(report["Auto-Submitted"], "auto-replied")
        self.assertEqual(report["In-Reply-To"], "<Scan-17@client.test>")
        self.assertTrue(report["Date"].datetime and report["Message-ID"])
        self.assertEqual(report.defects, [])
        text, status, returned = report.iter_parts()
        for part in (text, status, returned):
            self.assertEqual(part.defects, [])
        words = " ".join(text.get_content().split())
        for expected in ("bob@example.org", queue_id, "Why: The mailbox is not allowed to send with the From address",
                         "What to do: Let the device send with the address of the mailbox"):
            self.assertIn(expected, words)
        self.assertTrue(all(len(line) <= 78 for line in text.get_content().splitlines()))
        self.assertEqual(status.get_content_type(), "message/delivery-status")
        of_message, of_recipient = status.get_payload()
        self.assertEqual(of_message["Reporting-MTA"], "dns; bridge.test")
        self.assertEqual(of_message["Original-Envelope-Id"], "QQ+17")
        self.assertEqual(of_message["X-Queue-Id"], queue_id)
        self.assertTrue(of_message["Arrival-Date"])
        self.assertEqual(of_recipient["Original-Recipient"], "rfc822; list+1@example.net")
        self.assertEqual(of_recipient["Final-Recipient"], "rfc822; bob@example.org")
        self.assertEqual(of_recipient["Action"], "failed")
        self.assertEqual(of_recipient["Status"], "5.7.60")
        self.assertIn("ErrorSendAsDenied", of_recipient["Diagnostic-Code"])
        self.assertEqual(returned.get_content_type(), "message/rfc822")
        inner = returned.get_payload()[0]
        self.assertEqual((inner["Subject"], inner.get_content().strip()), ("Scan-17", "body"))
        bridge.wait_log(rf"reported id={queue_id}.* action=\"?failed")

    def test_without_ret_only_the_header_comes_back(self):
        """And an address outside ASCII stands in the form of RFC 6533."""
        bridge = self.start()
        with smtp.Session(bridge.port) as session:
            session.command(f"MAIL FROM:<{SENDER}> SMTPUTF8")
            session.command("RCPT TO:<jörg@example.org>")
            session.command("DATA", "3")
            session.socket.sendall(smtp.on_the_wire("Subject: für\r\nFrom: a@b.example\r\n\r\nx\r\n".encode()))
            session.expect("250", session.reply())
        self.world.sandbox.wait_inbox(1, evidence=bridge.log)
        [(_, report)] = self.reports()
        text, status, returned = report.iter_parts()
        self.assertEqual(report["Subject"], "Not delivered: für")
        self.assertIn("jörg@example.org", text.get_content())
        self.assertEqual(status.get_payload()[1]["Final-Recipient"], r"utf-8; j\x{F6}rg@example.org")
        self.assertEqual(returned.get_content_type(), "text/rfc822-headers")
        self.assertIn("Subject: für", returned.get_content())

    def test_never_means_never(self):
        """NOTIFY=NEVER: no report, but a dead letter, and the log says why there is none."""
        bridge = self.start(report=f'admin = "{ADMIN}"')
        queue_id = self.send(bridge, "quiet", rcpt=" NOTIFY=NEVER")
        bridge.wait_log(rf"not reported id={queue_id}.*NOTIFY")
        bridge.wait_log(rf"dead-letter.* id={queue_id}")
        self.nothing_more(bridge, 0)

    def test_fifty_failures_are_one_report(self):
        """And the table knows how many were held back."""
        bridge = self.start()
        for n in range(50):
            self.send(bridge, f"storm-{n}")
        bridge.wait_log(r"dead-letter", count=50, deadline=60)
        self.nothing_more(bridge, 1)
        self.assertEqual(bridge.stop(), 0)
        with sqlite3.connect(self.world.state_dir / "spool" / "queue.db") as db:
            self.assertEqual(db.execute("SELECT recipient, held_back FROM reported").fetchall(), [(SENDER, 49)])

    def test_without_a_sender_the_administrator_is_told_or_nobody(self):
        """A null reverse-path never gets a report; neither does a device that calls itself scan@printer."""
        bridge = self.start(report=f'admin = "{ADMIN}"')
        for sender in ("", "scan@printer"):
            self.send(bridge, f"from-{sender}", sender=sender)
        bridge.wait_log(r"dead-letter", count=2)
        self.nothing_more(bridge, 1)
        self.assertEqual([to for to, _ in self.reports()], [[ADMIN]])
        bridge.stop()
        bridge = self.start()
        queue_id = self.send(bridge, "from-nobody", sender="")
        bridge.wait_log(rf"not reported id={queue_id}.*set report.admin")

    def test_a_report_that_fails_is_not_reported(self):
        """It becomes a dead letter itself."""
        self.world.sandbox.fault("sendMail", 2, kind="status", status=400, code="ErrorInvalidRecipients",
                                 message="At least one recipient isn't valid.")
        bridge = self.start(report=f'admin = "{ADMIN}"')
        self.send(bridge, "first")
        bridge.wait_log(r"dead-letter", count=2)
        bridge.wait_log(r"not reported .*it is a report itself")
        self.nothing_more(bridge, 0)

    def test_success_is_reported_if_it_was_asked_for(self):
        """As relayed: the system behind us sends no reports of success."""
        self.world.sandbox.tenant(send_as_strict=False)
        bridge = self.start()
        self.send(bridge, "asked", rcpt=" NOTIFY=SUCCESS")
        self.world.sandbox.wait_inbox(2, evidence=bridge.log)
        self.send(bridge, "not-asked")
        self.nothing_more(bridge, 3)
        [(to, report)] = self.reports()
        self.assertEqual(to, [SENDER])
        recipient = list(report.iter_parts())[1].get_payload()[1]
        self.assertEqual((recipient["Action"], recipient["Status"]), ("relayed", "2.1.9"))

    def test_after_kill_9_there_is_exactly_one_report_of_each(self):
        """The report is in the transaction that ends the message: never without the other, never twice."""
        print(f"\nSEED={SEED}", flush=True)
        dice = random.Random(SEED)
        bridge = self.start()
        names = []
        for number in range(10):
            self.world.sandbox.tenant(latency_ms=dice.choice((0, 5, 30)))
            batch = [f"kill-{number}-{n}" for n in range(5)]
            for name in batch:
                self.send(bridge, name, sender=f"{name}@fabrikam.example")
            time.sleep(dice.random() * 0.15)  # the moment of the kill, nothing that is waited for
            bridge.kill()
            bridge = self.start()
            names += batch
            wait_for("a report of each", lambda: len(self.ids_by_name()) == len(names), 60, bridge.log)
        wait_for("an empty queue but for the dead letters", lambda: self.waiting() == 0, 60, bridge.log)
        self.assertEqual(bridge.stop(), 0)
        by_name = self.ids_by_name()
        self.assertEqual(sorted(by_name), sorted(names))
        # A report may arrive twice, if the kill came in the middle of sending it; there are never two of them.
        self.assertEqual({name: len(ids) for name, ids in by_name.items() if len(ids) != 1}, {})

    def ids_by_name(self):
        """The Message-IDs of the reports about each message."""
        found = {}
        for _, report in self.reports():
            name = report["Subject"].removeprefix("Not delivered: ")
            found.setdefault(name, set()).add(report["Message-ID"])
        return found

    def waiting(self):
        """Parts that are still to be sent."""
        with sqlite3.connect(self.world.state_dir / "spool" / "queue.db") as db:
            return db.execute("SELECT count(*) FROM part WHERE state = 0").fetchone()[0]


if __name__ == "__main__":
    unittest.main()
