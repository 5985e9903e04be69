//! Counting what has gone out in a sliding time. Pure arithmetic; [`super::pace`] puts it together.

use crate::mail::Timestamp;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;
use tokio::time::Instant;

/// Octets of the last `span`, in a bounded number of steps: counted a little longer than they must, never shorter.
#[derive(Clone, Debug)]
pub(super) struct Volume {
    span: Duration,
    /// When each step ends, and how much was counted in it. Oldest first.
    steps: VecDeque<(Instant, u64)>,
}

/// Into how many steps a [`Volume`] divides its span.
const STEPS: u32 = 60;

impl Volume {
    pub(super) fn new(span: Duration) -> Self {
        Self {
            span,
            steps: VecDeque::new(),
        }
    }

    pub(super) fn add(&mut self, octets: u64, now: Instant) {
        while self.steps.front().is_some_and(|(end, _)| *end + self.span <= now) {
            self.steps.pop_front();
        }
        match self.steps.back_mut() {
            Some((end, sum)) if *end >= now => *sum = sum.saturating_add(octets),
            _ => self.steps.push_back((now + self.span / STEPS, octets)),
        }
    }

    /// The moment from which at most `allowed` octets count: not after `now` if that is so already.
    pub(super) fn below(&self, allowed: u64, now: Instant) -> Instant {
        let mut sum = 0_u64;
        for (end, octets) in self.steps.iter().rev() {
            sum = sum.saturating_add(*octets);
            if sum > allowed {
                return *end + self.span;
            }
        }
        now
    }
}

/// So many a minute: at first all at once, then evenly (the generic cell rate algorithm).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rate {
    /// When the last one would have been due if they had come evenly.
    reached: Option<Instant>,
}

impl Rate {
    /// When the next one may go, at `per_minute`.
    pub(super) fn next(self, per_minute: u32, now: Instant) -> Instant {
        let interval = interval(per_minute);
        match self.reached {
            Some(reached) => reached
                .checked_sub(interval * (per_minute.max(1) - 1))
                .map_or(now, |earliest| earliest.max(now)),
            None => now,
        }
    }

    /// Counts one that goes now.
    pub(super) fn add(&mut self, per_minute: u32, now: Instant) {
        let from = self.reached.map_or(now, |reached| reached.max(now));
        self.reached = Some(from + interval(per_minute));
    }
}

fn interval(per_minute: u32) -> Duration {
    Duration::from_secs(60) / per_minute.max(1)
}

/// The hours since the epoch: what the counters of a day are kept by.
#[must_use]
pub(super) fn hour_of(time: Timestamp) -> i64 {
    time.millis().div_euclid(HOUR)
}

const HOUR: i64 = 3_600_000;

/// How many hours before the present one still count: all that has a moment of the last 24 h.
pub(super) const COUNTING: i64 = 24;

/// Recipients of a mailbox in the last 24 h, by hours and by who sent to them.
#[derive(Clone, Debug, Default)]
pub(super) struct Day {
    hours: BTreeMap<i64, u64>,
    /// Only who sent to many is interesting; see [`Day::trim`].
    senders: HashMap<String, BTreeMap<i64, u64>>,
}

/// Senders that are told apart at most.
const MAX_SENDERS: usize = 10_000;

impl Day {
    /// Counts `recipients` that `sender` has sent to in the hour `hour`.
    pub(super) fn add(&mut self, hour: i64, sender: &str, recipients: u64) {
        let sum = self.hours.entry(hour).or_default();
        *sum = sum.saturating_add(recipients);
        if !self.senders.contains_key(sender) {
            self.trim(hour);
        }
        let own = self.senders.entry(sender.to_owned()).or_default();
        let sum = own.entry(hour).or_default();
        *sum = sum.saturating_add(recipients);
    }

    /// Recipients in the last 24 h before `now`, and up to an hour more.
    pub(super) fn used(&self, now: Timestamp) -> u64 {
        within(&self.hours, now)
    }

    /// Those of one sender.
    pub(super) fn used_by(&self, sender: &str, now: Timestamp) -> u64 {
        self.senders.get(sender).map_or(0, |own| within(own, now))
    }

    /// Who has sent to at least `least`.
    pub(super) fn senders_above(&self, least: u64, now: Timestamp) -> impl Iterator<Item = &str> {
        self.senders
            .iter()
            .filter(move |(_, own)| within(own, now) >= least)
            .map(|(sender, _)| sender.as_str())
    }

    /// True if more than one sender has sent anything.
    pub(super) fn is_shared(&self, now: Timestamp) -> bool {
        self.senders_above(1, now).take(2).count() > 1
    }

