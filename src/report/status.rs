//! The part for programs: `message/delivery-status` (RFC 3464 §2). Always ASCII; addresses that are not stand there
//! in the ASCII form of RFC 6533 §3, so that the report needs nothing that a server between might not have.

use super::Kind;
use super::compose::{Notice, Outcome};
use super::quoted::wrapped;
use crate::mail::Address;
use crate::mail::OriginalRecipient;
use std::fmt::Write as _;

/// The longest diagnostic text that is copied.
const MAX_DIAGNOSTIC: usize = 1000;

/// The whole part without its MIME header: the fields of the message, then those of each recipient, in blocks.
pub(super) fn delivery_status(notice: &Notice<'_>) -> String {
    let original = notice.original;
    let mut out = format!("Reporting-MTA: dns; {}\r\n", notice.hostname);
    if let Some(id) = original.envelope.envelope_id() {
        field(&mut out, "Original-Envelope-Id", id.as_str());
    }
    field(&mut out, "Arrival-Date", &original.arrived.rfc5322());
    field(&mut out, "X-Queue-Id", &original.id.to_string());
    for outcome in notice.outcomes {
        out.push_str("\r\n");
        recipient(&mut out, notice, outcome);
    }
    out
}

fn recipient(out: &mut String, notice: &Notice<'_>, outcome: &Outcome<'_>) {
    if let Some(original) = &outcome.recipient.original {
        field(out, "Original-Recipient", &original_recipient(original));
    }
    field(
        out,
        "Final-Recipient",
        &final_recipient(&outcome.recipient.address),
    );
    let action = match notice.kind {
        Kind::Failed => "failed",
        Kind::Delayed | Kind::Held => "delayed",
        Kind::Relayed => "relayed",
    };
    field(out, "Action", action);
    field(out, "Status", &outcome.status);
    if let Some(diagnostic) = notice.diagnostic(outcome) {
        let kind = diagnostic_type(diagnostic);
        let text: String = ascii(diagnostic).chars().take(MAX_DIAGNOSTIC).collect();
        let folded = wrapped(&format!("Diagnostic-Code: {kind}; {text}"), "", 76);
        out.push_str(&folded.replace("\r\n", "\r\n "));
        // The last line break was followed by a blank, too.
        out.pop();
    }
}

/// The registered type `smtp` for a reply of SMTP (RFC 3464 §2.3.6), a private one for everything else.
fn diagnostic_type(diagnostic: &str) -> &'static str {
    let mut octets = diagnostic.bytes();
    let code = [octets.next(), octets.next(), octets.next()];
    let is_code = matches!(code, [Some(b'2'..=b'5'), Some(b'0'..=b'9'), Some(b'0'..=b'9')]);
    if is_code && matches!(octets.next(), Some(b' ' | b'-')) {
        "smtp"
    } else {
        "x-upstream"
    }
}

fn original_recipient(original: &OriginalRecipient) -> String {
    let (kind, address) = (original.kind(), original.address());
    if kind.eq_ignore_ascii_case("utf-8") || !address.is_ascii() {
        format!("utf-8; {}", embedded(address))
    } else {
        format!("{kind}; {address}")
    }
}

fn final_recipient(address: &Address) -> String {
    if address.is_internationalized() {
        format!("utf-8; {}", embedded(&address.to_string()))
    } else {
        format!("rfc822; {address}")
    }
}

/// `utf-8-addr-xtext` of RFC 6533 §3: printable ASCII but `+`, `=` and `\` stands for itself, all else is `\x{…}`.
fn embedded(address: &str) -> String {
    let mut out = String::with_capacity(address.len());
    for c in address.chars() {
        if matches!(c, '!'..='~') && !matches!(c, '+' | '=' | '\\') {
            out.push(c);
        } else {
            // Writing into a String cannot fail.
            let _ = write!(out, "\\x{{{:02X}}}", u32::from(c));
        }
    }
    out
}

/// One line; blanks for what would break it.
fn field(out: &mut String, name: &str, value: &str) {
    out.push_str(name);
    out.push_str(": ");
    out.push_str(&ascii(value));
    out.push_str("\r\n");
}

fn ascii(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            ' '..='~' => c,
            c if c.is_control() => ' ',
            _ => '?',
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_ascii_in_every_form_and_can_be_read_back() {
        for (text, written) in [
            ("b@y.example", "rfc822; b@y.example"),
            ("b+c=d@y.example", "rfc822; b+c=d@y.example"),
            ("\"b b\"@y.example", "rfc822; \"b b\"@y.example"),
            ("jörg@y.example", "utf-8; j\\x{F6}rg@y.example"),
            ("a+b@müller.example", "utf-8; a\\x{2B}b@m\\x{FC}ller.example"),
            ("\u{1f600}@y.example", "utf-8; \\x{1F600}@y.example"),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(final_recipient(&address), written);
            let original = OriginalRecipient::from_parameter(
                &written
                    .replace("; ", ";")
                    .replace('+', "+2B")
                    .replace('=', "+3D")
                    .replace(' ', "+20"),
            );
            if address.is_internationalized() {
                assert_eq!(original.unwrap().address(), text);
            }
        }
        for (decoded, written) in [
            ("rfc822;b+c@y.example", "rfc822; b+c@y.example"),
            ("rfc822;ä@y.example", "utf-8; \\x{E4}@y.example"),
            ("utf-8;j=rg@y.example", "utf-8; j\\x{3D}rg@y.example"),
            ("x400;/C=DE/S=Bob", "x400; /C=DE/S=Bob"),
        ] {
            assert_eq!(
                original_recipient(&OriginalRecipient::new(decoded).unwrap()),
                written
            );
        }
    }

    #[test]
    fn only_a_reply_of_smtp_is_called_one() {
        for (text, kind) in [
            ("550 5.1.1 no", "smtp"),
            ("550-5.1.1 no", "smtp"),
            ("5501 no", "x-upstream"),
            ("ErrorInvalidRecipients", "x-upstream"),
            ("", "x-upstream"),
            ("999 x", "x-upstream"),
        ] {
            assert_eq!(diagnostic_type(text), kind, "{text}");
        }
    }
}
