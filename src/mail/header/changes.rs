//! How a header block is changed on the way out: a small value that is stored in the queue's plan.

use super::block::{HeaderBlock, is_blank_line, lines};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What is changed in the header block of one message.
///
/// It is bound to the exact octets it was made for, by their length and checksum, so that a plan can never be
/// applied to another message. As JSON it is compact: `{}` when nothing changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HeaderChanges {
    #[serde(skip_serializing_if = "is_zero")]
    len: usize,
    #[serde(skip_serializing_if = "is_zero_u32")]
    crc: u32,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    edits: BTreeMap<usize, Edit>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    top: Vec<String>,
}

/// What becomes of one field, by its place in the block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Edit {
    /// It goes.
    Remove,
    /// It gets this name, and is scrubbed.
    Rename(String),
    /// It loses its NULs and its lines of nothing but blanks.
    Scrub,
    /// A line that is no field becomes the text of an `X-Unparsed` field.
    Wrap,
}

/// Why changes could not be made or applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// The header is not the one that the changes were made for.
    #[error("the stored header changes do not belong to this message")]
    Mismatch,
    /// What was to be put on top, or a new name, is not a well-formed header field.
    #[error("not a well-formed header field")]
    NotAField,
}

impl HeaderChanges {
    /// No changes to this block, yet.
    #[must_use]
    pub fn none(block: &HeaderBlock<'_>) -> Self {
        Self {
            len: block.head_len(),
            crc: block.checksum(),
            ..Self::default()
        }
        .normal()
    }

    /// True if the message goes out as it is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.edits.is_empty() && self.top.is_empty()
    }

    /// How many octets at the beginning of the message [`HeaderChanges::apply`] replaces; 0 if nothing changes.
    #[must_use]
    pub fn head_len(&self) -> usize {
        if self.is_empty() { 0 } else { self.len }
    }

    /// What becomes of the field in this place.
    #[must_use]
    pub fn edit(&self, index: usize) -> Option<&Edit> {
        self.edits.get(&index)
    }

    /// The fields that are put on top, in order, each with its line ends.
    #[must_use]
    pub fn top(&self) -> &[String] {
        &self.top
    }

    /// Decides what becomes of the field in this place of `block`. The last word on a field counts.
    ///
    /// # Errors
    /// [`ChangeError::Mismatch`] if there is no such field or the block is another one,
    /// [`ChangeError::NotAField`] if a new name is not a field name.
    pub fn set(&mut self, block: &HeaderBlock<'_>, index: usize, edit: Edit) -> Result<(), ChangeError> {
        if index >= block.fields().len() {
            return Err(ChangeError::Mismatch);
        }
        edit.validate()?;
        self.bind(block)?;
        self.edits.insert(index, edit);
        Ok(())
    }

    /// Puts a whole field (`Name: value`, folded, with its CRLF) below those that were put on top before.
    ///
    /// # Errors
    /// [`ChangeError::NotAField`] if `field` is anything but exactly one well-formed field, so that no value can
    /// smuggle in a second one; [`ChangeError::Mismatch`] if the block is another one.
    pub fn put_on_top(&mut self, block: &HeaderBlock<'_>, field: String) -> Result<(), ChangeError> {
        validate_field(&field)?;
        self.bind(block)?;
        self.top.push(field);
        Ok(())
    }

    /// The new header block with the empty line that ends it; `head` is the old one, exactly
    /// ([`HeaderBlock::head`]). If nothing changes, `head` comes back as it is.
    ///
    /// # Errors
    /// [`ChangeError::Mismatch`] if `head` is not what the changes were made for, [`ChangeError::NotAField`] if
    /// the stored changes are damaged.
    pub fn apply(&self, head: &[u8]) -> Result<Vec<u8>, ChangeError> {
        if self.is_empty() {
            return Ok(head.to_vec());
        }
        if head.len() != self.len || crc32fast::hash(head) != self.crc {
            return Err(ChangeError::Mismatch);
        }
        let block = HeaderBlock::parse(head, true).map_err(|_| ChangeError::Mismatch)?;
        if block.head_len() != head.len() {
            return Err(ChangeError::Mismatch);
        }
        let count = block.fields().len();
        if self.edits.keys().any(|index| *index >= count) {
            return Err(ChangeError::Mismatch);
        }
        let mut out = Vec::with_capacity(head.len() + 256);
        for field in &self.top {
            validate_field(field)?;
            out.extend_from_slice(field.as_bytes());
        }
        for (index, field) in block.fields().iter().enumerate() {
            match self.edits.get(&index) {
                None => out.extend_from_slice(field.raw()),
                Some(Edit::Remove) => {}
                Some(Edit::Scrub) => scrub(field.raw(), &mut out),
                Some(edit @ Edit::Rename(name)) => {
                    edit.validate()?;
                    out.extend_from_slice(name.as_bytes());
                    out.push(b':');
                    scrub(field.value(), &mut out);
                }
                Some(Edit::Wrap) => wrap(field.raw(), &mut out),
            }
            if !out.is_empty() && !out.ends_with(b"\r\n") {
                out.extend_from_slice(b"\r\n");
            }
        }
        out.extend_from_slice(b"\r\n");
        Ok(out)
    }

    fn bind(&mut self, block: &HeaderBlock<'_>) -> Result<(), ChangeError> {
        let (len, crc) = (block.head_len(), block.checksum());
        if !self.is_empty() && (self.len, self.crc) != (len, crc) {
            return Err(ChangeError::Mismatch);
        }
        (self.len, self.crc) = (len, crc);
        Ok(())
    }

    /// "Nothing changes" has one form, whatever block it was made for.
    fn normal(self) -> Self {
        if self.is_empty() { Self::default() } else { self }
    }
}

