//! Lines of the log that would come too often.

use std::time::Duration;
use tokio::time::Instant;

/// At most one line in this time tells of clients that are sent away, or of accept failing.
pub(super) const LOG_PAUSE: Duration = Duration::from_secs(10);

/// Lets a line through once in a while.
#[derive(Debug, Default)]
pub(super) struct Seldom {
    last: Option<Instant>,
    held_back: u64,
}

impl Seldom {
    /// How many lines were held back since the last one, if this one may be written.
    pub(super) fn may(&mut self) -> Option<u64> {
        let now = Instant::now();
        if self.last.is_some_and(|last| now < last + LOG_PAUSE) {
            self.held_back += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_line_of_log_once_in_a_while() {
        let mut seldom = Seldom::default();
        assert_eq!(seldom.may(), Some(0));
        assert_eq!(seldom.may(), None);
        assert_eq!(seldom.may(), None);
        tokio::time::advance(LOG_PAUSE).await;
        assert_eq!(seldom.may(), Some(2));
        tokio::time::advance(LOG_PAUSE).await;
        assert_eq!(seldom.may(), Some(0));
    }
}
