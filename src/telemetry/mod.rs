//! Floor 2: what the operator reads.
//!
//! [`maillog`] holds every line that tells of a message's life, and [`event`] what the history is told of it;
//! [`log`] decides how lines look and where they go.

pub mod event;
pub mod log;
pub mod maillog;

pub use event::Event;
pub use maillog::Maillog;
