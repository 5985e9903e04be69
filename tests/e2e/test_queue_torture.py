"""Load, kill -9 and a provider in trouble, all at once; then the books must balance.

32 sessions send small and large messages. Every one to three seconds the bridge is killed and started again, and the
sandbox gets another mixture of faults: 429, 503, 504, connections cut before the body, after it and after the message
was accepted, token requests that fail. In the end the faults stop, the bridge may finish, and what was left for a
person because it was uncertain too often is released, as an administrator would. Then

- every message for which a 250 was read is in the inbox, byte for byte;
- whoever is there twice has an `uncertain` line in the log for every copy too many;
- the history holds exactly one final outcome for each recipient;
- the spool is empty.

TORTURE_SECONDS (15) and SEED (random, printed) are taken from the environment; `tests/run torture` runs it for three minutes.
"""
import contextlib
import os
import random
import re
import sqlite3
import subprocess
import threading
import time
import unittest

import smtp
from bridge import BINARY, Bridge, World, wait_for
from messages import SENDER, difference_after_received

SECONDS = float(os.environ.get("TORTURE_SECONDS", "15"))
SEED = os.environ.get("SEED") or str(random.SystemRandom().randrange(10**9))
SESSIONS = 32
PAUSE = 0.3
"""Seconds between the messages of a session, on average: the sandbox and its client run on the same machine."""

FAULTS = [
    {"kind": "status", "status": 429, "code": "ApplicationThrottled", "message": "Slow down.", "retry_after": 1},
    {"kind": "status", "status": 503, "code": "ErrorServerBusy", "message": "Busy."},
    {"kind": "status", "status": 504, "code": "UnknownError", "message": "Gateway Timeout"},
    {"kind": "close_before_body"},
    {"kind": "close_after_body"},
    {"kind": "accept_then_close"},
    {"kind": "delay", "ms": 300},
]
TOKEN_FAULTS = [
    {"kind": "status", "status": 503, "code": "temporarily_unavailable", "message": "Try again."},
    {"kind": "close_before_body"},
]


