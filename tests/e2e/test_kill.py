"""kill -9 of the bridge at random moments between the first byte of DATA and the release.

In each round some sessions send; the bridge is killed at a random moment, and started again on the same spool. After
every batch of rounds the bridge is left alone until its spool is empty. Then

- every message for which a 250 was read is in the inbox, byte for byte;
- whatever else is in the inbox is complete too: the 250 was on its way when the bridge died;
- whoever is there twice has an `uncertain` line in the log for every copy too many;
- nothing is left in the spool.

ROUNDS (25) and SEED (random, printed) are taken from the environment. The sandbox lives on in its own process.
"""
import contextlib
import os
import random
import re
import sqlite3
import threading
import time
import unittest

import smtp
from bridge import Bridge, World, wait_for
from messages import SENDER, difference_after_received

ROUNDS = int(os.environ.get("ROUNDS", "25"))
SEED = os.environ.get("SEED") or str(random.SystemRandom().randrange(10**9))
BATCH = 50
"""Rounds after which everything is checked and the inbox emptied: the sandbox keeps 256 MiB."""


class Sender(threading.Thread):
    """One session that sends some messages, one after the other, until the bridge dies."""

    def __init__(self, port, messages, begun, first_250, dice):
        super().__init__(daemon=True)
        self.port, self.messages, self.dice = port, messages, dice
        self.begun, self.first_250 = begun, first_250
        self.started, self.promised, self.refused = [], [], []

    def run(self):
        with contextlib.suppress(OSError):
            with smtp.Session(self.port) as session:
                for name, octets in self.messages:
                    session.envelope(SENDER, [f"{name}@example.org"])
                    self.started.append(name)
                    try:
                        self.send(session, octets)
                        self.promised.append(name)
                        self.first_250.set()
                    except smtp.Refused as reply:
                        self.refused.append(f"{name}: {reply}")

    def send(self, session, octets):
        """The message in a few pieces, so that a kill can fall between them; then the reply."""
        wire = smtp.on_the_wire(octets)
        cuts = sorted(self.dice.randrange(1, len(wire)) for _ in range(self.dice.randrange(4)))
        for start, end in zip([0, *cuts], [*cuts, len(wire)]):
            session.socket.sendall(wire[start:end])
            self.begun.set()
            time.sleep(self.dice.choice((0, 0, 0.002)))
        session.expect("250", session.reply())


