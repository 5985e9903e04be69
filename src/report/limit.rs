//! No storm of reports: about one cause nobody hears more than once an hour.

use crate::mail::Timestamp;
use std::time::Duration;

/// Within this time of a report there is no other to the same recipient about the same cause.
const QUIET: Duration = Duration::from_secs(3600);

/// Whether a report is sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// It is, and says that so many others were not.
    Send {
        /// Reports held back since the last one.
        held_back: u32,
    },
    /// It is not; so many were held back now.
    HoldBack {
        /// Reports held back since the last one, with this one.
        held_back: u32,
    },
}

/// Decides it from the last report (when it went out, how many were held back since), if there was one.
///
/// A clock that was set back does not silence anybody: a report from the future counts as none.
#[must_use]
pub fn limit(last: Option<(Timestamp, u32)>, now: Timestamp) -> Limit {
    match last {
        Some((since, held_back)) if since <= now && now.since(since) < QUIET => Limit::HoldBack {
            held_back: held_back.saturating_add(1),
        },
        Some((_, held_back)) => Limit::Send { held_back },
        None => Limit::Send { held_back: 0 },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_an_hour_and_the_next_tells_how_many_there_were() {
        let at = |minutes: i64| Timestamp::from_millis(1_800_000_000_000 + minutes * 60_000);
        let mut last = None;
        let mut sent = Vec::new();
        // One a minute for two hours and a minute.
        for minute in 0..=120 {
            match limit(last, at(minute)) {
                Limit::Send { held_back } => {
                    sent.push((minute, held_back));
                    last = Some((at(minute), 0));
                }
                Limit::HoldBack { held_back } => last = last.map(|(since, _)| (since, held_back)),
            }
        }
        assert_eq!(sent, [(0, 0), (60, 59), (120, 59)]);
        assert_eq!(limit(Some((at(61), 3)), at(0)), Limit::Send { held_back: 3 });
    }
}
