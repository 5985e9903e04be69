"""Starting and stopping: what is under way is finished, what cannot start says why, and exit codes tell which."""
import re
import signal
import socket
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

    def test_an_open_session_does_not_keep_it(self):
        """A client that sits there, even in the middle of a message, cannot delay the end for long."""
        bridge = self.start()
        with smtp.Session(bridge.port), smtp.Session(bridge.port) as writing:
            writing.envelope(SENDER, RECIPIENTS)
            writing.socket.sendall(b"Subject: half\r\n")
            self.assertEqual(bridge.stop(), 0)
        self.assertEqual(self.world.bodies(), [])
        self.assertEqual(self.world.sandbox.inbox(), [])

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
