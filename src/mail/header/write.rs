//! Writes addresses and lists of them so that every reader must read them alike.

use super::addresses::{Mailbox, is_atext};
use crate::mail::Address;
use base64::Engine as _;

/// The width that folding aims at (RFC 5322 §2.1.1).
const WIDTH: usize = 78;
/// How long a display name may be before it is left out.
const MAX_NAME: usize = 200;

/// A whole field that lists these mailboxes, folded, with its CRLF; an empty list becomes the empty group
/// `undisclosed-recipients:;` (RFC 5322 §3.4).
///
/// Display names are kept where no reader could take them for anything else: not if they contain an `@`, a
/// control character, something that looks encoded, or too much. Names outside ASCII become encoded words.
#[must_use]
pub fn address_list_field(name: &str, mailboxes: &[Mailbox]) -> String {
    let mut words = Vec::new();
    for (n, mailbox) in mailboxes.iter().enumerate() {
        let mut address = write_address(&mailbox.address);
        match mailbox.name.as_deref().map(display_name) {
            Some(name) if !name.is_empty() => {
                words.extend(name);
                address = format!("<{address}>");
            }
            // Quoted local parts and the like are told from display names only between brackets.
            _ if !address.chars().all(|c| is_plain(c) || c == '@') => address = format!("<{address}>"),
            _ => {}
        }
        if n + 1 < mailboxes.len() {
            address.push(',');
        }
        words.push(address);
    }
    if words.is_empty() {
        words.push("undisclosed-recipients:;".to_owned());
    }
    fold(name, &words)
}

/// A whole field of unstructured text such as Subject (RFC 5322 §3.2.5), folded, with its CRLF. Text outside ASCII, and
/// what would look encoded, becomes encoded words; control characters become blanks.
#[must_use]
pub fn text_field(name: &str, text: &str) -> String {
    let text: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    let is_plain = |word: &String| word.is_ascii() && word.len() < 60 && !word.contains("=?");
    if words.iter().all(is_plain) {
        fold(name, &words)
    } else {
        // The first one stands beside the name.
        fold(name, &encoded_words(&words.join(" "), 42))
    }
}

