"""The table of tests/envelope through the real program: what arrives goes to the envelope and to nobody else.

Two judges: the sandbox, which derives recipients as Graph does (with mail-parser), and Python's `email` on the octets
(tests/envelope/judge.py).
"""
import pathlib
import re
import sys
import tempfile
import unittest

import smtp
from bridge import ROOT, World

TABLE = ROOT / "tests" / "envelope"
sys.path.insert(0, str(TABLE))
import judge  # noqa: E402  (found by the line above)


class Case:
    """One case of the table; tests/envelope/README.md explains the format, cases.rs is the other reader of it."""

    def __init__(self, stem, text):
        head, self.text = text.split("\n---\n", 1)
        title, *lines = head.split("\n")
        self.name = f"{stem}_{re.sub('[^A-Za-z0-9]+', '_', title)}"
        keys = dict(line.split(":", 1) for line in lines if line and not line.startswith("#"))
        self.envelope = [a for item in keys["envelope"].split(", ") for a in expand(item.strip())]
        self.expect = keys.get("expect", "changed").strip()
        self.log = [words.strip() for words in keys.get("log", "").split(";") if words.strip()]
        self.message = octets(self.text)


def expand(item):
    """`user#@x.example * 3` is three addresses."""
    pattern, star, count = item.partition(" * ")
    return [pattern.strip().replace("#", str(n + 1)) for n in range(int(count))] if star else [item]


def octets(text):
    """CRLF for LF, and the codes in braces."""
    text = text.split("{end}")[0]
    out = b""
    for piece in re.split(r"(\{[^}]*\})", text):
        if not piece.startswith("{"):
            out += piece.replace("\n", "\r\n").encode()
        elif "*" in piece:
            what, count = piece[1:-1].split("*")
            out += what.encode() * int(count)
        else:
            out += b"\n" if piece == "{lf}" else bytes([int(piece[1:-1], 16)])
    return out


def cases():
    """All cases of all files."""
    for path in sorted(TABLE.glob("*.txt")):
        for text in path.read_text(encoding="utf-8").split("=== ")[1:]:
            yield Case(path.stem.replace("-", "_"), text)


def on_arrival(message):
    """What SMTP makes of a message: it ends with a line end."""
    return message if message.endswith(b"\r\n") else message + b"\r\n"


class Envelope(unittest.TestCase):
    """One bridge for all; a test for each case is made below."""

    @classmethod
    def setUpClass(cls):
        cls.world = World()
        cls.addClassCleanup(cls.world.close)
        cls.world.sandbox.tenant(max_recipients=100_000, recipients_per_day=10**9)
        # A report about a misfit would be one message more in the inbox.
        cls.bridge = cls.world.start_bridge(more='[report]\nfailures_to = "none"\n')
        cls.addClassCleanup(cls.bridge.kill)

    def check(self, case):
        """Sends one case and has both judges look at it."""
        sandbox = self.world.sandbox
        sandbox.request("DELETE", "/inbox")
        try:
            reply = smtp.send(self.bridge.port, "scan@x.example", case.envelope, case.message)
        except smtp.Refused as refused:
            # Better still than to accept it and fail later, if the reply names the recipient that is the reason.
            self.assertEqual(case.expect.split()[0], "misfit", refused)
            self.assertIn(case.expect.split(None, 1)[1], str(refused))
            self.bridge.wait_log(r" refused .*reply=\"5")
            return
        queue_id = re.search(r"queued as ([0-9a-f]{32})$", reply).group(1)
        end = self.bridge.wait_log(rf" (released|dead-letter).* id={queue_id}")
        entries = sandbox.inbox()
        if case.expect.startswith("misfit"):
            self.assertIn("dead-letter", end)
            failed = self.bridge.wait_log(rf" failed id={queue_id}")
            self.assertIn("cause=", failed)
            reached = {judge.key(r["address"]) for entry in entries for r in entry["recipients"]}
            self.assertLess(len(reached), len({judge.key(a) for a in case.envelope}))
            return
        self.assertIn("released", end)
        self.assertEqual(len(entries), 1)
        self.assertEqual(sorted({judge.key(r["address"]) for r in entries[0]["recipients"]}),
                         sorted({judge.key(a) for a in case.envelope}))
        raw = sandbox.raw(entries[0])
        self.assertEqual(self.verdict(raw, case), [])
        received, rest = smtp.split_received_anywhere(raw)
        self.assertIn(b"by bridge.test", received)
        if case.expect == "unchanged":
            self.assertEqual(smtp.difference(rest, on_arrival(case.message)), "")
        planned = self.bridge.wait_log(rf" planned id={queue_id}")
        for words in case.log:
            self.assertIn(words, planned)

    @staticmethod
    def verdict(raw, case):
        """What Python's email says against it."""
        with tempfile.TemporaryDirectory() as directory:
            path = pathlib.Path(directory) / "case.eml"
            path.write_bytes(raw)
            path.with_suffix(".rcpt").write_text("\n".join(case.envelope) + "\n", encoding="utf-8")
            return list(judge.judge(path))


def add_tests():
    """Envelope.test_FILE_CASE for every case."""
    for case in cases():
        def test(self, case=case):
            self.check(case)
        test.__doc__ = case.name
        assert not hasattr(Envelope, f"test_{case.name}"), f"two cases are called {case.name}"
        setattr(Envelope, f"test_{case.name}", test)


add_tests()
