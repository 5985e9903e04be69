//! Writes the envelope into the header, for an upstream that has no envelope.
//!
//! Such an upstream (Microsoft Graph with a MIME body) mails whoever stands in To, Cc and Bcc. So these fields must
//! name exactly the envelope's recipients, to every reader, or the message is not sent. The rules:
//!
//! - Bcc, Resent-To, Resent-Cc, Resent-Bcc go, always, and so do Apparently-To and X-Receiver, in which some
//!   programs list the envelope.
//! - To and Cc stay octet for octet if every reader must read them alike and they name nobody outside the envelope.
//! - Otherwise they are written anew on top of the block, with those of their mailboxes that are in the envelope,
//!   and the originals become X-Original-To and X-Original-Cc. Groups are dissolved; display names are kept.
//! - If that leaves nobody in either, `To: undisclosed-recipients:;` is put there. A message that never had To or
//!   Cc gets none: recipients in Bcc alone are valid (RFC 5322 §3.6.3).
//! - Whoever of the envelope is not in To or Cc then is put into one Bcc field.
//! - If the block was not wholly understood, To and Cc are written anew in any case, on top, where every reader
//!   finds them; lines that are no field become X-Unparsed, or go if they contain an `@` (they may be the rest of
//!   a broken Bcc, which must not be shown).

use crate::mail::Address;
use crate::mail::header::{
    AddressList, ChangeError, Edit, Field, HeaderBlock, HeaderChanges, Mailbox, address_list_field,
    parse_lenient, parse_strict, recipients_read_by_others, write_address,
};
use std::collections::HashSet;

/// Fields that name recipients and never go out.
const REMOVED: [&str; 6] = [
    "Bcc",
    "Resent-To",
    "Resent-Cc",
    "Resent-Bcc",
    "Apparently-To",
    "X-Receiver",
];
/// The longest address as it is written; leaves room for its line (RFC 5322 §2.1.1).
const MAX_WRITTEN: usize = 900;

/// Why a message cannot be sent to its envelope by way of its header. It was not sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{diagnostic}")]
pub struct Misfit {
    /// The recipients that are the reason; without them it may go. Empty if it is the message itself.
    pub recipients: Vec<Address>,
    /// For replies and reports.
    pub public: String,
    /// For the operator.
    pub diagnostic: String,
}

/// How the recipients in a header differ from the envelope.
#[derive(Debug, Clone, Default, PartialEq, Eq, thiserror::Error)]
#[error(
    "the header does not name the envelope's recipients: missing {missing:?}, not in the envelope {extra:?}, \
     unreadable {unreadable:?}"
)]
pub struct Mismatch {
    /// In the envelope and not in the header.
    pub missing: Vec<Address>,
    /// In the header and not in the envelope.
    pub extra: Vec<Address>,
    /// What stands in a recipient field and is no address.
    pub unreadable: Vec<String>,
}

/// The changes after which To, Cc and Bcc name exactly the recipients in `envelope`: as few as possible.
///
/// Equality is that of [`Address::key`]. The result was checked with [`check_recipients`] and with our own parser.
///
/// # Errors
/// [`Misfit`] if a recipient cannot be written into a header field (it has no domain, say), or if no way was found
/// after which all readers agree.
pub fn fit_header_to_envelope(
    block: &HeaderBlock<'_>,
    envelope: &[Address],
) -> Result<HeaderChanges, Misfit> {
    check_expressible(envelope)?;
    let mut reason = String::new();
    for effort in [Effort::Minimal, Effort::Anew, Effort::Nameless] {
        let changes = match plan(block, envelope, effort) {
            Ok(changes) => changes,
            Err(error) => {
                reason = error.to_string();
                continue;
            }
        };
        match verify(block, &changes, envelope) {
            Ok(()) => return Ok(changes),
            Err(why) => reason = why,
        }
    }
    Err(Misfit {
        recipients: Vec::new(),
        public:
            "The header of the message is malformed in a way that its recipients cannot be protected; it was \
                 not sent to anybody."
                .to_owned(),
        diagnostic: format!("no form of the header names exactly the envelope's recipients: {reason}"),
    })
}

