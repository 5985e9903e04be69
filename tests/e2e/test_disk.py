"""A disk that fails and a disk that is full: what was answered with 250 arrives, once; what was refused never does.

The failing disk is `faulty_disk.c`, preloaded into the bridge: it lets writing, syncing, making and removing files of the
spool fail, the database's included, while the bridge runs. The full disk is a tmpfs of 64 MiB, for which root is needed.
"""
import contextlib
import errno
import os
import re
import sqlite3
import subprocess
import threading
import unittest

import smtp
from bridge import Bridge, World, wait_for
from messages import SENDER, difference_after_received

FAULTS = (
    ("w", errno.EIO, "queue.db-wal"), ("w", errno.ENOSPC, "queue.db-wal"), ("w", 0, "queue.db-wal"),
    ("s", errno.EIO, "queue.db-wal"), ("s", errno.ENOSPC, "queue.db-wal"), ("s", errno.EIO, "queue.db"),
    ("wst", errno.EIO, "queue.db"),
    ("w", errno.EIO, ".eml"), ("w", errno.ENOSPC, ".eml"), ("w", 0, ".eml"), ("s", errno.EIO, ".eml"),
    ("w", errno.ENOSPC, ".env"), ("s", errno.EIO, ".env"), ("s", errno.EIO, "/body/"), ("c", errno.ENOSPC, "/body/"),
    ("u", errno.EIO, "/body/"), ("wsctru", errno.EIO, "/"), ("wsctru", errno.ENOSPC, "/"),
)
"""Which steps fail with what on which names; see faulty_disk.c."""

SIZES = (300, 30_000, 100_000, 300)
"""Some messages in the database and one in a file."""


