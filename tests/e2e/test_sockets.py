"""Sockets: those that systemd opens, Unix sockets, load balancers, and ports that somebody else has."""
import os
import smtplib
import socket
import subprocess
import unittest

from bridge import BINARY, OPEN, ROOT, Bridge, World, free_port, wait_for
from messages import RECIPIENTS, SENDER, difference_after_received, head
from smtp import split_received


class UnixSmtp(smtplib.SMTP):
    """smtplib through a Unix socket."""

    def _get_socket(self, host, port, timeout):
        stream = socket.socket(socket.AF_UNIX)
        stream.settimeout(timeout)
        stream.connect(host)
        return stream


class Activated(Bridge):
    """A bridge that is started as systemd does: with these sockets, from descriptor 3 on."""

    def __init__(self, config, sockets, names):
        command = 'LISTEN_PID=$$ exec "$@"'
        log = config.with_suffix(".log")
        self.log_file, self.start, self.port = log, 0, None
        variables = {"LISTEN_FDS": str(len(sockets)), "LISTEN_FDNAMES": ":".join(names)}

        def hand_over():
            copies = [os.dup(stream.fileno()) for stream in sockets]
            for number, copy in enumerate(copies):
                os.dup2(copy, 3 + number)

        with open(log, "ab") as stderr:
            self.child = subprocess.Popen(
                ["sh", "-c", command, "sh", BINARY, "--config", config, "run"], stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=stderr, env={**os.environ, **variables},
                preexec_fn=hand_over, pass_fds=range(3, 3 + len(sockets)))
        OPEN.append(self)
        self.wait_log(r" ready\b")


class BySystemd(Bridge):
    """A bridge that systemd-socket-activate starts when the first client connects, with these sockets."""

    def __init__(self, config, addresses, name):
        self.log_file, self.start, self.port = config.with_suffix(".log"), 0, None
        listen = [word for address in addresses for word in ("-l", str(address))]
        with open(self.log_file, "ab") as stderr:
            self.child = subprocess.Popen(
                ["systemd-socket-activate", *listen, f"--fdname={':'.join([name] * len(addresses))}",
                 BINARY, "--config", config, "run"],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr)
        OPEN.append(self)
        self.wait_log(rf"Listening on .*{addresses[-1]}")


