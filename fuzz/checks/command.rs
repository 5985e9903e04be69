//! One command line, in every state that a session can be in.

use super::{settings, well_formed};
use smtp_oauth_bridge::mail::{Address, Envelope, Peer};
use smtp_oauth_bridge::smtp::{Action, Session, Step};
use smtp_oauth_bridge::spool::Room;
use std::net::Ipv4Addr;
use std::sync::Arc;

/// What was said before.
const BEFORE: [&[&str]; 5] = [
    &[],
    &["EHLO x"],
    &["EHLO x", "MAIL FROM:<a@x.example>"],
    &["EHLO x", "MAIL FROM:<a@x.example>", "RCPT TO:<b@x.example>"],
    &[
        "EHLO x",
        "MAIL FROM:<a@x.example>",
        "RCPT TO:<b@x.example>",
        "BDAT 0",
    ],
];

/// The first octet is that of [`settings`], the rest a line.
pub fn command(input: &[u8]) {
    let Some((settings, line)) = settings(input) else {
        return;
    };
    let line = line.split(|&octet| octet == b'\n').next().unwrap_or_default();
    let settings = Arc::new(settings);
    for before in BEFORE {
        let run = |line: &[u8]| {
            let mut session = Session::new(settings.clone(), Peer::Address(Ipv4Addr::LOCALHOST.into()));
            for said in before {
                session.command(said.as_bytes(), || Room::Enough);
            }
            (session.command(line, || Room::Enough), session)
        };
        let (step, mut session) = run(line);
        assert_eq!(
            run(&[line, b"\r\n"].concat()).0,
            step,
            "its end makes it another line"
        );
        well_formed(&step.reply);
        code_fits(&step);
        if let Action::ReadData(incoming) = &step.action {
            envelope(&incoming.envelope);
        }
        // Nothing said so far keeps a client from beginning again.
        if step.action == Action::Continue && step.reply.code() != 334 {
            let reset = session.command(b"RSET", || Room::Enough);
            assert_eq!(reset.reply.code(), 250, "after {}", line.escape_ascii());
            assert!(!session.is_between_chunks());
        }
    }
    address(line);
}

fn code_fits(step: &Step) {
    let code = step.reply.code();
    assert!(
        match step.action {
            Action::Continue => !matches!(code, 220 | 221 | 354 | 421),
            Action::ReadData(_) => code == 354,
            Action::StartTls => code == 220,
            Action::ReadChunk(_) => code == 250,
            Action::Discard(_) => code >= 500,
            Action::CheckLogin(_) => true,
            Action::Close => matches!(code, 221 | 421 | 500..),
        },
        "{} and {:?}",
        step.reply,
        step.action
    );
}

fn envelope(envelope: &Envelope) {
    assert!(!envelope.recipients().is_empty());
    for recipient in envelope.addresses() {
        assert!(!recipient.domain().is_empty());
    }
}

/// An address is the same when it is read again as it is written.
fn address(line: &[u8]) {
    let Ok(text) = std::str::from_utf8(line) else {
        return;
    };
    for text in [Some(text), text.split(['<', '>']).nth(1)].into_iter().flatten() {
        if let Ok(address) = text.parse::<Address>() {
            assert_eq!(
                address.to_string().parse::<Address>().as_ref(),
                Ok(&address),
                "{address}"
            );
        }
    }
}
