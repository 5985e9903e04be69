//! Splits the beginning of a message into its header fields, without interpreting them.
//!
//! # What is a header, and what is not
//!
//! Readers of broken mail disagree about where a header ends: at the first empty line (most), at the first line
//! that is no field (Postfix, Python), at a line of blanks (some). We read up to the first empty line and record
//! whether every other reader must have read the same ([`HeaderBlock::is_clean`]). If not, policy writes the
//! recipients on top of the block, where every reader finds them, and leaves none below.
//!
//! A message whose *first* line is no field is ambiguous in another way: it may be a bare text without a header
//! (devices send those), or a header behind a line of garbage. It is taken for a header only if its first
//! paragraph has something that a bare text does not: a Message-ID, MIME-Version, Received, Return-Path or
//! Resent-* field, a From field with an `@`, or a Bcc (which must not be shown, whatever it stands in). Otherwise
//! the header block is empty and the body begins at byte 0. Both answers are safe for the recipients: in the first
//! case no recipient field below ours survives, in the second an empty line stands between our fields and the text.

use super::addresses::{Mailbox, parse_strict};
use super::lenient::{decode_words, parse_lenient};
use std::ops::Range;

/// The largest header block that is accepted, in octets.
///
/// RFC 5322 sets no limit; Exchange's is 256 KiB for headers of all parts together.
pub const MAX_HEADER_BLOCK: usize = 256 * 1024;

/// Why the beginning of a message is not a header block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// No empty line within [`MAX_HEADER_BLOCK`] octets.
    #[error("the header of the message is longer than {} KiB", MAX_HEADER_BLOCK / 1024)]
    TooLong,
    /// A CR or LF that is not part of a CRLF, which the spool never contains.
    #[error("the header of the message has a line end that is not CRLF")]
    BareLineEnd,
}

/// The header block of a message (RFC 5322 §2.2): its fields and their places.
#[derive(Debug, Clone)]
pub struct HeaderBlock<'a> {
    head: &'a [u8],
    checksum: u32,
    fields: Vec<Field<'a>>,
}

/// One field with its continuation lines, or a line that is no field.
#[derive(Debug, Clone)]
pub struct Field<'a> {
    name: Option<&'a str>,
    range: Range<usize>,
    raw: &'a [u8],
    value: &'a [u8],
    obsolete: bool,
}

impl<'a> HeaderBlock<'a> {
    /// Reads the header block at the beginning of `prefix`, which is at most [`MAX_HEADER_BLOCK`] octets of the
    /// message (more are not looked at); `whole` says that it is the whole message.
    ///
    /// # Errors
    /// [`HeaderError::TooLong`] if the block does not end within the prefix, [`HeaderError::BareLineEnd`] if the
    /// text was not normalised.
    pub fn parse(prefix: &'a [u8], whole: bool) -> Result<Self, HeaderError> {
        let (prefix, whole) = match prefix.get(..MAX_HEADER_BLOCK) {
            Some(cut) => (cut, whole && cut.len() == prefix.len()),
            None => (prefix, whole),
        };
        let mut fields: Vec<Field<'a>> = Vec::new();
        let mut position = 0;
        let end = loop {
            let rest = prefix.get(position..).unwrap_or_default();
            let (content, next) = match next_line(rest, whole) {
                Ok(Some((content, length))) => (content, position + length),
                Ok(None) => break Ok(position),
                // An endless first paragraph is decided below: it may be a text without a header.
                Err(error) => break Err(error),
            };
            if content.is_empty() {
                break Ok(next);
            }
            match fields.last_mut() {
                Some(last) if is_blank(content[0]) => last.extend(prefix, next),
                _ => fields.push(Field::new(prefix, position..next, content)),
            }
            position = next;
        };
        if fields
            .first()
            .is_some_and(|first| first.name.is_none() && !first.is_mbox_line())
            && !fields.iter().any(Field::betrays_a_header)
        {
            return Ok(Self {
                head: &[],
                checksum: crc32fast::hash(&[]),
                fields: Vec::new(),
            });
        }
        let head = prefix.get(..end?).unwrap_or_default();
        Ok(Self {
            head,
            checksum: crc32fast::hash(head),
            fields,
        })
    }

