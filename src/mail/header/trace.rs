//! The Received field that we put on a message when we take it.

use crate::mail::{Address, Peer, Timestamp};
use std::fmt;
use std::net::IpAddr;

/// Longest text that is copied from a client into the field.
const MAX_NAME: usize = 200;

/// How a message came in, for its Received field.
#[derive(Clone, Copy, Debug)]
pub struct Hop<'a> {
    /// What the client called itself in HELO or EHLO; anything, or nothing.
    pub greeting: &'a str,
    /// Where the connection came from.
    pub client: Peer,
    /// Our own name.
    pub hostname: &'a str,
    /// What was spoken.
    pub protocol: Protocol,
    /// The message's id in our queue.
    pub queue_id: &'a str,
    /// When it was accepted.
    pub arrival: Timestamp,
    /// The recipient, only if there is exactly one: two would tell them of each other (RFC 5321 §7.6).
    pub recipient: Option<&'a Address>,
}

/// The `with` keyword of a Received field (RFC 3848, RFC 6531 §4.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Protocol {
    /// The client said EHLO.
    pub extended: bool,
    /// Over TLS.
    pub tls: bool,
    /// After AUTH.
    pub authenticated: bool,
    /// The message needs SMTPUTF8.
    pub smtputf8: bool,
}

impl fmt::Display for Protocol {
    /// HELO has no keyword for TLS, AUTH or SMTPUTF8: RFC 3848 and RFC 6531 define them for ESMTP only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.extended {
            return f.write_str("SMTP");
        }
        f.write_str(if self.smtputf8 { "UTF8SMTP" } else { "ESMTP" })?;
        f.write_str(if self.tls { "S" } else { "" })?;
        f.write_str(if self.authenticated { "A" } else { "" })
    }
}

/// The whole field (RFC 5321 §4.4), folded, with its CRLF; always one well-formed field, whatever the client said.
#[must_use]
pub fn received_field(hop: &Hop<'_>) -> String {
    let client = match hop.client {
        Peer::Address(IpAddr::V4(ip)) => format!("[{ip}]"),
        Peer::Address(IpAddr::V6(ip)) => format!("[IPv6:{ip}]"),
        Peer::Local => "local".to_owned(),
    };
    let greeting = match word(hop.greeting) {
        name if name.is_empty() => "unknown".to_owned(),
        name => name,
    };
    let (hostname, id) = (word(hop.hostname), word(hop.queue_id));
    let mut field = format!(
        "Received: from {greeting} ({client})\r\n\tby {hostname} with {}\r\n\tid {id}",
        hop.protocol
    );
    let recipient = hop.recipient.map(super::write_address);
    if let Some(recipient) = recipient.filter(|text| text.is_ascii() && text.len() <= MAX_NAME) {
        field.push_str("\r\n\tfor <");
        field.push_str(&recipient);
        field.push('>');
    }
    field.push_str(";\r\n\t");
    field.push_str(&hop.arrival.rfc5322());
    field.push_str("\r\n");
    field
}

/// Only what can stand in a host name, an address literal or an id: no blanks, brackets, quotes, `;` or `@`.
fn word(text: &str) -> String {
    text.chars()
        .filter(|c| c.is_ascii_alphanumeric() || ".-_:".contains(*c))
        .take(MAX_NAME)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::header::HeaderBlock;

    fn hop(greeting: &str) -> Hop<'_> {
        Hop {
            greeting,
            client: "192.0.2.7".parse().unwrap(),
            hostname: "bridge.example.lan",
            protocol: Protocol {
                extended: true,
                tls: true,
                ..Protocol::default()
            },
            queue_id: "0193-ab",
            arrival: Timestamp::from_millis(1_795_250_820_123),
            recipient: None,
        }
    }

    #[test]
    fn the_field_is_folded_and_tells_one_recipient_at_most() {
        let bob = "\"b b\"@x.example".parse().unwrap();
        let field = received_field(&Hop {
            recipient: Some(&bob),
            client: "2001:db8::1".parse().unwrap(),
            ..hop("printer")
        });
        assert_eq!(
            field,
            "Received: from printer ([IPv6:2001:db8::1])\r\n\tby bridge.example.lan with ESMTPS\r\n\tid 0193-ab\r\n\
             \tfor <\"b b\"@x.example>;\r\n\tSat, 21 Nov 2026 08:47:00 +0000\r\n"
        );
        assert!(!received_field(&hop("printer")).contains("for"));
        let local = received_field(&Hop {
            client: Peer::Local,
            ..hop("app")
        });
        assert!(local.starts_with("Received: from app (local)\r\n"), "{local}");
    }

    #[test]
    fn the_protocol_has_a_keyword_for_every_session() {
        for (bits, keyword) in [
            ([false, true, true, true], "SMTP"),
            ([true, false, false, false], "ESMTP"),
            ([true, true, false, false], "ESMTPS"),
            ([true, false, true, false], "ESMTPA"),
            ([true, true, true, false], "ESMTPSA"),
            ([true, false, false, true], "UTF8SMTP"),
            ([true, true, false, true], "UTF8SMTPS"),
            ([true, false, true, true], "UTF8SMTPA"),
            ([true, true, true, true], "UTF8SMTPSA"),
        ] {
            let [extended, tls, authenticated, smtputf8] = bits;
            let protocol = Protocol {
                extended,
                tls,
                authenticated,
                smtputf8,
            };
            assert_eq!(protocol.to_string(), keyword);
        }
    }

    #[test]
    fn a_greeting_of_garbage_does_no_harm() {
        let long = "x".repeat(5000);
        for greeting in [
            "",
            "a b",
            "x\r\nBcc: eve@x",
            "(\\[)]<>;\"",
            "\0",
            "äöü",
            "[192.0.2.1]",
            long.as_str(),
        ] {
            let field = received_field(&hop(greeting));
            let block = HeaderBlock::parse(field.as_bytes(), true).unwrap();
            assert!(block.is_clean() && block.fields().len() == 1, "{field}");
            assert!(
                !block.fields()[0].has_overlong_line() && !field.contains('@'),
                "{field}"
            );
        }
    }
}
