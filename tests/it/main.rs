//! All integration tests in one binary: it links once.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on has failed"
)]

mod check;
mod corpora;
mod delivery;
mod dialogs;
mod floors;
mod graph;
mod history;
mod oracle;
mod outage;
mod reports;
mod support;
mod user;
