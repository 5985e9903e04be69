//! The program `smtp-oauth-bridge`; everything is in the library.

fn main() {}