class Session(threading.Thread):
    """One client that sends messages until it is told to stop, connecting again whenever the bridge dies."""

    def __init__(self, number, world, dice):
        super().__init__(daemon=True)
        self.number, self.world, self.dice = number, world, dice
        self.sent, self.promised, self.refused = {}, set(), []
        self.stop = threading.Event()

    def run(self):
        count = 0
        while not self.stop.is_set():
            with contextlib.suppress(OSError):
                with smtp.Session(self.world.port()) as session:
                    while not self.stop.wait(self.dice.expovariate(1 / PAUSE)):
                        count += 1
                        self.one(session, f"t{self.number}-{count}")
            self.stop.wait(0.05)

    def one(self, session, name):
        size = self.dice.choice((300, 3_000, 3_000, 30_000, 90_000 if self.dice.random() < 0.2 else 3_000))
        octets = (f"From: {SENDER}\r\nTo: {name}@example.org\r\nSubject: {name}\r\nMessage-ID: <{name}@client.test>"
                  "\r\nDate: Sat, 21 Nov 2026 08:47:00 +0000\r\nMIME-Version: 1.0\r\n\r\n").encode()
        octets += (f"{name} " + "x" * 60 + "\r\n").encode() * (size // 70 + 1)
        self.sent[name] = octets
        try:
            session.send(SENDER, [f"{name}@example.org"], octets)
            self.promised.add(name)
        except smtp.Refused as reply:
            self.refused.append(f"{name}: {reply}")


class Books(World):
    """A world whose bridge is killed and started while sessions look for its port."""

    def __init__(self):
        super().__init__()
        self.bridge = None

    def port(self):
        """Where the bridge is now; a client of a dead one finds nobody, as in life."""
        if self.bridge is None:
            raise ConnectionRefusedError("the bridge is down")
        return self.bridge.port

    def start(self):
        """Starts it again on the same spool."""
        self.bridge = Bridge(self.config)

    def kill(self):
        """Without a warning."""
        bridge, self.bridge = self.bridge, None
        bridge.kill()

    def command(self, *arguments):
        """Runs a command of the program beside the daemon; its output."""
        done = subprocess.run([str(BINARY), "--config", str(self.config), *arguments], capture_output=True, text=True,
                              timeout=60, stdin=subprocess.DEVNULL, check=False)
        if done.returncode != 0:
            raise AssertionError(f"{arguments} ended with {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def query(self, database, statement):
        """The rows that a statement finds in one of the databases."""
        path = self.state_dir / database
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as connection:
            return connection.execute(statement).fetchall()


class QueueTorture(unittest.TestCase):
    """One test, for as long as it is given."""

    def setUp(self):
        self.dice = random.Random(SEED)
        self.world = Books()
        self.addCleanup(self.world.close)
        self.world.sandbox.tenant(upload_per_5_minutes=10**12, requests_per_10_minutes=10**9,
                                  recipients_per_day=10**9)
        self.world.write_config()

    def test_the_books_balance(self):
        """Nothing lost, nothing twice without a reason, one outcome each."""
        print(f"\nSEED={SEED} TORTURE_SECONDS={SECONDS:g}", flush=True)
        self.world.start()
        sessions = [Session(number, self.world, random.Random(self.dice.random())) for number in range(SESSIONS)]
        for session in sessions:
            session.start()
        kills, end = 0, time.monotonic() + SECONDS
        while time.monotonic() < end:
            self.another_mixture()
            time.sleep(self.dice.uniform(1, 3))  # the moment of the kill is the experiment
            self.world.kill()
            kills += 1
            self.world.start()
        for session in sessions:
            session.stop.set()
        self.world.sandbox.faults_end()
        for session in sessions:
            session.join(30)
            self.assertFalse(session.is_alive(), "a session hangs")
        sent, promised = {}, set()
        for session in sessions:
            self.assertEqual(session.refused, [])
            sent.update(session.sent)
            promised |= session.promised
        self.assertGreater(len(promised), SECONDS, "hardly anything was accepted")
        self.finish()
        self.balance(sent, promised, kills)

    def another_mixture(self):
        """Other faults than before, none of them for ever."""
        sandbox = self.world.sandbox
        sandbox.faults_end()
        rules = [{"where": "sendMail", "probability": self.dice.uniform(0, 0.15), "what": what}
                 for what in self.dice.sample(FAULTS, 3)]
        if self.dice.random() < 0.3:
            rules.append({"where": "token", "times": self.dice.randrange(1, 4), "what": self.dice.choice(TOKEN_FAULTS)})
            sandbox.request("DELETE", "/tokens")
        for rule in rules:
            sandbox.request("POST", "/faults", rule)
        sandbox.tenant(latency_ms=self.dice.choice((0, 0, 20, 100)))

    def finish(self):
        """Leaves the bridge alone until it owes nothing; what waits for a person gets one."""
        self.world.sandbox.tenant(latency_ms=0)

        def done():
            if self.rows("state = 2"):
                self.world.command("queue", "release", "--state", "held", "--all", "--yes")
            told = self.world.query("spool/queue.db", "SELECT count(*) FROM outbox")[0][0] == 0
            return told and self.rows("1") == 0 and not self.world.bodies()
        wait_for("an empty spool", done, 240, lambda: self.world.bridge.log()[-5000:])
        self.assertEqual(self.world.bridge.stop(), 0)

    def rows(self, condition):
        """How many parts are in this state."""
        if condition == "1":
            return self.world.query("spool/queue.db", "SELECT count(*) FROM message")[0][0]
        return self.world.query("spool/queue.db", f"SELECT count(*) FROM part WHERE {condition}")[0][0]

    def balance(self, sent, promised, kills):
        """Promises, inbox, log and history against each other."""
        copies = {}
        for entry in self.world.sandbox.inbox():
            [recipient] = entry["recipients"]
            name = recipient["address"].split("@")[0]
            copies[name] = copies.get(name, 0) + 1
            self.assertEqual(difference_after_received(self.world.sandbox.raw(entry), sent[name]), "", name)
        self.assertEqual(promised - copies.keys(), set(), f"LOST after a 250, SEED={SEED}")
        log = self.world.config.with_suffix(".log").read_text(errors="replace")
        uncertain = {}
        for line in log.splitlines():
            if " uncertain id=" in line:
                for name in re.findall(r"<(t\d+-\d+)@example\.org>", line):
                    uncertain[name] = uncertain.get(name, 0) + 1
        unexplained = {name: count for name, count in copies.items() if count > 1 + uncertain.get(name, 0)}
        self.assertEqual(unexplained, {}, f"copies without a reason, SEED={SEED}")
        outcomes = self.final_outcomes()
        wrong = {name: outcomes.get(name, 0) for name in copies if outcomes.get(name, 0) != 1}
        self.assertEqual(wrong, {}, f"not exactly one final outcome in the history, SEED={SEED}")
        print(f"{kills} kills; {len(sent)} messages begun, {len(promised)} promised, {sum(copies.values())} copies "
              f"delivered, {sum(copies.values()) - len(copies)} of them duplicates, {sum(uncertain.values())} attempts "
              f"uncertain; {len(outcomes)} recipients with one final outcome each", flush=True)

    def final_outcomes(self):
        """How many final outcomes the history has for each recipient; one without a fate counts as none."""
        rows = self.world.query("history.db", "SELECT address, fate, outcomes FROM recipient")
        return {address.split("@")[0]: outcomes if fate else 0 for address, fate, outcomes in rows}
