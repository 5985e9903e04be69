//! Which accounts and mailboxes mail may go through now. Pure: the runner owns the one value of [`Gates`].
//!
//! A gate is closed by a cause that stops all mail of an account or of one of its mailboxes. Mail behind it waits
//! without being tried, and its own schedule stands still; one message at a time, a different one each time, is let
//! through as a probe. The first success opens the gate, and all that waited is due.

use super::retry::probe_wait;
use crate::mail::Cause;
use crate::spool::Lane;
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;

/// The gates that are closed; all others are open. Times are monotonic: a step of the machine's clock moves nothing.
#[derive(Clone, Debug, Default)]
pub(super) struct Gates(HashMap<Gate, Closed>);

/// What a gate stands before.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Gate {
    /// All mail of an account.
    Account(String),
    /// The mail of one mailbox through one account.
    Mailbox(Lane),
}

/// Whether mail of a lane may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passage {
    /// As much as the pace allows.
    Open,
    /// One message, leaving out the `turn` oldest.
    Probe { turn: u32 },
    /// Nothing before this moment.
    Closed { until: Instant },
    /// Nothing until the probe under way has come back.
    Probing,
}

/// How an attempt came to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Errand {
    /// The gates were open.
    Ordinary,
    /// To find out whether they can be opened.
    Probe,
}

#[derive(Clone, Debug)]
struct Closed {
    since: Instant,
    until: Instant,
    probes: u32,
    probing: bool,
    /// Why, and whether a person must act: as it was told last.
    cause: Cause,
    broken: bool,
}

/// A closed gate, as others are told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State<'a> {
    /// Closed since then.
    pub(super) since: Instant,
    /// The next message is tried then.
    pub(super) until: Instant,
    /// Why.
    pub(super) cause: &'a Cause,
    /// Whether a person must act.
    pub(super) broken: bool,
}

/// A change that is worth a line in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// The gate is closed, newly or for another reason than before; the next probe comes after this time.
    Closed(Gate, Duration),
    /// The gate was closed for so long and is open now.
    Opened(Gate, Duration),
}

impl Gates {
    /// Whether mail of `lane` may go at `now`.
    pub(super) fn passage(&self, lane: &Lane, now: Instant) -> Passage {
        let closed: Vec<&Closed> = gates_of(lane)
            .iter()
            .filter_map(|gate| self.0.get(gate))
            .collect();
        if closed.iter().any(|closed| closed.probing) {
            return Passage::Probing;
        }
        match closed.iter().map(|closed| closed.until).max() {
            None => Passage::Open,
            Some(until) if until > now => Passage::Closed { until },
            Some(_) => Passage::Probe {
                turn: closed.iter().map(|closed| closed.probes).max().unwrap_or(0),
            },
        }
    }

    /// True if mail may not go through `gate`.
    pub(super) fn is_closed(&self, gate: &Gate) -> bool {
        self.0.contains_key(gate)
    }

    /// The gates that are closed.
    pub(super) fn closed(&self) -> impl Iterator<Item = (&Gate, State<'_>)> {
        self.0.iter().map(|(gate, closed)| {
            let state = State {
                since: closed.since,
                until: closed.until,
                cause: &closed.cause,
                broken: closed.broken,
            };
            (gate, state)
        })
    }

    /// Says that a message of `lane` is on its way as a probe.
    pub(super) fn probe_started(&mut self, lane: &Lane) {
        for gate in gates_of(lane) {
            if let Some(closed) = self.0.get_mut(&gate) {
                closed.probing = true;
            }
        }
    }

    /// Says that a probe ended. Where it told nothing about a gate, the next one comes a moment later.
    pub(super) fn probe_ended(&mut self, lane: &Lane, now: Instant) {
        for gate in gates_of(lane) {
            if let Some(closed) = self.0.get_mut(&gate)
                && closed.probing
            {
                closed.failed_probe(None, now);
            }
        }
    }

    /// Closes a gate because of `cause`, or leaves it closed. `broken` says that a person must act.
    pub(super) fn close(
        &mut self,
        gate: Gate,
        cause: &Cause,
        broken: bool,
        errand: Errand,
        now: Instant,
    ) -> Option<Change> {
        let Some(closed) = self.0.get_mut(&gate) else {
            let wait = pause(cause.retry_after, 0, Duration::ZERO);
            let closed = Closed {
                since: now,
                until: now + wait,
                probes: 0,
                probing: false,
                cause: cause.clone(),
                broken,
            };
            self.0.insert(gate.clone(), closed);
            return Some(Change::Closed(gate, wait));
        };
        match errand {
            Errand::Probe => closed.failed_probe(cause.retry_after, now),
            // One of several that were under way when the gate closed.
            Errand::Ordinary => {
                closed.until = closed
                    .until
                    .max(now + cause.retry_after.unwrap_or(Duration::ZERO));
            }
        }
        let told = (&closed.cause.public, closed.broken) == (&cause.public, broken);
        closed.cause = cause.clone();
        closed.broken = broken;
        if told {
            return None;
        }
        Some(Change::Closed(gate, closed.until.saturating_duration_since(now)))
    }

    /// Opens a gate that a probe went through. What an ordinary attempt says is old: it began before the gate closed.
    pub(super) fn open(&mut self, gate: &Gate, errand: Errand, now: Instant) -> Option<Change> {
        if errand == Errand::Ordinary {
            return None;
        }
        let closed = self.0.remove(gate)?;
        Some(Change::Opened(
            gate.clone(),
            now.saturating_duration_since(closed.since),
        ))
    }
}

