//! Floor 3: reports about the fate of a message (delivery status notifications, RFC 3464), and who gets them. Pure.
//!
//! [`recipient`] decides who is told, [`limit`] how often, [`compose`] writes the message: `multipart/report` (RFC
//! 6522) with a text for people, `message/delivery-status` for programs, and what the report is about.
//!
//! ```text
//! failed, told nobody about a report, nobody about NOTIFY=NEVER, … ── recipient ──▶ sender │ admin │ nobody
//!                                                                          │
//!                                     once an hour for the same cause ── limit ──▶ send, and say how many were not
//!                                                                          │
//!                                                                       compose ──▶ octets
//! ```

mod compose;
mod letter;
mod limit;
mod quoted;
mod recipient;
mod status;
mod text;

pub use compose::{MAX_RETURNED, Notice, Original, Outcome, compose};
pub use letter::{Letter, letter};
pub use limit::{Limit, limit};
pub use recipient::{Policy, Silence, Told, is_wanted, recipient};

/// What a report says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// It can never be delivered, and is kept as a dead letter.
    Failed,
    /// It is late and still tried.
    Delayed,
    /// It was handed on to a system that sends no reports of success (RFC 3461 §5.2.2).
    Relayed,
    /// It waits for a person, for longer than it should.
    Held,
}
