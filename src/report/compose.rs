//! The whole report: its header, and its three parts (RFC 6522).
//!
//! Written by hand, because the MIME here has to be just so: a returned message must not be encoded (RFC 2046
//! §5.2.1), the part for programs must be ASCII, and the same report must be the same octets.

use super::Kind;
use super::quoted::{is_eight_bit, is_seven_bit, quoted_printable};
use super::recipient::Told;
use super::status::delivery_status;
use super::text::text;
use crate::mail::Address;
use crate::mail::Disposition;
use crate::mail::Envelope;
use crate::mail::QueueId;
use crate::mail::Recipient;
use crate::mail::Ret;
use crate::mail::Scope;
use crate::mail::Timestamp;
use crate::mail::header::{HeaderBlock, Mailbox, address_list_field, text_field};

/// Everything that a report says.
#[derive(Clone, Copy, Debug)]
pub struct Notice<'a> {
    /// What it is about.
    pub kind: Kind,
    /// The report's own id.
    pub id: QueueId,
    /// When it is written.
    pub at: Timestamp,
    /// Who we are.
    pub hostname: &'a str,
    /// The account that the message goes out by, and the mailbox.
    pub account: &'a str,
    /// The mailbox that sends the message.
    pub mailbox: &'a Address,
    /// The mailbox that sends the report: the same one, unless it is what the report is about.
    pub from: &'a Address,
    /// Who gets it.
    pub to: &'a Told,
    /// The message that it is about.
    pub original: &'a Original<'a>,
    /// What became of whom; never empty.
    pub outcomes: &'a [Outcome<'a>],
    /// How many reports about the same cause were held back before this one.
    pub held_back: u32,
}

/// The message that a report is about.
#[derive(Clone, Copy, Debug)]
pub struct Original<'a> {
    /// Its id.
    pub id: QueueId,
    /// When it was accepted.
    pub arrived: Timestamp,
    /// Its envelope.
    pub envelope: &'a Envelope,
    /// Its octets, as far as they were read; nothing if it cannot be read.
    pub octets: &'a [u8],
    /// True if these are all of them.
    pub whole: bool,
}

/// What became of a recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome<'a> {
    /// Who.
    pub recipient: &'a Recipient,
    /// The enhanced status code (RFC 3463), whole.
    pub status: String,
    /// Why, in plain language; may be empty.
    pub meaning: String,
    /// What to do; may be empty.
    pub remedy: String,
    /// The upstream's words; may be empty.
    pub diagnostic: String,
    /// True if they are about the operator's accounts and not about the message: nothing for senders.
    pub internal: bool,
}

/// A message larger than this is never returned whole: reports stay small.
pub const MAX_RETURNED: usize = 48 * 1024;

/// Octets of the header that are returned at most.
const MAX_RETURNED_HEADER: usize = 16 * 1024;

/// Characters of a subject that are repeated.
const MAX_SUBJECT: usize = 100;

impl<'a> Outcome<'a> {
    /// From what an attempt answered for this recipient.
    #[must_use]
    pub fn of(recipient: &'a Recipient, disposition: &Disposition) -> Self {
        let Some(cause) = disposition.cause() else {
            return Self {
                recipient,
                // RFC 5248 registry: relayed to a system that does not speak this protocol.
                status: "2.1.9".to_owned(),
                meaning: String::new(),
                remedy: String::new(),
                diagnostic: String::new(),
                internal: false,
            };
        };
        let meaning = cause.public.strip_suffix(cause.remedy).unwrap_or(&cause.public);
        Self {
            recipient,
            status: cause.status.with_class(disposition.class()),
            meaning: meaning.trim_end_matches([':', ' ']).to_owned(),
            remedy: cause.remedy.to_owned(),
            diagnostic: cause.diagnostic.clone(),
            internal: cause.scope >= Scope::Mailbox,
        }
    }
}

impl Notice<'_> {
    /// The upstream's words, if the reader of this report may see them and there are any.
    pub(super) fn diagnostic<'o>(&self, outcome: &'o Outcome<'_>) -> Option<&'o str> {
        let may_see = !outcome.internal || matches!(self.to, Told::Admin(_));
        (may_see && !outcome.diagnostic.is_empty()).then_some(outcome.diagnostic.as_str())
    }
}

impl Original<'_> {
    /// Its subject in one line without control characters, shortened; empty if there is none.
    pub(super) fn subject(&self) -> String {
        let subject = self.block().and_then(|block| block.subject()).unwrap_or_default();
        let words = subject.split(|c: char| c.is_control() || c.is_whitespace());
        let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
        let subject = words.join(" ");
        match subject.char_indices().nth(MAX_SUBJECT) {
            Some((end, _)) => format!("{}…", &subject[..end]),
            None => subject,
        }
    }

    /// Its Message-ID, if it is one that other programs can read.
    fn message_id(&self) -> Option<String> {
        let id = self.block()?.message_id()?;
        let inner = id.strip_prefix('<')?.strip_suffix('>')?;
        let is_plain = |c: char| matches!(c, '!'..='~') && !matches!(c, '<' | '>');
        (inner.contains('@') && id.len() <= 250 && inner.chars().all(is_plain)).then_some(id)
    }

    fn block(&self) -> Option<HeaderBlock<'_>> {
        HeaderBlock::parse(self.octets, self.whole).ok()
    }
}

