//! Floor 3: the messages on disk. What stands here after a 250 is never lost; what does not, was never promised.
//!
//! ```text
//! <state_dir>/spool/
//!   lock              held by the daemon
//!   id                names this spool; stands also in queue.db
//!   queue.db          records, envelopes, plans, and bodies of up to 64 KiB
//!   body/xx/<id>.eml  larger bodies exactly as received, 64 shards by the last six bits of the id
//!   body/xx/<id>.env  the envelope of a larger body, so that it can be queued again without the database
//!   reserve           16 MiB, given up when the disk is full so that outcomes can still be written
//!   corrupt/          what could not be read, or belongs to no row of a database in doubt; never deleted by us
//! ```
//!
//! | state | body file | row | meaning | at start |
//! |---|---|---|---|---|
//! | S0 | – | – | nothing | |
//! | S1 | + | – | receiving, or written but not accepted | swept |
//! | S2 | ± | + | **accepted: we said 250 (or were about to) and owe it** | queued |
//! | S3 | ± | + failed or held | dead letter or waiting for a person; body stays | kept |
//!
//! The COMMIT of the row is the commit of the message (S0 → S2, or S1 → S2 for a body in a file, which is synced
//! with its directory before). A body is unlinked only after its row is gone (S2 → S1 → S0).
//!
//! Narrow faces look outward: [`Intake`] and its [`Draft`]s are what the listener may do, [`Store`] is what the queue
//! runner may do, [`Operator`] is what an administrator may do, and [`Inspector`] only looks, also while no bridge
//! runs. Nothing outside this room and `db` knows SQL or files.

mod backup;
mod body;
mod disk;
#[cfg(test)]
mod disk_tests;
mod envelope_file;
mod holding;
mod import;
mod inspector;
mod intake;
#[cfg(test)]
mod memory_disk;
mod open;
mod operator;
mod place;
mod recover;
#[cfg(test)]
mod recover_tests;
mod reserve;
mod spool_files;
mod store;
mod sweep;
mod tar;
#[cfg(test)]
mod tests;
mod writer;

pub use crate::db::record::{
    Deferral, Fate, Message, NewReport, Next, Occasion, Origin, Part, PartId, Plan, PlannedPart, Progress,
    RecipientUpdate, Reports, Sent, Settlement, Told, ToldAlert, Turn,
};
pub use crate::db::{
    Agenda, Ages, Broken, Change, Changed, Done, Ending, Entry, Filter, InTurn, Lane, LaneAgenda, LaneCounts,
    NoSuchState, Oldest, Order, Overview, PartState, Parts, Pattern, RecipientState, Salvaged, Search, Slots,
    State, Turns,
};
pub use backup::BackedUp;
pub use body::{Body, BodyError, Pieces};
pub use envelope_file::{EnvelopeFileError, read_envelope, write_envelope};
pub use import::{ImportError, Importing};
pub use inspector::{Details, InspectError, Inspector, Page};
pub use intake::{AcceptError, Draft, Intake, Room};
pub use open::{Spool, SpoolError, SpoolSettings, Swept};
pub use operator::{Operator, SpoolRoom};
pub use place::network_file_system;
pub use recover::Recovered;
pub use store::{Store, StoreError};

use std::path::{Path, PathBuf};

/// Bodies up to this many octets live in the database, larger ones in files: about where the two break even.
pub const INLINE_LIMIT: usize = 64 * 1024;

/// Where the database of the spool in `directory` is, for those who only read it.
#[must_use]
pub fn database(directory: &Path) -> PathBuf {
    directory.join("queue.db")
}
