"""Starts, stops and kills the bridge and the sandbox, and looks at what they did.

Everything runs on loopback, on ports of the system's choice, in a directory of its own. A test waits for facts that
can be seen (a log line, a message in the inbox) with a deadline; it never sleeps and hopes.
"""
import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = pathlib.Path(os.environ.get("BRIDGE", ROOT / "target" / "release" / "smtp-oauth-bridge"))
DEADLINE = 30.0
"""Seconds after which a fact that was waited for counts as missing; long, because CI machines are slow."""


def wait_for(what, look, deadline=DEADLINE, evidence=lambda: ""):
    """The first true value of `look()`. Raises with `what` and the evidence if it does not come in time."""
    end = time.monotonic() + deadline
    while True:
        value = look()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"waited {deadline:g} s for {what}\n{evidence()}")
        time.sleep(0.01)


class Process:
    """A running program, its standard error in a file that grows with every start."""

    def __init__(self, arguments, log, more_environment=None):
        self.log_file = pathlib.Path(log)
        self.start = self.log_file.stat().st_size if self.log_file.exists() else 0
        environment = {k: v for k, v in os.environ.items() if not k.startswith("SMTP_OAUTH_BRIDGE")}
        environment.update(more_environment or {})
        with open(self.log_file, "ab") as stderr:
            self.child = subprocess.Popen(
                [str(BINARY), *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=stderr, env=environment,
            )
        OPEN.append(self)

    def log(self):
        """What this process has logged since it was started."""
        with open(self.log_file, "rb") as file:
            file.seek(self.start)
            return file.read().decode("utf-8", "replace")

    def wait_log(self, pattern, deadline=DEADLINE, count=1):
        """The first line that matches, as soon as `count` lines do. Fails at once if the process has ended."""
        def look():
            ended = self.child.poll() is not None
            lines = [line for line in self.log().splitlines() if re.search(pattern, line)]
            if len(lines) >= count:
                return lines
            if ended:
                raise AssertionError(f"ended with {self.child.returncode} before {pattern!r}\n{self.log()}")
            return None
        return wait_for(f"a log line {pattern!r}", look, deadline, self.log)[0]

    def signal(self, number):
        """Sends a signal."""
        self.child.send_signal(number)

    def wait(self, deadline=DEADLINE):
        """The exit code."""
        try:
            code = self.child.wait(deadline)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {deadline:g} s\n{self.log()}") from None
        self.release()
        return code

    def stop(self, deadline=DEADLINE):
        """SIGTERM; the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait(deadline)

    def kill(self):
        """SIGKILL: what a power cut does to a process."""
        if self.child.poll() is None:
            self.child.kill()
        self.child.wait()
        self.release()

    def release(self):
        """Closes what is left of an ended process."""
        if self.child.stdout:
            self.child.stdout.close()
        closed(self)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()


OPEN = []
"""Everything that was started or made and has not ended, in order. unittest runs no clean-up after ctrl-c."""


def closed(thing):
    """It has ended."""
    if thing in OPEN:
        OPEN.remove(thing)


def close_all():
    """Ends whatever a test has left behind, the last first; the runner calls it whatever happens."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # who presses ctrl-c twice shall not leave servers behind
    while OPEN:
        OPEN.pop().__exit__(None, None, None)


class Sandbox(Process):
    """The Microsoft 365 look-alike in a process of its own, so that it outlives a killed bridge."""

    def __init__(self, directory, cloud_port=0):
        super().__init__(
            ["sandbox", "--directory", directory, "--cloud", f"127.0.0.1:{cloud_port}", "--inbox", "127.0.0.1:0"],
            pathlib.Path(directory).with_suffix(".log"),
        )
        self.facts = {}
        wanted = {"authority", "graph", "inbox", "ca_file", "tenant", "client_id", "client_secret", "mailbox"}
        while not wanted <= self.facts.keys():
            line = self.child.stdout.readline().decode()
            if not line:
                raise AssertionError(f"the sandbox ended before it said {wanted - self.facts.keys()}\n{self.log()}")
            key, separator, value = line.rstrip("\n").partition("=")
            if separator:
                self.facts[key.strip()] = value.strip()
        wait_for("the inbox", lambda: self.answers("GET", "/inbox"), evidence=self.log)

    def request(self, method, path, value=None):
        """The body of the answer of the inbox's HTTP server."""
        data = None if value is None else json.dumps(value).encode()
        request = urllib.request.Request(
            self.facts["inbox"] + path, data, {"Content-Type": "application/json"}, method=method)
        with DIRECT.open(request, timeout=DEADLINE) as answer:
            return answer.read()

    def answers(self, method, path):
        """True as soon as it does."""
        with contextlib.suppress(OSError):
            self.request(method, path)
            return True
        return False

    def inbox(self):
        """Everything that arrived, oldest first."""
        return json.loads(self.request("GET", "/inbox"))

    def raw(self, entry):
        """The octets that were posted."""
        return self.request("GET", f"/inbox/{entry['id']}/raw")

    def fault(self, where, times, **what):
        """Adds a rule: `what` goes wrong `times` times (or "forever") at "token" or "sendMail"."""
        self.request("POST", "/faults", {"where": where, "times": times, "what": what})

    def faults_end(self):
        """Forgets all rules."""
        self.request("DELETE", "/faults")

    def tenant(self, **changes):
        """Changes the tenant: its secret, its limits."""
        self.request("PATCH", "/tenant", changes)

    def requests(self, ending=""):
        """The requests to Entra and Graph whose path ends so."""
        return [r for r in json.loads(self.request("GET", "/requests")) if r["path"].endswith(ending)]

    def wait_inbox(self, count, deadline=DEADLINE, evidence=lambda: ""):
        """The inbox, as soon as it has `count` messages."""
        def look():
            entries = self.inbox()
            return entries if len(entries) >= count else None
        return wait_for(f"{count} messages in the inbox", look, deadline, evidence)


DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Asks loopback servers without any proxy of this machine's environment."""


class Bridge(Process):
    """The daemon. `port` is where it takes SMTP."""

    def __init__(self, config, wait=True, more_environment=None):
        super().__init__(["--config", config, "run"], pathlib.Path(config).with_suffix(".log"), more_environment)
        if wait:
            self.wait_log(r" ready\b")
            line = self.wait_log(r" listening .*address=[\[\d]")
            self.port = int(re.search(r"address=\S+:(\d+)", line).group(1))


class World:
    """A directory with a sandbox and the configuration of a bridge for it."""

    def __init__(self, sandbox=True):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="bridge-e2e-"))
        self.directory.chmod(0o755)
        self.state_dir = self.directory / "state"
        self.config = self.directory / "bridge.toml"
        OPEN.append(self)
        self.sandbox = self.start_sandbox() if sandbox else None

    def start_sandbox(self, cloud_port=0):
        """Starts the sandbox, again with the certificates of the first time."""
        return Sandbox(self.directory / "sandbox", cloud_port)

    def write_config(self, facts=None, port=0, secret=None, delivery="", more="", listener="",
                     account="", name="bridge.toml"):
        """A small configuration as in the README, with short waits; the path of it."""
        facts = facts or self.sandbox.facts
        secret_file = self.directory / "secret"
        secret_file.touch(mode=0o600)
        secret_file.write_text(secret or facts["client_secret"])
        path = self.directory / name
        path.write_text(f"""\
hostname = "bridge.test"
state_dir = "{self.state_dir}"
{more}
[[listener]]
bind = ["127.0.0.1:{port}"]
{listener}

[account.demo]
tenant = "{facts['tenant']}"
client_id = "{facts['client_id']}"
client_secret = {{ file = "{secret_file}" }}
mailbox = "{facts['mailbox']}"
{account}

[account.demo.endpoints]
authority = "{facts['authority']}"
graph = "{facts['graph']}"

[tls]
extra_ca_file = "{facts['ca_file']}"

[delivery]
retry = ["1s"]
uncertain_wait = "1s"
{delivery}
""")
        return path

    def start_bridge(self, **options):
        """Writes the configuration and starts the daemon with it."""
        return Bridge(self.write_config(**options))

    def bodies(self):
        """What lies in the spool as files of their own."""
        return [path for path in (self.state_dir / "spool" / "body").rglob("*") if path.is_file()]

    def wait_empty(self, bridge, count):
        """Waits until the bridge has released `count` messages in all its runs, then for the last file to go."""
        def released():
            return len(re.findall(r" released id=", bridge.log_file.read_text(errors="replace"))) >= count
        wait_for(f"{count} releases", released, evidence=bridge.log)
        wait_for("an empty spool", lambda: not self.bodies(), evidence=lambda: str(self.bodies()))

    def close(self):
        """Removes everything, unless it shall be looked at (KEEP=1)."""
        closed(self)
        if self.sandbox:
            self.sandbox.kill()
        if os.environ.get("KEEP"):
            print(f"kept: {self.directory}")
        else:
            shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def free_port():
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
