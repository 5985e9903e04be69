"""A client that sends exactly the octets it is given, and tells exactly what it was answered.

smtplib rewrites addresses and line ends; tests of envelope, trouble and kill -9 must not depend on that.
"""
import re
import socket


class Refused(Exception):
    """The server did not say what was needed."""


class Session:
    """One connection, after EHLO."""

    def __init__(self, port, timeout=30.0):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.socket.makefile("rb")
        self.expect("2", self.reply())
        self.command("EHLO client.test")

    def reply(self):
        """One reply, all its lines. ConnectionError if there is none."""
        lines = []
        while True:
            line = self.file.readline().decode("utf-8", "replace")
            if not line.endswith("\n"):
                raise ConnectionError("the connection ended instead of a reply")
            lines.append(line.rstrip("\r\n"))
            if line[3:4] != "-":
                return "\n".join(lines)

    @staticmethod
    def expect(first_digit, reply):
        """The reply, if it begins so."""
        if not reply.startswith(first_digit):
            raise Refused(reply)
        return reply

    def command(self, line, first_digit="2"):
        """Sends a line and reads its reply."""
        self.socket.sendall(line.encode("utf-8") + b"\r\n")
        return self.expect(first_digit, self.reply())

    def envelope(self, sender, recipients):
        """MAIL, RCPT and DATA, until the server waits for the message."""
        self.command(f"MAIL FROM:<{sender}>")
        for recipient in recipients:
            self.command(f"RCPT TO:<{recipient}>")
        self.command("DATA", "3")

    def send(self, sender, recipients, message):
        """A whole message; the reply to its final dot."""
        self.envelope(sender, recipients)
        self.socket.sendall(on_the_wire(message))
        return self.expect("2", self.reply())

    def close(self):
        """Ends the connection without a word."""
        self.file.close()
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def on_the_wire(message):
    """The message with dots doubled at the start of lines (RFC 5321 §4.5.2) and the final dot."""
    stuffed = re.sub(rb"(\A|\r\n)\.", rb"\1..", message)
    return stuffed + (b"" if stuffed.endswith(b"\r\n") else b"\r\n") + b".\r\n"


def send(port, sender, recipients, message):
    """Sends one message on a connection of its own; the reply to its final dot."""
    with Session(port) as session:
        reply = session.send(sender, recipients, message)
        session.command("QUIT")
        return reply


def split_received(raw):
    """The first field, which must be our Received, and everything behind it."""
    match = re.match(rb"Received: from [^\r\n]*(?:\r\n[ \t][^\r\n]*)*\r\n", raw)
    if not match:
        raise AssertionError(f"no Received field on top: {raw[:200]!r}")
    return match.group(), raw[match.end():]


def split_received_anywhere(raw):
    """Our Received and the message without it: fields that were made anew (To, Cc, Bcc) may stand above it."""
    match = re.search(rb"(?m)^Received: from [^\r\n]*(?:\r\n[ \t][^\r\n]*)*\r\n", raw)
    if not match:
        raise AssertionError(f"no Received field: {raw[:200]!r}")
    return match.group(), raw[:match.start()] + raw[match.end():]


def difference(got, wanted):
    """Where two messages begin to differ, for people; empty if they are equal."""
    if got == wanted:
        return ""
    at = next((n for n, (a, b) in enumerate(zip(got, wanted)) if a != b), min(len(got), len(wanted)))
    return (f"{len(got)} octets instead of {len(wanted)}, different from octet {at}:\n"
            f"  got    …{got[max(0, at - 40):at + 40]!r}\n  wanted …{wanted[max(0, at - 40):at + 40]!r}")
