//! Floor 4: what became of every message, searchable.
//!
//! ```text
//! plan, settle, …  ── one transaction ──▶ queue.db: outbox ──▶ Feed ──▶ Keeper: history.db
//!                                               │                            │
//!                                               └────────▶ Archive ◀─────────┘
//!                                                             │ Story ──▶ text, JSON
//! ```
//!
//! The history is never in the queue's way: it is a database of its own, and whatever happens to it, mail goes on.
//! [`Feed`] takes events from the outbox, commits them to the history, and only then deletes them from the outbox; a
//! kill between the two repeats events, which the history knows by their ids. [`Archive`] reads history and queue
//! together, so that the newest is never missing, with the daemon running or not.

mod archive;
mod entry;
mod feed;
mod json;
mod keeper;
mod story;
#[cfg(test)]
mod tests;
mod text;

pub use archive::{Archive, ArchiveError, Found, Target, TargetError};
pub use feed::{Feed, Outbox};
pub use json::json;
pub use keeper::{Keeper, KeeperError, KeeperSettings};
pub use story::{RecipientStory, Story};
pub use text::text;

use std::path::{Path, PathBuf};

/// Where the history is.
#[must_use]
pub fn database(state_dir: &Path) -> PathBuf {
    state_dir.join("history.db")
}
