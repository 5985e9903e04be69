//! What a session asks those around it.

use crate::spool::Room;

/// Answers a session's questions. Each is asked when all else is right.
pub trait Host {
    /// Whether the spool has room for a message.
    fn room(&self) -> Room;

    /// Counts a message of this client, and says whether it may send one now.
    fn may_send(&self) -> bool {
        true
    }

    /// Counts a recipient of this client, and says whether it may name one now.
    fn may_address(&self) -> Addressing {
        Addressing::Yes
    }
}

/// For tests: only the room matters.
impl<F: Fn() -> Room> Host for F {
    fn room(&self) -> Room {
        self()
    }
}

/// Whether a client may name another recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addressing {
    /// It may.
    Yes,
    /// Too many in a short time.
    TooFast,
    /// Too many of all clients wait to be stored.
    NoMemory,
}
