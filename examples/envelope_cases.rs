//! Writes what would be sent for every case of `tests/envelope/*.txt` into a directory, for `judge.py`.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)] // a tool for tests

#[path = "../tests/envelope/cases.rs"]
#[allow(dead_code)]
mod cases;

use smtp_oauth_bridge::mail::Address;
use smtp_oauth_bridge::mail::header::HeaderBlock;
use smtp_oauth_bridge::policy::fit_header_to_envelope;
use std::path::PathBuf;

fn main() {
    let dir = PathBuf::from(std::env::args().nth(1).expect("usage: envelope_cases DIR"));
    for case in cases::all() {
        let envelope: Vec<Address> = case
            .envelope
            .iter()
            .map(|a| a.parse().expect("an address"))
            .collect();
        let block = HeaderBlock::parse(&case.message, true).expect("a header block");
        let Ok(changes) = fit_header_to_envelope(&block, &envelope) else {
            continue;
        };
        let mut out = changes.apply(block.head()).expect("the changes were made for it");
        out.extend_from_slice(&case.message[block.head_len()..]);
        std::fs::write(dir.join(format!("{}.eml", case.name)), out).expect("a directory to write to");
        let rcpt = case.envelope.join("\n") + "\n";
        std::fs::write(dir.join(format!("{}.rcpt", case.name)), rcpt).expect("a directory to write to");
    }
}
