//! When each lane is to be looked at, and how long its mail could have gone. Pure: the runner owns the one value.
//!
//! The queue on the disk may hold a million messages in a thousand lanes. What is kept of it in memory is one entry
//! for each lane that has mail waiting, and only the lanes that something happened to are asked for.

use crate::spool::Lane;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;
use tokio::time::Instant;

/// The lanes that have mail waiting.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    known: BTreeMap<Lane, Entry>,
    /// Those that are to be looked at, the longest waiting first.
    order: BTreeSet<(Instant, Lane)>,
}

#[derive(Debug)]
struct Entry {
    /// When it is to be looked at; `None` until something happens to it.
    wake: Option<Instant>,
    /// How long its mail could have gone so far, in this run.
    open: Duration,
    /// It can go since then; `None` while a gate is closed or the account is paused.
    open_since: Option<Instant>,
}

impl Lanes {
    /// Says that `lane` is to be looked at at `at`, or earlier if that was said before. `open` says whether its mail
    /// can go now, if nothing is known of the lane yet.
    pub(super) fn wake(&mut self, lane: &Lane, at: Instant, now: Instant, open: bool) {
        let entry = self.known.entry(lane.clone()).or_insert_with(|| Entry {
            wake: None,
            open: Duration::ZERO,
            open_since: open.then_some(now),
        });
        if entry.wake.is_some_and(|wake| wake <= at) {
            return;
        }
        if let Some(later) = entry.wake.replace(at) {
            self.order.remove(&(later, lane.clone()));
        }
        self.order.insert((at, lane.clone()));
    }

    /// At most `most` lanes that are to be looked at now. They are not offered again until they are woken.
    pub(super) fn take(&mut self, most: usize, now: Instant) -> Vec<Lane> {
        let mut taken = Vec::new();
        while taken.len() < most
            && let Some((at, _)) = self.order.first()
            && *at <= now
            && let Some((_, lane)) = self.order.pop_first()
        {
            if let Some(entry) = self.known.get_mut(&lane) {
                entry.wake = None;
            }
            taken.push(lane);
        }
        taken
    }

    /// When the next lane is to be looked at.
    pub(super) fn next(&self) -> Option<Instant> {
        self.order.first().map(|(at, _)| *at)
    }

    /// Forgets a lane that has nothing waiting, unless it was woken meanwhile.
    pub(super) fn forget(&mut self, lane: &Lane) {
        if self.known.get(lane).is_some_and(|entry| entry.wake.is_none()) {
            self.known.remove(lane);
        }
    }

    /// The lanes of an account, or all.
    pub(super) fn of(&self, account: Option<&str>) -> Vec<Lane> {
        let from = account.map_or(Bound::Unbounded, |account| {
            Bound::Included(Lane {
                account: account.to_owned(),
                mailbox: String::new(),
            })
        });
        self.known
            .range((from, Bound::Unbounded))
            .map(|(lane, _)| lane)
            .take_while(|lane| account.is_none_or(|account| lane.account == account))
            .cloned()
            .collect()
    }

    /// Says whether the mail of `lane` can go from `now` on.
    pub(super) fn set_open(&mut self, lane: &Lane, open: bool, now: Instant) {
        if let Some(entry) = self.known.get_mut(lane) {
            match (entry.open_since, open) {
                (Some(since), false) => {
                    entry.open += now.saturating_duration_since(since);
                    entry.open_since = None;
                }
                (None, true) => entry.open_since = Some(now),
                _ => {}
            }
        }
    }

    /// How long the mail of `lane` could have gone in this run: a clock that stands still behind a closed gate and
    /// while the account is paused, and that no step of the machine's clock moves.
    pub(super) fn open_time(&self, lane: &Lane, now: Instant) -> Duration {
        self.known.get(lane).map_or(Duration::ZERO, |entry| {
            let running = entry.open_since.map(|since| now.saturating_duration_since(since));
            entry.open + running.unwrap_or_default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(account: &str, mailbox: &str) -> Lane {
        Lane {
            account: account.to_owned(),
            mailbox: mailbox.to_owned(),
        }
    }

    /// A moment, and what is so many seconds after it.
    fn time() -> (Instant, impl Fn(u64) -> Instant) {
        let now = Instant::now();
        (now, move |seconds| now + Duration::from_secs(seconds))
    }

    #[test]
    fn lanes_are_offered_once_when_their_time_has_come_the_longest_waiting_first() {
        let ((now, after), mut lanes) = (time(), Lanes::default());
        let (a, b, c) = (lane("x", "a"), lane("x", "b"), lane("x", "c"));
        lanes.wake(&a, after(2), now, true);
        lanes.wake(&b, after(1), now, true);
        lanes.wake(&c, after(9), now, true);
        lanes.wake(&a, after(5), now, true);
        assert_eq!(lanes.next(), Some(after(1)));
        assert_eq!(lanes.take(9, now), []);
        assert_eq!(lanes.take(1, after(3)), std::slice::from_ref(&b));
        assert_eq!(lanes.take(9, after(3)), [a]);
        assert_eq!(lanes.take(9, after(3)), [], "not before it is woken again");
        lanes.wake(&b, after(3), after(3), true);
        lanes.wake(&c, after(3), after(3), true);
        assert_eq!(lanes.take(9, after(3)), [b, c], "an earlier time wins");
        assert_eq!(lanes.next(), None);
    }

    #[test]
    fn a_lane_that_is_empty_is_forgotten_unless_something_came_meanwhile() {
        let ((now, _), mut lanes, lane) = (time(), Lanes::default(), lane("x", "a"));
        lanes.wake(&lane, now, now, true);
        lanes.forget(&lane);
        assert!(lanes.known.contains_key(&lane));
        lanes.take(1, now);
        lanes.forget(&lane);
        assert!(lanes.known.is_empty() && lanes.order.is_empty());
    }

    #[test]
    fn the_lanes_of_one_account_are_not_those_of_another_that_begins_alike() {
        let ((now, _), mut lanes) = (time(), Lanes::default());
        for (account, mailbox) in [("a", "1"), ("office", "1"), ("office", "2"), ("office2", "1")] {
            lanes.wake(&lane(account, mailbox), now, now, true);
        }
        assert_eq!(
            lanes.of(Some("office")),
            [lane("office", "1"), lane("office", "2")]
        );
        assert_eq!(lanes.of(None).len(), 4);
    }

    #[test]
    fn the_open_time_stands_still_while_mail_cannot_go() {
        let ((now, after), mut lanes, lane) = (time(), Lanes::default(), lane("x", "a"));
        assert_eq!(lanes.open_time(&lane, after(5)), Duration::ZERO);
        lanes.wake(&lane, now, now, true);
        lanes.set_open(&lane, true, after(3));
        assert_eq!(lanes.open_time(&lane, after(10)), Duration::from_secs(10));
        lanes.set_open(&lane, false, after(10));
        lanes.set_open(&lane, false, after(20));
        assert_eq!(lanes.open_time(&lane, after(100)), Duration::from_secs(10));
        lanes.set_open(&lane, true, after(100));
        assert_eq!(lanes.open_time(&lane, after(101)), Duration::from_secs(11));
    }
}
