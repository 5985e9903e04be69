"""Programs that write their mails themselves: what arrives is exactly what they put on the wire."""
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

import bridge as programs
from bridge import World, wait_for
from clients import TIMEOUT, run
from composers import COMPOSERS, JARS, KINDS, PASSWORD, RECIPIENT, USER, WANTED
from messages import MESSAGES, RECIPIENTS, SENDER
from smtp import difference, on_the_wire, split_received
from wire import Wire

LISTENERS = """
[[listener]]
name = "login"
bind = ["127.0.0.1:0"]
auth = "required"

[[listener]]
name = "starttls"
bind = ["127.0.0.1:0"]
tls = "starttls"

[[listener]]
name = "implicit"
bind = ["127.0.0.1:0"]
tls = "implicit"
"""


class Composers(unittest.TestCase):
    """One bridge for all; a test for each program and kind of mail is made below."""

    @classmethod
    def setUpClass(cls):
        missing = [program for program in WANTED if not shutil.which(program)]
        missing += [str(jar) for jar in JARS if not jar.exists()]
        if missing:
            raise AssertionError(f"not installed: {missing}; tests/run installs them")
        cls.world = World()
        cls.addClassCleanup(cls.world.close)
        cls.world.sandbox.tenant(upload_per_5_minutes=10**10)
        config = cls.world.write_config(delivery=LISTENERS)
        cls.world.state_dir.mkdir(mode=0o700)
        run([programs.BINARY, "--config", config, "user", "add", USER, "--password-stdin"], PASSWORD.encode() + b"\n")
        cls.bridge = programs.Bridge(config)
        cls.addClassCleanup(cls.bridge.kill)
        directory = tempfile.TemporaryDirectory()
        cls.addClassCleanup(directory.cleanup)
        cls.directory = directory.name

    def port(self, listener):
        """Where this listener listens."""
        line = self.bridge.wait_log(rf" listening listener={listener} address=")
        return int(re.search(r"address=\S+:(\d+)", line).group(1))

    def setUp(self):
        self.world.sandbox.request("DELETE", "/inbox")

    def arrived(self, sender, recipients, message, protocol):
        """Wants this message in the inbox, and no other."""
        sandbox = self.world.sandbox
        [entry] = sandbox.wait_inbox(1, evidence=lambda: self.bridge.log()[-3000:])
        self.assertEqual(sender, SENDER)
        self.assertEqual(sorted(r["address"] for r in entry["recipients"]), sorted(recipients))
        self.assertEqual(entry["form"], "mime")
        field, rest = split_received(sandbox.raw(entry))
        self.assertRegex(field, rb"by bridge\.test with " + protocol + rb"\s")
        self.assertEqual(difference(rest, message), "")
        queue_id = re.search(rb"\bid ([0-9A-Za-z-]+)", field).group(1).decode()
        self.bridge.wait_log(rf" released id={queue_id}")
        self.assertEqual(len(sandbox.inbox()), 1)
        wait_for("its file to go", lambda: not self.world.bodies())

    def check(self, program, kind):
        """Has a program send one mail, and compares what arrives with what went over the wire."""
        logs_in = program == "dotnet"
        with Wire(self.port("login" if logs_in else "local")) as wire:
            COMPOSERS[program](wire.port, kind, self.directory)
            [(sender, recipients, message)] = wire.messages()
        self.assertEqual(recipients, [RECIPIENT])
        if kind == "attachment" and program != "git":  # git attaches its patch
            self.assertTrue(b"\r\n\r\nJVBERi0xLjQK" in message and len(message) > 130_000, message[:1000])
        # s-nail says HELO if it has nobody to log in as.
        protocol = {"dotnet": b"ESMTPA", "mailx": b"SMTP"}.get(program, b"ESMTP")
        self.arrived(sender, recipients, message, protocol)

    def s_client(self, listener, *options):
        """A session by hand in openssl s_client, which checks the certificate of the bridge's own making."""
        message = MESSAGES["dots"](self.directory)
        certificate = next(pathlib.Path(self.world.state_dir, "tls").glob("*cert*"))
        # -quiet: lines that begin with Q or R are said like any other. A server that answers lines as they come
        # needs nobody to wait for its answers.
        script = [b"EHLO client.test", b"MAIL FROM:<%s>" % SENDER.encode()]
        script += [b"RCPT TO:<%s>" % r.encode() for r in RECIPIENTS] + [b"DATA"]
        said = b"\r\n".join(script) + b"\r\n" + on_the_wire(message) + b"QUIT\r\n"
        done = subprocess.run(
            ["openssl", "s_client", "-quiet", "-verify_return_error", "-verify_hostname", "bridge.test", "-CAfile",
             certificate, *options, "-connect", f"127.0.0.1:{self.port(listener)}"],
            input=said, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=TIMEOUT, check=False)
        self.assertIn(b"221 2.0.0", done.stdout, done.stderr.decode()[-2000:])
        self.arrived(SENDER, RECIPIENTS, message, b"ESMTPS")

    def test_s_client_starttls(self):
        """STARTTLS by openssl s_client."""
        self.s_client("starttls", "-starttls", "smtp")

    def test_s_client_implicit(self):
        """TLS from the first octet by openssl s_client."""
        self.s_client("implicit")


def add_tests():
    """Composers.test_PROGRAM_KIND for all of them."""
    for program in COMPOSERS:
        for kind in KINDS:
            def test(self, program=program, kind=kind):
                self.check(program, kind)
            test.__doc__ = f"{kind} by {program}"
            setattr(Composers, f"test_{program}_{kind}", test)


add_tests()
