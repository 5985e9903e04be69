//! What must hold for any input whatever. Each function takes the input of one fuzz target and panics if something
//! does not hold. `cargo fuzz` calls them with inputs of its own making, `tests/it/corpora.rs` with those of the
//! corpora.

#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    clippy::panic,
    reason = "a fuzz target uses one of them, nothing else can reach them, and panicking is how they speak"
)]

mod command;
mod data;
mod envelope;
pub mod naive;
mod proxy;
mod session;
pub mod wire;

pub use command::command;
pub use data::data;
pub use envelope::envelope;
pub use proxy::proxy;
pub use session::session;

use smtp_oauth_bridge::config::{Access, AuthMode};
use smtp_oauth_bridge::mail::Reply;
use smtp_oauth_bridge::smtp::SessionSettings;

/// A listener whose settings are the bits of the first octet of an input, and the rest of the input.
/// 1: lenient, 2 and 4: `auth`, 8: STARTTLS; the rest means nothing, so that it can be a letter.
fn settings(input: &[u8]) -> Option<(SessionSettings, &[u8])> {
    let (&bits, rest) = input.split_first()?;
    let auth = [
        AuthMode::Off,
        AuthMode::Optional,
        AuthMode::Required,
        AuthMode::Any,
    ];
    let access = Access {
        auth: auth[usize::from(bits >> 1 & 3)],
        old_auth_line: bits & 8 != 0,
        ..Access::default()
    };
    let settings = SessionSettings {
        hostname: "bridge.test".into(),
        listener: "test".into(),
        max_message_size: 1000,
        lenient: bits & 1 != 0,
        access,
        starttls: bits & 8 != 0,
    };
    Some((settings, rest))
}

/// A reply is one that every client can read: RFC 5321 §4.2 and §4.2.1, the length of §4.5.3.1.5, and ASCII, since
/// not every client has said SMTPUTF8 (RFC 6531 §3.7.4.3).
fn well_formed(reply: &Reply) {
    let mut wire = Vec::new();
    reply.write_to(&mut wire);
    let text = wire.strip_suffix(b"\r\n").expect("a reply ends in CRLF");
    let code = reply.code().to_string();
    assert!(matches!(reply.code(), 200..=599), "{reply}");
    let lines: Vec<&[u8]> = text.split(|&octet| octet == b'\n').collect();
    for (n, line) in lines.iter().enumerate() {
        let last = n + 1 == lines.len();
        let line = if last {
            line
        } else {
            line.strip_suffix(b"\r").expect("CRLF between lines")
        };
        assert!(line.len() <= 510, "too long: {}", line.escape_ascii());
        assert!(
            line.iter().all(|octet| matches!(octet, b' '..=b'~')),
            "{}",
            line.escape_ascii()
        );
        let separator: &[u8] = if last { b" " } else { b"-" };
        assert!(
            line.starts_with(&[code.as_bytes(), separator].concat()),
            "{}",
            line.escape_ascii()
        );
    }
}
