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
        assert_eq!(early.to_string().len(), 32);
        assert_eq!(early.to_string().parse(), Ok(early));
        assert_eq!(QueueId::from_bytes(*late.as_bytes()), late);
        assert!("nonsense".parse::<QueueId>().is_err());
    }
}
