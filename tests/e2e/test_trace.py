"""`trace`: what became of a message, with the bridge running, killed and stopped; and what a broken history stops: nothing."""
import json
import os
import pathlib
import re
import sqlite3
import subprocess
import unittest

import smtp
from bridge import BINARY, Bridge, World, wait_for
from messages import SENDER

NOTHING = 1
"""The exit code of a question that finds nothing."""


def message(name):
    """A small message with a Message-ID of its own."""
    return (f"From: {SENDER}\r\nTo: {name}@example.org\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?= {name}\r\n"
            f"Message-ID: <{name}@client.test>\r\nDate: Sat, 21 Nov 2026 08:47:00 +0000\r\n\r\n{name}\r\n").encode()


class Trace(unittest.TestCase):
    """One world for each test."""

    def setUp(self):
        self.world = World()
        self.addCleanup(self.world.close)

    def start(self, **options):
        """A bridge that is killed at the end."""
        bridge = self.world.start_bridge(**options)
        self.addCleanup(bridge.kill)
        return bridge

    def send(self, bridge, name, *more):
        """A message to NAME@example.org and others."""
        smtp.send(bridge.port, SENDER, [f"{name}@example.org", *more], message(name))

    def trace(self, *arguments):
        """Exit code, standard output, standard error."""
        done = subprocess.run([BINARY, "--config", self.world.config, "trace", *arguments], capture_output=True, text=True,
                              timeout=30, env={k: v for k, v in os.environ.items() if k == "PATH"}, check=False)
        return done.returncode, done.stdout, done.stderr

    def stories(self, *arguments):
        """What it says for programs."""
        code, out, err = self.trace("--json", *arguments)
        self.assertIn(code, (0, NOTHING), err)
        return [json.loads(line) for line in out.splitlines()]

    def wait_fates(self, target, fates):
        """The story of a message as soon as its recipients have these fates."""
        def look():
            stories = self.stories(target)
            return stories if [[r["fate"] for r in s["recipients"]] for s in stories] == [fates] else None
        return wait_for(f"{target}: {fates}", look, evidence=lambda: str(self.trace(target)))[0]

    def history(self):
        """The database, for looking behind the curtain."""
        return self.world.state_dir / "history.db"

    def outbox(self):
        """How many events the history has not taken."""
        with sqlite3.connect(f"file:{self.world.state_dir}/spool/queue.db?mode=ro", uri=True) as queue:
            return queue.execute("SELECT count(*) FROM outbox").fetchone()[0]

    def test_a_life(self):
        """Deferred, then relayed: found by everything that people know of it, while it waits and when it is gone."""
        self.world.sandbox.fault("sendMail", 1, kind="status", status=503, code="ErrorServerBusy")
        bridge = self.start()
        self.send(bridge, "life", "Second@Example.Org")
        story = self.wait_fates("life@example.org", ["relayed", "relayed"])
        self.assertEqual([e["outcome"] for e in story["events"]], ["deferred", "relayed"])
        self.assertEqual(story["subject"], "Grüße life")
        self.assertEqual([r["outcomes"] for r in story["recipients"]], [1, 1])
        self.assertRegex(story["events"][1]["upstream"], r"request-id=\S+")
        wait_for("the history to take it all", lambda: self.outbox() == 0, evidence=bridge.log)
        for target in ("SECOND@example.org", "@example.ORG", SENDER, "<life@client.test>", "life@client.test", "127.0.0.1",
                       story["id"], story["id"][:9]):
            self.assertEqual([s["id"] for s in self.stories(target)], [story["id"]], target)
        self.assertEqual(self.stories("life@example.org", "--since", "2099-01-01"), [])
        code, text, _ = self.trace("life@example.org")
        self.assertEqual(code, 0)
        self.assertRegex(text, r"accepted from <\S+> for <life@example.org>, <Second@Example.Org>")
        self.assertRegex(text, r"by client 127\.0\.0\.1 at listener local")
        self.assertRegex(text, r"not yet: .*\n.*attempt 1 .*\n.*503.*\n.*as soon as account demo is well")
        self.assertRegex(text, r"handed to Microsoft 365 for <life@example.org>, <Second@Example.Org>\n.*attempt 2.*\n"
                               r".*request-id=")
        self.assertEqual(bridge.stop(), 0)
        self.assertEqual(self.trace("life@example.org")[1], text, "the same without the bridge")

    def test_waiting_and_failed(self):
        """What waits says for what, what failed says why."""
        self.world.sandbox.fault("token", "forever", kind="status", status=503)
        bridge = self.start()
        self.send(bridge, "waits")
        self.wait_fates("waits@example.org", ["waiting"])
        bridge.wait_log(r" planned ")
        _, text, _ = self.trace("waits@example.org")
        self.assertRegex(text, r"now +<waits@example.org>: waits in the queue")
        self.world.sandbox.faults_end()
        self.wait_fates("waits@example.org", ["relayed"])
        self.world.sandbox.fault("sendMail", 1, kind="status", status=400, code="ErrorInvalidRecipients")
        self.send(bridge, "fails")
        story = self.wait_fates("fails@example.org", ["failed"])
        self.assertEqual(story["recipients"][0]["status"][0], "5")
        _, text, _ = self.trace("fails@example.org")
        self.assertRegex(text, r"failed: .*\n[\s\S]*dead letter")

    def test_nothing(self):
        """Who finds nothing learns what to check, before the first message, too."""
        for _ in range(2):
            self.world.write_config()
            code, out, err = self.trace("nobody@example.org")
            self.assertEqual((code, out), (NOTHING, ""))
            self.assertRegex(err, r"nothing is known of \"nobody@example.org\", taken for the address of .*\nhint: .*250")
            bridge = self.start()
            self.send(bridge, "somebody")
            bridge.wait_log(r" released id=")
            self.assertEqual(bridge.stop(), 0)
        self.assertEqual(self.trace("nobody")[0], NOTHING)
        code, _, err = self.trace("@@")
        self.assertEqual(code, 65)
        self.assertIn("is none of: a queue id", err)

    def test_kill(self):
        """kill -9 at any moment: each recipient has one outcome in the end, and the same message never two stories."""
        names = [f"k{n}" for n in range(60)]
        bridge = self.start()
        for round_, start in enumerate(range(0, len(names), 10)):
            for name in names[start:start + 10]:
                self.send(bridge, name)
            wait_for("some of them relayed", lambda: len(re.findall(r" relayed ", bridge.log())) >= round_ % 8,
                     evidence=bridge.log)
            bridge.kill()
            bridge = self.start()
        for name in names:
            story = self.wait_fates(f"{name}@example.org", ["relayed"])
            self.assertEqual([r["outcomes"] for r in story["recipients"]], [1], story)
            self.assertEqual(len({e["id"] for e in story["events"]}), len(story["events"]))
        wait_for("the history to take it all", lambda: self.outbox() == 0, evidence=bridge.log)
        with sqlite3.connect(self.history()) as history:
            rows = history.execute("SELECT fate, outcomes, count(*) FROM recipient GROUP BY 1, 2").fetchall()
        self.assertEqual(rows, [(1, 1, len(names))])

    def test_a_broken_history_stops_nothing(self):
        """Damaged: set aside. Not writable at all: mail goes on, and the history catches up."""
        self.world.state_dir.mkdir()
        self.history().write_bytes(b"no database at all, although it is called so" * 100)
        bridge = self.start()
        self.send(bridge, "first")
        self.wait_fates("first@example.org", ["relayed"])
        bridge.wait_log(r"the history is damaged and was set aside")
        self.assertTrue(self.history().with_suffix(".db.damaged").exists())
        self.assertEqual(bridge.stop(), 0)
        for path in self.world.state_dir.glob("history.db*"):
            path.unlink()
        self.history().mkdir()
        bridge = self.start()
        self.send(bridge, "second")
        bridge.wait_log(r" released id=")
        bridge.wait_log(r"the history cannot be written; mail goes on")
        self.history().rmdir()
        self.wait_fates("second@example.org", ["relayed"])
        bridge.wait_log(r"the history is written again")

    def test_privacy(self):
        """Subjects can be kept out, and nobody else on the machine may read it."""
        bridge = self.start(more="[history]\nsubjects = false")
        self.send(bridge, "private")
        self.assertIsNone(self.wait_fates("private@example.org", ["relayed"])["subject"])
        wait_for("the history to take it all", lambda: self.outbox() == 0, evidence=bridge.log)
        self.assertEqual(self.history().stat().st_mode & 0o777, 0o600)
        files = [p for p in pathlib.Path(self.world.state_dir).glob("history.db*")]
        self.assertFalse(any("Grüße".encode() in path.read_bytes() for path in files))
