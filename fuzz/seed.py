#!/usr/bin/env python3
"""Makes seeds of the corpora from tests/dialogs: what the clients there say. Run it again after adding a dialog."""
import pathlib
import re

here = pathlib.Path(__file__).parent
escapes = {"r": b"\r", "n": b"\n", "t": b"\t", "s": b" ", "\\": b"\\"}
lines = set()


def octets(text):
    """A text of a dialog as octets."""
    out, at = b"", 0
    for found in re.finditer(r"\\(x[0-9a-fA-F]{2}|.)", text):
        out += text[at : found.start()].encode()
        code = found[1]
        out += bytes.fromhex(code[1:]) if code[0] == "x" and len(code) == 3 else escapes[code]
        at = found.end()
    return out + text[at:].encode()


def write(target, name, content):
    folder = here / "corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)


# Their numbers change with every new dialog.
for old in (here / "corpus/command").glob("*-[0-9]*"):
    old.unlink()

for dialog in sorted((here.parent / "tests/dialogs").glob("*.txt")):
    text = dialog.read_text()
    said = b""
    for line in text.splitlines():
        if line == "C:" or line.startswith("C: "):
            said += octets(line[3:]) + b"\r\n"
        elif line.startswith("C> "):
            said += octets(line[3:])
        elif found := re.match(r"C\* (\d+) (.*)", line):
            said += octets(found[2]) * min(int(found[1]), 3)
    # The settings of the listener are bits, see checks/mod.rs.
    bits = 0 if "lenient no" in text else 1
    for mode, bit in (("optional", 2), ("required", 4), ("any", 6)):
        bits |= bit if f"auth {mode}" in text else 0
    bits |= 8 if "tls starttls" in text else 0
    settings = bytes([0x40 | bits])
    if said.startswith((b"PROXY", b"\r\n\r\n\0")):
        write("proxy", dialog.stem, said[:300])
        continue
    if said and len(said) < 3000:
        write("session", dialog.stem, settings + b"A" + said)
    body = re.search(rb"DATA *\r\n(.*?)\r\n\.\r\n", said, re.S | re.I)
    if body and len(body[1]) < 1000:
        write("data", dialog.stem, b"A" + body[1])
    for line in said.split(b"\n"):
        verb = line.split(b" ")[0].upper().strip()
        if verb in b"HELO EHLO MAIL RCPT DATA RSET NOOP QUIT VRFY EXPN HELP STARTTLS AUTH BDAT GET".split() and len(line) < 300:
            key = re.sub(rb"[a-z0-9]+", b"a", line.lower())
            if key not in lines:
                lines.add(key)
                write("command", f"{verb.decode().lower()}-{len(lines)}", settings + line.strip(b"\r"))
