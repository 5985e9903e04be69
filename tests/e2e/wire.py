"""A wire between a client and the bridge that remembers what the client said on it."""
import re
import socket
import threading

from bridge import OPEN, closed


class Wire:
    """Listens on a port of its own and passes everything on to the bridge, and the answers back."""

    def __init__(self, port):
        self.target = port
        self.said = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()
        OPEN.append(self)

    def accept(self):
        """One connection after the other, each with what was said on it."""
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self.target))
            said = bytearray()
            self.said.append(said)
            threading.Thread(target=pump, args=(client, server, said), daemon=True).start()
            threading.Thread(target=pump, args=(server, client, bytearray()), daemon=True).start()

    def messages(self):
        """The envelope and the message of everything that was sent: [(sender, recipients, octets)]."""
        return [message for said in self.said for message in spoken(bytes(said))]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        closed(self)
        self.listener.close()


def pump(source, target, said):
    """Passes octets on, and remembers them before, until the source ends."""
    try:
        while octets := source.recv(65536):
            said += octets
            target.sendall(octets)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        # One side closed: the other shall see it too.
        for end in (source, target):
            end.close()


def spoken(said):
    """The messages in what a client said by DATA, the dots taken away (RFC 5321 §4.5.2)."""
    messages, sender, recipients = [], None, []
    while said:
        line, _, said = said.partition(b"\r\n")
        if match := re.match(rb"(?i)MAIL FROM: ?<([^>]*)>", line):
            sender, recipients = match.group(1).decode(), []
        elif match := re.match(rb"(?i)RCPT TO: ?<([^>]*)>", line):
            recipients.append(match.group(1).decode())
        elif line.upper() == b"DATA":
            text, found, said = (b"\r\n" + said).partition(b"\r\n.\r\n")
            if not found:
                raise AssertionError(f"no final dot: {text[-100:]!r}")
            messages.append((sender, recipients, re.sub(rb"\r\n\.", b"\r\n", text + b"\r\n")[2:]))
    return messages