class Kill(unittest.TestCase):
    """One test of many rounds."""

    def setUp(self):
        self.dice = random.Random(SEED)
        self.world = World()
        self.addCleanup(self.world.close)
        self.world.sandbox.tenant(upload_per_5_minutes=10**12, requests_per_10_minutes=10**9,
                                  recipients_per_day=10**9)
        self.sent, self.promised = {}, set()
        self.bridge = None
        self.moments = {"before 250": 0, "between 250 and release": 0, "after release": 0}
        self.delivered = self.duplicates = self.killed_early = 0

    def test_kill(self):
        """All promises are kept."""
        print(f"\nSEED={SEED} ROUNDS={ROUNDS}", flush=True)
        self.world.write_config()
        self.bridge = Bridge(self.world.config)
        try:
            for number in range(1, ROUNDS + 1):
                self.round(number)
                if number % BATCH == 0 or number == ROUNDS:
                    self.settle(number)
            self.assertEqual(self.bridge.stop(), 0)
            self.spool_is_empty()
        finally:
            self.bridge.kill()
        print(f"{ROUNDS} kills, and {self.killed_early} before it was ready; messages begun {sum(self.moments.values())}, promised {len(self.promised)}, copies delivered "
              f"{self.delivered}, of these duplicates {self.duplicates}, all explained; their moments: "
              + ", ".join(f"{count} {moment}" for moment, count in self.moments.items()), flush=True)

    def message(self, number, n):
        """A message with a name of its own: small ones lie in the database, large ones in files."""
        name = f"m{number}-{n}"
        size = int(100 * 1024 * 20 ** self.dice.random()) if self.dice.random() < 0.3 else self.dice.randrange(60_000)
        lines = [f"{name} {n:07d} {'.' * self.dice.randrange(3)}".encode() for n in range(3)]
        filler = self.dice.getrandbits(8 * 36).to_bytes(36, "big").hex().encode()
        lines += [filler] * (size // (len(filler) + 2)) + [b".", b"..", b"end of " + name.encode()]
        octets = (f"From: {SENDER}\r\nTo: {name}@example.org\r\nSubject: {name}\r\nMessage-ID: <{name}@client.test>"
                  "\r\nDate: Sat, 21 Nov 2026 08:47:00 +0000\r\nMIME-Version: 1.0\r\n\r\n").encode()
        octets += b"\r\n".join(lines) + b"\r\n"
        self.sent[name] = octets
        return name, octets

    def round(self, number):
        """Some sessions, one kill, one new start."""
        if self.somebody_is_tired():
            self.wait_until_done()
        dice, begun, first_250 = self.dice, threading.Event(), threading.Event()
        self.world.sandbox.tenant(latency_ms=dice.choice((0, 0, 30, 150)))
        sessions = dice.choice((1, 1, 1, 2, 4, 8))
        plans = [[self.message(number, f"{s}-{m}") for m in range(dice.choice((1, 1, 3)))] for s in range(sessions)]
        senders = [Sender(self.bridge.port, plan, begun, first_250, random.Random(dice.random())) for plan in plans]
        for sender in senders:
            sender.start()
        self.assertTrue(begun.wait(30), "no session came as far as DATA")
        if dice.random() < 0.4:
            first_250.wait(30)  # aims at what follows the 250
        time.sleep(10 ** dice.uniform(-4, -0.5))  # 0.1 ms to 0.3 s: the moment is the experiment
        self.bridge.kill()
        for sender in senders:
            sender.join(30)
            self.assertFalse(sender.is_alive(), "a session outlives its server")
            self.assertEqual(sender.refused, [])
            self.promised.update(sender.promised)
        self.count_moments([name for sender in senders for name in sender.started], self.bridge.log())
        while dice.random() < 0.3:
            self.kill_before_ready()
        self.bridge = Bridge(self.world.config)

    def kill_before_ready(self):
        """One more kill, while the bridge opens its spool, sweeps it, and settles what was cut off."""
        starting = Bridge(self.world.config, wait=False)
        time.sleep(10 ** self.dice.uniform(-3, -0.7))
        starting.kill()
        self.killed_early += " ready" not in starting.log()

    def count_moments(self, names, log):
        """At which moment of its life each message saw the bridge die."""
        ids = dict(re.findall(r" accepted id=(\S+) .*? to=\"?<(m[0-9-]+)@", log))
        of_name = {name: queue_id for queue_id, name in ids.items()}
        released = set(re.findall(r" released id=(\S+)", log))
        for name in names:
            queue_id = of_name.get(name)
            self.moments["before 250" if not queue_id else "after release" if queue_id in released
                         else "between 250 and release"] += 1

    def settle(self, number):
        """Leaves the bridge alone until it is done, then compares promises and inbox."""
        sandbox = self.world.sandbox
        self.wait_until_done()
        copies = {}
        for entry in sandbox.inbox():
            [recipient] = entry["recipients"]
            name = recipient["address"].split("@")[0]
            copies[name] = copies.get(name, 0) + 1
            self.assertEqual(difference_after_received(sandbox.raw(entry), self.sent[name]), "", name)
        lost = self.promised_since(number) - copies.keys()
        self.assertEqual(lost, set(), f"LOST after a 250, SEED={SEED}\n{self.history(lost)}")
        log = self.bridge.log_file.read_text(errors="replace")
        for name, count in copies.items():
            explained = len(re.findall(rf" uncertain .*<{name}@example\.org>", log))
            self.assertLessEqual(count, 1 + explained, f"{name} without a reason, SEED={SEED}\n{self.history([name])}")
            self.duplicates += count - 1
        self.delivered += sum(copies.values())
        sandbox.request("DELETE", "/inbox")

    def wait_until_done(self):
        """Leaves the bridge alone until it owes nothing."""
        self.world.sandbox.tenant(latency_ms=0)
        wait_for("an empty spool", self.rows_are_gone, 180, lambda: self.bridge.log()[-5000:])

    def somebody_is_tired(self):
        """True if a message was uncertain twice: after the third time it rightly waits for a person, not for us."""
        log = self.bridge.log_file.read_text(errors="replace")
        uncertain = re.findall(r" uncertain id=(\S+)", log)
        twice = {queue_id for queue_id in uncertain if uncertain.count(queue_id) > 1}
        return bool(twice - set(re.findall(r" released id=(\S+)", log)))

    def promised_since(self, number):
        """Those of the batch that ends with this round."""
        first = (number - 1) // BATCH * BATCH + 1
        return {name for name in self.promised if first <= int(re.match(r"m(\d+)", name).group(1)) <= number}

    def rows_are_gone(self):
        """True when the database owes nothing and no file is left."""
        return self.rows() == 0 and not self.world.bodies()

    def rows(self):
        """How many messages the spool holds."""
        path = self.world.state_dir / "spool" / "queue.db"
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as database:
            return database.execute("SELECT count(*) FROM message").fetchone()[0]

    def spool_is_empty(self):
        """After the end: no body, no envelope, nothing set aside."""
        self.assertEqual(self.world.bodies(), [])
        self.assertEqual(self.rows(), 0)
        corrupt = self.world.state_dir / "spool" / "corrupt"
        self.assertEqual(list(corrupt.rglob("*")) if corrupt.exists() else [], [])

    def history(self, names):
        """What the log says about some messages."""
        lines = self.bridge.log_file.read_text(errors="replace").splitlines()
        ids = {m.group(1) for line in lines for name in names
               if f"<{name}@" in line and (m := re.search(r" id=(\S+)", line))}
        return "\n".join(line for line in lines if any(queue_id in line for queue_id in ids))[-8000:]
