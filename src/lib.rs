//! smtp-oauth-bridge: plain SMTP in, OAuth 2.0 out, and nothing lost in between.
//!
//! The rooms of this crate stand on floors, and a room uses only what is below it (`tests/it/floors.rs`
//! enforces this; ARCHITECTURE.md explains it):
//!
//! ```text
//! 8  cli        the command line
//! 7  daemon     the only file that knows everybody: build, run, drain
//! 6  admin      queue, status, pause: by a control socket;  alert  administrators are told when mail stops
//!    sandbox    a Microsoft 365 look-alike
//! 5  smtp  delivery    strangers to each other: they meet only in the spool
//! 4  upstream   the ways out: Graph
//!    history    what became of every message, searchable
//! 3  spool  oauth  policy  users
//! 2  config  db  explain  files  http  shutdown  telemetry
//! 1  clock
//! 0  mail       the words
//! ```

pub mod admin;
pub mod alert;
pub mod cli;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod db;
pub mod delivery;
pub mod explain;
pub mod files;
pub mod history;
pub mod http;
pub mod mail;
pub mod oauth;
pub mod policy;
pub mod report;
pub mod sandbox;
pub mod shutdown;
pub mod smtp;
pub mod spool;
pub mod telemetry;
pub mod upstream;
pub mod users;
