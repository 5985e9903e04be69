"""A queue of very many messages: the first page of every list, and the status, come in under a second.

MESSAGES (50000) is taken from the environment; `tests/run million` takes a million. The rows are written into the
database past the bridge: only reading is measured, with the start of the command line in it.
"""
import contextlib
import json
import os
import sqlite3
import subprocess
import time
import unittest

from bridge import BINARY, World

MESSAGES = int(os.environ.get("MESSAGES", "50000"))
LIMIT = 1.0
"""Seconds for an answer."""
START = 1_790_000_000_000
STEP = 700
"""Milliseconds between two messages."""


class LongQueue(unittest.TestCase):
    """One queue for all of it."""

    def setUp(self):
        self.world = World()
        self.addCleanup(self.world.close)
        bridge = self.world.start_bridge()
        self.addCleanup(bridge.kill)
        self.assertEqual(bridge.stop(), 0)
        self.fill()

    def fill(self):
        """Mostly old dead letters, then mail that waits; what is rare is at the end: the worst for a search."""
        failed = MESSAGES * 6 // 10

        def state(n):
            return 3 if n < failed else 2 if n >= MESSAGES - 5 else 0

        def identify(n):
            return ((START + n * STEP) << 80 | 7 << 76 | 2 << 62 | n).to_bytes(16, "big")
        database = sqlite3.connect(self.world.state_dir / "spool" / "queue.db")
        with contextlib.closing(database), database:
            database.executemany(
                "INSERT INTO message (id, arrived, planned, size, checksum, in_file, reverse_path, body_type, client,"
                " greeting, esmtp, listener) VALUES (?, ?, 1, 4096, 0, 0, ?, 0, '192.0.2.7', 'printer', 1, 'local')",
                ((identify(n), START + n * STEP, f"sender{n % 1000}@fabrikam.example") for n in range(MESSAGES)))
            database.executemany(
                "INSERT INTO recipient (message, number, address, part, fate, status, cause)"
                " VALUES (?, 0, ?, 0, ?, '5.1.1', 'there is no such mailbox')",
                ((identify(n), f"recipient{n}@example.org", 2 if state(n) == 3 else 0) for n in range(MESSAGES)))
            database.executemany(
                "INSERT INTO part (message, number, account, mailbox, changes, state, due, uncertain)"
                " VALUES (?, 0, ?, 'scanner@contoso.example', '{\"change\":{\"edits\":[]}}', ?, ?, ?)",
                ((identify(n), "rare" if n == MESSAGES - 7 else "demo", state(n), START + n * 7919 % 100_000_000,
                  1 if n == MESSAGES - 6 else 0) for n in range(MESSAGES)))

    def ask(self, *arguments, code=0):
        """The answer, and the seconds that it took."""
        begin = time.monotonic()
        done = subprocess.run([str(BINARY), "--config", str(self.world.config), *arguments, "--json"],
                              capture_output=True, text=True, timeout=120, check=False, stdin=subprocess.DEVNULL)
        seconds = time.monotonic() - begin
        self.assertEqual(done.returncode, code, done.stderr)
        return json.loads(done.stdout), seconds

    def test_first_pages(self):
        """Every filter, also where what is searched for is at the very end."""
        last = MESSAGES - 1
        slow = []
        for filters, found in [
            ([], 50),
            (["--state", "waiting"], 50),
            (["--state", "failed"], 50),
            (["--state", "held"], 5),
            (["--state", "uncertain"], 1),
            (["--state", "sending"], 0),
            (["--account", "rare"], 1),
            (["--account", "nobody"], 0),
            (["--account", "demo", "--state", "held"], 5),
            (["--sender", f"sender{last % 1000}@fabrikam.example"], min(50, MESSAGES // 1000)),
            (["--sender", "nobody@fabrikam.example"], 0),
            (["--sender", f"sender{last % 1000}@fabrikam.example", "--state", "held"], 1),
            (["--recipient", f"recipient{last}@example.org"], 1),
            (["--recipient", "nobody"], 0),
            (["--recipient", f"recipient{last - 5}@example.org", "--state", "waiting"], 1),
            (["--older-than", "10000d"], 0),
            (["--younger-than", "10000d"], 50),
        ]:
            answer, seconds = self.ask("queue", "list", *filters)
            self.assertEqual(len(answer["messages"]), found, filters)
            print(f"  {seconds:6.3f} s  queue list {' '.join(filters)}", flush=True)
            if seconds > LIMIT:
                slow.append((filters, seconds))
        status, seconds = self.ask("status", code=1)
        print(f"  {seconds:6.3f} s  status", flush=True)
        self.assertEqual(status["messages"], MESSAGES)
        self.assertEqual(status["deliveries"]["held"], 5)
        self.assertEqual(slow + ([("status", seconds)] if seconds > LIMIT else []), [])
