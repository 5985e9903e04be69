//! A plain message of ours to an administrator.

use super::quoted::{is_seven_bit, quoted_printable};
use crate::mail::Address;
use crate::mail::QueueId;
use crate::mail::Timestamp;
use crate::mail::header::{Mailbox, address_list_field, text_field};

/// A message to an administrator that is no report about a message.
#[derive(Clone, Copy, Debug)]
pub struct Letter<'a> {
    /// Its own id.
    pub id: QueueId,
    /// When it is written.
    pub at: Timestamp,
    /// Who we are.
    pub hostname: &'a str,
    /// The mailbox that sends it.
    pub from: &'a Address,
    /// Who gets it.
    pub to: &'a Address,
    /// Its subject.
    pub subject: &'a str,
    /// Its text; lines end with a line feed.
    pub text: &'a str,
}

/// Writes it. The same letter always makes the same octets.
#[must_use]
pub fn letter(letter: &Letter<'_>) -> Vec<u8> {
    let mailbox = |name: Option<&str>, address: &Address| Mailbox {
        name: name.map(str::to_owned),
        address: address.clone(),
    };
    let text = letter.text.replace('\n', "\r\n");
    let (charset, encoding, text) = if is_seven_bit(text.as_bytes()) {
        ("us-ascii", "7bit", text)
    } else {
        ("utf-8", "quoted-printable", quoted_printable(text.as_bytes()))
    };
    let from = address_list_field("From", &[mailbox(Some("Mail bridge"), letter.from)]);
    let to = address_list_field("To", &[mailbox(None, letter.to)]);
    let subject = text_field("Subject", letter.subject);
    // RFC 3834 §5; and Exchange's own way to say that nobody shall answer by machine.
    format!(
        "Date: {}\r\n{from}{to}{subject}Message-ID: <{}@{}>\r\nAuto-Submitted: auto-generated\r\n\
         X-Auto-Response-Suppress: All\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset={charset}\r\n\
         Content-Transfer-Encoding: {encoding}\r\n\r\n{text}",
        letter.at.rfc5322(),
        letter.id,
        letter.hostname,
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use mail_parser::MessageParser;

    #[test]
    fn a_letter_is_read_as_it_was_meant() {
        let at = Timestamp::from_millis(1_800_000_000_000);
        for text in [
            "Plain words.\nTwo lines.\n",
            "Größer als gedacht\n",
            &"x".repeat(3000),
        ] {
            let octets = letter(&Letter {
                id: QueueId::new(at),
                at,
                hostname: "bridge.example",
                from: &"scanner@x.example".parse().unwrap(),
                to: &"it@x.example".parse().unwrap(),
                subject: "Mail of \"Büro\" has stopped",
                text,
            });
            let longest = octets.split(|b| *b == b'\n').map(<[u8]>::len).max().unwrap();
            assert!(octets.is_ascii() && longest <= 999);
            let read = MessageParser::default().parse(&octets).unwrap();
            assert_eq!(read.subject(), Some("Mail of \"Büro\" has stopped"));
            assert_eq!(
                read.body_text(0).unwrap().replace("\r\n", "\n").trim_end(),
                text.trim_end()
            );
            assert_eq!(
                read.header_raw("Auto-Submitted").unwrap().trim(),
                "auto-generated"
            );
        }
    }
}
