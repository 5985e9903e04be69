"""Starting and stopping: what is under way is finished, what cannot start says why, and exit codes tell which."""
import re
import signal
import socket
import time
import unittest

import smtp
from bridge import Bridge, World, wait_for
from messages import RECIPIENTS, SENDER, difference_after_received, head

MESSAGE = head("stop") + b"\r\nFinish what you began.\r\n"
CONFIGURATION = 78
"""EX_CONFIG of sysexits.h."""


class Stop(unittest.TestCase):
    """One world for each test."""

    def setUp(self):
        self.world = World()
        self.addCleanup(self.world.close)

    def start(self, **options):
        """A bridge that is killed at the end."""
        bridge = self.world.start_bridge(**options)
        self.addCleanup(bridge.kill)
        return bridge

    def fails(self, config):
        """Starts a bridge that cannot start; its exit code and log."""
        bridge = Bridge(config, wait=False)
        self.addCleanup(bridge.kill)
        return bridge.wait(), bridge.log()

    def test_idle(self):
        """SIGTERM and ctrl-c end it with 0."""
        for number in (signal.SIGTERM, signal.SIGINT):
            bridge = self.start()
            bridge.signal(number)
            self.assertEqual(bridge.wait(), 0)
            self.assertRegex(bridge.log(), r" stopped")

    def test_finishes_the_attempt_under_way(self):
        """A slow answer is waited for, new connections are not taken, and nothing is sent twice after a restart."""
        self.world.sandbox.fault("sendMail", 1, kind="delay", ms=3000)
        bridge = self.start()
        smtp.send(bridge.port, SENDER, RECIPIENTS, MESSAGE)
        wait_for("the request", lambda: self.under_way(bridge), evidence=bridge.log)
        bridge.signal(signal.SIGTERM)
        wait_for("the port to close", lambda: not connects(bridge.port), evidence=bridge.log)
        self.assertEqual(bridge.wait(), 0)
        self.assertRegex(bridge.log(), r" relayed .*[\s\S]* released [\s\S]* stopped")
        [entry] = self.world.sandbox.inbox()
        self.assertEqual(difference_after_received(self.world.sandbox.raw(entry), MESSAGE), "")
        again = self.start()
        smtp.send(again.port, SENDER, RECIPIENTS, MESSAGE)
        again.wait_log(r" released id=")
        self.assertEqual(len(self.world.sandbox.inbox()), 2)

    def under_way(self, bridge):
        """True when the fault was taken by a request, which is then being answered."""
        self.assertIsNone(bridge.child.poll())
        return self.world.sandbox.request("GET", "/faults").strip() == b"[]"

    def test_an_idle_session_does_not_keep_it(self):
        """A client between two messages is told to go, and gone."""
        bridge = self.start()
        with smtp.Session(bridge.port) as idle:
            began = time.monotonic()
            self.assertEqual(bridge.stop(), 0)
            self.assertLess(time.monotonic() - began, 5)
            self.assertTrue(idle.reply().startswith("421"))

    def test_half_a_message_does_not_keep_it_for_ever(self):
        """Who is in the middle of a message may finish it; who does not is cut off, and nothing is left of it."""
        bridge = self.start()
        with smtp.Session(bridge.port) as finishing, smtp.Session(bridge.port) as stuck:
            for session in (finishing, stuck):
                session.envelope(SENDER, RECIPIENTS)
                session.socket.sendall(MESSAGE[:100])
            bridge.signal(signal.SIGTERM)
            wait_for("the port to close", lambda: not connects(bridge.port), evidence=bridge.log)
            finishing.socket.sendall(smtp.on_the_wire(MESSAGE[100:]))
            finishing.expect("250", finishing.reply())
            self.assertEqual(bridge.wait(60), 0)
        self.assertEqual([path for path in self.world.bodies()], [])
        again = self.start()
        smtp.send(again.port, SENDER, RECIPIENTS, MESSAGE)
        wait_for("both", lambda: len(self.world.sandbox.inbox()) == 2, evidence=again.log)

    def test_a_second_daemon_on_the_same_spool(self):
        """Refused with the directory's name; the first goes on."""
        bridge = self.start()
        code, log = self.fails(self.world.write_config(name="second.toml"))
        self.assertNotIn(code, (0, -signal.SIGKILL))
        self.assertIn(str(self.world.state_dir), log)
        self.assertRegex(log, r"already|another|in use|locked|running")
        self.assertNotIn("panicked", log)
        smtp.send(bridge.port, SENDER, RECIPIENTS, MESSAGE)
        bridge.wait_log(r" released id=")

    def test_the_port_is_taken(self):
        """Refused with the address."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            code, log = self.fails(self.world.write_config(port=port))
        self.assertNotIn(code, (0, -signal.SIGKILL))
        self.assertIn(f"127.0.0.1:{port}", log)
        self.assertRegex(log, r"(?i)in use")
        self.assertNotIn("panicked", log)

    def test_a_bad_configuration(self):
        """All problems at once, each with its place, and exit code 78."""
        config = self.world.write_config()
        config.write_text(config.read_text().replace("mailbox =", "mailbocks =").replace('retry = ["1s"]', 'retry = "x"'))
        code, log = self.fails(config)
        self.assertEqual(code, CONFIGURATION)
        self.assertIn("mailbocks", log)
        self.assertIn("delivery.retry", log)
        self.assertRegex(log, re.escape(config.name) + r":\d+:\d+")

    def test_no_configuration(self):
        """A file that is not there is a matter of configuration too."""
        code, log = self.fails(self.world.directory / "nowhere.toml")
        self.assertEqual(code, CONFIGURATION)
        self.assertIn("nowhere.toml", log)


def connects(port):
    """True if somebody listens there."""
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
        return True
    except OSError:
        return False
