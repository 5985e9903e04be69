//! Which addresses guess passwords: each failure waits longer for its answer, and after too many an address is not
//! heard until time has passed.

use crate::mail::Peer;
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;

/// So many failures, and an address is not heard.
pub(super) const MAX_FAILURES: u32 = 20;
/// In this time one failure is forgiven.
pub(super) const FORGIVEN: Duration = Duration::from_secs(60);
/// What the answer to the first failure waits; each further one doubles it.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// The longest wait: devices give up after some ten seconds, and then say less than our answer does.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// Addresses that are remembered.
const MAX_ENTRIES: usize = 4096;

/// The failures of each address.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    failures: HashMap<Peer, Failures>,
}

#[derive(Clone, Copy, Debug)]
struct Failures {
    count: u32,
    /// When the count was right.
    since: Instant,
}

impl Throttle {
    /// True if the address may try. This machine always may, and only waits: a wrong password of one program must not
    /// silence all others behind the same address.
    pub(super) fn may_try(&self, client: Peer, now: Instant) -> bool {
        client.is_this_machine() || self.count(client.source(), now) < MAX_FAILURES
    }

    /// Notes a failure; how long its answer waits.
    pub(super) fn failed(&mut self, client: Peer, now: Instant) -> Duration {
        let source = client.source();
        let count = self.count(source, now).saturating_add(1).min(MAX_FAILURES);
        if self.failures.len() >= MAX_ENTRIES && !self.failures.contains_key(&source) {
            self.make_room(now);
        }
        let since = match self.failures.get(&source) {
            // The part of a minute that has passed counts on.
            Some(old) if count > 1 => old.since + forgiven(old.since, now) * FORGIVEN,
            _ => now,
        };
        self.failures.insert(source, Failures { count, since });
        let doubled = FIRST_WAIT.saturating_mul(1 << (count - 1).min(16));
        doubled.min(LONGEST_WAIT)
    }

    fn count(&self, source: Peer, now: Instant) -> u32 {
        self.failures.get(&source).map_or(0, |failures| {
            failures.count.saturating_sub(forgiven(failures.since, now))
        })
    }

    /// Forgets who is forgiven, or else whoever has failed least, or longest ago.
    fn make_room(&mut self, now: Instant) {
        self.failures
            .retain(|_, failures| failures.count > forgiven(failures.since, now));
        if self.failures.len() >= MAX_ENTRIES
            && let Some((&least, _)) = self
                .failures
                .iter()
                .min_by_key(|(_, failures)| (failures.count, failures.since))
        {
            self.failures.remove(&least);
        }
    }
}

/// Failures that time has forgiven.
fn forgiven(since: Instant, now: Instant) -> u32 {
    let minutes = now.saturating_duration_since(since).as_secs() / FORGIVEN.as_secs();
    u32::try_from(minutes).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> Peer {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn failures_wait_longer_and_longer_and_end_in_silence() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        let waits: Vec<u128> = (0..6)
            .map(|_| throttle.failed(ip("192.0.2.1"), now).as_millis())
            .collect();
        assert_eq!(waits, [500, 1000, 2000, 4000, 5000, 5000]);
        for _ in 6..MAX_FAILURES {
            assert!(throttle.may_try(ip("192.0.2.1"), now));
            throttle.failed(ip("192.0.2.1"), now);
        }
        assert!(!throttle.may_try(ip("192.0.2.1"), now));
        assert!(throttle.may_try(ip("192.0.2.2"), now));
        assert!(!throttle.may_try(ip("192.0.2.1"), now + FORGIVEN - Duration::from_secs(1)));
        let later = now + FORGIVEN;
        assert!(throttle.may_try(ip("192.0.2.1"), later));
        throttle.failed(ip("192.0.2.1"), later);
        assert!(!throttle.may_try(ip("192.0.2.1"), later));
        assert_eq!(
            throttle.failed(ip("192.0.2.1"), now + 2 * MAX_FAILURES * FORGIVEN),
            FIRST_WAIT
        );
    }

    #[tokio::test]
    async fn somebody_who_fails_every_half_minute_is_not_forgiven_by_halves() {
        let (mut throttle, mut now) = (Throttle::default(), Instant::now());
        for n in 0..200 {
            if !throttle.may_try(ip("192.0.2.1"), now) {
                assert!((38..=42).contains(&n), "{n}");
                return;
            }
            throttle.failed(ip("192.0.2.1"), now);
            now += Duration::from_secs(30);
        }
        panic!("never stopped");
    }

    #[tokio::test]
    async fn one_client_has_a_whole_ipv6_network() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        for n in 0..MAX_FAILURES {
            throttle.failed(ip(&format!("2001:db8::{n:x}")), now);
        }
        assert!(!throttle.may_try(ip("2001:db8::ffff:1"), now));
        assert!(throttle.may_try(ip("2001:db8:0:1::1"), now));
    }

    #[tokio::test]
    async fn programs_on_this_machine_wait_and_are_heard() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        for client in ["127.0.0.1", "::1", "local"] {
            let last = (0..3 * MAX_FAILURES)
                .map(|_| throttle.failed(ip(client), now))
                .last();
            assert_eq!(last, Some(LONGEST_WAIT), "{client}");
            assert!(throttle.may_try(ip(client), now), "{client}");
        }
    }

    #[tokio::test]
    async fn the_table_is_bounded_and_keeps_the_worst() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        for _ in 0..MAX_FAILURES {
            throttle.failed(ip("192.0.2.1"), now);
        }
        for n in 0..10_000_u32 {
            throttle.failed(
                Peer::Address(std::net::Ipv4Addr::from_bits(0x0a00_0000 + n).into()),
                now,
            );
            assert!(throttle.failures.len() <= MAX_ENTRIES);
        }
        assert!(!throttle.may_try(ip("192.0.2.1"), now));
    }
}
