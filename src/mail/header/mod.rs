//! The header block of a message: its fields, the addresses in them, and changes to them.
//!
//! Everything here reads and writes bytes that the message's sender made, so nothing here trusts them: parsing
//! is total, and a change is bound to the exact bytes that it was made for.

mod addresses;
mod block;
mod changes;
mod lenient;
mod trace;
mod write;

pub use addresses::{AddressList, Mailbox, parse_strict};
pub use block::{Field, HeaderBlock, HeaderError, MAX_HEADER_BLOCK};
pub use changes::{ChangeError, Edit, HeaderChanges};
pub use lenient::{decode_words, parse_lenient, recipients_read_by_others};
pub use trace::{Hop, Protocol, received_field};
pub use write::{address_list_field, text_field, write_address};