class Sockets(unittest.TestCase):
    """One world for each test."""

    def setUp(self):
        self.world = World()
        self.addCleanup(self.world.close)
        self.path = self.world.directory / "smtp"

    def start(self, **options):
        """A bridge that is killed at the end."""
        bridge = self.world.start_bridge(**options)
        self.addCleanup(bridge.kill)
        return bridge

    def arrives(self, subject, message, bridge):
        """It arrives as it was sent; its Received field."""
        def look():
            return next((e for e in self.world.sandbox.inbox() if e["subject"] == subject), None)
        entry = wait_for(f"{subject!r} in the inbox", look, evidence=bridge.log)
        raw = self.world.sandbox.raw(entry)
        self.assertEqual(difference_after_received(raw, message), "")
        return split_received(raw)[0]

    def unix_listener(self, more=""):
        """A listener with a Unix socket."""
        return f'[[listener]]\nname = "here"\nbind = "unix:{self.path}"\n{more}\n'

    def test_a_unix_socket(self):
        """Mail comes through it; it goes away with the bridge, and one that a killed bridge left is replaced."""
        bridge = self.start(more=self.unix_listener('unix_mode = "660"'))
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o660)
        message = head("unix") + b"\r\nfrom here\r\n"
        with UnixSmtp(str(self.path), local_hostname="app.test", timeout=30) as client:
            client.sendmail(SENDER, RECIPIENTS, message)
        self.assertIn(b"from app.test (local)\r\n", self.arrives("unix", message, bridge))
        bridge.wait_log(r" accepted .*client=local ")
        self.assertEqual(bridge.stop(), 0)
        self.assertFalse(self.path.exists())

        self.start(more=self.unix_listener(), name="second.toml").kill()
        self.assertTrue(self.path.exists())
        self.start(more=self.unix_listener(), name="third.toml")
        with UnixSmtp(str(self.path), timeout=30) as client:
            client.noop()

    def test_sockets_of_systemd(self):
        """TCP and Unix sockets that were opened before; a socket that nobody asked for is named."""
        with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix, \
                socket.create_server(("127.0.0.1", 0)) as other:
            unix.bind(str(self.path))
            unix.listen()
            config = self.world.write_config(
                more='[[listener]]\nname = "activated"\nbind = "systemd:mail"\nallow = "127.0.0.0/8"\n')
            bridge = Activated(config, [tcp, unix, other], ["mail", "mail", "other"])
            self.addCleanup(bridge.kill)
            bridge.wait_log(r'WARN .*systemd opened this socket, but no listener .*name="?other')
            message = head("tcp") + b"\r\nactivated\r\n"
            with smtplib.SMTP("127.0.0.1", tcp.getsockname()[1], timeout=30) as client:
                client.sendmail(SENDER, RECIPIENTS, message)
            self.arrives("tcp", message, bridge)
            with UnixSmtp(str(self.path), timeout=30) as client:
                client.noop()
            self.assertEqual(bridge.stop(), 0)
            # They are systemd's: connections wait in them for the next start.
            self.assertTrue(self.path.exists())
            socket.create_connection(tcp.getsockname(), 30).close()

    def test_activation_by_systemd(self):
        """The first client is what starts the bridge, and is served; it comes through a Unix socket, the next by TCP."""
        port = free_port()
        config = self.world.write_config(
            more='[[listener]]\nname = "activated"\nbind = "systemd:mail"\nallow = "127.0.0.0/8"\n')
        bridge = BySystemd(config, [f"127.0.0.1:{port}", self.path], "mail")
        self.addCleanup(bridge.kill)
        self.assertNotIn(" ready", bridge.log())
        message = head("first") + b"\r\nit starts now\r\n"
        with UnixSmtp(str(self.path), local_hostname="app.test", timeout=30) as client:
            client.sendmail(SENDER, RECIPIENTS, message)
        self.arrives("first", message, bridge)
        message = head("second") + b"\r\nby TCP\r\n"
        with smtplib.SMTP("127.0.0.1", port, timeout=30) as client:
            client.sendmail(SENDER, RECIPIENTS, message)
        self.arrives("second", message, bridge)
        self.assertEqual(bridge.stop(), 0)

    def test_the_units_for_systemd(self):
        """systemd understands the units that we bring along; its words about other units of this machine are not ours."""
        directory = self.world.directory / "units"
        directory.mkdir()
        for unit in (ROOT / "systemd").iterdir():
            text = unit.read_text(encoding="utf-8").replace("/usr/bin/smtp-oauth-bridge", str(BINARY))
            (directory / unit.name).write_text(text, encoding="utf-8")
        units = sorted(map(str, directory.iterdir()))
        self.assertEqual(len(units), 2)
        done = subprocess.run(["systemd-analyze", "verify", "--man=no", *units], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, check=False)
        ours = [line for line in done.stdout.splitlines() if "smtp-oauth-bridge" in line]
        self.assertEqual(ours, [])
        self.assertEqual(done.returncode, 0, done.stdout)

    def test_a_socket_that_systemd_did_not_open(self):
        """The bridge does not start, and says what to do."""
        config = self.world.write_config(
            more='[[listener]]\nname = "activated"\nbind = "systemd:mail"\nallow = "127.0.0.0/8"\n')
        bridge = Bridge(config, wait=False)
        self.addCleanup(bridge.kill)
        self.assertNotEqual(bridge.wait(), 0)
        self.assertRegex(bridge.log(), r'no socket "mail" .* it opened none.*FileDescriptorName')

    def test_a_port_that_is_in_use(self):
        """The message names the program that has it."""
        bridge = self.start()
        config = self.world.write_config(port=bridge.port, name="second.toml")
        second = Bridge(config, wait=False)
        self.addCleanup(second.kill)
        self.assertNotEqual(second.wait(), 0)
        self.assertRegex(second.log(), rf"127\.0\.0\.1:{bridge.port} is already in use by \S+ \(process {bridge.child.pid}\)")

    def test_a_load_balancer(self):
        """A client behind a PROXY header; `allow` is about the client in it."""
        port = free_port()
        bridge = self.start(more=f'[[listener]]\nname = "balanced"\nbind = "127.0.0.1:{port}"\nallow = "127.0.0.9"\n'
                                 'proxy_protocol = "127.0.0.1"\n')
        message = head("balanced") + b"\r\nthrough a load balancer\r\n"
        with socket.create_connection(("127.0.0.1", port), 30) as stream:
            stream.sendall(b"PROXY TCP4 127.0.0.9 127.0.0.1 1234 25\r\n")
            client = smtplib.SMTP(timeout=30)
            client.sock, client.file = stream, stream.makefile("rb")
            client.getreply()
            client.sendmail(SENDER, RECIPIENTS, message)
            client.quit()
        self.assertIn(b"[127.0.0.9]", self.arrives("balanced", message, bridge))
        with socket.create_connection(("127.0.0.1", port), 30) as stream:
            stream.sendall(b"PROXY TCP4 192.0.2.1 127.0.0.1 1234 25\r\n")
            self.assertRegex(stream.recv(1000), rb"^554 5\.7\.1 192\.0\.2\.1 may not send mail")
        bridge.wait_log(r" refused client=192\.0\.2\.1 .*announced by 127\.0\.0\.1")
