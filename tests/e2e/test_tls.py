"""TLS between clients and the bridge: real clients, a certificate that is replaced, and what the log tells of failures."""
import re
import smtplib
import socket
import ssl
import subprocess
import unittest

from bridge import World, wait_for
from clients import run
from messages import RECIPIENTS, SENDER, difference_after_received, head
from smtp import split_received

LISTENERS = """
[[listener]]
name = "offered"
bind = "127.0.0.1:0"
tls = "starttls"

[[listener]]
name = "from_the_start"
bind = "127.0.0.1:0"
tls = "implicit"

[[listener]]
name = "given"
bind = "127.0.0.1:0"
tls = "implicit"
certificate = "given.pem"
key = "given.key"
"""


class Tls(unittest.TestCase):
    """One bridge for all, with its own certificate on two listeners and a given one on a third."""

    @classmethod
    def setUpClass(cls):
        cls.world = World()
        cls.addClassCleanup(cls.world.close)
        cls.make_certificate()
        cls.bridge = cls.world.start_bridge(more=LISTENERS)
        cls.addClassCleanup(cls.bridge.kill)
        cls.own = cls.world.state_dir / "tls" / "certificate.pem"
        cls.given = cls.world.directory / "given.pem"

    @classmethod
    def make_certificate(cls):
        """A certificate beside the configuration, as an authority would give."""
        run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=bridge.test",
             "-addext", "subjectAltName=DNS:bridge.test,IP:127.0.0.1", "-days", "30",
             "-keyout", cls.world.directory / "new.key", "-out", cls.world.directory / "new.pem"])
        for end in ("key", "pem"):
            (cls.world.directory / f"new.{end}").replace(cls.world.directory / f"given.{end}")

    def port(self, listener):
        """Where this listener is."""
        line = self.bridge.wait_log(rf' listening listener="?{listener}"? ')
        return int(re.search(r"address=\S+:(\d+)", line).group(1))

    def context(self, certificate=None):
        """Trusts this certificate and nothing else, and checks the name."""
        return ssl.create_default_context(cafile=str(certificate or self.own))

    def arrives(self, subject, message):
        """It arrives as it was sent, and its Received field tells of TLS."""
        def look():
            return next((e for e in self.world.sandbox.inbox() if e["subject"] == subject), None)
        entry = wait_for(f"{subject!r} in the inbox", look, evidence=self.bridge.log)
        raw = self.world.sandbox.raw(entry)
        self.assertIn(b"with ESMTPS\r\n", split_received(raw)[0])
        self.assertEqual(difference_after_received(raw, message), "")

    def test_smtplib(self):
        """Python, which verifies the certificate of our own making, STARTTLS and implicit, TLS 1.2 and 1.3."""
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = self.context()
            context.minimum_version = context.maximum_version = version
            for kind in ("starttls", "implicit"):
                subject = f"smtplib {kind} {version.name}"
                message = head(subject) + b"\r\nencrypted\r\n"
                if kind == "starttls":
                    client = smtplib.SMTP("127.0.0.1", self.port("offered"), timeout=30)
                    client.starttls(context=context)
                else:
                    client = smtplib.SMTP_SSL("127.0.0.1", self.port("from_the_start"), timeout=30, context=context)
                with client:
                    client.sendmail(SENDER, RECIPIENTS, message)
                self.arrives(subject, message)

    def test_ssl_on_the_port_with_starttls(self):
        """A client that is set to SSL/TLS where STARTTLS is offered is served."""
        message = head("ssl on starttls") + b"\r\nencrypted\r\n"
        with smtplib.SMTP_SSL("127.0.0.1", self.port("offered"), timeout=30, context=self.context()) as client:
            client.sendmail(SENDER, RECIPIENTS, message)
        self.arrives("ssl on starttls", message)

    def test_curl(self):
        """curl, both ways."""
        for scheme, listener in (("smtp", "offered"), ("smtps", "from_the_start")):
            message = head(f"curl {scheme}") + b"\r\nencrypted\r\n"
            file = self.world.directory / "curl.eml"
            file.write_bytes(message)
            to = [word for recipient in RECIPIENTS for word in ("--mail-rcpt", recipient)]
            run(["curl", "--silent", "--show-error", "--ssl-reqd", "--cacert", self.own, "--mail-from", SENDER, *to,
                 "--url", f"{scheme}://127.0.0.1:{self.port(listener)}/client.test", "--upload-file", file])
            self.arrives(f"curl {scheme}", message)

    def test_swaks(self):
        """swaks, both ways."""
        for option, listener in (("--tls", "offered"), ("--tls-on-connect", "from_the_start")):
            message = head(f"swaks {option}") + b"\r\nencrypted"
            file = self.world.directory / "swaks.eml"
            file.write_bytes(message)
            run(["swaks", option, "--tls-verify", "--tls-ca-path", self.own, "--server", "127.0.0.1",
                 "--port", self.port(listener), "--ehlo", "client.test", "--from", SENDER,
                 "--to", ",".join(RECIPIENTS), "--data", f"@{file}", "--suppress-data", "--timeout", "30s"])
            self.arrives(f"swaks {option}", message + b"\r\n")

    def test_openssl(self):
        """openssl s_client finds nothing wrong with the certificate and name, and gets modern methods only."""
        shown = self.s_client("offered", "-starttls", "smtp", "-CAfile", self.own, "-verify_ip", "127.0.0.1")
        self.assertIn("Verify return code: 0 (ok)", shown)
        self.assertRegex(shown, r"New, TLSv1\.3, Cipher is TLS_")
        shown = self.s_client("from_the_start", "-tls1_2", "-CAfile", self.own, "-verify_hostname", "localhost")
        self.assertIn("Verify return code: 0 (ok)", shown)
        self.assertRegex(shown, r"Cipher is ECDHE-RSA-(AES\d+-GCM|CHACHA20)")

    def s_client(self, listener, *options):
        """What it prints."""
        done = subprocess.run(
            ["openssl", "s_client", "-connect", f"127.0.0.1:{self.port(listener)}", *map(str, options)],
            input=b"QUIT\r\n", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=30, check=False)
        return done.stdout.decode("utf-8", "replace")

    def test_old_versions(self):
        """TLS 1.0 and 1.1 are not spoken, and the log says what to do."""
        for n, version in enumerate(("-tls1", "-tls1_1")):
            shown = self.s_client("from_the_start", version, "-cipher", "ALL:@SECLEVEL=0")
            self.assertIn("Cipher is (NONE)", shown)
            self.bridge.wait_log(r" no TLS client=127\.0\.0\.1 .*knows only TLS 1\.0 or 1\.1", count=n + 1)

    def test_a_client_that_does_not_trust_us(self):
        """It leaves, and the log says why."""
        with self.assertRaises(ssl.SSLCertVerificationError):
            smtplib.SMTP_SSL("127.0.0.1", self.port("from_the_start"), timeout=30, context=ssl.create_default_context())
        self.bridge.wait_log(r" no TLS client=127\.0\.0\.1 .*does not trust the certificate: import")

    def test_a_certificate_is_replaced(self):
        """New files are taken while running; files that cannot be used change nothing and are told."""
        def served():
            with socket.create_connection(("127.0.0.1", self.port("given")), 30) as plain, \
                    ssl._create_unverified_context().wrap_socket(plain) as encrypted:
                return encrypted.getpeercert(True)

        def der():
            return ssl.PEM_cert_to_DER_cert(self.given.read_text())

        first = der()
        self.assertEqual(served(), first)
        self.make_certificate()
        self.bridge.wait_log(r" the certificate has changed and is now in use")
        self.assertNotEqual(der(), first)
        second = der()
        self.assertEqual(served(), second)
        self.given.write_text("not a certificate\n")
        self.bridge.wait_log(r"ERROR .*the new certificate cannot be used, the old one stays .*given\.pem")
        self.assertEqual(served(), second)
        self.make_certificate()
        self.bridge.wait_log(r" the certificate has changed and is now in use", count=2)
        self.assertEqual(served(), der())
        self.assertEqual(len(re.findall("the new certificate cannot be used", self.bridge.log())), 1)
