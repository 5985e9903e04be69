//! A moment in time, as it is stored and as it stands in header fields.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;
use time::format_description::BorrowedFormatItem;
use time::format_description::well_known::{Rfc2822, Rfc3339};
use time::macros::format_description;
use time::{Date, OffsetDateTime};

/// Milliseconds since 1970-01-01 00:00 UTC, without leap seconds.
///
/// Reading the clock is `clock::Clock`'s business; everybody else is given one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

/// RFC 3339 with always three digits of milliseconds, so that lines of a log stand below each other.
const MILLISECONDS: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

const DAY: &[BorrowedFormatItem<'_>] = format_description!("[year]-[month]-[day]");

impl Timestamp {
    /// From milliseconds since the epoch, the form in which it is stored.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the epoch.
    #[must_use]
    pub const fn millis(self) -> i64 {
        self.0
    }

    /// This moment and `duration` more; stays at the end of time instead of overflowing.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(
            self.0
                .saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)),
        )
    }

    /// This moment and `duration` less; stays at the beginning of time instead of overflowing.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        Self(
            self.0
                .saturating_sub(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)),
        )
    }

    /// How long after `earlier` this is; zero if it is not after it.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// From a day, which begins at 00:00 UTC, or from a moment as RFC 3339 has it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let date = match Date::parse(text, DAY) {
            Ok(day) => day.midnight().assume_utc(),
            Err(_) => OffsetDateTime::parse(text, &Rfc3339).ok()?,
        };
        i64::try_from(date.unix_timestamp_nanos() / 1_000_000)
            .ok()
            .map(Self)
    }

    /// As in a Date or Received field, in UTC (RFC 5322 §3.3).
    #[must_use]
    pub fn rfc5322(self) -> String {
        // `time` has no other failure here than a year outside 0..9999, which `date` excludes.
        self.date().format(&Rfc2822).unwrap_or_default()
    }

    fn date(self) -> OffsetDateTime {
        let nanos = i128::from(self.0) * 1_000_000;
        OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC with milliseconds: `2026-11-21T08:47:00.123Z`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.date().format(MILLISECONDS).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_in_both_notations() {
        assert_eq!(
            Timestamp::from_millis(960).to_string(),
            "1970-01-01T00:00:00.960Z"
        );
        let moment = Timestamp::from_millis(1_795_250_820_123);
        assert_eq!(moment.to_string(), "2026-11-21T08:47:00.123Z");
        for text in ["2026-11-21T08:47:00.123Z", "2026-11-21T09:47:00.123+01:00"] {
            assert_eq!(Timestamp::parse(text), Some(moment));
        }
        let day = Timestamp::parse("2026-11-21").unwrap();
        assert_eq!(day.to_string(), "2026-11-21T00:00:00.000Z");
        for nonsense in ["", "yesterday", "2026-13-01", "2026-11-21 08:47"] {
            assert_eq!(Timestamp::parse(nonsense), None, "{nonsense}");
        }
        assert_eq!(moment.rfc5322(), "Sat, 21 Nov 2026 08:47:00 +0000");
        assert_eq!(
            moment.plus(Duration::from_secs(1)).since(moment),
            Duration::from_secs(1)
        );
        assert_eq!(moment.since(moment.plus(Duration::from_secs(1))), Duration::ZERO);
    }
}
