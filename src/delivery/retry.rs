//! When something is tried again. Pure arithmetic.

use std::time::Duration;

/// How often and how long a message is tried.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// The waits between attempts; the last repeats. Never empty.
    pub waits: Vec<Duration>,
    /// How long a message may be deferred before it has failed.
    pub give_up_after: Duration,
    /// How long a message may be deferred before its sender is told that it is late; `None` for never.
    pub delay_warning: Option<Duration>,
    /// How long a message may be held before somebody is told. It stays all the same.
    pub hold_for: Duration,
    /// How long to wait after an attempt of unknown outcome.
    pub uncertain_wait: Duration,
    /// How often an attempt of unknown outcome is repeated before a person is asked; 0 for never.
    pub uncertain_retries: u32,
}

/// Waits are spread by this share, up or down, so that what failed together does not come back together.
const SPREAD: f64 = 0.1;

impl Schedule {
    /// Longer than any wait that this schedule or an upstream can ask for.
    #[must_use]
    pub fn longest_wait(&self) -> Duration {
        const LONGEST_ASKED_FOR: Duration = Duration::from_secs(24 * 3600);
        let longest = self
            .waits
            .iter()
            .copied()
            .max()
            .unwrap_or_default()
            .mul_f64(1.0 + SPREAD);
        longest.max(self.uncertain_wait).max(LONGEST_ASKED_FOR) + Duration::from_secs(60)
    }

    /// The wait after a deferral, for a message that was deferred for `deferred` so far: a pure function of that
    /// time, so that nothing else has to be remembered. `chance` in 0..1 spreads it.
    #[must_use]
    pub fn wait(&self, deferred: Duration, chance: f64) -> Duration {
        let mut reached = Duration::ZERO;
        let mut wait = Duration::ZERO;
        for step in &self.waits {
            wait = *step;
            // Half a step of tolerance absorbs the spread of the waits before.
            if deferred < reached + wait / 2 {
                break;
            }
            reached += wait;
        }
        wait.mul_f64(1.0 - SPREAD + 2.0 * SPREAD * chance.clamp(0.0, 1.0))
    }
}

/// When a closed gate is tried: `probes` attempts have failed since it closed `closed_for` ago. After 1, 2 and 3 s,
/// then every 3 s for 5 min, every 15 s for an hour, then every minute.
#[must_use]
pub(super) fn probe_wait(probes: u32, closed_for: Duration) -> Duration {
    Duration::from_secs(match closed_for.as_secs() {
        0..300 => u64::from(probes.saturating_add(1).min(3)),
        300..3900 => 15,
        _ => 60,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule() -> Schedule {
        let seconds = [30, 120, 300, 900, 1800, 3600];
        Schedule {
            waits: seconds.map(Duration::from_secs).to_vec(),
            give_up_after: Duration::from_secs(5 * 86_400),
            delay_warning: None,
            hold_for: Duration::from_secs(14 * 86_400),
            uncertain_wait: Duration::from_secs(300),
            uncertain_retries: 2,
        }
    }

    #[test]
    fn each_wait_comes_once_and_the_last_repeats_whatever_the_spread() {
        for chance in [0.0, 0.5, 1.0] {
            let mut deferred = Duration::ZERO;
            for expected in [30, 120, 300, 900, 1800, 3600, 3600, 3600] {
                let wait = schedule().wait(deferred, chance);
                let share = wait.as_secs_f64() / f64::from(expected);
                assert!((0.89..1.11).contains(&share), "{expected}: {wait:?}");
                deferred += wait;
            }
        }
    }

    #[test]
    fn probes_come_quickly_at_first() {
        let minutes = |m: u64| Duration::from_secs(m * 60);
        for (probes, closed_for, wait) in [
            (0, minutes(0), 1),
            (1, minutes(0), 2),
            (2, minutes(0), 3),
            (9, minutes(4), 3),
            (100, minutes(5), 15),
            (100, minutes(64), 15),
            (100, minutes(65), 60),
            (u32::MAX, minutes(10_000), 60),
        ] {
            assert_eq!(probe_wait(probes, closed_for), Duration::from_secs(wait));
        }
    }
}
