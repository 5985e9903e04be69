//! Floor 3: who may log in to a listener: the users file, passwords, and those who guess them.
//!
//! | file | what it knows |
//! |---|---|
//! | `file` | the text of the users file: reading it, adding and removing a user |
//! | `disk` | the file itself: reading it again when it changes, replacing it as a whole |
//! | `password` | argon2id (RFC 9106): making a hash, checking a password |
//! | `cache` | which logins were right a moment ago; pure |
//! | `throttle` | which addresses guess; pure |
//! | `logins` | all of it together: is this login right? |
//!
//! Memory and CPU stay bounded whatever clients do: one hash is computed at a time, in one buffer; a right login is
//! remembered for ten minutes under a keyed hash; an address that fails too often is not heard for a while.
//! An unknown user costs the same time as a known one, and gets the same answer.

mod cache;
mod disk;
mod file;
mod logins;
mod password;
mod throttle;

pub use disk::{UsersError, edit, read};
pub use file::{BadLine, EditError, NameError, SenderError, Senders, User, Users, add, check_name, remove};
pub use logins::{Doubt, Login, Logins, Verdict};
pub use password::{HashError, hash, matches};
