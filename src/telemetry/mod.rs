//! Floor 2: what the operator reads.
//!
//! [`maillog`] holds every line that tells of a message's life; [`log`] decides how lines look and where they go.

pub mod log;
pub mod maillog;

pub use maillog::Maillog;