/// The property that is checked before a message is sent: To, Cc and Bcc of `header`, the outgoing octets up to
/// and with the empty line, together name exactly `envelope`, and there is no other field of recipients.
///
/// It reads with mail-parser, not with our own parser, so that one mistake cannot be made twice.
///
/// # Errors
/// [`Mismatch`] says who is missing and who is too many.
pub fn check_recipients(header: &[u8], envelope: &[Address]) -> Result<(), Mismatch> {
    compare(recipients_read_by_others(header), envelope)
}

/// What was changed, in few words, for the log: "bcc added (2)", "to reduced (1 removed)". Empty if nothing was.
#[must_use]
pub fn summary(block: &HeaderBlock<'_>, changes: &HeaderChanges) -> Vec<String> {
    let mut out = Vec::new();
    for name in ["To", "Cc"] {
        let edited = |(n, f): &(usize, &Field<'_>)| f.is(name) && changes.edit(*n).is_some();
        let before = block
            .fields()
            .iter()
            .enumerate()
            .filter(edited)
            .map(|(_, f)| mailboxes_of(f));
        let before: Vec<Mailbox> = before.flatten().collect();
        let touched = block.fields().iter().enumerate().any(|pair| edited(&pair));
        let label = name.to_ascii_lowercase();
        if touched {
            match distinct(&before).saturating_sub(distinct(&on_top(changes, name))) {
                0 => out.push(format!("{label} rewritten")),
                gone => out.push(format!("{label} reduced ({gone} removed)")),
            }
        }
    }
    for name in REMOVED {
        let gone = block
            .fields()
            .iter()
            .enumerate()
            .filter(|(n, f)| f.is(name) && changes.edit(*n) == Some(&Edit::Remove))
            .count();
        if gone > 0 {
            out.push(format!("{} removed", name.to_ascii_lowercase()));
        }
    }
    let bcc = on_top(changes, "Bcc").len();
    if bcc > 0 {
        out.push(format!("bcc added ({bcc})"));
    }
    let mut garbage = 0;
    let mut scrubbed = 0;
    for (n, field) in block.fields().iter().enumerate() {
        match changes.edit(n) {
            Some(Edit::Scrub) => scrubbed += 1,
            Some(_) if field.name().is_none() => garbage += 1,
            _ => {}
        }
    }
    if garbage > 0 {
        out.push(format!("lines that are no field hidden ({garbage})"));
    }
    if scrubbed > 0 {
        out.push(format!("NUL or blank lines taken out of fields ({scrubbed})"));
    }
    out
}

/// How much is rewritten. Each is tried only if what came of the one before was not beyond doubt.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Effort {
    Minimal,
    Anew,
    Nameless,
}