    /// The octets of the block, up to and with the empty line that ends it (which is missing if the message ends
    /// with its header, and if it has none).
    #[must_use]
    pub fn head(&self) -> &'a [u8] {
        self.head
    }

    /// Where the body begins in the message: the length of [`HeaderBlock::head`].
    #[must_use]
    pub fn head_len(&self) -> usize {
        self.head.len()
    }

    /// CRC-32 of [`HeaderBlock::head`], by which changes find their header again.
    #[must_use]
    pub fn checksum(&self) -> u32 {
        self.checksum
    }

    /// The fields, and the lines that are none, in order.
    #[must_use]
    pub fn fields(&self) -> &[Field<'a>] {
        &self.fields
    }

    /// True if the whole block was understood, and every other reader must have understood the same: only fields
    /// without blanks before the colon (RFC 5322 §4.5), no line of blanks (§4.2), no NUL (§4.1).
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.fields
            .iter()
            .all(|f| f.name.is_some() && !f.obsolete && !f.needs_scrub())
    }

    /// The fields of this name, without regard to case.
    pub fn named(&self, name: &str) -> impl Iterator<Item = &Field<'a>> {
        self.fields.iter().filter(move |f| f.is(name))
    }

    /// True if there is a field of this name.
    #[must_use]
    pub fn has_field(&self, name: &str) -> bool {
        self.named(name).next().is_some()
    }

    /// The text of the first field of this name: unfolded, trimmed, undecoded, with U+FFFD for what is not UTF-8.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<String> {
        self.named(name).next().map(Field::text)
    }

    /// The Message-ID as it stands there, with its angle brackets.
    #[must_use]
    pub fn message_id(&self) -> Option<String> {
        self.text("Message-ID").filter(|id| !id.is_empty())
    }

    /// The Subject with its encoded words decoded (RFC 2047), for people.
    #[must_use]
    pub fn subject(&self) -> Option<String> {
        self.text("Subject").map(|text| decode_words(&text))
    }

    /// The Date as it stands there.
    #[must_use]
    pub fn date(&self) -> Option<String> {
        self.text("Date").filter(|date| !date.is_empty())
    }

    /// The mailboxes of all From fields, as far as they can be read.
    #[must_use]
    pub fn from(&self) -> Vec<Mailbox> {
        self.named("From")
            .flat_map(|f| match parse_strict(f.value()) {
                Some(list) => list.mailboxes,
                None => parse_lenient(f.value()),
            })
            .collect()
    }
}

