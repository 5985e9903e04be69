"""The tools for administrators: `queue`, `status`, `pause` and `resume`, with a running bridge and without.

A paused account is how a test gets messages that stay: they are accepted and not sent.
"""
import contextlib
import fcntl
import json
import os
import pty
import re
import shutil
import socket
import sqlite3
import stat
import struct
import subprocess
import termios
import threading
import unittest

import smtp
from bridge import BINARY, World, wait_for
from messages import RECIPIENTS, SENDER, difference_after_received, head

MESSAGE = head("queue") + b"\r\nLook at me.\r\n"
NOBODY = 65534
NO_REPORTS = 'report = { failures_to = "none" }'
"""A report is one message more in the queue."""


class Queue(unittest.TestCase):
    """Each test has a sandbox and a bridge of its own."""

    def setUp(self):
        self.world = World()
        self.addCleanup(self.world.close)

    def start(self, **options):
        """The bridge, stopped at the end of the test."""
        bridge = self.world.start_bridge(**options)
        self.addCleanup(bridge.kill)
        return bridge

    def run_tool(self, *arguments, code=0, **options):
        """Runs a command as a script would; standard output. Fails if it ends with another code."""
        done = self.tool(*arguments, **options)
        self.assertEqual(done.returncode, code, f"{arguments}\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def tool(self, *arguments, **options):
        """Runs a command, without a terminal."""
        command = [str(BINARY), "--config", str(self.world.config), *map(str, arguments)]
        options.setdefault("stdin", subprocess.DEVNULL)
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **options)

    def json(self, *arguments, **options):
        """What a command says to programs."""
        return json.loads(self.run_tool(*arguments, "--json", **options))

    def messages(self, *filters):
        """The messages that a list shows."""
        return self.json("queue", "list", *filters)["messages"]

    def send(self, bridge, to=RECIPIENTS, sender=SENDER, message=MESSAGE):
        """Sends a message; its id."""
        before = {message["id"] for message in self.messages("--limit", 1000)}
        self.assertTrue(smtp.send(bridge.port, sender, to, message).startswith("250"))
        [new] = {message["id"] for message in self.messages("--limit", 1000)} - before
        return new

    def paused_bridge(self, **options):
        """A bridge that accepts and does not send."""
        bridge = self.start(**options)
        self.run_tool("pause")
        return bridge

    def planned(self, queue_id):
        """Waits until the message has its plan, which makes it what it will be."""
        wait_for("a plan", lambda: self.json("queue", "show", queue_id)["parts"])
        return queue_id

    def test_a_paused_message_is_seen_and_goes_out(self):
        """pause, list, show, status, resume."""
        bridge = self.paused_bridge()
        queue_id = self.planned(self.send(bridge))
        [message] = self.messages()
        self.assertEqual((message["id"], message["state"], message["sender"]), (queue_id, "waiting", SENDER))
        self.assertEqual((message["recipients"], message["open"]), (2, 2))
        self.assertEqual([to["address"] for to in message["to"]], list(RECIPIENTS))
        table = self.run_tool("queue", "list")
        self.assertRegex(table, rf"(?m)^ID +AGE +SIZE +STATE +FROM +TO")
        self.assertRegex(table, rf"(?m)^{queue_id} +\d+s +\d+ B +waiting +{re.escape(SENDER)} +ann@example\.org \+1")
        shown = self.run_tool("queue", "show", queue_id)
        self.assertIn("ben@example.net waiting", shown)
        status = self.json("status")
        self.assertTrue(status["running"] and status["healthy"] and status["paused_since"], status)
        self.assertEqual((status["messages"], status["deliveries"]["waiting"]), (1, 1))
        self.assertEqual(self.world.sandbox.inbox(), [])
        self.run_tool("resume")
        bridge.wait_log(r" released id=")
        self.assertEqual(len(self.world.sandbox.inbox()), 1)
        self.assertEqual(self.run_tool("queue", "list"), "no messages\n")
        self.assertIsNone(self.json("status")["paused_since"])

    def test_a_pause_survives_a_restart_and_may_be_of_one_account(self):
        """Also said while no bridge runs."""
        bridge = self.start()
        self.assertEqual(self.tool("pause", "nobody").returncode, 1)
        self.run_tool("pause", "demo")
        self.assertEqual(bridge.stop(), 0)
        bridge = self.start()
        self.planned(self.send(bridge))
        [account] = self.json("status")["accounts"]
        self.assertTrue(account["paused_since"], account)
        self.assertEqual(bridge.stop(), 0)
        self.assertEqual(self.world.sandbox.inbox(), [])
        self.run_tool("resume", "demo")
        bridge = self.start()
        bridge.wait_log(r" released id=")

    def test_each_action(self):
        """hold, release, retry, bounce and delete, by id, by its beginning, and with --all."""
        bridge = self.paused_bridge(more=NO_REPORTS)
        ids = [self.planned(self.send(bridge)) for _ in range(4)]
        self.assertIn(f"{ids[0]}: held", self.run_tool("queue", "hold", ids[0]))
        self.assertEqual([m["id"] for m in self.messages("--state", "held")], [ids[0]])
        status = self.json("status", code=1)
        self.assertIn("held for a person: 1", status["troubles"][0])
        self.assertIn("nothing of it waits", self.run_tool("queue", "hold", ids[0], code=1))
        self.run_tool("queue", "release", ids[0][:31])
        self.assertEqual(self.messages("--state", "held"), [])
        self.run_tool("queue", "bounce", ids[1], ids[2])
        self.assertEqual([m["id"] for m in self.messages("--state", "failed")], ids[1:3])
        cause = self.json("queue", "show", ids[1])["recipients"][0]["cause"]
        self.assertIn("administrator", cause)
        self.run_tool("queue", "delete", ids[2])
        self.assertEqual(self.tool("queue", "show", ids[2]).returncode, 1)
        refused = self.tool("queue", "retry", "--all", "--state", "failed")
        self.assertEqual(refused.returncode, 65)
        self.assertIn("1 messages would be retried", refused.stderr)
        self.assertIn("--yes", refused.stderr)
        self.run_tool("queue", "retry", "--all", "--state", "failed", "--yes")
        self.assertEqual(len(self.messages("--state", "waiting")), 3)
        self.assertIn("acted", bridge.wait_log(rf" acted.* id={ids[1]} action=.?bounce"))
        self.run_tool("resume")
        bridge.wait_log(r" released id=", count=3)
        self.assertEqual(len(self.world.sandbox.inbox()), 3)

    def test_a_sender_is_told_of_a_message_that_was_given_up(self):
        """bounce: a report goes out by the same mailbox, and the message stays as a dead letter."""
        bridge = self.paused_bridge()
        queue_id = self.planned(self.send(bridge))
        self.run_tool("queue", "bounce", queue_id)
        bridge.wait_log(rf" reported id={queue_id} action=.?failed")
        self.run_tool("resume")
        [entry] = self.world.sandbox.wait_inbox(1, evidence=bridge.log)
        self.assertEqual([r["address"] for r in entry["recipients"]], [SENDER])
        report = self.world.sandbox.raw(entry).decode()
        self.assertIn("has given the message up", report.replace("=\r\n", "").replace("\r\n", " "))
        self.assertIn("Action: failed", report)
        [message] = self.messages()
        self.assertEqual((message["id"], message["state"]), (queue_id, "failed"))
        self.assertEqual(bridge.stop(), 0)
        self.run_tool("queue", "retry", queue_id)
        self.assertIn("start the bridge", self.run_tool("queue", "bounce", queue_id, code=1))

    def test_messages_as_files(self):
        """export and import: byte for byte, once, and only whole; also a message from elsewhere."""
        bridge = self.paused_bridge()
        large = head("large") + b"\r\n" + b"0123456789" * 20_000 + b"\r\n"
        ids = [self.planned(self.send(bridge)), self.planned(self.send(bridge, message=large))]
        files = self.world.directory / "files"
        self.run_tool("queue", "export", "--all", "--to", files)
        self.assertEqual(sorted(path.name for path in files.iterdir()),
                         sorted(f"{queue_id}.{ending}" for queue_id in ids for ending in ("eml", "env")))
        self.assertEqual((files / f"{ids[1]}.eml").read_bytes(), large)
        self.assertEqual(stat.S_IMODE((files / f"{ids[0]}.eml").stat().st_mode), 0o600)
        self.assertIn("is in the queue already", self.run_tool("queue", "import", files))
        self.run_tool("queue", "delete", *ids)
        damaged = files / f"{ids[1]}.eml"
        damaged.write_bytes(large[:-3] + b"X\r\n")
        self.assertIn("damaged", self.run_tool("queue", "import", files, code=1))
        damaged.write_bytes(large)
        again = self.run_tool("queue", "import", files)
        self.assertIn(f"{ids[0]}: is in the queue already", again)
        self.assertIn(f"{ids[1]}: imported", again)
        wait_for("the history", lambda: "imported by" in self.run_tool("trace", ids[1]))
        foreign = self.world.directory / "foreign.eml"
        foreign.write_bytes(head("foreign").replace(b"\r\n", b"\n") + b"\nFrom elsewhere.\n")
        self.assertIn("--to", self.tool("queue", "import", foreign).stderr)
        to = [word for address in RECIPIENTS for word in ("--to", address)]
        self.run_tool("queue", "import", foreign, "--from", SENDER, *to)
        self.assertEqual(len(self.messages()), 3)
        self.run_tool("resume")
        bridge.wait_log(r" released id=", count=3)
        arrived = [self.world.sandbox.raw(entry) for entry in self.world.sandbox.inbox()]
        for sent in (MESSAGE, large, head("foreign") + b"\r\nFrom elsewhere.\r\n"):
            self.assertTrue(any(difference_after_received(raw, sent) == "" for raw in arrived), sent[:200])

    def test_an_export_names_only_those_who_do_not_have_it(self):
        """Half delivered, exported, imported elsewhere: nobody gets it twice."""
        bridge = self.paused_bridge()
        queue_id = self.planned(self.send(bridge))
        self.assertEqual(bridge.stop(), 0)
        database = sqlite3.connect(self.world.state_dir / "spool" / "queue.db")
        with contextlib.closing(database), database:
            database.execute("UPDATE recipient SET fate = 1 WHERE number = 0")
        self.run_tool("queue", "export", queue_id, "--to", self.world.directory)
        envelope = (self.world.directory / f"{queue_id}.env").read_text()
        self.assertNotIn(RECIPIENTS[0], envelope)
        self.assertIn(f"to <{RECIPIENTS[1]}>", envelope)

    def test_a_backup_is_restored(self):
        """While mail comes in: what was there when it began is in it, whole; tar alone restores it."""
        bridge = self.paused_bridge()
        large = head("large") + b"\r\n" + b"0123456789" * 20_000 + b"\r\n"
        ids = [self.planned(self.send(bridge, message=message)) for message in (MESSAGE, large, MESSAGE)]
        self.run_tool("queue", "hold", ids[2])
        sending, sent = threading.Event(), []

        def send():
            while not sending.is_set():
                smtp.send(bridge.port, SENDER, RECIPIENTS, large)
                sent.append(1)
        load = threading.Thread(target=send, daemon=True)
        load.start()
        wait_for("some load", lambda: sent)
        archive = self.world.directory / "backup.tar"
        try:
            self.run_tool("queue", "backup", archive)
        finally:
            sending.set()
            load.join(30)
        self.assertEqual(stat.S_IMODE(archive.stat().st_mode), 0o600)
        self.assertEqual(bridge.stop(), 0)
        self.assertEqual([path.name for path in (self.world.state_dir / "spool").glob("backup*")], [])
        stopped = self.world.directory / "stopped.tar"
        self.run_tool("queue", "backup", stopped)
        for file in (archive, stopped):
            shutil.rmtree(self.world.state_dir / "spool")
            subprocess.run(["tar", "-xf", file, "-C", self.world.state_dir], check=True)
            bridge = self.start()
            self.assertNotIn("ERROR", bridge.log())
            states = {message["id"]: message["state"] for message in self.messages("--limit", 1000)}
            self.assertEqual([states[queue_id] for queue_id in ids], ["waiting", "waiting", "held"])
            self.run_tool("queue", "export", ids[1], "--to", self.world.directory)
            self.assertEqual((self.world.directory / f"{ids[1]}.eml").read_bytes(), large)
            for queue_id in states:
                self.run_tool("queue", "export", queue_id, "--to", self.world.directory)
            self.assertEqual(bridge.stop(), 0)

    def test_old_dead_letters_are_removed(self):
        """After failed_retention, counted from the failure; with a line in the log. Others stay."""
        bridge = self.paused_bridge(more=NO_REPORTS)
        old, young, waiting = (self.planned(self.send(bridge)) for _ in range(3))
        self.run_tool("queue", "bounce", old, young)
        self.assertEqual(bridge.stop(), 0)
        database = sqlite3.connect(self.world.state_dir / "spool" / "queue.db")
        with contextlib.closing(database), database:
            database.execute("UPDATE part SET due = due - 31 * 86400000 WHERE hex(message) = ?", (old.upper(),))
        bridge = self.start(more=NO_REPORTS)
        bridge.wait_log(rf" acted.* id={old} action=.?delete.? by=.?failed_retention")
        self.assertEqual([m["id"] for m in self.messages()], [young, waiting])

    def at_a_terminal(self, *arguments, typed=b"", columns=80):
        """Runs a command as a person does; exit code, and what the person sees."""
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 25, columns, 0, 0))
        command = [str(BINARY), "--config", str(self.world.config), *map(str, arguments)]
        with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True) as child:
            os.close(theirs)
            os.write(ours, typed)
            seen = b""
            with contextlib.suppress(OSError):  # EIO is how a terminal says that nobody is at the other end
                while piece := os.read(ours, 65536):
                    seen += piece
            child.wait(30)
        os.close(ours)
        return child.returncode, seen.decode()

    def test_a_person_is_asked(self):
        """--all says how many, and does it only after a yes."""
        bridge = self.paused_bridge()
        for _ in range(2):
            self.planned(self.send(bridge))
        code, seen = self.at_a_terminal("queue", "delete", "--all", typed=b"n\n")
        self.assertEqual(code, 0)
        self.assertIn("2 messages will be deleted. Go on? [y/N]", seen)
        self.assertIn("nothing was done", seen)
        self.assertEqual(len(self.messages()), 2)
        code, seen = self.at_a_terminal("queue", "delete", "--all", typed=b"y\n")
        self.assertEqual((code, self.messages()), (0, []), seen)
        self.assertIn("2 messages deleted, 0 left as they are", seen)

    def test_a_table_fits_the_terminal_and_obeys_nobody(self):
        """Long addresses are cut on a terminal, and whole in a pipe; nothing from outside can colour or clear it."""
        bridge = self.paused_bridge()
        sender = "a" * 60 + "@fabrikam.example"
        self.planned(self.send(bridge, sender=sender))
        self.assertIn(sender, self.run_tool("queue", "list"))
        _, seen = self.at_a_terminal("queue", "list", columns=100)
        self.assertTrue(all(len(line) <= 100 for line in seen.splitlines()), seen)
        self.assertIn("…", seen)
        self.assertNotIn("\x1b", seen)

    def test_what_makes_no_sense_is_refused_with_what_to_do(self):
        """Exit code 65 for what was typed wrong, 1 for what is not there, 2 from the parser of the command line."""
        self.paused_bridge()
        for arguments, code, words in [
            (["queue", "retry"], 65, "--all"),
            (["queue", "retry", "0", "--all"], 65, "not both"),
            (["queue", "retry", "0", "--state", "held"], 65, "--all"),
            (["queue", "show", "nonsense"], 1, "queue list"),
            (["queue", "show", "0123"], 1, "no message"),
            (["queue", "list", "--state", "bounced"], 2, "waiting, sending, held"),
            (["queue", "list", "--older-than", "soon"], 1, "30s, 2h or 5d"),
            (["queue", "list", "--after", "x"], 1, "not an id"),
            (["resume", "nobody"], 1, "demo"),
        ]:
            done = self.tool(*arguments)
            self.assertEqual(done.returncode, code, f"{arguments} {done.stderr}")
            self.assertIn(words, done.stderr, arguments)

    def test_filters_and_pages(self):
        """Each filter by itself and together, and page by page."""
        bridge = self.paused_bridge()
        a, b, c = (self.planned(self.send(bridge, to=(to,), sender=sender, message=head("x") + b"\r\nx\r\n")) for sender, to in [
            ("printer@fabrikam.example", "ann@example.org"),
            ("scanner@fabrikam.example", "ann@example.org"),
            ("scanner@contoso.example", "ben@example.net"),
        ])
        for filters, wanted in [
            ([], [a, b, c]),
            (["--sender", "@fabrikam.example"], [a, b]),
            (["--sender", "SCANNER@fabrikam.example"], [b]),
            (["--recipient", "ann"], [a, b]),
            (["--recipient", "ann", "--sender", "printer*"], [a]),
            (["--account", "demo"], [a, b, c]),
            (["--account", "other"], []),
            (["--younger-than", "1h", "--state", "waiting"], [a, b, c]),
            (["--older-than", "1h"], []),
            (["--after", a, "--limit", "1"], [b]),
        ]:
            self.assertEqual([m["id"] for m in self.messages(*filters)], wanted, filters)
        page = self.json("queue", "list", "--limit", "2")
        self.assertEqual(page["next"], b)
        self.assertIn(f"--after {b}", self.tool("queue", "list", "--limit", "2").stderr)

    def test_without_a_bridge(self):
        """Reading and changing while nothing runs; status says that it does not, and ends with 1."""
        missing = self.world.write_config()
        self.assertIn("no queue", self.tool("status").stderr, missing)
        bridge = self.paused_bridge()
        first, second = (self.planned(self.send(bridge)) for _ in range(2))
        self.assertEqual(bridge.stop(), 0)
        self.assertFalse((self.world.state_dir / "control.sock").exists())
        self.assertEqual([m["id"] for m in self.messages()], [first, second])
        self.assertEqual(self.json("queue", "show", first)["message"]["sender"], SENDER)
        status = self.json("status", code=1)
        self.assertFalse(status["running"])
        self.assertEqual(status["messages"], 2)
        self.assertIn("not running", self.run_tool("status", code=1))
        self.run_tool("queue", "delete", first)
        self.run_tool("queue", "hold", second)
        self.run_tool("resume")
        bridge = self.start()
        [message] = self.messages()
        self.assertEqual((message["id"], message["state"]), (second, "held"))
        self.run_tool("queue", "release", second)
        bridge.wait_log(r" released id=")
        self.assertEqual(len(self.world.sandbox.inbox()), 1)

    def test_a_killed_bridge(self):
        """Its socket is left behind, and its write-ahead log; both are no hindrance, here and at the next start."""
        bridge = self.paused_bridge()
        queue_id = self.planned(self.send(bridge))
        bridge.kill()
        self.assertTrue((self.world.state_dir / "control.sock").exists())
        self.assertEqual([m["id"] for m in self.messages()], [queue_id])
        self.run_tool("queue", "retry", queue_id)
        self.start()
        self.assertEqual([m["id"] for m in self.messages()], [queue_id])

    def test_the_socket_is_private(self):
        """Nobody else on this machine may use it."""
        self.start()
        path = self.world.state_dir / "control.sock"
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
        self.assertTrue(stat.S_ISSOCK(path.stat().st_mode))
        if os.geteuid() == 0:
            self.world.state_dir.chmod(0o711)
            for arguments in (["status"], ["queue", "list"], ["queue", "delete", "0"]):
                done = self.tool(*arguments, user=NOBODY, group=NOBODY, extra_groups=[])
                self.assertEqual(done.returncode, 71, done.stderr)
                self.assertIn("sudo -u", done.stderr)

    def test_another_user_and_no_bridge(self):
        """Says which user it takes, and changes nothing."""
        if os.geteuid() != 0:
            return  # as an ordinary user there is no other one to be
        bridge = self.paused_bridge()
        queue_id = self.planned(self.send(bridge))
        self.assertEqual(bridge.stop(), 0)
        self.world.state_dir.chmod(0o711)
        done = self.tool("queue", "list", user=NOBODY, group=NOBODY, extra_groups=[])
        self.assertEqual(done.returncode, 71)
        self.assertIn("may not be read by this user", done.stderr)
        # The spool of another user: root may read it, and must not write into it.
        spool = self.world.state_dir / "spool"
        for path in [spool, *spool.rglob("*")]:
            os.chown(path, NOBODY, NOBODY)
        self.assertEqual([m["id"] for m in self.messages()], [queue_id])
        self.assertIn("sudo -u '#65534'", self.tool("queue", "delete", queue_id).stderr)
        owners = {path.stat().st_uid for path in spool.rglob("*")}
        self.assertEqual(owners, {NOBODY}, "nothing was made that the bridge could not use")

    def test_the_configuration_may_be_beyond_reach_but_for_the_place(self):
        """A secret in an environment variable of the service is not needed to look at the queue."""
        bridge = self.paused_bridge()
        queue_id = self.planned(self.send(bridge))
        text = self.world.config.read_text()
        self.world.config.write_text(re.sub(r"client_secret = .*", 'client_secret = { env = "NOT_HERE" }', text))
        self.assertEqual([m["id"] for m in self.messages()], [queue_id])

    def test_a_socket_that_is_too_long_or_taken(self):
        """The bridge does not start, and says what to set."""
        long = self.world.directory / ("x" * 120)
        for control, words in [(long, "too long"), (self.world.directory / "bridge.toml", "not a socket")]:
            config = self.world.write_config(more="")
            config.write_text(config.read_text() + f'[admin]\ncontrol = "{control}"\n')
            done = subprocess.run([str(BINARY), "--config", str(config), "run"], capture_output=True, text=True,
                                  timeout=60, check=False, stdin=subprocess.DEVNULL)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn(words, done.stderr)
            self.assertIn("[admin]", done.stderr)

    def test_the_interface_speaks_http(self):
        """As a program without our command line would use it."""
        bridge = self.paused_bridge()
        queue_id = self.planned(self.send(bridge))
        with socket.socket(socket.AF_UNIX) as control:
            control.connect(str(self.world.state_dir / "control.sock"))
            control.sendall(b"GET /v1/queue?limit=1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            answer = b""
            while piece := control.recv(65536):
                answer += piece
        self.assertTrue(answer.startswith(b"HTTP/1.1 200"), answer)
        self.assertEqual(json.loads(answer.split(b"\r\n\r\n", 1)[1])["messages"][0]["id"], queue_id)

    def test_dead_letters_go_again_whole(self):
        """A failed message stays, and is sent again with retry, to all who do not have it."""
        bridge = self.start(more=NO_REPORTS)
        self.world.sandbox.fault("sendMail", "forever", kind="status", status=400, code="ErrorInvalidRecipients")
        self.assertTrue(smtp.send(bridge.port, SENDER, RECIPIENTS, MESSAGE).startswith("250"))
        bridge.wait_log(r" dead-letter")
        [message] = self.messages("--state", "failed")
        self.world.sandbox.faults_end()
        self.run_tool("queue", "retry", message["id"])
        bridge.wait_log(r" released id=")
        [entry] = self.world.sandbox.inbox()
        self.assertEqual(difference_after_received(self.world.sandbox.raw(entry), MESSAGE), "")
        self.assertEqual(sorted(r["address"] for r in entry["recipients"]), sorted(RECIPIENTS))
