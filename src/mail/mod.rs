//! Floor 0: the words of mail. Addresses, envelopes, replies, dispositions and header fields.
//!
//! Nothing in this room does I/O, waits, reads a clock or knows the configuration; every other room speaks
//! in these types.

mod address;
mod disposition;
mod dsn;
mod envelope;
pub mod header;
mod peer;
mod queue_id;
mod reply;
mod timestamp;

pub use address::{Address, AddressError, MAX_ADDRESS_LEN};
pub use disposition::{Cause, Disposition, EnhancedCode, Receipt, Report, Scope, StatusClass};
pub use dsn::{DsnError, EnvelopeId, Notify, OriginalRecipient, Ret};
pub use envelope::{BodyType, Envelope, EnvelopeError, Recipient, ReversePath};
pub use peer::Peer;
pub use queue_id::{QueueId, QueueIdError};
pub use reply::Reply;
pub use timestamp::Timestamp;