    /// When at most `allowed` recipients will count, if nothing more is sent: the beginning of an hour, or `now`.
    pub(super) fn below(&self, allowed: u64, now: Timestamp) -> Timestamp {
        let mut sum = 0_u64;
        for (hour, recipients) in self.hours.range(counting(now)).rev() {
            sum = sum.saturating_add(*recipients);
            if sum > allowed {
                return Timestamp::from_millis((hour + COUNTING + 1).saturating_mul(HOUR));
            }
        }
        now
    }

    /// Forgets what is over; where there are very many senders, also those who sent to few.
    fn trim(&mut self, hour: i64) {
        let oldest = hour - COUNTING;
        if self
            .hours
            .first_key_value()
            .is_some_and(|(first, _)| *first < oldest)
        {
            self.hours.retain(|hour, _| *hour >= oldest);
            self.senders.retain(|_, own| {
                own.retain(|hour, _| *hour >= oldest);
                !own.is_empty()
            });
        }
        let mut least = 1;
        while self.senders.len() >= MAX_SENDERS {
            least *= 2;
            self.senders.retain(|_, own| own.values().sum::<u64>() >= least);
        }
    }
}

/// The hours that count at `now`. Later ones were written under a wrong clock, but for one that was just corrected.
fn counting(now: Timestamp) -> std::ops::RangeInclusive<i64> {
    let hour = hour_of(now);
    hour - COUNTING..=hour + 1
}

fn within(hours: &BTreeMap<i64, u64>, now: Timestamp) -> u64 {
    hours.range(counting(now)).map(|(_, recipients)| recipients).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_volume_slides_and_never_counts_too_short() {
        let (start, span) = (Instant::now(), 5 * MINUTE);
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut volume = Volume::new(span);
        volume.add(60, at(0));
        volume.add(60, at(100));
        assert_eq!(volume.below(120, at(100)), at(100));
        let free = volume.below(119, at(100));
        assert!(free >= at(300) && free <= at(306), "{:?}", free - start);
        let free = volume.below(59, at(100));
        assert!(free >= at(400) && free <= at(406), "{:?}", free - start);
        for second in 0..10_000 {
            volume.add(1, at(second));
        }
        assert!(volume.steps.len() <= STEPS as usize + 2, "bounded");
    }

    #[test]
    fn a_rate_allows_a_burst_and_then_goes_evenly() {
        let start = Instant::now();
        let (mut rate, mut went) = (Rate::default(), Vec::new());
        for _ in 0..35 {
            let next = rate.next(30, *went.last().unwrap_or(&start));
            rate.add(30, next);
            went.push(next);
        }
        let seconds: Vec<u64> = went.iter().map(|at| (*at - start).as_secs()).collect();
        assert_eq!(seconds[..30], [0; 30]);
        assert_eq!(seconds[30..], [2, 4, 6, 8, 10]);
        // After a silence, all at once again.
        let later = start + 10 * MINUTE;
        assert_eq!(rate.next(30, later), later);
        rate.add(30, later);
        assert_eq!(rate.next(30, later), later);
    }

    #[test]
    fn a_day_ends_by_the_hour_and_counts_by_sender() {
        let at = |hours: i64, minutes: i64| {
            Timestamp::from_millis(1_800_000_000_000 / HOUR * HOUR + hours * HOUR + minutes * 60_000)
        };
        let mut day = Day::default();
        day.add(hour_of(at(0, 59)), "a", 70);
        day.add(hour_of(at(3, 0)), "b", 30);
        assert_eq!(
            (
                day.used(at(4, 0)),
                day.used_by("a", at(4, 0)),
                day.used_by("c", at(4, 0))
            ),
            (100, 70, 0)
        );
        assert_eq!(
            day.used(at(24, 59)),
            100,
            "24 h after the last moment of that hour"
        );
        assert_eq!(day.used(at(25, 0)), 30);
        assert_eq!(day.below(100, at(4, 0)), at(4, 0));
        assert_eq!(day.below(99, at(4, 0)), at(25, 0));
        assert_eq!(day.below(29, at(4, 0)), at(28, 0));
        assert!(day.is_shared(at(4, 0)) && !day.is_shared(at(25, 0)));
        // A clock that was days ahead for a while blocks nothing once it is right.
        day.add(hour_of(at(1000, 0)), "a", 10_000);
        assert_eq!(day.used(at(4, 0)), 100);
    }

    #[test]
    fn very_many_senders_do_not_fill_the_memory_and_the_large_ones_stay_known() {
        let (mut day, now) = (Day::default(), Timestamp::from_millis(1_800_000_000_000));
        for n in 0..30_000 {
            day.add(hour_of(now), &format!("bounce-{n}@x.example"), 1);
            day.add(hour_of(now), "runaway", 1);
        }
        assert!(day.senders.len() <= MAX_SENDERS);
        assert_eq!(day.used_by("runaway", now), 30_000);
        assert_eq!(day.used(now), 60_000);
    }
}
