"""Alerts: administrators are told once when mail stops, and once when it flows again, whatever else goes wrong."""
import http.server
import json
import threading
import unittest

import smtp
from bridge import World, wait_for
from messages import RECIPIENTS, SENDER, head

MESSAGE = head("alert") + b"\r\nWaits until the secret is right.\r\n"
WRONG = "Wr0~ng-secret-of.tests"


class Webhook:
    """An HTTP server that remembers what is posted to it; it can be told to hang, or to answer something else."""

    def __init__(self):
        self.posted, self.status, self.hangs = [], 202, threading.Event()
        self.asked, self.released = 0, threading.Event()
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):  # noqa: N802  (the name that http.server wants)
                body = self.rfile.read(int(self.headers["Content-Length"]))
                owner.asked += 1
                if owner.hangs.is_set():
                    owner.released.wait(120)
                    return
                if owner.status < 300:
                    owner.posted.append(json.loads(body))
                self.send_response(owner.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook/T0KEN"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def events(self):
        """What was told, as (event, name)."""
        return [(alert["event"], alert["name"]) for alert in self.posted]

    def close(self):
        """Ends it, and whoever hangs."""
        self.released.set()
        self.server.shutdown()
        self.server.server_close()


BEGUN = ("alert", "account broken: demo")
OVER = ("all_clear", "account broken: demo")


class Alerts(unittest.TestCase):
    """Each test has a sandbox, a webhook and a bridge of its own."""

    def setUp(self):
        self.world = World()
        self.addCleanup(self.world.close)
        self.webhook = Webhook()
        self.addCleanup(self.webhook.close)

    def start(self, report="", **options):
        """The bridge, stopped at the end of the test."""
        report = report or f'webhook = "{self.webhook.url}"'
        bridge = self.world.start_bridge(more=f"[report]\n{report}\n", **options)
        self.addCleanup(bridge.kill)
        return bridge

    def send(self, bridge):
        """Sends the message: the bridge must take it, whatever is wrong behind it."""
        self.assertTrue(smtp.send(bridge.port, SENDER, RECIPIENTS, MESSAGE).startswith("250"))

    def wait_events(self, bridge, expected, deadline=30):
        """Waits until that was told, and nothing else."""
        wait_for(f"{expected}", lambda: len(self.webhook.events()) >= len(expected), deadline,
                 lambda: f"{self.webhook.events()}\n{bridge.log()}")
        self.assertEqual(self.webhook.events(), expected, bridge.log())

    def break_the_account(self):
        """The tenant has another secret from now on."""
        self.world.sandbox.tenant(client_secret=WRONG)

    def mend_the_account(self):
        """It has the old one again."""
        self.world.sandbox.tenant(client_secret=self.world.sandbox.facts["client_secret"])

    def test_a_broken_account_is_told_once_and_its_end_once(self):
        """Also over kill -9: what was told stays told."""
        self.break_the_account()
        bridge = self.start()
        self.send(bridge)
        self.wait_events(bridge, [BEGUN])
        alert = self.webhook.posted[0]
        self.assertEqual((alert["kind"], alert["account"]), ("account_broken", "demo"))
        self.assertIn("AADSTS7000215", alert["detail"])
        bridge.wait_log(r" alert name=.*way=\"?webhook")

        bridge.kill()
        bridge = self.start()
        bridge.wait_log(r" account broken")
        self.send(bridge)
        # Two more probes find it broken: enough time for a second alert, if there were one.
        asked = len(self.world.sandbox.requests("/token"))
        wait_for("two probes", lambda: len(self.world.sandbox.requests("/token")) >= asked + 2, evidence=bridge.log)
        self.assertEqual(self.webhook.events(), [BEGUN])

        self.mend_the_account()
        bridge.wait_log(r" released id=", count=2)
        self.wait_events(bridge, [BEGUN, OVER])
        bridge.wait_log(r" all-clear name=")
        bridge.kill()
        bridge = self.start()
        self.send(bridge)
        bridge.wait_log(r" released id=")
        self.assertEqual(self.webhook.events(), [BEGUN, OVER])
        for secret in (WRONG, self.world.sandbox.facts["client_secret"]):
            self.assertNotIn(secret, json.dumps(self.webhook.posted))
        self.assertNotIn("T0KEN", bridge.log_file.read_text())

    def test_a_webhook_that_was_away_gets_what_it_missed(self):
        """An error is not the end of it; nothing is told of what is over before it could be told."""
        self.webhook.status = 503
        self.break_the_account()
        bridge = self.start()
        self.send(bridge)
        line = bridge.wait_log(r" an alert could not be sent")
        self.assertNotIn("T0KEN", line)
        self.webhook.status = 202
        self.wait_events(bridge, [BEGUN])

    def test_a_webhook_that_hangs_delays_no_mail(self):
        """Mail goes on while an alert waits for an answer, and the command gets its alert in that time."""
        out = self.world.directory / "alerts"
        script = self.world.directory / "alert"
        script.write_text(f'#!/bin/sh\ncat >> "{out}"\necho "$ALERT_EVENT $1" >> "{out}.events"\n')
        script.chmod(0o755)
        self.webhook.hangs.set()
        self.break_the_account()
        bridge = self.start(f'webhook = "{self.webhook.url}"\nalert_command = ["{script}", "it"]')
        self.send(bridge)
        wait_for("an alert on its way", lambda: self.webhook.asked, evidence=bridge.log)
        self.mend_the_account()
        bridge.wait_log(r" released id=", deadline=10)
        self.send(bridge)
        bridge.wait_log(r" released id=", deadline=5, count=2)
        self.assertEqual(self.webhook.asked, 1, "the mail went while the first alert hung")

        events = self.world.directory / "alerts.events"
        wait_for("the all-clear", lambda: events.exists() and "all_clear" in events.read_text(), evidence=bridge.log)
        self.assertEqual(events.read_text(), "alert it\nall_clear it\n")
        told = [json.loads(line) for line in out.read_text().splitlines()]
        self.assertEqual([(t["event"], t["name"]) for t in told], [BEGUN, OVER])
        # It stops at once, too.
        self.assertEqual(bridge.stop(10), 0)

    def test_the_only_account_does_not_carry_its_own_alert(self):
        """The log says so, and nothing is queued."""
        self.break_the_account()
        bridge = self.start('admin = "it@contoso.example"')
        self.send(bridge)
        bridge.wait_log(r" an alert cannot be told this way .*no other account that is well")
        self.mend_the_account()
        bridge.wait_log(r" released id=")
        self.assertEqual(len(self.world.sandbox.inbox()), 1)

    def test_an_old_queue_is_told_by_mail_through_an_account_that_is_well(self):
        """What is no account's trouble goes by mail, and so does its end."""
        sandbox = self.world.sandbox
        sandbox.fault("sendMail", "forever", kind="status", status=503, code="ErrorServerBusy", message="Busy.")
        bridge = self.start('admin = "it@contoso.example"\nqueue_alert = "1s"')
        self.send(bridge)
        bridge.wait_log(r' alert name="mail is late" way="?mail')
        sandbox.faults_end()
        bridge.wait_log(r' all-clear name="mail is late" way="?mail', deadline=60)
        entries = sandbox.wait_inbox(3, evidence=bridge.log)
        letters = [e for e in entries if [r["address"] for r in e["recipients"]] == ["it@contoso.example"]]
        texts = [sandbox.raw(e).decode() for e in letters]
        self.assertEqual(len(texts), 2)
        for title, text in zip(("Alert", "Over"), sorted(texts, key=lambda t: "Subject: Over" in t)):
            self.assertIn(f"Subject: {title}: mail is late (bridge.test)", text)
            self.assertIn("Auto-Submitted: auto-generated", text)


if __name__ == "__main__":
    unittest.main()
