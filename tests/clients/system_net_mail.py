#!/usr/bin/env python3
"""Speaks exactly like SmtpClient of .NET (System.Net.Mail) with Credentials set, octet for octet.

system_net_mail.py PORT KIND FROM TO ATTACHMENT USER PASSWORD

What is special: `AUTH login` with the user in the same line and only the password after a 334, no AUTH without the word
LOGIN in the reply to EHLO, header names in lower-case in parts, `MAIL FROM:<…>` without parameters, and everything of a
message in one line ending of its own making.
"""
import base64
import pathlib
import socket
import sys

port, kind, sender, recipient, attachment, user, password = sys.argv[1:]
connection = socket.create_connection(("127.0.0.1", int(port)), 30)
replies = connection.makefile("rb")


def hear(code):
    """One reply, all its lines."""
    lines = []
    while True:
        line = replies.readline().decode()
        lines.append(line)
        if line[:3] != code:
            sys.exit(f"{code} was expected, not {lines}")
        if line[3:4] == " ":
            return "".join(lines)


def say(line, code):
    """A command and its reply."""
    connection.sendall(line.encode() + b"\r\n")
    return hear(code)


def encode(text):
    """Base64 of UTF-8."""
    return base64.b64encode(text.encode()).decode()


def lines(octets):
    """Base64 in lines of 76."""
    return base64.encodebytes(octets).decode().replace("\n", "\r\n")


head = (f"MIME-Version: 1.0\r\nFrom: {sender}\r\nTo: {recipient}\r\n"
        "Date: 21 Nov 2026 08:47:00 +0000\r\n")
text = "Grüße, 你好, €\r\n"
if kind == "text":
    message = head + ("Subject: text\r\nContent-Type: text/plain; charset=us-ascii\r\n"
                      "Content-Transfer-Encoding: quoted-printable\r\n\r\nHello,=0D=0A=2E=0D=0Aplain text.=0D=0A\r\n")
elif kind == "utf8":
    message = head + (f"Subject: =?utf-8?B?{encode('Grüße')}?=\r\nContent-Type: text/plain; charset=utf-8\r\n"
                      f"Content-Transfer-Encoding: base64\r\n\r\n{lines(text.encode())}")
else:
    boundary = "--boundary_0_5f0a3d7e-1c1b-4f0e-8a53-0c5b3a0e6d11"
    message = head + (
        f"Subject: =?utf-8?B?{encode('Grüße, attachment')}?=\r\nContent-Type: multipart/mixed;\r\n boundary={boundary}\r\n"
        f"\r\n\r\n--{boundary}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        f"{lines(text.encode())}--{boundary}\r\nContent-Type: application/octet-stream; name=scan.pdf\r\n"
        "Content-Transfer-Encoding: base64\r\nContent-Disposition: attachment\r\n\r\n"
        f"{lines(pathlib.Path(attachment).read_bytes())}--{boundary}--\r\n")

hear("220")
if "LOGIN" not in say("EHLO client", "250"):
    sys.exit("The SMTP server requires a secure connection or the client was not authenticated.")
say(f"AUTH login {encode(user)}", "334")
say(encode(password), "235")
say(f"MAIL FROM:<{sender}>", "250")
say(f"RCPT TO:<{recipient}>", "250")
say("DATA", "354")
connection.sendall(message.encode() + b"\r\n.\r\n")
hear("250")
say("QUIT", "221")