impl Closed {
    fn failed_probe(&mut self, asked: Option<Duration>, now: Instant) {
        self.probing = false;
        self.probes = self.probes.saturating_add(1);
        self.until = now + pause(asked, self.probes, now.saturating_duration_since(self.since));
    }
}

/// How long to wait for the next probe: what was asked for, but never less than a moment.
fn pause(asked: Option<Duration>, probes: u32, closed_for: Duration) -> Duration {
    asked.map_or_else(
        || probe_wait(probes, closed_for),
        |asked| asked.max(probe_wait(0, Duration::ZERO)),
    )
}

/// The gates that mail of a lane goes through.
fn gates_of(lane: &Lane) -> [Gate; 2] {
    [Gate::Account(lane.account.clone()), Gate::Mailbox(lane.clone())]
}

#[cfg(test)]
mod tests {
    use super::Errand::{Ordinary, Probe};
    use super::*;
    use crate::explain::{entra, local};
    use crate::mail::Disposition;

    fn lane(mailbox: &str) -> Lane {
        Lane {
            account: "office".to_owned(),
            mailbox: mailbox.to_owned(),
        }
    }

    fn account() -> Gate {
        Gate::Account("office".to_owned())
    }

    fn cause(retry_after: Option<u64>) -> Cause {
        let disposition = local::UNREACHABLE.disposition("", retry_after.map(Duration::from_secs));
        let Disposition::Deferred(cause) = disposition else {
            panic!()
        };
        cause
    }

    /// A moment, and what is so many seconds after it.
    fn time() -> (Instant, impl Fn(u64) -> Instant) {
        let now = Instant::now();
        (now, move |seconds| now + Duration::from_secs(seconds))
    }

    #[test]
    fn a_closed_gate_lets_one_probe_through_a_different_one_each_time() {
        let ((now, after), mut gates, lane) = (time(), Gates::default(), lane("a@x.example"));
        assert_eq!(gates.passage(&lane, now), Passage::Open);
        assert!(matches!(
            gates.close(account(), &cause(None), false, Ordinary, now),
            Some(Change::Closed(..))
        ));
        assert_eq!(
            gates.close(account(), &cause(None), false, Ordinary, now),
            None,
            "said once"
        );
        assert_eq!(gates.passage(&lane, now), Passage::Closed { until: after(1) });
        assert_eq!(gates.passage(&lane, after(1)), Passage::Probe { turn: 0 });
        gates.probe_started(&lane);
        assert_eq!(gates.passage(&lane, after(1)), Passage::Probing);
        gates.close(account(), &cause(None), false, Probe, after(1));
        gates.probe_ended(&lane, after(1));
        assert_eq!(
            gates.passage(&lane, after(1)),
            Passage::Closed { until: after(3) }
        );
        assert_eq!(gates.passage(&lane, after(3)), Passage::Probe { turn: 1 });
        gates.probe_started(&lane);
        let opened = gates.open(&account(), Probe, after(4));
        assert_eq!(opened, Some(Change::Opened(account(), Duration::from_secs(4))));
        assert_eq!(gates.passage(&lane, after(4)), Passage::Open);
    }

    #[test]
    fn retry_after_closes_one_mailbox_and_no_other_and_is_never_shortened() {
        let ((now, after), mut gates) = (time(), Gates::default());
        let (one, other) = (lane("a@x.example"), lane("b@x.example"));
        let gate = Gate::Mailbox(one.clone());
        gates.close(gate.clone(), &cause(Some(120)), false, Ordinary, now);
        gates.close(gate.clone(), &cause(Some(150)), false, Ordinary, after(1));
        gates.close(gate, &cause(Some(5)), false, Ordinary, after(2));
        assert_eq!(
            gates.passage(&one, after(100)),
            Passage::Closed { until: after(151) }
        );
        assert_eq!(gates.passage(&other, after(100)), Passage::Open);
    }

    #[test]
    fn the_success_of_an_older_attempt_does_not_open_a_gate() {
        let ((now, after), mut gates, lane) = (time(), Gates::default(), lane("a@x.example"));
        let gate = Gate::Mailbox(lane.clone());
        gates.close(gate.clone(), &cause(Some(120)), false, Ordinary, now);
        assert_eq!(gates.open(&gate, Ordinary, after(1)), None);
        assert_eq!(
            gates.passage(&lane, after(1)),
            Passage::Closed { until: after(120) }
        );
    }

    #[test]
    fn a_pause_of_nothing_is_a_moment_all_the_same() {
        let ((now, after), mut gates, lane) = (time(), Gates::default(), lane("a@x.example"));
        gates.close(account(), &cause(Some(0)), false, Ordinary, now);
        assert_eq!(gates.passage(&lane, now), Passage::Closed { until: after(1) });
    }

    #[test]
    fn another_reason_for_a_closed_gate_is_told() {
        let ((now, after), mut gates, lane) = (time(), Gates::default(), lane("a@x.example"));
        gates.close(account(), &cause(None), false, Ordinary, now);
        gates.probe_started(&lane);
        let Disposition::Held(expired) = entra("invalid_client", &[7_000_222]).disposition("", None) else {
            panic!()
        };
        assert!(gates.close(account(), &expired, true, Probe, after(1)).is_some());
        assert!(gates.close(account(), &expired, true, Probe, after(2)).is_none());
    }

    #[test]
    fn a_probe_that_tells_nothing_is_followed_by_another() {
        let ((now, after), mut gates, lane) = (time(), Gates::default(), lane("a@x.example"));
        gates.close(Gate::Mailbox(lane.clone()), &cause(None), false, Ordinary, now);
        gates.probe_started(&lane);
        gates.probe_ended(&lane, after(1));
        assert_eq!(
            gates.passage(&lane, after(1)),
            Passage::Closed { until: after(3) }
        );
    }
}
