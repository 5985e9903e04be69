"""Input without end: each gets the right answer, at full speed, and the daemon's memory stays where it was.

TORTURE_MIB is how much is sent of each kind, 64 by default; `tests/run torture-listener` sends a GiB.
"""
import os
import re
import socket
import threading
import time
import unittest

import smtp
from bridge import World

SIZE = int(os.environ.get("TORTURE_MIB", "64")) << 20
"""Octets of each kind; commands in proportion, a million for a GiB."""
COMMANDS = max(SIZE // 1000, 5000)
CONNECTIONS = 5000 if SIZE >= 1 << 30 else 500
"""Clients at once."""
MEMORY_LIMIT_KIB = 64 << 10
"""Anonymous resident memory of the daemon, at any moment."""
DEADLINE = 600.0


class Watch(threading.Thread):
    """Looks at a process's anonymous resident memory every few milliseconds, and remembers the most."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.status, self.most, self.ended = f"/proc/{pid}/status", 0, threading.Event()
        self.start()

    def run(self):
        while not self.ended.wait(0.005):
            with open(self.status, encoding="ascii") as file:
                self.most = max(self.most, int(re.search(r"RssAnon:\s+(\d+) kB", file.read()).group(1)))

    def stop(self):
        """The most, in KiB."""
        self.ended.set()
        self.join()
        return self.most

FULL = b"".join(b"RCPT TO:<b%d@x.example>\r\n" % n for n in range(1000))
"""As many recipients as a message may have: whoever names more hears 452, as often as he likes."""


class Torture(unittest.TestCase):
    """One bridge for each test, which has a login so that its longer lines are tried, too."""

    def setUp(self):
        self.world = World()
        self.addCleanup(self.world.close)
        # Above four fifths of the limit idle clients would have to make room.
        self.bridge = self.world.start_bridge(
            listener=f'auth = "any"\nmax_connections = {2 * CONNECTIONS}',
            more=f"[limits]\nmax_connections = {2 * CONNECTIONS}")
        self.addCleanup(self.bridge.kill)
        self.watch = Watch(self.bridge.child.pid)

    def tearDown(self):
        most = self.watch.stop()
        print(f"(RssAnon {most / 1024:.1f} MiB) ", end="", flush=True)
        self.assertLess(most, MEMORY_LIMIT_KIB)
        # Others are served.
        with smtp.Session(self.bridge.port) as session:
            session.command("NOOP", "250")

    def settled(self):
        """Waits until the daemon has read what it reads, which its memory shows: it grows no more for a second."""
        most, since = self.watch.most, time.monotonic()
        while time.monotonic() < since + 1:
            time.sleep(0.02)
            if self.watch.most > most:
                most, since = self.watch.most, time.monotonic()

    def session(self, receive=None):
        """A connection after EHLO; `receive` is the size of its receive buffer."""
        session = smtp.Session(self.bridge.port, timeout=DEADLINE)
        if receive:
            session.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
        self.addCleanup(session.close)
        return session

    @staticmethod
    def flood(session, piece, size):
        """Sends `piece` again and again, `size` octets of it about."""
        block = piece * max(1, (1 << 18) // len(piece))
        for _ in range(-(-size // len(block))):
            session.socket.sendall(block)

    def test_line(self):
        """A line without end is no command, and the next one is."""
        session = self.session()
        self.flood(session, b"a", SIZE)
        session.command("", "500 5.5.2")
        session.command("NOOP", "250")

    def test_login_line(self):
        """Nor are those of a login, which may be longer."""
        session = self.session()
        session.socket.sendall(b"AUTH PLAIN ")
        self.flood(session, b"A", SIZE)
        session.command("", "500 5.5.2")
        session.command("AUTH LOGIN", "334")
        self.flood(session, b"A", SIZE)
        session.command("", "500 5.5.6")
        session.command("NOOP", "250")

    def test_binary_noise(self):
        """Nor is what has no line end at all but zeros."""
        session = self.session()
        self.flood(session, b"\0", SIZE)
        session.command("", "500 5.5.2")

    def message(self, piece, size, code):
        """A message of `piece` again and again is refused after its end."""
        session = self.session()
        session.envelope("a@x.example", ["b@x.example"])
        self.flood(session, piece, size)
        session.command("\r\n.", code)
        session.command("NOOP", "250")

    def test_one_line_message(self):
        """A message that is one line."""
        self.message(b"a", SIZE, "552 5.3.4")

    def test_header(self):
        """A message that is all header: too large; and one that is small enough to be taken, but for its header."""
        self.message(b"X-Page: 0123456789\r\n", SIZE, "55")
        self.message(b"X-Page: 0123456789\r\n", 1 << 20, "554 5.6.0")
        self.message(b"a: " + b"b" * 997, 1 << 20, "554 5.6.0")

    def test_dots(self):
        """A message of dots, each of which may be the end."""
        self.message(b"\r\n..", SIZE, "552 5.3.4")

    def test_chunks(self):
        """A chunk of BDAT that is larger than any message."""
        session = self.session()
        session.command("MAIL FROM:<a@x.example>")
        session.command("RCPT TO:<b@x.example>")
        session.socket.sendall(b"BDAT %d LAST\r\n" % SIZE)
        self.flood(session, b"a", SIZE)
        session.expect("552 5.3.4", session.reply())
        session.command("NOOP", "250")

    def replies(self, session, line, count):
        """Sends a line `count` times while reading; the replies by their beginning, until the end."""
        def send():
            for n in range(0, count, 1000):
                block = b"".join(line(k) for k in range(n, min(n + 1000, count)))
                try:
                    session.socket.sendall(block)
                except OSError:
                    return
        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        heard = {}
        for _ in range(count):
            try:
                reply = session.reply()
            except OSError:
                break
            heard[reply[:9]] = heard.get(reply[:9], 0) + 1
        sender.join()
        return heard

    def test_recipients(self):
        """A thousand of a million are taken, and the rest hears 452, as RFC 5321 has it."""
        session = self.session()
        session.command("MAIL FROM:<a@x.example>")
        heard = self.replies(session, lambda n: b"RCPT TO:<r%d@x.example>\r\n" % n, COMMANDS)
        self.assertEqual(heard, {"250 2.1.5": 1000, "452 4.5.3": COMMANDS - 1000})
        self.assertLess(len(self.bridge.log()), 100_000)

    def test_idle_commands(self):
        """A thousand of a million are answered, and then it is enough."""
        heard = self.replies(self.session(), lambda _: b"NOOP\r\n", COMMANDS)
        self.assertEqual(heard, {"250 2.0.0": 999, "421 4.7.0": 1})  # EHLO was one of them

    def test_unread_replies(self):
        """Who does not read its replies is not read, either."""
        session = self.session()
        session.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        session.socket.settimeout(2.0)
        session.command("MAIL FROM:<a@x.example>")
        session.socket.sendall(FULL)
        with self.assertRaises(OSError):
            self.flood(session, b"RCPT TO:<one.more@x.example>\r\n", 1 << 30)

    def test_many_envelopes(self):
        """Many clients with many long recipients, all at once: some hear to come again, and small messages go on."""
        name = b"n" * 200 + b".%d@" + b"d" * 200 + b".example"
        sessions = [self.session() for _ in range(60)]
        codes = set()
        for session in sessions:
            session.command("MAIL FROM:<a@x.example>")
            heard = self.replies(session, lambda n: b"RCPT TO:<" + name % n + b">\r\n", 1000)
            codes |= heard.keys()
        self.assertEqual(codes, {"250 2.1.5", "452 4.3.1"})
        smtp.send(self.bridge.port, "a@x.example", ["b@x.example"], b"Subject: small\r\n\r\nsmall\r\n")

    def test_many_half_lines(self):
        """Many clients with half a line each cost little."""
        sessions = [self.session() for _ in range(CONNECTIONS)]
        for session in sessions:
            session.socket.sendall(b"AUTH PLAIN " + b"A" * 12000)
        self.settled()

    def test_many_half_messages(self):
        """Many clients with half a message each, too."""
        sessions = [self.session() for _ in range(CONNECTIONS)]
        for session in sessions:
            session.envelope("a@x.example", ["b@x.example"])
            session.socket.sendall(b"Subject: half\r\n\r\n" + b"a" * 15000 + b"\r\n")
        self.settled()
        smtp.send(self.bridge.port, "a@x.example", ["b@x.example"], b"Subject: small\r\n\r\nsmall\r\n")

    def test_many_unread_replies(self):
        """Many clients that do not read their replies cost no more than what they were read."""
        sessions = []
        for _ in range(CONNECTIONS):
            session = self.session(receive=4096)
            session.command("MAIL FROM:<a@x.example>")
            session.socket.sendall(FULL)
            session.socket.setblocking(False)
            sessions.append(session)
        block = b"RCPT TO:<one.more@x.example>\r\n" * 2000
        for _ in range(3):
            for session in sessions:
                try:
                    while True:
                        session.socket.send(block)
                except BlockingIOError:
                    pass
            self.settled()

    def test_many_idle(self):
        """Many clients that say nothing cost next to nothing."""
        before = self.watch.most
        sessions = [self.session() for _ in range(CONNECTIONS)]
        cost = (self.watch.most - before) / len(sessions)
        print(f"({cost:.1f} KiB each) ", end="", flush=True)
        self.assertLess(cost, 8)


if __name__ == "__main__":
    unittest.main()
