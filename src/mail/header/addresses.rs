//! Reads a list of addresses as RFC 5322 §3.4 writes it, and nothing else.
//!
//! Where this says yes, every reader must read the same mailboxes. So it is stricter than the RFC in what no
//! program writes (comments and blanks beside the `@` or between the angle brackets, routes, empty elements, lines
//! of blanks), and more generous only with dots in display names (`John Q. Public <…>`, `obs-phrase` of §4.1).
//! UTF-8 may stand wherever RFC 6532 §3.2 allows it.

use super::lenient::decode_words;
use crate::mail::Address;

/// A mailbox in a header field: an address and what it is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mailbox {
    /// The display name, unquoted and decoded, for people.
    pub name: Option<String>,
    /// The address.
    pub address: Address,
}

/// What a field that lists addresses says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressList {
    /// The mailboxes in order, those in groups included.
    pub mailboxes: Vec<Mailbox>,
    /// Text that is no address by the RFC but could be taken for one by a careless reader: comments, and what
    /// encoded words say when they are decoded.
    pub asides: Vec<String>,
}

/// Reads the value of a To, Cc or similar field (RFC 5322 §3.4 `address-list`), folding included.
///
/// `None` means that it is not strictly what the RFC describes; [`super::parse_lenient`] gets out of it what can
/// be got. An empty field is not strict (`address-list` has at least one address), an empty group is.
#[must_use]
pub fn parse_strict(value: &[u8]) -> Option<AddressList> {
    let text = unfold(std::str::from_utf8(value).ok()?)?;
    let mut parser = Parser {
        chars: text.chars().collect(),
        at: 0,
        list: AddressList::default(),
    };
    parser.address_list()?;
    Some(parser.list)
}

/// Removes the CRLF of each folding (RFC 5322 §2.2.3) and the one at the end.
fn unfold(value: &str) -> Option<String> {
    let value = value.strip_suffix("\r\n").unwrap_or(value);
    let mut text = String::with_capacity(value.len());
    for (n, line) in value.split("\r\n").enumerate() {
        if line.contains(['\r', '\n', '\0']) {
            return None;
        }
        if n > 0 && (!line.starts_with([' ', '\t']) || line.trim_matches([' ', '\t']).is_empty()) {
            return None;
        }
        text.push_str(line);
    }
    Some(text)
}

struct Parser {
    chars: Vec<char>,
    at: usize,
    list: AddressList,
}

/// How deep comments may be nested.
const MAX_NESTING: usize = 20;