/// The address as RFC 5322 §3.4.1 wants it: a local part that is no `dot-atom` is quoted.
///
/// Unlike [`Address`]'s own text, which keeps the broken forms that SMTP clients use (`scan..2@`), this is always
/// strict, if the domain is.
#[must_use]
pub fn write_address(address: &Address) -> String {
    let local = address.local();
    if local
        .split('.')
        .all(|part| !part.is_empty() && part.chars().all(is_atext))
    {
        return format!("{local}@{}", address.domain());
    }
    let mut out = String::from("\"");
    for c in local.chars() {
        // Parentheses would not need it, but there are readers who see comments even here.
        if matches!(c, '"' | '\\' | '(' | ')') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push_str("\"@");
    out.push_str(address.domain());
    out
}

/// Joins the words with blanks, folding before those that do not fit; a word is never split.
fn fold(name: &str, words: &[String]) -> String {
    let mut out = format!("{name}:");
    let mut width = out.len();
    for (n, word) in words.iter().enumerate() {
        if n > 0 && width + 1 + word.len() > WIDTH {
            out.push_str("\r\n");
            width = 0;
        }
        out.push(' ');
        out.push_str(word);
        width += 1 + word.len();
    }
    out.push_str("\r\n");
    out
}

/// The words of a phrase (RFC 5322 §3.2.5), or none if the name is better left out.
fn display_name(name: &str) -> Vec<String> {
    let name = name.trim();
    let suspicious = |c: char| c.is_control() || matches!(c, '@' | '＠' | '\u{fffd}');
    if name.is_empty() || name.len() > MAX_NAME || name.contains(suspicious) || name.contains("=?") {
        return Vec::new();
    }
    if !name.is_ascii() {
        return encoded_words(name, 45);
    }
    if name
        .split(' ')
        .all(|word| !word.is_empty() && word.chars().all(is_plain) && !word.contains('.'))
    {
        return name.split(' ').map(str::to_owned).collect();
    }
    let mut quoted = String::from("\"");
    for c in name.chars() {
        if matches!(c, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('"');
    vec![quoted]
}

/// RFC 2047 §2: no encoded word is longer than 75 characters, none ends within a character. Each holds so many octets.
fn encoded_words(name: &str, octets: usize) -> Vec<String> {
    let mut words = Vec::new();
    let mut chunk = String::new();
    for c in name.chars() {
        if chunk.len() + c.len_utf8() > octets {
            words.push(encoded_word(&chunk));
            chunk.clear();
        }
        chunk.push(c);
    }
    words.push(encoded_word(&chunk));
    words
}

fn encoded_word(text: &str) -> String {
    let encoded = base64::engine::general_purpose::STANDARD.encode(text);
    format!("=?utf-8?B?{encoded}?=")
}

/// What needs no protection anywhere.
fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-_.+".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::header::parse_strict;

    fn mailbox(name: &str, address: &str) -> Mailbox {
        Mailbox {
            name: (!name.is_empty()).then(|| name.to_owned()),
            address: address.parse().unwrap(),
        }
    }

    #[test]
    fn lists_are_written_so_that_they_can_be_read() {
        for (mailboxes, expected) in [
            (vec![mailbox("", "a@x"), mailbox("", "b@x")], "To: a@x, b@x\r\n"),
            (vec![mailbox("Al B", "a@x")], "To: Al B <a@x>\r\n"),
            (
                vec![mailbox("B, \"Al\"", "a@x")],
                "To: \"B, \\\"Al\\\"\" <a@x>\r\n",
            ),
            (vec![mailbox("b@x", "a@x")], "To: a@x\r\n"),
            (vec![mailbox("a\r\nBcc: b@x", "a@x")], "To: a@x\r\n"),
            (vec![mailbox("Jörg", "j@x")], "To: =?utf-8?B?SsO2cmc=?= <j@x>\r\n"),
            (vec![mailbox("", "\"a b\"@x")], "To: <\"a b\"@x>\r\n"),
            (vec![mailbox("", "scan..2@x")], "To: <\"scan..2\"@x>\r\n"),
            (vec![], "To: undisclosed-recipients:;\r\n"),
        ] {
            let field = address_list_field("To", &mailboxes);
            assert_eq!(field, expected);
            let back = parse_strict(&field.as_bytes()[3..]).unwrap();
            let keys = |list: &[Mailbox]| list.iter().map(|m| m.address.key()).collect::<Vec<_>>();
            assert_eq!(keys(&back.mailboxes), keys(&mailboxes));
        }
    }

    #[test]
    fn text_comes_back_as_it_was_in_short_lines_of_ascii() {
        let long = "x".repeat(300);
        let many = "wörd ".repeat(60);
        for text in [
            "",
            "plain words",
            "für Jörg",
            "=?utf-8?Q?x?=",
            "a\tb",
            &long,
            many.trim_end(),
        ] {
            let field = text_field("Subject", text);
            assert!(
                field.is_ascii() && field.split("\r\n").all(|line| line.len() <= 78),
                "{field}"
            );
            let whole = format!("{field}\r\n");
            let block = crate::mail::header::HeaderBlock::parse(whole.as_bytes(), true).unwrap();
            assert_eq!(block.fields().len(), 1);
            assert_eq!(block.subject().unwrap(), text.replace('\t', " "));
        }
        assert_eq!(text_field("Subject", "x\r\nBcc: b@x"), "Subject: x Bcc: b@x\r\n");
    }

    #[test]
    fn a_thousand_recipients_are_folded() {
        let many: Vec<Mailbox> = (0..1000)
            .map(|n| mailbox("Gräfin Ö. von und zu Beispiel", &format!("user{n}@example.com")))
            .collect();
        let field = address_list_field("Bcc", &many);
        assert!(field.split("\r\n").all(|line| line.len() <= WIDTH + 2));
        assert_eq!(parse_strict(&field.as_bytes()[4..]).unwrap().mailboxes, many);
    }
}