impl<'a> Field<'a> {
    /// The field's name as written; `None` for a line that is no field.
    #[must_use]
    pub fn name(&self) -> Option<&'a str> {
        self.name
    }

    /// True if it is a field of this name, without regard to case (RFC 5322 §1.2.2).
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.name.is_some_and(|n| n.eq_ignore_ascii_case(name))
    }

    /// Where it stands in the message, with its line ends.
    #[must_use]
    pub fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    /// The whole field, folding and line ends included.
    #[must_use]
    pub fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// What follows the colon, folding and line ends included; of a line that is no field the whole.
    #[must_use]
    pub fn value(&self) -> &'a [u8] {
        self.value
    }

    /// The value unfolded (RFC 5322 §2.2.3) and trimmed, with U+FFFD for what is not UTF-8.
    #[must_use]
    pub fn text(&self) -> String {
        let unfolded: Vec<u8> = self
            .value
            .iter()
            .copied()
            .filter(|b| !matches!(b, b'\r' | b'\n' | 0))
            .collect();
        String::from_utf8_lossy(&unfolded).trim().to_owned()
    }

    /// True if a line has more than the 998 octets that RFC 5322 §2.1.1 allows.
    #[must_use]
    pub fn has_overlong_line(&self) -> bool {
        self.raw.split(|b| *b == b'\n').any(|line| line.len() > 999)
    }

    /// True if it contains NUL, or a continuation line of nothing but blanks, which some readers take for the end
    /// of the header.
    #[must_use]
    pub fn needs_scrub(&self) -> bool {
        self.raw.contains(&0) || lines(self.raw).skip(1).any(is_blank_line)
    }

    fn new(prefix: &'a [u8], range: Range<usize>, content: &'a [u8]) -> Self {
        let raw = prefix.get(range.clone()).unwrap_or_default();
        match split_name(content) {
            Some((name, obsolete, value_at)) => Self {
                name: Some(name),
                range,
                raw,
                value: raw.get(value_at..).unwrap_or_default(),
                obsolete,
            },
            None => Self {
                name: None,
                range,
                raw,
                value: raw,
                obsolete: false,
            },
        }
    }

    fn extend(&mut self, prefix: &'a [u8], end: usize) {
        let value_at = self.range.end - self.value.len();
        self.range.end = end;
        self.raw = prefix.get(self.range.clone()).unwrap_or_default();
        self.value = prefix.get(value_at..end).unwrap_or_default();
    }

    /// The separator line of an mbox file, which scripts pipe into the mail system with the message (RFC 4155).
    fn is_mbox_line(&self) -> bool {
        self.raw.starts_with(b"From ") || self.raw.starts_with(b">From ")
    }

    /// A field that stands in headers and not in bare texts; see the module's text.
    fn betrays_a_header(&self) -> bool {
        let Some(name) = self.name else { return false };
        let name = name.to_ascii_lowercase();
        match name.as_str() {
            "message-id" | "mime-version" | "received" | "return-path" | "bcc" => true,
            "from" => self.value.contains(&b'@'),
            _ => name.starts_with("resent-"),
        }
    }
}

/// The lines of a field without their CRLF.
pub(super) fn lines(raw: &[u8]) -> impl Iterator<Item = &[u8]> {
    raw.split_inclusive(|b| *b == b'\n').map(|line| {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        line.strip_suffix(b"\r").unwrap_or(line)
    })
}

/// True for a line without anything visible in it.
pub(super) fn is_blank_line(line: &[u8]) -> bool {
    line.iter().all(|b| *b <= b' ' || *b == 0x7f)
}

/// The next line: its content without CRLF, and its length with it. `None` at the end of the message.
fn next_line(rest: &[u8], whole: bool) -> Result<Option<(&[u8], usize)>, HeaderError> {
    if rest.is_empty() && whole {
        return Ok(None);
    }
    let (line, length) = match memchr::memchr(b'\n', rest) {
        Some(lf) => {
            let line = rest.get(..lf).unwrap_or_default();
            (line.strip_suffix(b"\r").ok_or(HeaderError::BareLineEnd)?, lf + 1)
        }
        None if whole => (rest, rest.len()),
        None => return Err(HeaderError::TooLong),
    };
    if line.contains(&b'\r') {
        return Err(HeaderError::BareLineEnd);
    }
    Ok(Some((line, length)))
}