impl Parser {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += 1;
        Some(c)
    }

    fn take(&mut self, c: char) -> bool {
        let taken = self.peek() == Some(c);
        self.at += usize::from(taken);
        taken
    }

    /// `address *("," address)`, to the end of the text.
    fn address_list(&mut self) -> Option<()> {
        loop {
            self.address(true)?;
            self.cfws()?;
            match self.next() {
                None => return Some(()),
                Some(',') => {}
                Some(_) => return None,
            }
        }
    }

    /// `mailbox / group`: an address without a name, or a phrase and what follows it.
    fn address(&mut self, group_allowed: bool) -> Option<()> {
        self.cfws()?;
        let start = self.at;
        if let Some(address) = self.addr_spec() {
            self.list.mailboxes.push(Mailbox { name: None, address });
            return Some(());
        }
        self.at = start;
        let name = if self.peek() == Some('<') {
            None
        } else {
            Some(self.phrase()?)
        };
        match self.next()? {
            '<' => {
                let address = self.addr_spec()?;
                if !self.take('>') {
                    return None;
                }
                self.list.mailboxes.push(Mailbox { name, address });
                Some(())
            }
            ':' if group_allowed && name.is_some() => self.group(),
            _ => None,
        }
    }

    /// `[mailbox-list / CFWS] ";"`, behind the colon.
    fn group(&mut self) -> Option<()> {
        self.cfws()?;
        if self.take(';') {
            return Some(());
        }
        loop {
            self.address(false)?;
            self.cfws()?;
            match self.next()? {
                ';' => return Some(()),
                ',' => {}
                _ => return None,
            }
        }
    }

    /// `local-part "@" domain` (RFC 5322 §3.4.1), without comments or blanks in it.
    fn addr_spec(&mut self) -> Option<Address> {
        let local = if self.peek() == Some('"') {
            self.quoted_string()?
        } else {
            self.dot_atom()?
        };
        if !self.take('@') {
            return None;
        }
        let domain = if self.peek() == Some('[') {
            self.domain_literal()?
        } else {
            self.dot_atom()?
        };
        Address::new(&local, &domain).ok()
    }

    fn dot_atom(&mut self) -> Option<String> {
        let text = self.run(|c| is_atext(c) || c == '.');
        let dots_are_inside = !text.is_empty() && text.split('.').all(|part| !part.is_empty());
        dots_are_inside.then_some(text)
    }

    fn domain_literal(&mut self) -> Option<String> {
        self.next()?;
        let text = self.run(|c| c.is_ascii_alphanumeric() || ".:-".contains(c));
        (self.take(']') && !text.is_empty()).then(|| format!("[{text}]"))
    }

    /// `1*word` with dots, decoded (RFC 5322 §3.2.5, RFC 2047 §5 (3)).
    fn phrase(&mut self) -> Option<String> {
        let mut words: Vec<String> = Vec::new();
        let mut atoms = String::new();
        loop {
            self.cfws()?;
            match self.peek() {
                Some('"') => {
                    self.flush(&mut atoms, &mut words);
                    words.push(self.quoted_string()?);
                }
                Some(c) if is_atext(c) || (c == '.' && !(words.is_empty() && atoms.is_empty())) => {
                    if !atoms.is_empty() {
                        atoms.push(' ');
                    }
                    atoms.push_str(&self.run(|c| is_atext(c) || c == '.'));
                }
                _ => break,
            }
        }
        self.flush(&mut atoms, &mut words);
        (!words.is_empty()).then(|| words.join(" "))
    }

    /// Adjacent atoms are decoded together, because the blanks between encoded words vanish (RFC 2047 §6.2).
    fn flush(&mut self, atoms: &mut String, words: &mut Vec<String>) {
        if atoms.is_empty() {
            return;
        }
        let text = std::mem::take(atoms);
        if text.contains("=?") {
            let decoded = decode_words(&text);
            self.list.asides.push(decoded.clone());
            words.push(decoded);
        } else {
            words.push(text);
        }
    }

    fn quoted_string(&mut self) -> Option<String> {
        self.next()?;
        let mut text = String::new();
        loop {
            match self.next()? {
                '"' => return Some(text),
                '\\' => text.push(self.next().filter(|c| *c == '\t' || !c.is_control())?),
                c if c != '\t' && c.is_control() => return None,
                c => text.push(c),
            }
        }
    }

    /// Blanks and comments (RFC 5322 §3.2.2).
    fn cfws(&mut self) -> Option<()> {
        loop {
            match self.peek() {
                Some(' ' | '\t') => self.at += 1,
                Some('(') => self.comment()?,
                _ => return Some(()),
            }
        }
    }

    fn comment(&mut self) -> Option<()> {
        let mut depth = 0;
        let mut text = String::new();
        loop {
            match self.next()? {
                '(' if depth == MAX_NESTING => return None,
                '(' => depth += 1,
                ')' => {
                    depth -= 1;
                    if depth == 0 {
                        self.list.asides.push(decode_words(&text));
                        return Some(());
                    }
                }
                '\\' => text.push(self.next().filter(|c| *c == '\t' || !c.is_control())?),
                c if c != '\t' && c.is_control() => return None,
                c => text.push(c),
            }
        }
    }

    fn run(&mut self, accept: impl Fn(char) -> bool) -> String {
        let mut text = String::new();
        while let Some(c) = self.peek().filter(|c| accept(*c)) {
            text.push(c);
            self.at += 1;
        }
        text
    }
}

