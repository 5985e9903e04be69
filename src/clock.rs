//! The only place that asks the machine what time it is.

use crate::mail::Timestamp;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// Tells the time of day to those who record or schedule something.
///
/// Cheap to copy; hand it down instead of reading the time yourself.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Source);

#[derive(Clone, Copy, Debug)]
enum Source {
    Machine,
    /// Follows Tokio's clock, which a test can pause and advance.
    Tokio {
        start: Timestamp,
        origin: Instant,
    },
}

impl Clock {
    /// The machine's clock. It may step when an administrator or NTP sets it.
    #[must_use]
    pub fn machine() -> Self {
        Self(Source::Machine)
    }

    /// A clock that shows `start` now and from then on goes with Tokio's, paused or not: for tests.
    #[must_use]
    pub fn following_tokio(start: Timestamp) -> Self {
        Self(Source::Tokio {
            start,
            origin: Instant::now(),
        })
    }

    /// What time it is.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        match self.0 {
            Source::Machine => Timestamp::from_millis(millis(since_epoch())),
            Source::Tokio { start, origin } => start.plus(origin.elapsed()),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the one place")]
fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_test_can_move_the_time() {
        let start = Timestamp::from_millis(1_000_000);
        let clock = Clock::following_tokio(start);
        tokio::time::advance(Duration::from_secs(90)).await;
        assert_eq!(clock.now().since(start), Duration::from_secs(90));
    }
}
