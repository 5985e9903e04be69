//! All integration tests in one program, which links faster than many.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod dialogs;
