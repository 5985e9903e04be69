//! All integration tests in one binary: it links once.

mod delivery;
mod floors;
mod graph;
mod support;