impl Edit {
    fn validate(&self) -> Result<(), ChangeError> {
        match self {
            Self::Rename(name) => validate_field(&format!("{name}: x\r\n")),
            Self::Remove | Self::Scrub | Self::Wrap => Ok(()),
        }
    }
}

/// Exactly one clean field, ended by CRLF, no line longer than RFC 5322 §2.1.1 allows.
fn validate_field(text: &str) -> Result<(), ChangeError> {
    let block = HeaderBlock::parse(text.as_bytes(), true).map_err(|_| ChangeError::NotAField)?;
    let one = block.fields().len() == 1 && block.is_clean() && block.head_len() == text.len();
    match block.fields().first() {
        Some(field)
            if one
                && field.raw() == text.as_bytes()
                && text.ends_with("\r\n")
                && !field.has_overlong_line() =>
        {
            Ok(())
        }
        _ => Err(ChangeError::NotAField),
    }
}

/// Copies a field without NULs, and without continuation lines in which nothing can be seen.
fn scrub(raw: &[u8], out: &mut Vec<u8>) {
    for (n, line) in lines(raw).enumerate() {
        let line: Vec<u8> = line.iter().copied().filter(|b| *b != 0).collect();
        if n == 0 || !is_blank_line(&line) {
            out.extend_from_slice(&line);
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// Writes a line that is no field, and its continuation lines, as the text of one.
fn wrap(raw: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"X-Unparsed:");
    for line in lines(raw) {
        let text: Vec<u8> = line
            .iter()
            .map(|b| if b.is_ascii_control() { b' ' } else { *b })
            .collect();
        let text = text.trim_ascii();
        if text.is_empty() {
            continue;
        }
        if !out.ends_with(b":") || text.len() > 900 {
            out.extend_from_slice(b"\r\n");
        }
        out.push(b' ');
        out.extend_from_slice(text);
    }
    out.extend_from_slice(b"\r\n");
}

#[allow(clippy::trivially_copy_pass_by_ref)] // the signature that serde asks for
fn is_zero(n: &usize) -> bool {
    *n == 0
}

#[allow(clippy::trivially_copy_pass_by_ref)] // the signature that serde asks for
fn is_zero_u32(n: &u32) -> bool {
    *n == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &[u8] = b"From: a@x\r\nTo : b@x,\r\n c@x\r\nrubbish\r\nSubject: s\0\r\n \r\n t\r\n\r\n";

    fn block() -> HeaderBlock<'static> {
        HeaderBlock::parse(HEAD, true).unwrap()
    }

    #[test]
    fn edits_survive_a_restart_and_apply() {
        let block = block();
        let mut changes = HeaderChanges::none(&block);
        assert_eq!(serde_json::to_string(&changes).unwrap(), "{}");
        assert_eq!(changes.apply(HEAD).unwrap(), HEAD);
        changes
            .set(&block, 1, Edit::Rename("X-Original-To".into()))
            .unwrap();
        changes.set(&block, 2, Edit::Wrap).unwrap();
        changes.set(&block, 3, Edit::Scrub).unwrap();
        changes.put_on_top(&block, "Bcc: b@x\r\n".into()).unwrap();
        let json = serde_json::to_string(&changes).unwrap();
        let back: HeaderChanges = serde_json::from_str(&json).unwrap();
        assert_eq!(back, changes);
        assert_eq!(
            String::from_utf8(back.apply(HEAD).unwrap()).unwrap(),
            "Bcc: b@x\r\nFrom: a@x\r\nX-Original-To: b@x,\r\n c@x\r\nX-Unparsed: rubbish\r\nSubject: s\r\n t\r\n\r\n"
        );
    }

    #[test]
    fn changes_do_not_fit_another_message() {
        let block = block();
        let mut changes = HeaderChanges::none(&block);
        assert_eq!(changes.set(&block, 9, Edit::Remove), Err(ChangeError::Mismatch));
        changes.set(&block, 0, Edit::Remove).unwrap();
        for other in [
            &b""[..],
            b"\r\n",
            b"From: b@x\r\n\r\n",
            &HEAD[1..],
            &HEAD[..HEAD.len() - 2],
        ] {
            assert_eq!(changes.apply(other), Err(ChangeError::Mismatch));
        }
    }

    #[test]
    fn only_whole_fields_are_put_on_top() {
        for bad in [
            "Bcc: a@x",
            "Bcc: a@x\r\nTo: b@x\r\n",
            "Bcc: a@x\r\n\r\n",
            "Bcc: a@x\nTo: b@x\r\n",
            "rubbish\r\n",
            "B cc: x\r\n",
            "Bcc: a\0@x\r\n",
            "Bcc: a@x,\r\n \r\n b@x\r\n",
            "",
        ] {
            let mut changes = HeaderChanges::none(&block());
            assert_eq!(
                changes.put_on_top(&block(), bad.into()),
                Err(ChangeError::NotAField),
                "{bad:?}"
            );
        }
        let mut changes = HeaderChanges::none(&block());
        let evil = Edit::Rename("X: y\r\nTo".into());
        assert_eq!(changes.set(&block(), 0, evil), Err(ChangeError::NotAField));
    }

    #[test]
    fn a_header_without_its_empty_line_gets_one() {
        for (head, expected) in [
            ("A: 1", "X: y\r\nA: 1\r\n\r\n"),
            ("", "X: y\r\n\r\n"),
            ("\r\n", "X: y\r\n\r\n"),
        ] {
            let block = HeaderBlock::parse(head.as_bytes(), true).unwrap();
            let mut changes = HeaderChanges::none(&block);
            changes.put_on_top(&block, "X: y\r\n".into()).unwrap();
            assert_eq!(changes.apply(head.as_bytes()).unwrap(), expected.as_bytes());
        }
    }
}
