"""Upstream trouble: the message stays, the log says what to do, and it goes out when the trouble ends.

Exactly once, except where nobody can know whether it went (ARCHITECTURE.md, "Dispositions").
"""
import datetime
import re
import unittest

import smtp
from bridge import Bridge, World, free_port
from messages import RECIPIENTS, SENDER, difference_after_received, head

MESSAGE = head("trouble") + b"\r\nStay until you can go.\r\n"


class Trouble(unittest.TestCase):
    """Each test has a sandbox and a bridge of its own."""

    def setUp(self):
        self.world = World()
        self.addCleanup(self.world.close)

    def start(self, **options):
        """The bridge, stopped at the end of the test."""
        bridge = self.world.start_bridge(**options)
        self.addCleanup(bridge.kill)
        return bridge

    def send(self, bridge):
        """Sends the message: the bridge must take it, whatever is wrong behind it."""
        self.assertTrue(smtp.send(bridge.port, SENDER, RECIPIENTS, MESSAGE).startswith("250"))

    def arrives(self, bridge, times=1):
        """Waits until the bridge is done with it; then it is in the inbox `times` times, octet for octet."""
        bridge.wait_log(r" released id=", deadline=60)
        entries = self.world.sandbox.inbox()
        self.assertEqual(len(entries), times, bridge.log())
        for entry in entries:
            self.assertEqual(difference_after_received(self.world.sandbox.raw(entry), MESSAGE), "")
            self.assertEqual(sorted(r["address"] for r in entry["recipients"]), sorted(RECIPIENTS))

    def stays(self):
        """Nothing has arrived so far."""
        self.assertEqual(self.world.sandbox.inbox(), [])

    def never_says(self, bridge, *words):
        """The log has none of these."""
        for word in words:
            self.assertNotIn(word, bridge.log())

    def test_wrong_secret(self):
        """Held with the remedy; goes out as soon as the secret is right; the log never shows it."""
        bridge = self.start(secret="wrong-secret-of-the-test")
        self.send(bridge)
        bridge.wait_log(r"the client secret is wrong: put the secret's Value, not its Secret ID")
        bridge.wait_log(r"account broken: its mail waits, nothing is lost")
        self.stays()
        self.world.sandbox.tenant(client_secret="wrong-secret-of-the-test")
        bridge.wait_log(r"account well: its mail flows again")
        self.arrives(bridge)
        self.never_says(bridge, "wrong-secret-of-the-test", " failed ", " uncertain ")

    def test_expired_secret(self):
        """The other common one, AADSTS7000222."""
        sandbox = self.world.sandbox
        sandbox.fault("token", "forever", kind="status", status=401, code="invalid_client", aadsts=7000222,
                      message="The provided client secret keys are expired.")
        bridge = self.start()
        self.send(bridge)
        bridge.wait_log(r"the client secret has expired: make a new one in Microsoft Entra")
        self.stays()
        sandbox.faults_end()
        self.arrives(bridge)

    def test_no_permission(self):
        """Mail.Send was never consented to: held, and well after the consent."""
        sandbox = self.world.sandbox
        sandbox.tenant(grant="none")
        bridge = self.start()
        self.send(bridge)
        bridge.wait_log(r" held .*give it the application permission Mail\.Send with admin consent")
        self.stays()
        sandbox.tenant(grant="rbac")
        self.arrives(bridge)

    def test_unreachable_at_start(self):
        """Nobody listens yet: the bridge starts, takes mail, says what to check, and delivers when somebody does."""
        port = free_port()
        facts = self.world.sandbox.facts
        self.world.sandbox.stop()
        away = {**facts, "authority": f"https://localhost:{port}", "graph": f"https://localhost:{port}"}
        bridge = self.start(facts=away)
        self.send(bridge)
        bridge.wait_log(r"the server cannot be reached: check the network, the DNS, the firewall and the proxy")
        self.world.sandbox = self.world.start_sandbox(port)
        self.arrives(bridge)
        self.never_says(bridge, " failed ", " uncertain ")

    def test_goes_away_and_comes_back(self):
        """The upstream vanishes after a first message, with a token in the bridge's hand."""
        sandbox = self.world.sandbox
        port = int(sandbox.facts["graph"].rsplit(":", 1)[1])
        bridge = self.start()
        self.send(bridge)
        self.arrives(bridge)
        sandbox.kill()
        self.send(bridge)
        bridge.wait_log(r"the server cannot be reached")
        self.world.sandbox = self.world.start_sandbox(port)
        bridge.wait_log(r" released id=", count=2)
        self.assertEqual(len(self.world.sandbox.inbox()), 1)

    def test_untrusted_certificate(self):
        """A certificate of an unknown authority: held with the remedy; a restart with the right CA file delivers."""
        with World() as other:
            foreign = {**self.world.sandbox.facts, "ca_file": other.sandbox.facts["ca_file"]}
            bridge = self.start(facts=foreign)
            self.send(bridge)
            bridge.wait_log(r"the certificate of the server is not trusted: .*tls\.extra_ca_file")
            self.stays()
            self.assertEqual(bridge.stop(), 0)
        self.arrives(self.start())

    def test_503_from_graph(self):
        """Busy: deferred, exactly once."""
        self.world.sandbox.fault("sendMail", 2, kind="status", status=503, code="ErrorServerBusy", message="Busy.")
        bridge = self.start()
        self.send(bridge)
        bridge.wait_log(r" deferred .*Microsoft 365 is busy")
        self.arrives(bridge)
        self.assertEqual(statuses(self.world.sandbox), [503, 503, 202])
        self.never_says(bridge, " uncertain ")

    def test_429_with_retry_after(self):
        """Throttled: nothing is asked before Retry-After is over."""
        self.world.sandbox.fault("sendMail", 1, kind="status", status=429, code="ApplicationThrottled", retry_after=3)
        bridge = self.start()
        self.send(bridge)
        bridge.wait_log(r" deferred .*Microsoft 365 asks for a pause")
        self.arrives(bridge)
        first, second = self.world.sandbox.requests("/sendMail")
        self.assertGreaterEqual(seconds(second) - seconds(first), 2.9)

    def test_429_of_the_token_endpoint(self):
        """Entra is busy: the message waits and goes."""
        self.world.sandbox.fault("token", 1, kind="status", status=429, code="temporarily_unavailable", retry_after=1)
        bridge = self.start()
        self.send(bridge)
        self.arrives(bridge)
        self.never_says(bridge, " failed ")

    def test_401_once(self):
        """A token that was revoked: a fresh one at once, without any ado."""
        self.world.sandbox.fault("sendMail", 1, kind="refuse_token")
        bridge = self.start()
        self.send(bridge)
        self.arrives(bridge)
        self.assertEqual(statuses(self.world.sandbox), [401, 202])
        self.never_says(bridge, " held ", " deferred ")

    def test_401_always(self):
        """Fresh tokens are refused too: that is configuration, so the mail is held."""
        self.world.sandbox.fault("sendMail", "forever", kind="refuse_token")
        bridge = self.start()
        self.send(bridge)
        bridge.wait_log(r" held .*refuses the access token, also a fresh one: check that `tenant`")
        self.stays()
        self.world.sandbox.faults_end()
        self.arrives(bridge)

    def test_a_proxys_page(self):
        """A 403 that is not Graph's is never the message's fault."""
        self.world.sandbox.fault("sendMail", "forever", kind="html", status=403, body="<h1>Blocked by ACME</h1>")
        bridge = self.start()
        self.send(bridge)
        bridge.wait_log(r" held .*somebody else than Microsoft Graph answered: .*Blocked by ACME")
        self.stays()
        self.world.sandbox.faults_end()
        self.arrives(bridge)

    def test_a_gateways_502(self):
        """A 5xx that is not Graph's, after the body: nobody knows, so it is sent again after a while."""
        self.world.sandbox.fault("sendMail", 1, kind="html", status=502)
        bridge = self.start()
        self.send(bridge)
        bridge.wait_log(r" uncertain .*it may have been delivered or not")
        self.arrives(bridge)

    def test_a_redirect_is_not_followed(self):
        """Neither mail nor token goes to another address."""
        with World() as other:
            self.world.sandbox.fault("sendMail", 1, kind="redirect", status=307,
                                     location=other.sandbox.facts["graph"] + "/v1.0/users/x/sendMail")
            bridge = self.start()
            self.send(bridge)
            bridge.wait_log(r" held .*redirects to another address, which is never followed")
            self.arrives(bridge)
            self.assertEqual(other.sandbox.requests(), [])

    def test_202_lost(self):
        """Accepted, and the answer lost: uncertain, and the second copy is the price (`on_uncertain = "retry"`)."""
        self.world.sandbox.fault("sendMail", 1, kind="accept_then_close")
        bridge = self.start()
        self.send(bridge)
        bridge.wait_log(r" uncertain .*no answer came, so it may have been delivered or not")
        self.arrives(bridge, times=2)

    def test_202_lost_and_hold(self):
        """The same with `on_uncertain = "hold"`: it waits for a person, and nothing arrives twice."""
        self.world.sandbox.fault("sendMail", 1, kind="accept_then_close")
        bridge = self.start(delivery='on_uncertain = "hold"')
        self.send(bridge)
        bridge.wait_log(r" held .*the message may have been delivered: ask a recipient")
        # A second message shows that deliveries go on, and that the first was not tried meanwhile.
        self.send(bridge)
        bridge.wait_log(r" released id=")
        self.assertEqual(statuses(self.world.sandbox), [None, 202])

    def test_never_answered(self):
        """Two retries of an uncertain message, then it waits for a person."""
        self.world.sandbox.fault("sendMail", "forever", kind="close_after_body")
        bridge = self.start()
        self.send(bridge)
        bridge.wait_log(r"ask a recipient whether it arrived before it is sent again", deadline=60)
        self.assertEqual(statuses(self.world.sandbox), [None, None, None])

    def test_cut_before_the_body(self):
        """The connection breaks before all was sent: deferred, and exactly once."""
        self.world.sandbox.fault("sendMail", 1, kind="close_before_body")
        bridge = self.start()
        large = head("large") + b"\r\n" + (b"x" * 76 + b"\r\n") * 25_000
        smtp.send(bridge.port, SENDER, RECIPIENTS, large)
        bridge.wait_log(r" deferred .*the connection broke before the message was sent")
        bridge.wait_log(r" released id=")
        [entry] = self.world.sandbox.inbox()
        self.assertEqual(difference_after_received(self.world.sandbox.raw(entry), large), "")

    def test_a_slow_answer(self):
        """Slow is not lost."""
        self.world.sandbox.fault("sendMail", 1, kind="delay", ms=4000)
        bridge = self.start()
        self.send(bridge)
        self.arrives(bridge)
        self.assertEqual(statuses(self.world.sandbox), [202])
        self.never_says(bridge, " uncertain ", " deferred ")

    def test_a_refused_recipient(self):
        """What can never go is told and kept as a dead letter, and does not stop the next message."""
        self.world.sandbox.fault("sendMail", 1, kind="status", status=400, code="ErrorInvalidRecipients",
                                 message="At least one recipient isn't valid.")
        bridge = self.start()
        self.send(bridge)
        bridge.wait_log(r" failed .*Microsoft 365 refuses a recipient address: check the address")
        bridge.wait_log(r"dead-letter: the message stays in the spool")
        [report] = self.world.sandbox.wait_inbox(1, evidence=bridge.log)
        self.assertEqual([r["address"] for r in report["recipients"]], [SENDER])
        self.send(bridge)
        entries = self.world.sandbox.wait_inbox(2, evidence=bridge.log)
        self.assertEqual(difference_after_received(self.world.sandbox.raw(entries[1]), MESSAGE), "")

    def test_trouble_survives_a_restart(self):
        """Held mail is still there after a stop, and goes when the trouble is over."""
        self.world.sandbox.fault("token", "forever", kind="refuse_token")
        bridge = self.start()
        self.send(bridge)
        bridge.wait_log(r"account broken")
        self.assertEqual(bridge.stop(), 0)
        self.world.sandbox.faults_end()
        again = Bridge(self.world.config)
        self.addCleanup(again.kill)
        self.arrives(again)


def statuses(sandbox):
    """What the requests to sendMail were answered; None is a connection that was cut."""
    return [request["status"] for request in sandbox.requests("/sendMail")]


def seconds(request):
    """When it came."""
    text = re.sub(r"Z$", "+00:00", request["time"])
    text = re.sub(r"\.(\d+)", lambda m: "." + m.group(1)[:6].ljust(6, "0"), text)
    return datetime.datetime.fromisoformat(text).timestamp()
