"""Pace: a device that runs wild does not keep the others waiting, and a mailbox keeps to its limits."""
import collections
import re
import sqlite3
import threading
import time
import unittest

import smtp
from bridge import Bridge, World, wait_for
from messages import head

FLOOD = 2000
LATENCY_MS = 150


class Pace(unittest.TestCase):
    """Each test has a sandbox and a bridge of its own."""

    def setUp(self):
        self.world = World()
        self.addCleanup(self.world.close)

    def start(self, **options):
        """The bridge, stopped at the end of the test."""
        bridge = self.world.start_bridge(**options)
        self.addCleanup(bridge.kill)
        return bridge

    def send(self, bridge, sender, number):
        """One small message, which the bridge must take."""
        body = head(f"{sender.split('@')[0]}-{number}") + b"\r\nx\r\n"
        self.assertTrue(smtp.send(bridge.port, sender, ["bob@fabrikam.example"], body).startswith("250"))

    def flood(self, bridge, count):
        """A device that sends `count` messages, by eight connections."""
        def some(first):
            for number in range(first, count, 8):
                self.send(bridge, "flood@fabrikam.example", number)
        threads = [threading.Thread(target=some, args=(first,)) for first in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def test_flood(self):
        """Two devices behind one mailbox: 2,000 messages of one, and the other's go through at once."""
        self.world.sandbox.tenant(latency_ms=LATENCY_MS)
        bridge = self.start()
        self.flood(bridge, FLOOD)
        waits = []
        for number in range(5):
            before = len(re.findall(r" relayed id=", bridge.log()))
            self.assertLess(before, FLOOD, "the flood shall still be waiting")
            self.send(bridge, "other@fabrikam.example", number)
            start = time.monotonic()
            bridge.wait_log(r" accepted id=.*other@fabrikam", count=number + 1)
            accepted = re.findall(r" accepted id=(\S+) .*other@fabrikam", bridge.log())
            bridge.wait_log(rf" relayed id={accepted[-1]}", deadline=60)
            waits.append(time.monotonic() - start)
        relayed = len(re.findall(r" relayed id=", bridge.log()))
        print(f"{FLOOD} messages waiting, {relayed} relayed; the other device waited for "
              + ", ".join(f"{wait:.2f}" for wait in waits) + " s")
        self.assertLess(relayed, FLOOD, "the flood is still waiting")
        self.assertLess(sorted(waits)[2], 2.0, waits)
        self.assertLess(max(waits), 5.0, waits)

    def test_daily_limit(self):
        """What is above the day's recipients waits; a kill forgets nothing of what was sent; nothing fails."""
        bridge = self.start(delivery='[account.demo.limits]\nrecipients_per_day = 10\n')
        for number in range(14):
            self.send(bridge, "app@fabrikam.example", number)
        bridge.wait_log(r"all that a mailbox may")
        bridge.wait_log(r" relayed id=", count=10)
        self.assertRegex(bridge.log(), r"has sent to 9 of the 10 recipients")
        bridge.kill()
        self.assertEqual(self.counted(), 10)
        again = Bridge(self.world.config)
        self.addCleanup(again.kill)
        self.send(again, "app@fabrikam.example", 14)
        again.wait_log(r" planned id=")
        # Whoever has another mailbox's limit in mind would send now: give it the chance to be wrong.
        time.sleep(2)
        self.assertEqual(len(self.world.sandbox.inbox()), 10)
        for word in (" relayed ", " deferred ", " failed ", " held "):
            self.assertNotIn(word, again.log())
        # With a larger limit all of it goes, once.
        self.assertEqual(again.stop(), 0)
        last = self.start(delivery='[account.demo.limits]\nrecipients_per_day = 100\n')
        self.world.sandbox.wait_inbox(15, evidence=last.log)
        subjects = collections.Counter(entry["subject"] for entry in self.world.sandbox.inbox())
        self.assertEqual(max(subjects.values()), 1, subjects)
        wait_for("the last outcome", lambda: self.counted() == 15, evidence=last.log)

    def counted(self):
        """The recipients that the queue remembers as sent today."""
        with sqlite3.connect(f"file:{self.world.state_dir}/spool/queue.db?mode=ro", uri=True) as queue:
            return queue.execute("SELECT sum(recipients) FROM sent").fetchone()[0]
