"""What real clients send arrives byte for byte, and at nobody but the envelope."""
import re
import shutil
import tempfile
import unittest

from bridge import World, wait_for
from clients import CLIENTS, REWRAPS, Postfix
from messages import MESSAGES, RECIPIENTS, SENDER, verify_smime
from smtp import difference, split_received

WANTED = {
    "curl": "curl", "swaks": "swaks", "msmtp": "msmtp", "nodemailer": "node", "postfix": "postfix",
}
"""The program that each client needs; it is an error if it is missing, not a reason to skip."""


class Clients(unittest.TestCase):
    """One bridge and one Postfix for all; a test for each client and message is made below."""

    @classmethod
    def setUpClass(cls):
        missing = [program for program in [*WANTED.values(), "openssl"] if not shutil.which(program)]
        if missing:
            raise AssertionError(f"not installed: {missing}; tests/run installs them")
        cls.world = cls.enter(World())
        cls.world.sandbox.tenant(upload_per_5_minutes=10**10)
        cls.bridge = cls.enter(cls.world.start_bridge())
        cls.postfix = cls.enter(Postfix(cls.bridge.port))
        cls.directory = cls.enter(tempfile.TemporaryDirectory())

    @classmethod
    def enter(cls, context):
        """Enters a context that is left at the end, also if the set-up fails."""
        value = context.__enter__()
        cls.addClassCleanup(context.__exit__, None, None, None)
        return value

    def check(self, client, name):
        """Sends one message by one client and compares what arrives."""
        message = MESSAGES[name](self.directory)
        sandbox, bridge = self.world.sandbox, self.bridge
        sandbox.request("DELETE", "/inbox")
        send = CLIENTS[client] or self.postfix.send
        send(bridge.port, SENDER, RECIPIENTS, message, self.directory)
        evidence = lambda: bridge.log()[-3000:] + (self.postfix.log()[-3000:] if client == "postfix" else "")
        [entry] = sandbox.wait_inbox(1, evidence=evidence)
        self.assertEqual(sorted(r["address"] for r in entry["recipients"]), sorted(RECIPIENTS))
        self.assertEqual(entry["form"], "mime")
        raw = sandbox.raw(entry)
        field, rest = split_received(raw)
        self.assertIn(b"(127.0.0.1)" if b"(127" in field else b"[127.0.0.1]", field)
        self.assertIn(b"by bridge.test with ESMTP", field)
        for recipient in RECIPIENTS:
            self.assertNotIn(recipient.encode(), field, "two recipients must not be told of each other")
        if client == "postfix":
            own, rest = split_postfix(rest)
            self.assertIn(b"client.test (Postfix", own)
        self.assertEqual(difference(rest, message), "")
        if name == "smime_signed":
            verify_smime(raw, self.directory)
        # Nothing else may come after it: the message is gone from the queue.
        queue_id = re.search(rb"\bid ([0-9A-Za-z-]+)", field).group(1).decode()
        bridge.wait_log(rf" released id={queue_id}")
        self.assertEqual(len(sandbox.inbox()), 1)
        wait_for("its file to go", lambda: not self.world.bodies())


def split_postfix(rest):
    """Postfix's own Received field and what is behind it."""
    match = re.match(rb"Received: by client\.test [^\r\n]*(?:\r\n[ \t][^\r\n]*)*\r\n", rest)
    if not match:
        raise AssertionError(f"not a Received field of Postfix: {rest[:200]!r}")
    return match.group(), rest[match.end():]


def add_tests():
    """Clients.test_CLIENT_MESSAGE for every pair that the client does not rewrite."""
    for client in CLIENTS:
        for name in MESSAGES:
            if (client, name) not in REWRAPS:
                def test(self, client=client, name=name):
                    self.check(client, name)
                test.__doc__ = f"{name} by {client}"
                setattr(Clients, f"test_{client}_{name}", test)


add_tests()
