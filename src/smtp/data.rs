//! The DATA phase without I/O: where a message ends, and which octets belong to it.
//!
//! **The end.** Only `<CR><LF>.<CR><LF>` ends a message (RFC 5321 §4.1.1.4); the first `<CR><LF>` may be that of the
//! DATA command. Any laxer rule lets a message hide a second one from the server that passed it on ("SMTP
//! smuggling"), so no other sequence ever ends one, not even `<LF>.<LF>` or `<CR><LF>.<CR><CR><LF>`.
//!
//! **Line ends.** Old devices send bare LF, bare CR and `<CR><CR><LF>`; each is one line end and becomes `<CR><LF>`.
//! Of several CR before an LF the last two belong to that line end, each one before them is a line end of its own.
//!
//! **Dots.** A dot is taken away only where RFC 5321 §4.5.2 had the client add one: first on a line that begins after
//! `<CR><LF>`, if something else follows on that line. After a bare LF or CR a dot stays, because a client that
//! follows the RFC saw no new line there and added none. A dot alone on a line that is not the end stays what it is.
//! So whatever a client that follows the RFC sends arrives octet for octet, but for its bare line ends.

use memchr::memchr2;

/// Finds the end of a message in pieces of any size, and decodes what comes before it.
#[derive(Debug, Default)]
pub struct DataReader {
    state: State,
}

/// What [`DataReader::next`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoded<'a> {
    /// The next octets of the message; never empty.
    Text(&'a [u8]),
    /// The message is complete. What is left of the input comes after it.
    End,
    /// The input is used up and the message goes on.
    More,
}

/// What came before the next octet.
#[derive(Clone, Copy, Debug, Default)]
enum State {
    /// `<CR><LF>`, or nothing at all.
    #[default]
    LineStart,
    /// Anything that has no meaning for what follows.
    Text,
    /// One CR that is not yet decoded.
    Cr,
    /// Two CR that are not yet decoded.
    CrCr,
    /// A dot after `<CR><LF>` that is not yet decoded.
    Dot,
    /// That dot and a CR.
    DotCr,
    /// The end.
    Ended,
}

const CRLF: &[u8] = b"\r\n";

impl DataReader {
    /// A reader at the first octet after the line of the DATA command.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Decodes some of `input` and moves it past what was used. Call it until it answers [`Decoded::More`] or
    /// [`Decoded::End`].
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Decoded<'a> {
        loop {
            if matches!(self.state, State::Ended) {
                return Decoded::End;
            }
            let Some((&octet, rest)) = input.split_first() else {
                return Decoded::More;
            };
            // The state after `octet`, what it decodes to, and whether it was used up.
            let (state, text, used): (State, &'static [u8], bool) = match (self.state, octet) {
                (State::LineStart, b'.') => (State::Dot, b"", true),
                (State::LineStart | State::Text, b'\r') => (State::Cr, b"", true),
                (State::LineStart | State::Text, b'\n') => (State::Text, CRLF, true),
                (State::LineStart | State::Text, _) => return self.run(input),
                (State::Cr | State::CrCr, b'\n') => (State::LineStart, CRLF, true),
                (State::Cr, b'\r') => (State::CrCr, b"", true),
                (State::CrCr, b'\r') => (State::CrCr, CRLF, true),
                (State::Cr, _) => (State::Text, CRLF, false),
                (State::CrCr, _) => (State::Text, b"\r\n\r\n", false),
                (State::Dot, b'\r') => (State::DotCr, b"", true),
                (State::Dot, b'\n') => (State::Text, b".\r\n", true),
                // RFC 5321 §4.5.2: something follows the dot, so the client added it.
                (State::Dot, _) => (State::Text, b"", false),
                (State::DotCr, b'\n') => (State::Ended, b"", true),
                (State::DotCr, b'\r') => (State::CrCr, b".", true),
                (State::DotCr, _) => (State::Text, b".\r\n", false),
                (State::Ended, _) => return Decoded::End,
            };
            self.state = state;
            if used {
                *input = rest;
            }
            if !text.is_empty() {
                return Decoded::Text(text);
            }
        }
    }

    /// Ordinary text: as many octets as go through unchanged. The first is neither CR nor LF, nor a dot that counts.
    fn run<'a>(&mut self, input: &mut &'a [u8]) -> Decoded<'a> {
        let text: &'a [u8] = input;
        let mut at = 0;
        self.state = State::Text;
        let end = loop {
            let ahead = text.get(at..).unwrap_or_default();
            let Some(found) = memchr2(b'\r', b'\n', ahead) else {
                break text.len();
            };
            match ahead.get(found..).unwrap_or_default() {
                [b'\r', b'\n'] | [b'\r', b'\n', b'.', ..] => {
                    self.state = State::LineStart;
                    break at + found + 2;
                }
                [b'\r', b'\n', ..] => at += found + 2,
                _ => break at + found,
            }
        };
        // `end` is at most the length of the text.
        let (run, rest) = text.split_at(end);
        *input = rest;
        Decoded::Text(run)
    }
}
