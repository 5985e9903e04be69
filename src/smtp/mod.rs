//! Floor 4: the listener. Plain SMTP comes in here, and a 250 after the final dot means that the spool has it.
//!
//! | file | what it knows |
//! |---|---|
//! | `listener` | sockets: binding, accepting, limits, the end |
//! | `connection` | one client: reading, writing, timeouts; any stream, so that TLS is a wrapper around one |
//! | `session` | what to answer to a line; no I/O |
//! | `login` `auth` | the part of a session that is about logging in; no I/O |
//! | `command` | what a line says |
//! | `data` | where a message ends; no I/O |
//!
//! Liberal in what a command may look like, strict about framing: a client may write a command badly, but nothing
//! ever changes where a message ends. What devices really do is written down as dialogs in `tests/dialogs/`.

mod auth;
mod command;
mod connection;
mod data;
mod listener;
mod login;
mod session;

pub use data::{DataReader, Decoded};
pub use listener::{BindError, Bound, Services, bind, serve};
pub use session::{
    Action, DataError, Incoming, MAX_BAD, MAX_BAD_IN_A_ROW, MAX_RECIPIENTS, Session, SessionSettings, Step,
};