/// RFC 5322 §3.2.3 with RFC 6532 §3.2: also UTF-8, but nothing that is invisible.
pub(super) fn is_atext(c: char) -> bool {
    c.is_ascii_alphanumeric()
        || "!#$%&'*+-/=?^_`{|}~".contains(c)
        || (!c.is_ascii() && !c.is_control() && !c.is_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strict(text: &str) -> Option<Vec<String>> {
        let list = parse_strict(text.as_bytes())?;
        Some(
            list.mailboxes
                .iter()
                .map(|m| match &m.name {
                    Some(name) => format!("{name}|{}", m.address),
                    None => m.address.to_string(),
                })
                .collect(),
        )
    }

    #[test]
    fn what_the_rfc_describes_is_read() {
        for (text, expected) in [
            (" a@x.example\r\n", vec!["a@x.example"]),
            ("a@x,b@y", vec!["a@x", "b@y"]),
            (" Al <a@x>,\r\n \"B, C\" <b@y>", vec!["Al|a@x", "B, C|b@y"]),
            (" John Q. Public <j@x>", vec!["John Q. Public|j@x"]),
            (" <a@x> (he, \\) she (or) it)", vec!["a@x"]),
            (" (pre) a@x (post)", vec!["a@x"]),
            (" \"a b\"@x, <\"c\\\"d\"@y>", vec!["\"a b\"@x", "\"c\\\"d\"@y"]),
            (" \"a@b\" <c@d>", vec!["a@b|c@d"]),
            (
                " a@[192.0.2.1], b@[IPv6:2001:db8::1]",
                vec!["a@[192.0.2.1]", "b@[IPv6:2001:db8::1]"],
            ),
            (" undisclosed-recipients:;", vec![]),
            (" G: a@x, B <b@y>;, c@z", vec!["a@x", "B|b@y", "c@z"]),
            (" G : (none) ;", vec![]),
            (
                " =?utf-8?q?J=C3=B6rg?=\r\n =?utf-8?q?_M?= <j@x>",
                vec!["Jörg M|j@x"],
            ),
            (" jörg@müller.example", vec!["jörg@müller.example"]),
        ] {
            let expected: Vec<String> = expected.into_iter().map(String::from).collect();
            assert_eq!(strict(text), Some(expected), "{text:?}");
        }
    }

    #[test]
    fn whatever_two_readers_could_read_differently_is_not_strict() {
        for text in [
            "",
            " ",
            "\r\n",
            " ,a@x",
            "a@x,",
            "a@x,,b@x",
            "a@x b@x",
            "a@x;b@x",
            "root",
            "root@",
            "@x",
            "a@x\r\nb@x",
            "a@x,\r\n \r\n b@x",
            "<a@x",
            "a@x>",
            "<a@x> <b@x>",
            "A a@x",
            "a@x B",
            "<@r:a@x>",
            "<a @x>",
            "a@ x",
            "a(c)@x",
            "a@x(",
            "a@x)",
            "\"a",
            "\"a\"",
            "a..b@x",
            ".a@x",
            "a.@x",
            "a@x..y",
            "a@x.",
            "a@[1.2.3.4",
            "a@[]",
            "G: a@x",
            "G: H: a@x;;",
            "G: a@x;;",
            ": a@x;",
            "a@b@c",
            "<a@x>,<>",
            "a\0@x",
            "Müller, J <j@x>",
            "=?utf-8?q?a=40x?=",
            "a\\b@x",
            "\"\"@x",
            "a@x, \u{a0}b@x",
            "[a@x]",
            "mailto:a@x",
        ] {
            assert_eq!(strict(text), None, "{text:?}");
        }
        assert_eq!(parse_strict(b"M\xfcller <m@x>"), None);
        assert_eq!(strict(&"(".repeat(100_000)), None);
    }

    #[test]
    fn asides_are_told() {
        let list = parse_strict(b" =?utf-8?q?eve=40evil=2C?= <a@x> (not b@x)").unwrap();
        assert_eq!(list.asides, ["eve@evil,", "not b@x"]);
    }
}
