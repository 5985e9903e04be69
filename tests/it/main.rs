//! All integration tests in one binary: it links once.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod delivery;
mod floors;
mod graph;
mod support;