/// Writes a report. The same notice always makes the same octets.
#[must_use]
pub fn compose(notice: &Notice<'_>) -> Vec<u8> {
    let boundary = format!("=_{}_report", notice.id);
    let mut parts = vec![readable(&text(notice)), for_programs(&delivery_status(notice))];
    parts.extend(returned(notice));
    let mut out = header(notice, &boundary, parts.iter().all(|part| part.is_ascii())).into_bytes();
    for part in parts {
        out.extend_from_slice(format!("--{boundary}\r\n").as_bytes());
        out.extend_from_slice(&part);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    out
}

fn header(notice: &Notice<'_>, boundary: &str, is_ascii: bool) -> String {
    let original = notice.original;
    let mailbox = |name: Option<&str>, address: &Address| Mailbox {
        name: name.map(str::to_owned),
        address: address.clone(),
    };
    let title = match notice.kind {
        Kind::Failed => "Not delivered",
        Kind::Delayed => "Delayed",
        Kind::Relayed => "Handed on",
        Kind::Held => "Waiting",
    };
    let subject = match original.subject() {
        subject if subject.is_empty() => format!("{title}: a message without subject"),
        subject => format!("{title}: {subject}"),
    };
    let mut out = format!("Date: {}\r\n", notice.at.rfc5322());
    out.push_str(&address_list_field(
        "From",
        &[mailbox(Some("Mail bridge"), notice.from)],
    ));
    out.push_str(&address_list_field("To", &[mailbox(None, notice.to.address())]));
    out.push_str(&text_field("Subject", &subject));
    out.push_str(&format!("Message-ID: <{}@{}>\r\n", notice.id, notice.hostname));
    if let Some(id) = original.message_id() {
        out.push_str(&format!("In-Reply-To: {id}\r\nReferences: {id}\r\n"));
    }
    // RFC 3834 §5; and Exchange's own way to say that nobody shall answer by machine.
    out.push_str("Auto-Submitted: auto-replied\r\nX-Auto-Response-Suppress: All\r\nMIME-Version: 1.0\r\n");
    out.push_str(&format!(
        "Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary=\"{boundary}\"\r\n"
    ));
    if !is_ascii {
        out.push_str("Content-Transfer-Encoding: 8bit\r\n");
    }
    out.push_str("\r\nThis is a report in the format of RFC 3464.\r\n\r\n");
    out
}

fn readable(text: &str) -> Vec<u8> {
    let (charset, encoding, text) = if is_seven_bit(text.as_bytes()) {
        ("us-ascii", "7bit", text.to_owned())
    } else {
        ("utf-8", "quoted-printable", quoted_printable(text.as_bytes()))
    };
    format!(
        "Content-Type: text/plain; charset={charset}\r\nContent-Transfer-Encoding: {encoding}\r\n\
         Content-Description: What happened\r\n\r\n{text}"
    )
    .into_bytes()
}

fn for_programs(status: &str) -> Vec<u8> {
    format!("Content-Type: message/delivery-status\r\nContent-Description: Delivery report\r\n\r\n{status}")
        .into_bytes()
}

/// The message whole, if a failure is reported, that was asked for and it is small; else its header; nothing if
/// there is none that can be read.
fn returned(notice: &Notice<'_>) -> Option<Vec<u8>> {
    let original = notice.original;
    let block = original.block()?;
    let octets = original.octets;
    let may_be_whole = original.whole
        && octets.len() <= MAX_RETURNED
        && is_eight_bit(octets)
        // A header outside ASCII would make it another type of part (RFC 6532 §3.7).
        && block.head().is_ascii();
    if notice.kind == Kind::Failed && original.envelope.ret() == Some(Ret::Full) && may_be_whole {
        let encoding = if octets.is_ascii() { "7bit" } else { "8bit" };
        let mut part = format!(
            "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: {encoding}\r\n\
             Content-Description: The message\r\n\r\n"
        )
        .into_bytes();
        part.extend_from_slice(octets);
        return Some(part);
    }
    let mut fields = Vec::new();
    for field in block.fields() {
        if fields.len() + field.raw().len() > MAX_RETURNED_HEADER {
            break;
        }
        fields.extend_from_slice(field.raw());
    }
    if fields.is_empty() {
        return None;
    }
    let (parameter, encoding, text) = match String::from_utf8(fields) {
        Ok(text) if is_seven_bit(text.as_bytes()) => ("", "7bit", text),
        Ok(text) => (
            "; charset=utf-8",
            "quoted-printable",
            quoted_printable(text.as_bytes()),
        ),
        Err(error) => (
            "; charset=unknown-8bit",
            "quoted-printable",
            quoted_printable(error.as_bytes()),
        ),
    };
    Some(
        format!(
            "Content-Type: text/rfc822-headers{parameter}\r\nContent-Transfer-Encoding: {encoding}\r\n\
             Content-Description: Header of the message\r\n\r\n{text}"
        )
        .into_bytes(),
    )
}

#[cfg(test)]
#[path = "compose_tests.rs"]
mod tests;
