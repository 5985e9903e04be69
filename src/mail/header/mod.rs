//! The header block of a message: its fields, the addresses in them, and changes to them.
