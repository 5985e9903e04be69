//! Floor 6: what administrators and their programs see of the bridge, and do with it.
//!
//! [`Office`] is what can be asked and ordered. [`router`] puts it behind HTTP with JSON. The daemon serves that on a
//! Unix socket, [`ControlSocket`]; while no bridge runs, the command line goes through the same router without any
//! socket, over a closed spool. So there is one set of answers, and a web page can be added in front of the same
//! handlers.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/status` | [`view::Status`] |
//! | `POST /v1/pause`, `POST /v1/resume` with [`view::Which`] | `{}` |
//! | `GET /v1/queue?state=…&account=…&sender=…&recipient=…&older_than=…&younger_than=…&after=…&limit=…` | [`view::List`] |
//! | `GET /v1/queue/ids?…` | [`view::Ids`] |
//! | `GET /v1/queue/message/ID` | [`view::Details`] |
//! | `GET /v1/queue/message/ID/envelope` | the envelope, as text |
//! | `GET /v1/queue/message/ID/body` | the message as it was received |
//! | `POST /v1/queue/ACTION` with [`view::Ids`] | [`view::Results`] |
//! | `POST /v1/queue/import?envelope=N` with N octets of envelope and then the message | [`view::Imported`] |
//! | `GET /v1/backup` | a tar archive |
//!
//! An ID may be its beginning, if no other message has it. What goes wrong is `{"error": "…"}`.

mod door;
mod office;
mod routes;
mod socket;
mod status;
mod stream;
pub mod view;

pub use door::{Door, DoorError};
pub use office::{Facts, Office, Running, Side};
pub use routes::{Caller, router};
pub use socket::{ControlSocket, SocketError};
