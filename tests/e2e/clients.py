"""Six clients that people really use, each as one call: hand this message to the SMTP server at this port.

Every client gets the message as CRLF octets and must put exactly these on the wire. `REWRAPS` names the messages
that a client changes by itself, with the reason.
"""
import json
import os
import pathlib
import smtplib
import subprocess
import tempfile

from bridge import OPEN, closed

HERE = pathlib.Path(__file__).resolve().parent
TIMEOUT = 60
AS_ROOT = [] if os.geteuid() == 0 else ["sudo", "-n"]
"""Postfix is started by root, and gives its rights away."""


def run(arguments, stdin=b"", env=None, **options):
    """Runs a client; AssertionError with its words if it reports a failure."""
    environment = {k: v for k, v in (env or os.environ).items() if not k.lower().endswith("_proxy")}
    done = subprocess.run(list(map(str, arguments)), input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          timeout=TIMEOUT, check=False, env=environment, **options)
    if done.returncode:
        raise AssertionError(f"{arguments[0]} exits with {done.returncode}:\n{done.stdout.decode('utf-8', 'replace')[-2000:]}")
    return done.stdout


def curl(port, sender, recipients, message, directory):
    """curl uploads a file."""
    file = pathlib.Path(directory) / "curl.eml"
    file.write_bytes(message)
    to = [word for recipient in recipients for word in ("--mail-rcpt", recipient)]
    run(["curl", "--silent", "--show-error", "--url", f"smtp://127.0.0.1:{port}/client.test", "--mail-from", sender,
         *to, "--upload-file", file])


def swaks(port, sender, recipients, message, directory):
    """swaks reads a file, does the dots, and adds a line end, which the file therefore must not have."""
    file = pathlib.Path(directory) / "swaks.eml"
    file.write_bytes(message[:-2] if message.endswith(b"\r\n") else message)
    run(["swaks", "--server", "127.0.0.1", "--port", port, "--ehlo", "client.test", "--from", sender,
         "--to", ",".join(recipients), "--data", f"@{file}", "--suppress-data", "--timeout", "30s"])


def msmtp(port, sender, recipients, message, directory):
    """msmtp reads local line ends from standard input, as /usr/sbin/sendmail does."""
    config = pathlib.Path(directory) / "msmtprc"
    config.write_text(f"account default\nhost 127.0.0.1\nport {port}\ndomain client.test\nfrom {sender}\n"
                      "tls off\nauth off\nset_date_header off\nset_from_header off\n")
    config.chmod(0o600)
    run(["msmtp", "-C", config, "--", *recipients], message.replace(b"\r\n", b"\n"))


def python_smtplib(port, sender, recipients, message, _directory):
    """Python's own."""
    with smtplib.SMTP("127.0.0.1", port, local_hostname="client.test", timeout=TIMEOUT) as client:
        refused = client.sendmail(sender, list(recipients), message, mail_options=["BODY=8BITMIME"])
    if refused:
        raise AssertionError(refused)


def nodemailer(port, sender, recipients, message, directory):
    """nodemailer with a raw message (tests/clients, `npm ci`)."""
    file = pathlib.Path(directory) / "nodemailer.eml"
    file.write_bytes(message)
    run(["node", HERE.parent / "clients" / "send.js"],
        json.dumps({"port": port, "from": sender, "to": list(recipients), "file": str(file)}).encode())


class Postfix:
    """A Postfix of its own beside the machine's: relayhost is the bridge, queue and configuration in a directory."""

    def __init__(self, port):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="bridge-postfix-"))
        self.started = False
        self.directory.chmod(0o755)
        OPEN.append(self)
        for name in ("etc", "queue", "data"):
            (self.directory / name).mkdir()
        etc = self.directory / "etc"
        daemons = run(["postconf", "-d", "-h", "daemon_directory"]).decode().strip()
        (etc / "main.cf").write_text(MAIN_CF.format(directory=self.directory, port=port, daemons=daemons))
        (etc / "master.cf").write_text(MASTER_CF)
        run([*AS_ROOT, "chown", "-R", "root", etc, self.directory / "queue"])
        run([*AS_ROOT, "chown", "postfix", self.directory / "data"])

    def __enter__(self):
        try:
            self.started = True
            self.control("start")
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()

    def control(self, what):
        """Starts or stops this instance."""
        run([*AS_ROOT, "postfix", "-c", self.directory / "etc", what])

    def stop(self):
        """Stops this instance, whatever it is doing, and forgets its queue."""
        closed(self)
        try:
            if self.started:
                self.control("stop")
        finally:
            self.started = False
            run([*AS_ROOT, "rm", "-rf", "--", self.directory])

    def send(self, _port, sender, recipients, message, _directory):
        """Hands a message to the instance's sendmail, which relays it to the bridge."""
        run([*AS_ROOT, "sendmail", "-C", self.directory / "etc", "-i", "-f", sender, "--", *recipients],
            message.replace(b"\r\n", b"\n"))

    def log(self):
        """What it has logged."""
        file = self.directory / "log"
        return file.read_text(errors="replace") if file.exists() else ""


MAIN_CF = """\
compatibility_level = 3.6
queue_directory = {directory}/queue
data_directory = {directory}/data
daemon_directory = {daemons}
maillog_file_prefixes = {directory}
maillog_file = {directory}/log
myhostname = client.test
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = loopback-only
inet_protocols = ipv4
alias_maps =
alias_database =
local_transport = error:no local mail
relayhost = [127.0.0.1]:{port}
disable_dns_lookups = yes
smtp_tls_security_level = none
message_size_limit = 20000000
mailbox_size_limit = 0
"""
MASTER_CF = """\
pickup    unix  n - n 60 1 pickup
cleanup   unix  n - n -  0 cleanup
qmgr      unix  n - n 300 1 qmgr
rewrite   unix  - - n -  - trivial-rewrite
bounce    unix  - - n -  0 bounce
defer     unix  - - n -  0 bounce
trace     unix  - - n -  0 bounce
smtp      unix  - - n -  - smtp
relay     unix  - - n -  - smtp
showq     unix  n - n -  - showq
error     unix  - - n -  - error
retry     unix  - - n -  - error
proxymap  unix  - - n -  - proxymap
scache    unix  - - n -  1 scache
postlog   unix-dgram n - n - 1 postlogd
"""

CLIENTS = {
    "curl": curl,
    "swaks": swaks,
    "msmtp": msmtp,
    "smtplib": python_smtplib,
    "nodemailer": nodemailer,
    "postfix": None,  # needs an instance; test_clients.py starts one
}
REWRAPS = {
    ("postfix", "line_of_5000"): "breaks lines of more than smtp_line_length_limit (998) octets",
}
