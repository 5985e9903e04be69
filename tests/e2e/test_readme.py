"""The README is a test: its first command shows what it promises, and its configuration is one."""
import json
import pathlib
import re
import subprocess
import tempfile
import unittest
import urllib.request

from bridge import BINARY, Process, wait_for

ROOT = pathlib.Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


class Readme(unittest.TestCase):
    """Read from the README itself, so that the two cannot part."""

    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.directory = pathlib.Path(temporary.name)

    def test_two_commands(self):
        """Exactly two commands set it up, and both are there."""
        first, second = re.findall(r"```sh\n(cargo run[^\n]*|tests/run)\n```", README)
        self.assertEqual(first, "cargo run --release -- run --sandbox")
        self.assertTrue((ROOT / second).exists())

    def test_configuration(self):
        """The configuration of the README, the listener for the network with it, is good."""
        secret = self.directory / "office.secret"
        secret.write_text("invented-secret-value")
        secret.chmod(0o600)
        blocks = re.findall(r"^ *```toml\n(.*?)^ *```", README, re.DOTALL | re.MULTILINE)
        self.assertEqual(len(blocks), 2)
        text = "\n".join(blocks).replace("/etc/smtp-oauth-bridge/office.secret", str(secret))
        config = self.directory / "bridge.toml"
        config.write_text(text)
        done = subprocess.run([BINARY, "--config", str(config), "check"], capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stdout), (0, "the configuration is good\n"), done.stderr)

    def test_first_message(self):
        """What `run --sandbox` prints can be copied, and the message arrives where it says."""
        places = ["--smtp", "127.0.0.1:0", "--inbox", "127.0.0.1:0"]
        arguments = ["run", "--sandbox", "--directory", str(self.directory / "sandbox"), *places]
        bridge = Process(arguments, self.directory / "log")
        self.addCleanup(bridge.kill)
        printed = ""
        while "ctrl-c" not in printed:
            line = bridge.child.stdout.readline().decode()
            self.assertTrue(line, bridge.log())
            printed += line
        bridge.wait_log(r" ready")
        command = re.search(r"^ *(printf .*\| curl .*)$", printed, re.MULTILINE).group(1)
        inbox = re.search(r"^ *(http://\S+/)$", printed, re.MULTILINE).group(1)
        subprocess.run(command, shell=True, check=True)

        def arrived():
            with urllib.request.urlopen(inbox + "inbox") as answer:
                return json.load(answer)

        message, = wait_for("the first message arrives", arrived)
        self.assertEqual((message["subject"], message["recipients"][0]["address"]), ("Hello", "you@example.com"))
        with urllib.request.urlopen(inbox) as page:
            self.assertIn("Hello", page.read().decode())
        self.assertEqual(bridge.stop(), 0)
