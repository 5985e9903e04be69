//! Floor 5: from the spool to an upstream.
//!
//! [`Runner`] is the one loop that waits; it decides *when* something is tried, and owns all state. `attempt` is
//! *how* a part is tried. What follows from an answer is decided by pure functions: `settle` for the part,
//! `retry` for its time, `gates` for the account and mailbox.
//!
//! ```text
//!              plan                due, gate open          marker committed
//! accepted ─────────▶ waiting ───────────────────▶ ready ──────────────────▶ under way
//!                        ▲                                                      │ report
//!                        │ deferred, uncertain, gate closed                     ▼
//!                        └──────────────────────────────────────────────── settled ──▶ ended │ held
//! ```

mod attempt;
mod control;
mod gates;
mod lanes;
mod pace;
#[cfg(test)]
mod pace_simulation;
mod plan;
mod quota;
mod reports;
mod retry;
mod runner;
mod settle;
mod suspicion;

pub use control::{
    AccountStatus, Attention, Control, ControlError, Health, MailboxStatus, Place, Status, Trouble,
};
pub use pace::{Limits, Paces, Terms, Transport};
pub use plan::{Account, Planner};
pub use reports::{GivenUp, Undertaker};
pub use retry::Schedule;
pub use runner::{Runner, Upstreams};