fn plan(block: &HeaderBlock<'_>, envelope: &[Address], effort: Effort) -> Result<HeaderChanges, ChangeError> {
    let mut changes = HeaderChanges::none(block);
    let wanted: HashSet<String> = envelope.iter().map(Address::key).collect();
    for (n, field) in block.fields().iter().enumerate() {
        if field.name().is_none() {
            changes.set(block, n, hide(field))?;
        } else if REMOVED.iter().any(|name| field.is(name)) {
            changes.set(block, n, Edit::Remove)?;
        } else if field.needs_scrub() {
            changes.set(block, n, Edit::Scrub)?;
        }
    }
    let anew = effort != Effort::Minimal || !block.is_clean();
    let mut named: HashSet<String> = HashSet::new();
    let mut rewritten = false;
    let mut top = Vec::new();
    for name in ["To", "Cc"] {
        let fields: Vec<(usize, &Field<'_>)> = block
            .fields()
            .iter()
            .enumerate()
            .filter(|(_, f)| f.is(name))
            .collect();
        if let [(_, field)] = fields.as_slice()
            && !anew
            && let Some(list) = beyond_doubt(field, &wanted)
        {
            named.extend(list.mailboxes.iter().map(|m| m.address.key()));
            continue;
        }
        let mut here = HashSet::new();
        let mut kept: Vec<Mailbox> = Vec::new();
        for (n, field) in fields {
            rewritten = true;
            changes.set(block, n, Edit::Rename(format!("X-Original-{name}")))?;
            for mut mailbox in mailboxes_of(field) {
                let key = mailbox.address.key();
                if wanted.contains(&key) && here.insert(key) {
                    if effort == Effort::Nameless {
                        mailbox.name = None;
                    }
                    kept.push(mailbox);
                }
            }
        }
        named.extend(here);
        if !kept.is_empty() {
            top.push(address_list_field(name, &kept));
        }
    }
    if rewritten && named.is_empty() {
        top.push(address_list_field("To", &[]));
    }
    let blind: Vec<Mailbox> = envelope
        .iter()
        .filter(|address| named.insert(address.key()))
        .map(|address| Mailbox {
            name: None,
            address: address.clone(),
        })
        .collect();
    if !blind.is_empty() {
        top.push(address_list_field("Bcc", &blind));
    }
    for field in top {
        changes.put_on_top(block, field)?;
    }
    Ok(changes)
}

/// The mailboxes of a field that may stay as it is: strict, no line too long, nobody outside the envelope, not even
/// in a comment or behind an encoded word, where a careless reader might find an address.
fn beyond_doubt(field: &Field<'_>, wanted: &HashSet<String>) -> Option<AddressList> {
    let list = parse_strict(field.value())?;
    let innocent = |word: &str| {
        let word = word.trim_matches(|c: char| !c.is_alphanumeric());
        !word.contains('@') || word.parse::<Address>().is_ok_and(|a| wanted.contains(&a.key()))
    };
    let separators =
        |c: char| c.is_whitespace() || matches!(c, ',' | ';' | ':' | '<' | '>' | '(' | ')' | '"');
    let fits = !field.has_overlong_line()
        && list.mailboxes.iter().all(|m| wanted.contains(&m.address.key()))
        && list
            .asides
            .iter()
            .all(|text| text.split(separators).all(innocent));
    fits.then_some(list)
}

/// A line that is no field: shown as text, unless it could be the rest of a Bcc.
fn hide(field: &Field<'_>) -> Edit {
    let visible = field.raw().iter().any(u8::is_ascii_graphic) && !field.raw().contains(&b'@');
    if visible { Edit::Wrap } else { Edit::Remove }
}

fn mailboxes_of(field: &Field<'_>) -> Vec<Mailbox> {
    match parse_strict(field.value()) {
        Some(list) => list.mailboxes,
        None => parse_lenient(field.value()),
    }
}

fn distinct(mailboxes: &[Mailbox]) -> usize {
    mailboxes
        .iter()
        .map(|m| m.address.key())
        .collect::<HashSet<_>>()
        .len()
}

/// The mailboxes in the fields of this name that are put on top.
fn on_top(changes: &HeaderChanges, name: &str) -> Vec<Mailbox> {
    let fields = changes
        .top()
        .iter()
        .filter_map(|text| HeaderBlock::parse(text.as_bytes(), true).ok());
    fields
        .flat_map(|block| block.named(name).flat_map(mailboxes_of).collect::<Vec<_>>())
        .collect()
}

/// Recipients that no header field can name, so that every reader reads them alike.
fn check_expressible(envelope: &[Address]) -> Result<(), Misfit> {
    if envelope.is_empty() {
        return Err(Misfit {
            recipients: Vec::new(),
            public: "The message has no recipients.".to_owned(),
            diagnostic: "the envelope is empty".to_owned(),
        });
    }
    let bad: Vec<Address> = envelope.iter().filter(|a| !is_expressible(a)).cloned().collect();
    if bad.is_empty() {
        return Ok(());
    }
    let list: Vec<String> = bad.iter().take(5).map(|a| format!("<{a}>")).collect();
    let list = list.join(", ");
    let (public, diagnostic) = if bad.iter().any(|a| a.domain().is_empty()) {
        (
            format!("The recipient {list} has no domain; give the full address, as in name@example.com."),
            format!(
                "{list} cannot be written into a Bcc field: an address there needs a domain (RFC 5322 3.4.1)"
            ),
        )
    } else {
        (
            format!(
                "The recipient address {list} is malformed or too unusual to be sent to by way of this service."
            ),
            format!("{list} cannot be written into a Bcc field so that every reader reads the same address"),
        )
    };
    Err(Misfit {
        recipients: bad,
        public,
        diagnostic,
    })
}

fn is_expressible(address: &Address) -> bool {
    let one = std::slice::from_ref(address);
    let mailbox = Mailbox {
        name: None,
        address: address.clone(),
    };
    let field = address_list_field("Bcc", std::slice::from_ref(&mailbox)) + "\r\n";
    !address.domain().is_empty()
        && write_address(address).len() <= MAX_WRITTEN
        && check_recipients(field.as_bytes(), one).is_ok()
        && check_ourselves(field.as_bytes(), one).is_ok()
}

fn verify(block: &HeaderBlock<'_>, changes: &HeaderChanges, envelope: &[Address]) -> Result<(), String> {
    let header = changes.apply(block.head()).map_err(|e| e.to_string())?;
    check_recipients(&header, envelope).map_err(|e| format!("mail-parser: {e}"))?;
    check_ourselves(&header, envelope).map_err(|e| format!("our parser: {e}"))
}

/// The same property, by our own strict parser, and that the block has an end.
fn check_ourselves(header: &[u8], envelope: &[Address]) -> Result<(), Mismatch> {
    let unreadable = |text: &str| Mismatch {
        unreadable: vec![text.to_owned()],
        ..Mismatch::default()
    };
    let block = HeaderBlock::parse(header, true).map_err(|e| unreadable(&e.to_string()))?;
    if block.head_len() != header.len() {
        return Err(unreadable("what follows the header"));
    }
    let mut found = Vec::new();
    for field in block.fields() {
        match field.name() {
            None => found.push(Err("a line that is no field".to_owned())),
            Some(name) if field.is("To") || field.is("Cc") || field.is("Bcc") => {
                match parse_strict(field.value()) {
                    Some(list) => found.extend(list.mailboxes.into_iter().map(|m| Ok(m.address))),
                    None => found.push(Err(format!("the field {name}"))),
                }
            }
            Some(name) if REMOVED.iter().any(|n| field.is(n)) => found.push(Err(format!("the field {name}"))),
            Some(_) => {}
        }
    }
    compare(found, envelope)
}

fn compare(found: Vec<Result<Address, String>>, envelope: &[Address]) -> Result<(), Mismatch> {
    let mut mismatch = Mismatch::default();
    let wanted: HashSet<String> = envelope.iter().map(Address::key).collect();
    let mut seen = HashSet::new();
    for entry in found {
        match entry {
            Ok(address) => {
                let key = address.key();
                if !wanted.contains(&key) {
                    mismatch.extra.push(address);
                }
                seen.insert(key);
            }
            Err(text) => mismatch.unreadable.push(text.chars().take(100).collect()),
        }
    }
    mismatch.missing = envelope
        .iter()
        .filter(|a| !seen.contains(&a.key()))
        .cloned()
        .collect();
    if mismatch == Mismatch::default() {
        Ok(())
    } else {
        Err(mismatch)
    }
}

#[cfg(test)]
#[path = "recipients_tests.rs"]
mod tests;
