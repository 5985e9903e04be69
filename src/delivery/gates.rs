//! Which accounts and mailboxes mail may go through now. Pure: the runner owns the one value of [`Gates`].
//!
//! A gate is closed by a cause that stops all mail of an account or of one of its mailboxes. Mail behind it waits
//! without being tried, and its own schedule stands still; one message at a time, a different one each time, is let
//! through as a probe. The first success opens the gate, and all that waited is due.

use super::retry::probe_wait;
use crate::mail::Cause;
use crate::mail::Timestamp;
use crate::spool::Lane;
use std::collections::HashMap;
use std::time::Duration;

/// The gates that are closed; all others are open.
#[derive(Clone, Debug, Default)]
pub(super) struct Gates(HashMap<Gate, Closed>);

/// What a gate stands before.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
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
    Closed { until: Timestamp },
    /// Nothing until the probe under way has come back.
    Probing,
}

#[derive(Clone, Debug)]
struct Closed {
    since: Timestamp,
    until: Timestamp,
    probes: u32,
    probing: bool,
}

/// A change that is worth a line in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// The gate was open and is closed now; the first probe comes after this time.
    Closed(Gate, Duration),
    /// The gate was closed for so long and is open now.
    Opened(Gate, Duration),
}

impl Gates {
    /// Whether mail of `lane` may go at `now`.
    pub(super) fn passage(&self, lane: &Lane, now: Timestamp) -> Passage {
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

    /// When the next closed gate may be probed, after `now`.
    pub(super) fn next_probe(&self, now: Timestamp) -> Option<Timestamp> {
        self.0
            .values()
            .filter(|closed| !closed.probing && closed.until > now)
            .map(|closed| closed.until)
            .min()
    }

    /// Says that a message of `lane` is on its way as a probe, if any of the lane's gates is closed.
    pub(super) fn probe_started(&mut self, lane: &Lane) {
        for gate in gates_of(lane) {
            if let Some(closed) = self.0.get_mut(&gate) {
                closed.probing = true;
            }
        }
    }

    /// Says that an attempt of `lane` ended without telling anything about its gates. If it was the probe, the
    /// next one comes a moment later.
    pub(super) fn attempt_ended(&mut self, lane: &Lane, now: Timestamp) {
        for gate in gates_of(lane) {
            if let Some(closed) = self.0.get_mut(&gate)
                && closed.probing
            {
                closed.failed_probe(None, now);
            }
        }
    }

    /// Closes a gate because of `cause`, or leaves it closed.
    pub(super) fn close(&mut self, gate: Gate, cause: &Cause, now: Timestamp) -> Option<Change> {
        if let Some(closed) = self.0.get_mut(&gate) {
            if closed.probing {
                closed.failed_probe(cause.retry_after, now);
            } else if let Some(pause) = cause.retry_after {
                // One of several that were under way when the gate closed.
                closed.until = closed.until.max(now.plus(pause));
            }
            return None;
        }
        let wait = cause.retry_after.unwrap_or_else(|| probe_wait(0, Duration::ZERO));
        self.0.insert(
            gate.clone(),
            Closed {
                since: now,
                until: now.plus(wait),
                probes: 0,
                probing: false,
            },
        );
        Some(Change::Closed(gate, wait))
    }

    /// Opens a gate, if it was closed.
    pub(super) fn open(&mut self, gate: &Gate, now: Timestamp) -> Option<Change> {
        let closed = self.0.remove(gate)?;
        Some(Change::Opened(gate.clone(), now.since(closed.since)))
    }
}

impl Closed {
    fn failed_probe(&mut self, pause: Option<Duration>, now: Timestamp) {
        self.probing = false;
        self.probes = self.probes.saturating_add(1);
        self.until = now.plus(pause.unwrap_or_else(|| probe_wait(self.probes, now.since(self.since))));
    }
}

/// The gates that mail of a lane goes through.
pub(super) fn gates_of(lane: &Lane) -> [Gate; 2] {
    [Gate::Account(lane.account.clone()), Gate::Mailbox(lane.clone())]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::local;
    use crate::mail::Disposition;

    const NOW: Timestamp = Timestamp::from_millis(0);

    fn lane(mailbox: &str) -> Lane {
        Lane {
            account: "office".to_owned(),
            mailbox: mailbox.parse().unwrap(),
        }
    }

    fn cause(retry_after: Option<u64>) -> Cause {
        let disposition = local::UNREACHABLE.disposition("", retry_after.map(Duration::from_secs));
        let Disposition::Deferred(cause) = disposition else {
            panic!()
        };
        cause
    }

    fn after(seconds: u64) -> Timestamp {
        NOW.plus(Duration::from_secs(seconds))
    }

    #[test]
    fn a_closed_gate_lets_one_probe_through_a_different_one_each_time() {
        let (mut gates, lane) = (Gates::default(), lane("a@x.example"));
        assert_eq!(gates.passage(&lane, NOW), Passage::Open);
        let gate = Gate::Account("office".to_owned());
        assert!(matches!(
            gates.close(gate.clone(), &cause(None), NOW),
            Some(Change::Closed(..))
        ));
        assert_eq!(gates.close(gate.clone(), &cause(None), NOW), None, "said once");
        assert_eq!(gates.passage(&lane, NOW), Passage::Closed { until: after(1) });
        assert_eq!(gates.passage(&lane, after(1)), Passage::Probe { turn: 0 });
        gates.probe_started(&lane);
        assert_eq!(gates.passage(&lane, after(1)), Passage::Probing);
        gates.close(gate.clone(), &cause(None), after(1));
        assert_eq!(
            gates.passage(&lane, after(1)),
            Passage::Closed { until: after(3) }
        );
        assert_eq!(gates.passage(&lane, after(3)), Passage::Probe { turn: 1 });
        assert_eq!(
            gates.open(&gate, after(4)),
            Some(Change::Opened(gate, Duration::from_secs(4)))
        );
        assert_eq!(gates.passage(&lane, after(4)), Passage::Open);
    }

    #[test]
    fn retry_after_closes_one_mailbox_and_no_other() {
        let mut gates = Gates::default();
        let (one, other) = (lane("a@x.example"), lane("b@x.example"));
        gates.close(Gate::Mailbox(one.clone()), &cause(Some(120)), NOW);
        gates.close(Gate::Mailbox(one.clone()), &cause(Some(150)), after(1));
        assert_eq!(
            gates.passage(&one, after(100)),
            Passage::Closed { until: after(151) }
        );
        assert_eq!(gates.passage(&other, after(100)), Passage::Open);
    }

    #[test]
    fn a_probe_that_tells_nothing_is_followed_by_another() {
        let (mut gates, lane) = (Gates::default(), lane("a@x.example"));
        gates.close(Gate::Mailbox(lane.clone()), &cause(None), NOW);
        gates.probe_started(&lane);
        gates.attempt_ended(&lane, after(1));
        assert_eq!(
            gates.passage(&lane, after(1)),
            Passage::Closed { until: after(3) }
        );
    }
}
