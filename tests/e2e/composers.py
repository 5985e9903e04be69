"""Programs that write their mails themselves: each as one call, "send something of this kind to this port"."""
import os
import pathlib
import sys

from clients import HERE, run
from messages import RECIPIENTS, SENDER, pdf

RECIPIENT = RECIPIENTS[0]
PROGRAMS = HERE.parent / "clients"
USER, PASSWORD = "scanner", "correct horse battery staple"
JARS = [pathlib.Path("/usr/share/java") / name for name in ("javax.mail.jar", "javax.activation.jar")]
UTF8_TEXT = "Grüße, 你好, €\n.\n"


def attachment(directory):
    """A file to attach."""
    file = pathlib.Path(directory) / "scan.pdf"
    file.write_bytes(pdf(100_000))
    return file


def java(port, kind, directory):
    """Java Mail."""
    run(["java", "-cp", ":".join(map(str, JARS)), "-Dfile.encoding=UTF-8", PROGRAMS / "Mail.java", port, kind, SENDER,
         RECIPIENT, attachment(directory)])


def dotnet(port, kind, directory):
    """.NET's System.Net.Mail, which logs in."""
    run([sys.executable, PROGRAMS / "system_net_mail.py", port, kind, SENDER, RECIPIENT, attachment(directory), USER,
         PASSWORD])


def php(port, kind, directory):
    """PHP's mail() with msmtp for sendmail."""
    config = pathlib.Path(directory) / "php-msmtprc"
    config.write_text(f"account default\nhost 127.0.0.1\nport {port}\ndomain client.test\nfrom {SENDER}\ntls off\nauth off\n")
    config.chmod(0o600)
    run(["php", "-n", "-d", f"sendmail_path=msmtp -C {config} -t", PROGRAMS / "mail.php", kind, SENDER, RECIPIENT,
         attachment(directory)])


def perl(port, kind, directory):
    """Perl's Net::SMTP."""
    run(["perl", PROGRAMS / "net-smtp.pl", port, kind, SENDER, RECIPIENT, attachment(directory)])


def git(port, kind, directory):
    """git send-email with a patch, as text or attached to the mail."""
    work = pathlib.Path(directory) / f"git-{kind}"
    work.mkdir()
    git_run = lambda *words: run(["git", "-c", "user.name=Änne Scanner", "-c", f"user.email={SENDER}", *words], cwd=work)
    git_run("init", "--quiet")
    git_run("commit", "--quiet", "--allow-empty", "-m", "first")
    (work / "file").write_text("plain\n.\n..\n" if kind == "text" else UTF8_TEXT)
    git_run("add", "file")
    git_run("commit", "--quiet", "-m", "text" if kind == "text" else f"Grüße, {kind}")
    git_run("format-patch", "-1", *(["--attach"] if kind == "attachment" else []), "--output=patch")
    git_run("send-email", "--smtp-server=127.0.0.1", f"--smtp-server-port={port}", "--smtp-domain=client.test",
            "--smtp-encryption=none", f"--from={SENDER}", f"--envelope-sender={SENDER}", f"--to={RECIPIENT}",
            "--suppress-cc=all", "--confirm=never", "--quiet", "patch")


def mailx(port, kind, directory):
    """s-nail, the mailx of Debian that speaks SMTP."""
    text = "Hello,\n.\n..\nplain text.\n" if kind == "text" else UTF8_TEXT
    attach = ["-a", attachment(directory)] if kind == "attachment" else []
    run(["s-nail", "-:/", "-S", "v15-compat", "-S", f"mta=smtp://127.0.0.1:{port}", "-S", "smtp-auth=none",
         "-S", "hostname=client.test", "-S", "ttycharset=utf-8",
         "-S", "sendcharsets=utf-8", "-S", f"from={SENDER}", "-r", SENDER, "-s", "text" if kind == "text" else f"Grüße, {kind}",
         *attach, RECIPIENT], text.encode(), env={**os.environ, "HOME": str(directory)})


COMPOSERS = {"java": java, "dotnet": dotnet, "php": php, "perl": perl, "git": git, "mailx": mailx}
KINDS = ("text", "utf8", "attachment")
WANTED = {"java": "default-jdk-headless", "php": "php-cli", "perl": "perl", "git": "git", "s-nail": "s-nail",
          "msmtp": "msmtp", "openssl": "openssl"}
"""The programs they need, and the packages that have them."""