/// The name at the beginning of a field's first line (RFC 5322 §2.2: printable ASCII without the colon), whether
/// blanks stand before the colon (§4.5), and where the value begins.
fn split_name(line: &[u8]) -> Option<(&str, bool, usize)> {
    let colon = memchr::memchr(b':', line)?;
    let before = line.get(..colon)?;
    let length = before.iter().rposition(|b| !is_blank(*b))? + 1;
    let name = before.get(..length)?;
    if !name.iter().all(u8::is_ascii_graphic) {
        return None;
    }
    Some((std::str::from_utf8(name).ok()?, length != colon, colon + 1))
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(message: &[u8]) -> (Vec<Option<&str>>, usize, bool) {
        let block = HeaderBlock::parse(message, true).unwrap();
        let names = block.fields().iter().map(Field::name).collect();
        (names, block.head_len(), block.is_clean())
    }

    #[test]
    fn where_fields_and_header_end() {
        for (message, fields, length, clean) in [
            ("A: 1\r\nB:2\r\n\r\nbody", vec![Some("A"), Some("B")], 13, true),
            (
                "A: 1\r\n 2\r\n\t3\r\nB: x\r\n\r\n",
                vec![Some("A"), Some("B")],
                22,
                true,
            ),
            ("A: 1", vec![Some("A")], 4, true),
            ("A: 1\r\n", vec![Some("A")], 6, true),
            ("", vec![], 0, true),
            ("\r\nTo: x\r\n", vec![], 2, true),
            ("Bcc : x\r\n\r\n", vec![Some("Bcc")], 11, false),
            ("A: 1\r\n \r\nB: 2\r\n\r\n", vec![Some("A"), Some("B")], 17, false),
            (
                "A: 1\r\nrubbish\r\nB: 2\r\n\r\n",
                vec![Some("A"), None, Some("B")],
                23,
                false,
            ),
            ("A: 1\r\n: 2\r\n\r\n", vec![Some("A"), None], 13, false),
            ("A: 1\r\nT o: 2\r\n\r\n", vec![Some("A"), None], 16, false),
            ("A: 1\r\nT\0o: 2\r\n\r\n", vec![Some("A"), None], 16, false),
            ("A: 1\0\r\n\r\n", vec![Some("A")], 9, false),
            ("From bob Mon\r\nA: 1\r\n\r\n", vec![None, Some("A")], 22, false),
            ("Hello\r\nTo: do\r\n\r\n", vec![], 0, true),
            (" Hello\r\nTo: do\r\n\r\n", vec![], 0, true),
            ("Hello\r\nBcc: a@x\r\n\r\n", vec![None, Some("Bcc")], 19, false),
            (
                "oops\r\nMessage-ID: <1@x>\r\n\r\nT",
                vec![None, Some("Message-ID")],
                27,
                false,
            ),
        ] {
            assert_eq!(names(message.as_bytes()), (fields, length, clean), "{message:?}");
        }
    }

    #[test]
    fn a_block_that_does_not_end_is_an_error_and_a_long_text_is_none() {
        let endless = "Subject: x\r\n".repeat(MAX_HEADER_BLOCK / 12 + 1);
        assert_eq!(
            HeaderBlock::parse(endless.as_bytes(), true).unwrap_err(),
            HeaderError::TooLong
        );
        let text = "just some text\r\n".repeat(MAX_HEADER_BLOCK / 12 + 1);
        assert!(
            HeaderBlock::parse(text.as_bytes(), true)
                .unwrap()
                .fields()
                .is_empty()
        );
        assert_eq!(
            HeaderBlock::parse(b"A: 1\r\n", false).unwrap_err(),
            HeaderError::TooLong
        );
        for bare in ["A: 1\nTo: x\r\n\r\n", "A: 1\rTo: x\r\n\r\n", "A: 1\r"] {
            assert_eq!(
                HeaderBlock::parse(bare.as_bytes(), true).unwrap_err(),
                HeaderError::BareLineEnd
            );
        }
    }

    #[test]
    fn single_fields_are_read_for_people_and_for_the_queue() {
        let block = HeaderBlock::parse(
            b"message-id: <1@x>\r\nSUBJECT: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n aus Wien\r\nDate:\r\nFrom: A <a@x.example>\r\n\r\n",
            true,
        )
        .unwrap();
        assert_eq!(block.message_id().as_deref(), Some("<1@x>"));
        assert_eq!(block.subject().as_deref(), Some("Grüße aus Wien"));
        assert_eq!(block.date(), None);
        assert!(block.has_field("Date") && !block.has_field("To"));
        assert_eq!(block.from()[0].address.to_string(), "a@x.example");
    }
}
