//! How long a slow client is waited for when connections run short. Otherwise only the long time limits of RFC 5321
//! count: a scanner that warms up between two pages is left in peace.

use std::time::Duration;
use tokio::time::Instant;

/// Who is silent for so long between commands makes room for others.
pub(super) const IDLE: Duration = Duration::from_secs(30);
/// The time over which the rate of a message is taken.
pub(super) const WINDOW: Duration = Duration::from_secs(60);
/// Octets a second that a message must come with, less than the slowest modem does.
const RATE: u64 = 100;
/// How often a silent client is looked at.
pub(super) const LOOK: Duration = Duration::from_secs(10);
/// Who has not had a message accepted for so long, nor sent one at the rate that is expected, makes room for others,
/// whatever else it does.
pub(super) const BARREN: Duration = Duration::from_secs(10 * 60);

/// What is expected of a client.
#[derive(Clone, Copy, Debug)]
pub(super) enum Patience {
    /// A command line, since this time.
    Command(Instant),
    /// The octets of a message, so many since this time.
    Message(Instant, u64),
}

impl Patience {
    /// Octets came.
    pub(super) fn heard(&mut self, octets: usize) {
        if let Self::Message(_, so_far) = self {
            *so_far += octets as u64;
        }
    }

    /// True if a client this slow makes room for others when connections run short.
    pub(super) fn is_at_its_end(&mut self, now: Instant) -> bool {
        match self {
            Self::Command(since) => now.saturating_duration_since(*since) >= IDLE,
            Self::Message(since, octets) => {
                let elapsed = now.saturating_duration_since(*since);
                if elapsed < WINDOW {
                    return false;
                }
                if is_slow(*octets, elapsed) {
                    return true;
                }
                // Fast enough: what it does from now on counts.
                (*since, *octets) = (now, 0);
                false
            }
        }
    }
}

/// What a connection is good for. Unlike [`Patience`], which every command and every chunk begins anew, only an
/// accepted message does, so that nothing else a client says keeps its place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Progress {
    /// When a message was last accepted or the connection began, or since when its octets are counted.
    since: Instant,
    /// Octets since then of messages that can still be taken.
    octets: u64,
}

impl Progress {
    /// A connection begins, or has had a message accepted.
    pub(super) fn at(now: Instant) -> Self {
        Self {
            since: now,
            octets: 0,
        }
    }

    /// Octets of a message came, and it can still be taken.
    pub(super) fn came(&mut self, octets: usize) {
        self.octets += octets as u64;
    }

    /// True if this connection makes room for others when connections run short.
    pub(super) fn is_at_its_end(&mut self, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.since);
        if elapsed < BARREN {
            return false;
        }
        let is_slow = is_slow(self.octets, elapsed);
        if !is_slow {
            // A long message that comes at its rate: what comes from now on counts.
            *self = Self::at(now);
        }
        is_slow
    }
}

fn is_slow(octets: u64, elapsed: Duration) -> bool {
    octets < RATE * elapsed.as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_command_has_half_a_minute() {
        let start = Instant::now();
        let mut patience = Patience::Command(start);
        patience.heard(1000);
        assert!(!patience.is_at_its_end(start + IDLE - Duration::from_millis(1)));
        assert!(patience.is_at_its_end(start + IDLE));
    }

    #[tokio::test]
    async fn a_message_needs_a_hundred_octets_a_second_in_every_minute() {
        let start = Instant::now();
        let mut slow = Patience::Message(start, 0);
        slow.heard(5999);
        assert!(!slow.is_at_its_end(start + WINDOW / 2));
        assert!(slow.is_at_its_end(start + WINDOW));

        let mut fast_at_first = Patience::Message(start, 0);
        fast_at_first.heard(1_000_000);
        assert!(!fast_at_first.is_at_its_end(start + WINDOW));
        fast_at_first.heard(1000);
        assert!(fast_at_first.is_at_its_end(start + 2 * WINDOW));
    }

    #[tokio::test]
    async fn ten_minutes_without_a_message_need_a_hundred_octets_a_second() {
        let start = Instant::now();
        let almost = BARREN - Duration::from_millis(1);
        let mut none = Progress::at(start);
        assert!(!none.is_at_its_end(start + almost));
        assert!(none.is_at_its_end(start + BARREN));
        // What came long ago does not count for ever.
        let mut fast_at_first = Progress::at(start);
        fast_at_first.came(1_000_000);
        assert!(!fast_at_first.is_at_its_end(start + BARREN));
        fast_at_first.came(59_999);
        assert!(!fast_at_first.is_at_its_end(start + BARREN + almost));
        assert!(fast_at_first.is_at_its_end(start + 2 * BARREN));
        fast_at_first = Progress::at(start + BARREN);
        fast_at_first.came(60_000);
        assert!(!fast_at_first.is_at_its_end(start + 2 * BARREN));
    }
}
