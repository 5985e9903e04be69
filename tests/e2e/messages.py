"""The messages that every client sends: complete (Date, Message-ID, MIME-Version), so that no client adds anything."""
import base64
import pathlib
import random
import subprocess

from smtp import difference, split_received

SENDER = "scanner@fabrikam.example"
RECIPIENTS = ("ann@example.org", "ben@example.net")


def head(name, content_type="text/plain; charset=us-ascii", encoding="7bit"):
    """A header that names exactly the envelope; CRLF, without the empty line."""
    return (
        f"From: Scanner <{SENDER}>\r\n"
        f"To: Ann <{RECIPIENTS[0]}>\r\n"
        f"Cc: {RECIPIENTS[1]}\r\n"
        f"Subject: {name}\r\n"
        "Date: Sat, 21 Nov 2026 08:47:00 +0000\r\n"
        f"Message-ID: <{name}@client.test>\r\n"
        "MIME-Version: 1.0\r\n"
        f"Content-Type: {content_type}\r\n"
        f"Content-Transfer-Encoding: {encoding}\r\n"
    ).encode("ascii")


def base64_lines(data):
    """Base64 in lines of 76 characters with CRLF."""
    return base64.encodebytes(data).replace(b"\n", b"\r\n")


def pdf(size):
    """A valid PDF of one empty page, padded with a stream of random octets (which nothing can compress) to `size`."""
    noise = random.Random(size)
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] >>",
    ]
    padding = noise.getrandbits(8 * (size - 800)).to_bytes(size - 800, "big")
    objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(padding), padding))
    out, offsets = b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n", []
    for number, text in enumerate(objects, 1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, text)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n%s" % (len(objects) + 1, table)
    out += b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF" % (len(objects) + 1, start)
    return out + b"\n" * (size - len(out))


def multipart(name, kind, *parts):
    """A message of several parts, each header and body."""
    boundary = f"=_{name}_boundary"
    out = head(name, f'multipart/{kind}; boundary="{boundary}"') + b"\r\n"
    for part in parts:
        out += b"--" + boundary.encode() + b"\r\n" + part + b"\r\n"
    return out + b"--" + boundary.encode() + b"--\r\n"


def html_with_inline_image():
    """HTML that shows an image which comes with it."""
    pixel = base64.b64decode(
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")
    return multipart(
        "html_inline_image", "related",
        b"Content-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
        b"<p>Gr=C3=BC=C3=9Fe</p><img src=3D\"cid:pixel@client.test\" alt=3D\"\">\r\n",
        b"Content-Type: image/png\r\nContent-ID: <pixel@client.test>\r\nContent-Disposition: inline\r\n"
        b"Content-Transfer-Encoding: base64\r\n\r\n" + base64_lines(pixel),
    )


def pdf_2mb():
    """What a scanner sends."""
    return multipart(
        "pdf_2mb", "mixed",
        b"Content-Type: text/plain\r\n\r\nThe scan is attached.\r\n",
        b"Content-Type: application/pdf; name=\"scan.pdf\"\r\nContent-Transfer-Encoding: base64\r\n"
        b"Content-Disposition: attachment; filename=\"scan.pdf\"\r\n\r\n" + base64_lines(pdf(2_000_000)),
    )


def dots():
    """Every line that dot-stuffing could spoil."""
    lines = [".", "..", "...", ".a", "..a", "a.", " .", "", ".", "", ". ", ".. .", "end"]
    return head("dots") + b"\r\n" + "\r\n".join(lines).encode() + b"\r\n.\r\n..\r\n"


def line_of(length):
    """A line without blanks, so that nobody finds a place to break it."""
    return head(f"line_of_{length}") + b"\r\nbefore\r\n" + b"x" * (length - 1) + b"y\r\nafter\r\n"


def smime(directory):
    """A message signed by openssl with a key of its own; `smime.pem` in `directory` verifies it."""
    directory = pathlib.Path(directory)
    key, certificate = directory / "smime.key", directory / "smime.pem"
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=Scanner",
            "-addext", f"subjectAltName=email:{SENDER}", "-keyout", key, "-out", certificate)
    text = b"Content-Type: text/plain; charset=us-ascii\r\n\r\nSigned, and dots follow:\r\n.\r\n..\r\nend\r\n"
    signed = openssl("cms", "-sign", "-signer", certificate, "-inkey", key, "-binary", "-crlfeol", stdin=text)
    lines = signed.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    fields = head("smime_signed").split(b"MIME-Version:")[0]
    return fields + lines


def verify_smime(raw, directory):
    """Raises if the signature of a message does not hold."""
    openssl("cms", "-verify", "-CAfile", pathlib.Path(directory) / "smime.pem", "-purpose", "any", "-binary",
            "-crlfeol", stdin=raw)


def openssl(*arguments, stdin=b""):
    """Runs openssl; its standard output."""
    done = subprocess.run(["openssl", *map(str, arguments)], input=stdin, capture_output=True, check=False)
    if done.returncode:
        raise AssertionError(f"openssl {arguments[0]} {arguments[1]}: {done.stderr.decode()}")
    return done.stdout


MESSAGES = {
    "plain": lambda _: head("plain") + b"\r\nHello,\r\n\r\nplain text.\r\n",
    "html_inline_image": lambda _: html_with_inline_image(),
    "pdf_2mb": lambda _: pdf_2mb(),
    "utf8_8bit": lambda _: head("utf8_8bit", "text/plain; charset=utf-8", "8bit")
    + "\r\nGrüße, 你好, €\r\n".encode("utf-8"),
    "latin1_8bit": lambda _: head("latin1_8bit", "text/plain; charset=iso-8859-1", "8bit")
    + "\r\nGrüße, déjà vu\r\n".encode("latin-1"),
    "dots": lambda _: dots(),
    "line_of_998": lambda _: line_of(998),
    "line_of_5000": lambda _: line_of(5000),
    "smime_signed": smime,
}
"""Name and maker of each; the maker is given a directory for keys."""


def difference_after_received(raw, message):
    """Where a message that arrived differs from what was sent, our Received aside; empty if it does not."""
    return difference(split_received(raw)[1], message)
