"""An upstream that goes away for a minute, and one that is busy for ten seconds, while mail comes for eight mailboxes.

What counts is the end: how soon after the trouble the last message is relayed.
"""
import re
import time
import unittest

import smtp
from bridge import World, wait_for

MAILBOXES = [f"desk{n}@fabrikam.example" for n in range(8)]


def message(mailbox, number):
    """A message of one of the mailboxes."""
    return (f"From: {mailbox}\r\nTo: ann@y.example\r\nSubject: {number}\r\n"
            f"Message-ID: <outage-{number}@client.test>\r\n\r\nOne of many.\r\n").encode()


class Outage(unittest.TestCase):
    """Each test has a sandbox with eight mailboxes, and a bridge that sends from the one that From names."""

    def setUp(self):
        self.world = World()
        self.addCleanup(self.world.close)
        self.open_mailboxes()
        self.bridge = self.world.start_bridge(account='send_as = ["*@fabrikam.example"]')
        self.addCleanup(self.bridge.kill)

    def open_mailboxes(self):
        """The tenant's state lives in the sandbox, which forgets it when it is stopped."""
        scanner = self.world.sandbox.facts["mailbox"]
        self.world.sandbox.tenant(mailboxes=[{"address": address} for address in [scanner, *MAILBOXES]])

    def send_evenly(self, count, seconds):
        """Sends `count` messages within `seconds`, over all mailboxes in turn."""
        began = time.monotonic()
        session = smtp.Session(self.bridge.port)
        for number in range(count):
            time.sleep(max(0.0, began + number * seconds / count - time.monotonic()))
            mailbox = MAILBOXES[number % len(MAILBOXES)]
            session.send(mailbox, ["ann@y.example"], message(mailbox, number))
        session.close()
        time.sleep(max(0.0, began + seconds - time.monotonic()))

    def released(self):
        """How many messages the bridge is done with."""
        return len(re.findall(r" released id=", self.bridge.log()))

    def relayed_within(self, count, seconds):
        """All of them are relayed, exactly once, within so many seconds from now."""
        began = time.monotonic()
        wait_for(f"{count} releases", lambda: self.released() >= count, deadline=seconds + 60,
                 evidence=lambda: self.bridge.log()[-8000:])
        took = time.monotonic() - began
        subjects = sorted(int(entry["subject"]) for entry in self.world.sandbox.inbox())
        self.assertEqual(subjects, list(range(count)))
        self.assertLessEqual(took, seconds, self.bridge.log()[-8000:])
        print(f"{self.id()}: the last of {count} messages {took:.1f} s after the end of the trouble")

    def test_down_for_a_minute(self):
        """100 messages a minute while nobody listens: the last is relayed within 5 s of the return."""
        port = int(self.world.sandbox.facts["graph"].rsplit(":", 1)[1])
        self.world.sandbox.kill()
        self.send_evenly(100, 60)
        self.bridge.wait_log(r"the server cannot be reached")
        self.world.sandbox = self.world.start_sandbox(port)
        self.open_mailboxes()
        self.relayed_within(100, 5)

    def test_busy_for_ten_seconds(self):
        """40 % of all answers are 503 or 429: all is relayed within Retry-After and 5 s."""
        retry_after = 2
        sandbox = self.world.sandbox
        for probability, status, code in [(0.2, 503, "ErrorServerBusy"), (0.25, 429, "ApplicationThrottled")]:
            sandbox.request("POST", "/faults", {
                "where": "sendMail", "times": "forever", "probability": probability,
                "what": {"kind": "status", "status": status, "code": code, "retry_after": retry_after},
            })
        self.send_evenly(100, 10)
        sandbox.faults_end()
        self.relayed_within(100, retry_after + 5)
        answers = [request["status"] for request in sandbox.requests("/sendMail")]
        self.assertTrue({503, 429} <= set(answers), answers)


if __name__ == "__main__":
    unittest.main()
