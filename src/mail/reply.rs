//! What the listener answers to a command (RFC 5321 §4.2).

use super::{EnhancedCode, StatusClass};
use std::fmt;

/// The longest line of a reply without its CRLF (RFC 5321 §4.5.3.1.5).
const MAX_LINE: usize = 510;

/// An SMTP reply: a code, an enhanced status code where one is due, and one or more lines of text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    code: u16,
    enhanced: Option<EnhancedCode>,
    lines: Vec<String>,
}

impl Reply {
    /// A reply without an enhanced code: the greeting, and the answers to HELO, EHLO and DATA (354), which
    /// RFC 2034 §4 excludes.
    ///
    /// `code` is a three-digit reply code; `text` has no line ends.
    #[must_use]
    pub fn plain(code: u16, text: impl Into<String>) -> Self {
        Self {
            code,
            enhanced: None,
            lines: vec![text.into()],
        }
    }

    /// A reply with an enhanced code, whose class is the code's first digit (RFC 2034 §4).
    #[must_use]
    pub fn new(code: u16, subject: u16, detail: u16, text: impl Into<String>) -> Self {
        Self {
            code,
            enhanced: Some(EnhancedCode::new(subject, detail)),
            lines: vec![text.into()],
        }
    }

    /// The same reply with one more line.
    #[must_use]
    pub fn line(mut self, text: impl Into<String>) -> Self {
        self.lines.push(text.into());
        self
    }

    /// The three-digit code.
    #[must_use]
    pub fn code(&self) -> u16 {
        self.code
    }

    /// True for 2xx and 3xx.
    #[must_use]
    pub fn is_positive(&self) -> bool {
        self.code < 400
    }

    /// The text of the first line, for the log.
    #[must_use]
    pub fn text(&self) -> &str {
        self.lines.first().map_or("", String::as_str)
    }

    /// Appends the reply as it goes over the wire, each line ended by CRLF and cut to its longest length. Texts quote
    /// what the client said, so whatever is not printable ASCII is shown as `?`: not every client has said SMTPUTF8
    /// (RFC 6531 §3.7.4.3).
    pub fn write_to(&self, out: &mut Vec<u8>) {
        let class = self.class();
        for (n, line) in self.lines.iter().enumerate() {
            let start = out.len();
            let separator = if n + 1 == self.lines.len() { ' ' } else { '-' };
            out.extend_from_slice(format!("{}{separator}", self.code).as_bytes());
            if let Some(enhanced) = self.enhanced {
                out.extend_from_slice(enhanced.with_class(class).as_bytes());
                out.push(b' ');
            }
            out.extend(line.chars().map(|c| match u8::try_from(c) {
                Ok(b'\r' | b'\n') => b' ',
                Ok(octet @ b' '..=b'~') => octet,
                _ => b'?',
            }));
            out.truncate(start + MAX_LINE);
            out.extend_from_slice(b"\r\n");
        }
    }

    fn class(&self) -> StatusClass {
        match self.code / 100 {
            2 | 3 => StatusClass::Success,
            4 => StatusClass::Transient,
            _ => StatusClass::Permanent,
        }
    }
}

impl fmt::Display for Reply {
    /// Codes and the first line of text, for the log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.code)?;
        if let Some(enhanced) = self.enhanced {
            write!(f, "{} ", enhanced.with_class(self.class()))?;
        }
        f.write_str(self.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(reply: &Reply) -> String {
        let mut out = Vec::new();
        reply.write_to(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn replies_on_the_wire() {
        assert_eq!(wire(&Reply::plain(354, "go on")), "354 go on\r\n");
        assert_eq!(
            wire(&Reply::new(452, 3, 1, "full").line("later")),
            "452-4.3.1 full\r\n452 4.3.1 later\r\n"
        );
        assert_eq!(wire(&Reply::new(250, 0, 0, "a\r\nb")), "250 2.0.0 a  b\r\n");
        assert_eq!(wire(&Reply::plain(550, "<bä\t>")), "550 <b??>\r\n");
        let long = wire(&Reply::new(550, 1, 3, "x".repeat(600)).line("y"));
        let lines: Vec<usize> = long.split("\r\n").map(str::len).collect();
        assert_eq!(lines, [510, 11, 0]);
        assert_eq!(
            Reply::new(452, 3, 1, "full").line("later").to_string(),
            "452 4.3.1 full"
        );
    }
}
