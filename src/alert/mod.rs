//! Floor 6: administrators are told when mail stops, and when it flows again.
//!
//! [`decide`] is pure: how the world is and what was told already go in, what is to be told now comes out. One task
//! ([`Alerts`]) owns all of it and waits in one loop; whatever it sends to has a time limit, and no mail ever waits for
//! it.
//!
//! ```text
//! delivery::Control ┐                          ┌─▶ webhook
//! oldest messages   ├─▶ World ──▶ decide ──▶ Tell ─▶ command
//! room in the spool │              ▲           └─▶ mail, through an account that is well
//! what the start    │              └── Told (table alert) ◀── once it was sent
//! found, and ends   ┘
//! ```
//!
//! **At least once.** The row that remembers an alert is written after it was sent: a crash in the instant between
//! repeats an alert, which is a nuisance; written before, the crash would swallow it, and nobody would know that mail has
//! stopped. Mail is queued in the transaction that writes the row, so it comes exactly once.

mod decide;
mod message;
mod topic;
mod watch;
mod ways;
mod world;

pub use decide::{Tell, Told, World, decide};
pub use topic::{Topic, Trouble};
pub use watch::{Alerts, Ends, Settings};
pub use ways::{Carriers, Way};
pub use world::{Expiring, Facts, Limits, world};