def message(name, size):
    """A message with a name of its own, of about `size` octets."""
    line = b"." + name.encode() + b" 0123456789 0123456789 0123456789 0123456789"
    return (f"From: {SENDER}\r\nTo: {name}@example.org\r\nSubject: {name}\r\nMessage-ID: <{name}@client.test>\r\n"
            "Date: Sat, 21 Nov 2026 08:47:00 +0000\r\nMIME-Version: 1.0\r\n\r\n").encode() + \
        (line + b"\r\n") * (size // (len(line) + 2) + 1)


class Disk(unittest.TestCase):
    """Each test has a sandbox and a spool of its own."""

    def setUp(self):
        self.world = World()
        self.addCleanup(self.world.close)
        self.world.sandbox.tenant(upload_per_5_minutes=10**12, requests_per_10_minutes=10**9,
                                  recipients_per_day=10**9)
        self.sent, self.taken, self.refused = {}, set(), set()
        self.lock = threading.Lock()

    def offer(self, port, size):
        """Sends a message of a new name; true if it was taken. Anything but 250, 451 and 452 is wrong."""
        with self.lock:
            name = f"m{len(self.sent)}"
            octets = self.sent[name] = message(name, size)
        try:
            smtp.send(port, SENDER, [f"{name}@example.org"], octets)
        except smtp.Refused as reply:
            self.assertRegex(str(reply), r"^45[12] ")
            with self.lock:
                self.refused.add(name)
            return False
        with self.lock:
            self.taken.add(name)
        return True

    def nothing_goes_out(self):
        """From now on mail waits, so that no kill can make an attempt uncertain."""
        self.world.sandbox.fault("token", "forever", kind="status", status=401, code="invalid_client", aadsts=7000222,
                                 message="The provided client secret keys are expired.")

    def everything_arrives(self, bridge):
        """What was taken is in the inbox once, byte for byte; nothing else is."""
        self.world.sandbox.faults_end()
        entries = self.world.sandbox.wait_inbox(len(self.taken), 120, lambda: bridge.log()[-5000:])
        wait_for("an empty spool", lambda: not self.rows() and not self.world.bodies(), 120,
                 lambda: bridge.log()[-5000:])
        entries = self.world.sandbox.inbox()
        names = [entry["recipients"][0]["address"].split("@")[0] for entry in entries]
        self.assertEqual(sorted(names), sorted(self.taken), "refused and sent: " + str(self.refused & set(names)))
        for name, entry in zip(names, entries):
            self.assertEqual(difference_after_received(self.world.sandbox.raw(entry), self.sent[name]), "", name)

    def rows(self, which="true"):
        """How many messages the spool holds, of those that are meant."""
        path = self.world.state_dir / "spool" / "queue.db"
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as database:
            return database.execute(f"SELECT count(*) FROM message WHERE {which}").fetchone()[0]

    def is_sound(self):
        """After the end: the database is whole, and nothing was set aside."""
        path = self.world.state_dir / "spool" / "queue.db"
        with contextlib.closing(sqlite3.connect(path)) as database:
            self.assertEqual(database.execute("PRAGMA integrity_check").fetchone()[0], "ok")
        self.assertEqual(list((self.world.state_dir / "spool" / "corrupt").rglob("*")), [])


class Faults(Disk):
    """A disk that fails."""

    def setUp(self):
        super().setUp()
        library = self.world.directory / "faulty_disk.so"
        source = os.path.join(os.path.dirname(__file__), "faulty_disk.c")
        subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-Wall", "-o", library, source, "-ldl"], check=True)
        self.control = self.world.directory / "faults"
        self.control.touch()
        self.environment = {"LD_PRELOAD": str(library), "FAULTY_DISK": str(self.control)}
        self.nothing_goes_out()

    def start(self):
        """The bridge, on a disk that works until it is told otherwise."""
        bridge = Bridge(self.world.write_config(more="[spool]\nmin_free = \"0\""), more_environment=self.environment)
        self.addCleanup(bridge.kill)
        return bridge

    def set_fault(self, steps=None, number=0, part=""):
        """What fails from now on; nothing without an argument."""
        new = self.control.with_suffix(".new")
        new.write_text(f"{steps} {number} {part}\n" if steps else "")
        new.rename(self.control)

    def failed(self):
        """How many steps failed so far."""
        count = self.control.with_suffix(".count")
        return count.stat().st_size if count.exists() else 0

    def test_every_fault_then_kill_or_go_on(self):
        """Each fault three times: a kill right after the first refusal, or after some, or none and it goes on."""
        bridge = self.start()
        for steps, number, part in FAULTS:
            for kill, sizes in ((True, (300,)), (True, SIZES), (False, SIZES)):
                what, before = f"{steps} {number} {part}, kill: {kill}", self.failed()
                # So that nothing but this mail is written: a later commit would hide what a failed one has left.
                wait_for("all to be planned", lambda: self.rows("planned = 0") == 0)
                self.set_fault(steps, number, part)
                for size in sizes:
                    self.offer(bridge.port, size)
                if len(sizes) > 1 and steps != "u" and part != "queue.db":
                    self.assertGreater(self.failed(), before, what)
                if kill:
                    bridge.kill()
                self.set_fault()
                if kill:
                    bridge = self.start()
                    self.assertEqual(self.rows(), len(self.taken), f"taken and not there, or refused and there: {what}")
                wait_for(f"mail to be taken again after {what}", lambda: self.offer(bridge.port, 300),
                         evidence=lambda: bridge.log()[-3000:])
                self.assertTrue(self.offer(bridge.port, 100_000), what)
        print(f"\n{self.failed()} steps failed; {len(self.taken)} messages taken, {len(self.refused)} refused", flush=True)
        self.assertGreater(len(self.refused), 2 * len(FAULTS))
        self.everything_arrives(bridge)
        self.assertEqual(bridge.stop(), 0)
        self.is_sound()

    def test_outcomes_that_cannot_be_written(self):
        """While the queue cannot be written nothing is sent a second time, and everything goes when it can."""
        bridge = self.start()
        self.world.sandbox.faults_end()
        for n in range(6):
            self.set_fault("ws"[n % 2], errno.EIO, "queue.db-wal")
            self.offer(bridge.port, 300)
            self.set_fault()
            wait_for("mail to be taken again", lambda: self.offer(bridge.port, 300))
            self.offer(bridge.port, 100_000)
        self.everything_arrives(bridge)
        self.assertNotIn(" uncertain ", bridge.log())
        self.assertEqual(bridge.stop(), 0)
        self.is_sound()


class Full(Disk):
    """A disk of 64 MiB."""

    def setUp(self):
        super().setUp()
        self.place = self.world.state_dir
        self.place.mkdir(mode=0o700)
        as_root("mount", "-t", "tmpfs", "-o", f"size=64m,mode=0700,uid={os.getuid()}", "bridge-e2e", self.place)
        self.addCleanup(as_root, "umount", "-l", self.place)

    def start(self, min_free):
        """The bridge, with its spool on that disk."""
        bridge = Bridge(self.world.write_config(more=f"[spool]\nmin_free = \"{min_free}\""))
        self.addCleanup(bridge.kill)
        return bridge

    def has_reserve(self):
        """True if it is there and whole."""
        reserve = self.place / "spool" / "reserve"
        return reserve.exists() and reserve.stat().st_size == 16 << 20

    def test_filled_by_mail(self):
        """452 below `min_free`; when the mail is gone, new mail comes in."""
        self.nothing_goes_out()
        bridge = self.start("8MiB")
        while self.offer(bridge.port, 1 << 20):
            self.assertLess(len(self.taken), 64)
        self.assertFalse(self.offer(bridge.port, 300), "small mail neither")
        self.assertGreater(len(self.taken), 20)
        self.assertTrue(self.has_reserve(), "the mail itself does not need it")
        self.everything_arrives(bridge)
        self.assertTrue(self.offer(bridge.port, 1 << 20))
        self.everything_arrives(bridge)
        self.assertEqual(bridge.stop(), 0)
        self.is_sound()

    def test_filled_by_another_program(self):
        """In the middle of commits, again and again, while mail comes in; a kill at the worst moment; then room."""
        self.nothing_goes_out()
        bridge = self.start("64KiB")
        self.assertTrue(self.has_reserve())
        port, stop = bridge.port, threading.Event()
        wrong = []

        def sender(size):
            with contextlib.suppress(OSError):
                while not stop.is_set():
                    try:
                        self.offer(port, size)
                    except AssertionError as error:
                        wrong.append(error)
                        return

        senders = [threading.Thread(target=sender, args=(size,), daemon=True) for size in (300, 2000, 20_000, 70_000)]
        for thread in senders:
            thread.start()
        rounds = 0
        while rounds < 8 and not wrong:
            before = len(self.refused)
            self.fill()
            wait_for("a refusal", lambda: len(self.refused) > before + 3 or wrong, evidence=lambda: bridge.log()[-3000:])
            self.fill()  # what was the reserve, too
            wait_for("more of them", lambda: len(self.refused) > before + 9 or wrong, evidence=lambda: bridge.log()[-3000:])
            taken = len(self.taken)
            (self.place / "filler").unlink()
            wait_for("mail to be taken again", lambda: len(self.taken) > taken + 3 or wrong,
                     evidence=lambda: bridge.log()[-3000:])
            rounds += 1
        self.fill()
        stop.set()
        for thread in senders:
            thread.join(60)
        self.assertEqual(wrong, [])
        self.assertIn("the reserve of the spool was given up", bridge.log())
        bridge.kill()
        bridge = self.start("64KiB")  # there is no room still
        self.assertFalse(self.has_reserve())
        (self.place / "filler").unlink()
        wait_for("mail to be taken again", lambda: self.offer(bridge.port, 300), evidence=lambda: bridge.log()[-3000:])
        print(f"\n{len(self.taken)} messages taken, {len(self.refused)} refused on a full disk", flush=True)
        self.everything_arrives(bridge)
        self.assertFalse(re.search(r" uncertain ", bridge.log_file.read_text()))
        wait_for("the reserve", self.has_reserve, evidence=bridge.log)
        self.assertEqual(bridge.stop(), 0)
        self.is_sound()

    def fill(self):
        """What another program does: writes until there is no room left."""
        with contextlib.suppress(OSError), open(self.place / "filler", "ab", buffering=0) as file:
            for size in (1 << 20, 1 << 12):
                with contextlib.suppress(OSError):
                    while True:
                        file.write(b"x" * size)


def as_root(*command):
    """Runs a command that only root may."""
    prefix = [] if os.getuid() == 0 else ["sudo", "-n"]
    subprocess.run([*prefix, *map(str, command)], check=True)
