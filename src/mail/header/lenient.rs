//! What can be got out of fields that are not written as RFC 5322 wants it, by way of mail-parser.

use super::addresses::Mailbox;
use crate::mail::Address;
use mail_parser::{HeaderName, HeaderValue, Message, MessageParser};

/// The mailboxes that mail-parser finds in the value of a field that lists addresses, as far as their addresses
/// are ones.
///
/// Only good for looking things up, never as proof of who else is in the field.
#[must_use]
pub fn parse_lenient(value: &[u8]) -> Vec<Mailbox> {
    let mut field = b"To: ".to_vec();
    field.extend(value.iter().filter(|b| **b != 0));
    field.extend_from_slice(b"\r\n\r\n");
    let Some(message) = parse(&field) else {
        return Vec::new();
    };
    message
        .headers()
        .iter()
        .filter(|h| h.name == HeaderName::To)
        .filter_map(|h| h.value.as_address())
        .flat_map(|addresses| addresses.iter())
        .filter_map(|addr| {
            Some(Mailbox {
                name: addr.name.as_deref().map(str::to_owned),
                address: read_address(addr.address.as_deref()?)?,
            })
        })
        .collect()
}

/// The text with its encoded words decoded (RFC 2047).
#[must_use]
pub fn decode_words(text: &str) -> String {
    if !text.contains("=?") {
        return text.to_owned();
    }
    let field = format!("Subject: {}\r\n\r\n", text.replace(['\r', '\n'], " "));
    match parse(field.as_bytes()).and_then(|m| m.header(HeaderName::Subject)?.as_text().map(str::to_owned)) {
        Some(decoded) => decoded,
        None => text.to_owned(),
    }
}

/// Makes an address of what mail-parser found between the angle brackets.
///
/// It leaves the quotes of a quoted local part, but has already removed the backslashes of quoted pairs.
fn read_address(text: &str) -> Option<Address> {
    let text = text.trim();
    if let Some((local, domain)) = text.strip_prefix('"').and_then(|rest| rest.rsplit_once("\"@")) {
        return Address::new(local, domain).ok().filter(|_| !domain.is_empty());
    }
    text.parse().ok()
}

/// The header as mail-parser reads it; `None` if it sees none.
fn parse(header: &[u8]) -> Option<Message<'_>> {
    MessageParser::default().parse_headers(header)
}

/// Everybody whom mail-parser takes for a recipient in this header: the address, or what stands there instead of
/// one. A Resent-To, Resent-Cc or Resent-Bcc field counts as unreadable, because two readings of it are possible
/// (RFC 5322 §3.6.6).
#[must_use]
pub fn recipients_read_by_others(header: &[u8]) -> Vec<Result<Address, String>> {
    let mut found = Vec::new();
    let Some(message) = parse(header) else {
        return found;
    };
    for field in message.headers() {
        match (&field.name, &field.value) {
            (HeaderName::To | HeaderName::Cc | HeaderName::Bcc, HeaderValue::Address(addresses)) => {
                found.extend(addresses.iter().map(|addr| {
                    let text = addr
                        .address
                        .as_deref()
                        .or(addr.name.as_deref())
                        .unwrap_or_default();
                    addr.address
                        .as_deref()
                        .and_then(read_address)
                        .ok_or_else(|| text.to_owned())
                }));
            }
            (HeaderName::ResentTo | HeaderName::ResentCc | HeaderName::ResentBcc, _) => {
                found.push(Err(format!("the field {}", field.name())));
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn something_is_got_out_of_bad_fields() {
        for (value, expected) in [
            (&b" M\xfcller, J\xf6rg <j@x.example>"[..], vec!["j@x.example"]),
            (b" a@x.example; b@x.example", vec!["a@x.example", "b@x.example"]),
            (
                b" a@x.example,,\r\n b@x.example,",
                vec!["a@x.example", "b@x.example"],
            ),
            (b" a\0@x.example", vec!["a@x.example"]),
            (b" root", vec![]),
            (b" <\"a\\\"b\"@x.example>", vec!["\"a\\\"b\"@x.example"]),
            (b"", vec![]),
        ] {
            let found: Vec<String> = parse_lenient(value)
                .iter()
                .map(|m| m.address.to_string())
                .collect();
            assert_eq!(found, expected, "{value:?}");
        }
    }
}
