#!/usr/bin/env python3
"""Judges outgoing messages with Python's email package: To, Cc and Bcc together must be the envelope.

usage: judge.py DIR      NAME.eml is a message as sent, NAME.rcpt its envelope, one address a line (UTF-8)

Needs Python 3.9 and nothing else. Says what is wrong and exits with 1 if anything is.
"""
import inspect
import pathlib
import re
import sys
from email import message_from_bytes, policy
from email.utils import getaddresses

RECIPIENT_FIELDS = ("to", "cc", "bcc")
FORBIDDEN_FIELDS = ("resent-to", "resent-cc", "resent-bcc", "apparently-to", "x-receiver")
LENIENT = {"strict": False} if "strict" in inspect.signature(getaddresses).parameters else {}


def fields(message):
    """All fields as (lower-case name, unfolded text), 8-bit octets read as UTF-8."""
    for name, value in message.raw_items():
        octets = str(value).encode("utf-8", "surrogateescape")
        yield name.lower(), re.sub(r"\r\n|\r|\n", "", octets.decode("utf-8", "replace"))


def key(address):
    """What makes two spellings one mailbox: the local part without needless quotes, ASCII in lower case."""
    local, at, domain = address.strip().rpartition("@")
    if local.startswith('"') and local.endswith('"') and len(local) > 1:
        local = re.sub(r"\\(.)", r"\1", local[1:-1])
    text = local + at + domain
    return "".join(c.lower() if c.isascii() else c for c in text)


def by_compat32(data):
    """The recipients as the old API reads them."""
    message = message_from_bytes(data, policy=policy.compat32)
    values = [value for name, value in fields(message) if name in RECIPIENT_FIELDS]
    return {key(address) for _, address in getaddresses(values, **LENIENT) if address}


def by_default(data):
    """The recipients as the new API reads them: groups, quoting and encoded words by the RFC."""
    message = message_from_bytes(data, policy=policy.default)
    found = set()
    for name, value in fields(message):
        if name in RECIPIENT_FIELDS:
            header = policy.default.header_factory(name, value)
            for address in header.addresses:
                local = '"%s"' % re.sub(r'(["\\])', r"\\\1", address.username)
                found.add(key(f"{local}@{address.domain}" if address.domain else local))
    return found


def judge(path):
    """What is wrong with one message."""
    data = path.read_bytes()
    lines = path.with_suffix(".rcpt").read_text(encoding="utf-8").splitlines()
    envelope = {key(line) for line in lines if line}
    for reader in (by_compat32, by_default):
        found = reader(data)
        if found != envelope:
            missing, extra = sorted(envelope - found), sorted(found - envelope)
            yield f"{reader.__name__}: missing {missing[:5]}, not in the envelope {extra[:5]}"
    for name, _ in fields(message_from_bytes(data, policy=policy.compat32)):
        if name in FORBIDDEN_FIELDS:
            yield f"has a {name} field"
    head = data.split(b"\r\n\r\n", 1)[0]
    for line in re.findall(rb"(?im)^(?:to|cc|bcc):.*(?:\r\n[ \t].*)*", head):
        if max(len(part) for part in line.split(b"\r\n")) > 998:
            yield "a line of more than 998 octets in a recipient field"


def main():
    paths = sorted(pathlib.Path(sys.argv[1]).glob("*.eml"))
    wrong = [f"{path.name}: {what}" for path in paths for what in judge(path)]
    print("\n".join(wrong + [f"{len(paths)} messages judged, {len(wrong)} complaints"]))
    return 1 if wrong or not paths else 0


if __name__ == "__main__":
    sys.exit(main())
