//! The name of a message in the queue.

use super::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use uuid::{NoContext, Uuid};

/// Names one accepted message, in the log, in the Received field and in the spool: a UUID of version 7
/// (RFC 9562 §5.7), so that ids sort by arrival. Shown as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct QueueId(Uuid);

/// A text or byte string that is not a queue id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a queue id has 32 hexadecimal digits")]
pub struct QueueIdError;

impl QueueId {
    /// A new id for a message that arrived at `arrived`.
    #[must_use]
    pub fn new(arrived: Timestamp) -> Self {
        let millis = u64::try_from(arrived.millis()).unwrap_or(0);
        let (seconds, nanos) = (
            millis / 1000,
            u32::try_from(millis % 1000).unwrap_or(0) * 1_000_000,
        );
        Self(Uuid::new_v7(uuid::Timestamp::from_unix(
            NoContext, seconds, nanos,
        )))
    }

    /// No message that arrived at `moment` or later has an id before this one.
    #[must_use]
    pub fn earliest(moment: Timestamp) -> Self {
        let millis = u64::try_from(moment.millis()).unwrap_or(0);
        let mut bytes = [0; 16];
        // The first 48 bits are the milliseconds (RFC 9562 §5.7).
        bytes[..6].copy_from_slice(&millis.to_be_bytes()[2..]);
        Self::from_bytes(bytes)
    }

    /// The 16 bytes under which it is stored.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// From the 16 bytes under which it is stored.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// When the message arrived, as its id tells.
    #[must_use]
    pub fn arrived(&self) -> Timestamp {
        Timestamp::from_millis(i64::try_from(self.0.as_u128() >> 80).unwrap_or(0))
    }

    /// The id just before this one; the first has none before it, and is its own.
    #[must_use]
    pub fn previous(&self) -> Self {
        Self(Uuid::from_u128(self.0.as_u128().saturating_sub(1)))
    }

    /// The lowest and the highest id that begin with these hexadecimal digits; hyphens do not count. `None` if `text`
    /// is no such beginning.
    #[must_use]
    pub fn beginning_with(text: &str) -> Option<(Self, Self)> {
        let digits: String = text.chars().filter(|c| *c != '-').collect();
        let hexadecimal = |c: char| c.is_ascii_hexdigit();
        if digits.is_empty() || digits.len() > 32 || !digits.chars().all(hexadecimal) {
            return None;
        }
        let fill = |with: &str| format!("{digits}{}", with.repeat(32 - digits.len())).parse().ok();
        Some((fill("0")?, fill("f")?))
    }

    /// Which of the 64 directories a large body belongs to: the last six bits, which are random.
    #[must_use]
    pub fn shard(&self) -> u8 {
        self.0.as_bytes()[15] & 0x3f
    }
}

impl fmt::Display for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.simple())
    }
}

impl fmt::Debug for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<QueueId> for String {
    fn from(id: QueueId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for QueueId {
    type Error = QueueIdError;

    fn try_from(text: String) -> Result<Self, QueueIdError> {
        text.parse()
    }
}

impl FromStr for QueueId {
    type Err = QueueIdError;

    fn from_str(text: &str) -> Result<Self, QueueIdError> {
        Uuid::try_parse(text).map(Self).map_err(|_| QueueIdError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_arrival_and_survive_a_round_trip() {
        let early = QueueId::new(Timestamp::from_millis(1_000));
        let late = QueueId::new(Timestamp::from_millis(1_001));
        assert!(early < late);
        assert_eq!(late.arrived(), Timestamp::from_millis(1_001));
        assert_eq!(early.to_string().len(), 32);
        assert_eq!(early.to_string().parse(), Ok(early));
        assert_eq!(QueueId::from_bytes(*late.as_bytes()), late);
        assert!("nonsense".parse::<QueueId>().is_err());
    }

    #[test]
    fn an_id_tells_when_its_message_arrived() {
        let at = Timestamp::from_millis(1_795_250_820_123);
        let id = QueueId::new(at);
        assert_eq!(id.arrived(), at);
        assert!(QueueId::earliest(at) <= id);
        assert!(QueueId::earliest(at.plus(std::time::Duration::from_millis(1))) > id);
        assert!(QueueId::earliest(at).previous() < QueueId::earliest(at));
        assert_eq!(QueueId::earliest(at).arrived(), at);
    }

    #[test]
    fn a_beginning_of_an_id_means_a_range_of_ids() {
        let id: QueueId = "019d0000-0000-7000-8000-0000000000aa".parse().unwrap();
        for (text, inside) in [
            ("019d", true),
            ("019D0000-0000-7", true),
            ("019d00000000700080000000000000aa", true),
            ("019e", false),
            ("0", true),
        ] {
            let (low, high) = QueueId::beginning_with(text).unwrap();
            assert_eq!(low <= id && id <= high, inside, "{text}");
        }
        for text in ["", "-", "xyz", "019d00000000700080000000000000aa0", "*"] {
            assert_eq!(QueueId::beginning_with(text), None, "{text}");
        }
    }
}
