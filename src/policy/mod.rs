//! Floor 3: decisions about a message. Pure functions; no I/O, no waiting, no clock.

mod recipients;
mod sender;

pub use recipients::{Misfit, Mismatch, check_recipients, fit_header_to_envelope, summary};
pub use sender::{Choice, choose_mailbox};
