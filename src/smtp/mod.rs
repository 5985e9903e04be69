//! Floor 5: the listener. Plain SMTP comes in here, and a 250 after the final dot means that the spool has it.
//!
//! | file | what it knows |
//! |---|---|
//! | `listener` `premises` | listeners: opening them, and the end |
//! | `entrance` | accepting clients within the limits |
//! | `socket` | opening TCP and Unix sockets and those of systemd; `holder`: which program is in the way |
//! | `proxy` | the PROXY header of a load balancer; no I/O |
//! | `connection` | one client: reading, writing, timeouts; any stream |
//! | `greeting` `handshake` `receiving` `bdat` `farewell` | its parts before the greeting, where TLS begins, that read a message, or its pieces by BDAT, and that end it |
//! | `waiting` `desk` | its parts that wait for the client, and that answer the session's questions |
//! | `input` | what was read and not yet used |
//! | `tls` | a stream that can begin TLS, and its failures in plain words |
//! | `certificate` | reading certificates again when they change; `own_certificate`: making one; `expiry`: when it ends, no I/O |
//! | `session` `replies` | what to answer to a line; no I/O |
//! | `transaction` | the part of a session that is about one message; no I/O |
//! | `crowd` `rates` `patience` | how many clients, how much each, how slow; no I/O, time is an argument |
//! | `login` `auth` | the part of a session that is about logging in; no I/O |
//! | `command` | what a line says |
//! | `parameters` | what MAIL and RCPT ask for besides; no I/O |
//! | `data` | where a message of DATA ends; no I/O |
//! | `chunk` | what the octets of BDAT mean; no I/O |
//!
//! Liberal in what a command may look like, strict about framing: a client may write a command badly, but nothing
//! ever changes where a message ends. What devices really do is written down as dialogs in `tests/dialogs/`.

mod auth;
mod bdat;
mod certificate;
mod chunk;
mod command;
mod connection;
mod crowd;
mod data;
mod desk;
mod entrance;
mod expiry;
mod farewell;
mod greeting;
mod handshake;
mod holder;
mod host;
mod input;
mod listener;
mod login;
mod own_certificate;
mod parameters;
mod patience;
mod premises;
pub mod proxy;
mod rates;
mod receiving;
mod refusal;
mod replies;
mod seldom;
mod session;
mod socket;
mod stream;
mod tls;
mod transaction;
mod waiting;

pub use certificate::{CertificateError, check_certificates, ending_certificates};
pub use chunk::ChunkReader;
pub use crowd::Capacity;
pub use data::{DataReader, Decoded};
pub use host::{Addressing, Host};
pub use listener::{Bound, Services, bind, serve};
pub use premises::Premises;
pub use session::{
    Action, Chunk, DataError, Incoming, MAX_BAD, MAX_BAD_IN_A_ROW, MAX_COMMANDS, MAX_RECIPIENTS, Session,
    SessionSettings, Step,
};
pub use socket::{BindError, Inherited, Place};
