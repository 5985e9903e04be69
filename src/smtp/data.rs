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
    bare: bool,
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
            // Whatever decodes to a line end without being one.
            self.bare |= text.contains(&b'\n') && !matches!((self.state, octet), (State::Cr, b'\n'));
            self.state = state;
            if used {
                *input = rest;
            }
            if !text.is_empty() {
                return Decoded::Text(text);
            }
        }
    }

    /// True if a CR or LF came that was not part of `<CR><LF>`, which RFC 5321 §2.3.8 forbids.
    #[must_use]
    pub fn has_bare_line_ends(&self) -> bool {
        self.bare
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What the reader makes of `wire` in pieces of `sizes` octets, again and again: the message, and what is left
    /// after its end, if it ended.
    fn read(wire: &[u8], sizes: &[usize]) -> (Vec<u8>, Option<Vec<u8>>) {
        let (mut reader, mut message, mut at) = (DataReader::new(), Vec::new(), 0);
        let mut sizes = sizes.iter().cycle();
        while at < wire.len() {
            let end = (at + sizes.next().unwrap()).min(wire.len());
            let mut piece = &wire[at..end];
            loop {
                match reader.next(&mut piece) {
                    Decoded::Text(text) => {
                        assert!(!text.is_empty());
                        message.extend_from_slice(text);
                    }
                    Decoded::More => break assert!(piece.is_empty()),
                    Decoded::End => return (message, Some(wire[end - piece.len()..].to_vec())),
                }
            }
            at = end;
        }
        (message, None)
    }

    /// As RFC 5321 §4.5.2 tells a client: a dot before each dot that is first after CRLF, and CRLF at the end.
    fn stuff(message: &[u8]) -> Vec<u8> {
        let mut wire = Vec::new();
        for &octet in message {
            if octet == b'.' && (wire.is_empty() || wire.ends_with(b"\r\n")) {
                wire.push(b'.');
            }
            wire.push(octet);
        }
        if !wire.is_empty() && !wire.ends_with(b"\r\n") {
            wire.extend_from_slice(b"\r\n");
        }
        wire
    }

    /// The naive reference: every line end as CRLF.
    fn normalise(message: &[u8]) -> Vec<u8> {
        let (mut out, mut rest) = (Vec::new(), message);
        while let Some((&octet, tail)) = rest.split_first() {
            let ends = [&b"\r\r\n"[..], b"\r\n", b"\r", b"\n"];
            if let Some(tail) = ends.iter().find_map(|end| rest.strip_prefix(*end)) {
                out.extend_from_slice(b"\r\n");
                rest = tail;
            } else {
                out.push(octet);
                rest = tail;
            }
        }
        out
    }

    /// Text of which much is line ends and dots.
    fn nasty() -> impl Strategy<Value = Vec<u8>> {
        let octet = prop_oneof![
            3 => Just(b'\r'), 3 => Just(b'\n'), 3 => Just(b'.'), 2 => Just(b'a'), 1 => any::<u8>()
        ];
        let piece = prop_oneof![
            4 => octet.prop_map(|o| vec![o]), 2 => Just(b"\r\n".to_vec()), 1 => Just(b"ordinary".to_vec())
        ];
        prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        #[test]
        fn what_a_client_sends_arrives(
            message in nasty(), sizes in prop::collection::vec(1usize..9, 1..5), after in nasty()
        ) {
            let mut body = message.clone();
            if !body.is_empty() && !body.ends_with(b"\r\n") {
                body.extend_from_slice(b"\r\n");
            }
            let mut wire = stuff(&message);
            wire.extend_from_slice(b".\r\n");
            wire.extend_from_slice(&after);
            for sizes in [&sizes[..], &[1], &[usize::MAX / 2]] {
                let (read, rest) = read(&wire, sizes);
                prop_assert_eq!(&read, &normalise(&body));
                prop_assert_eq!(rest.as_ref(), Some(&after));
            }
        }

        /// Whatever comes, the end is the first CRLF.CRLF and nothing else, and all line ends are CRLF.
        #[test]
        fn only_one_sequence_ends_a_message(wire in nasty(), sizes in prop::collection::vec(1usize..9, 1..5)) {
            let mut whole = b"\r\n".to_vec();
            whole.extend_from_slice(&wire);
            let end = whole.windows(5).position(|w| w == b"\r\n.\r\n");
            let (message, rest) = read(&wire, &sizes);
            prop_assert_eq!(rest, end.map(|at| whole[at + 5..].to_vec()));
            if end.is_some() {
                prop_assert!(message.is_empty() || message.ends_with(b"\r\n"));
                prop_assert_eq!(normalise(&message), message);
            }
        }
    }

    #[test]
    fn no_smuggling_sequence_ends_a_message_split_anywhere() {
        // Those of the research of 2023 and after, and all their relatives: each line end before and after the dot.
        let ends = [
            "\n", "\r", "\r\n", "\r\r\n", "\n\r", "\r\n\0", "\0\r\n", "\r\0\n", "\n\n", "\r\r", "\r\n ",
            "\x0b", "\u{85}",
        ];
        for before in ends {
            for after in ends {
                let sequence = format!("{before}.{after}");
                if sequence.contains("\r\n.\r\n") {
                    continue;
                }
                let wire = format!("one{sequence}MAIL FROM:<x@y>\r\nDATA\r\n\r\n.\r\nQUIT\r\n").into_bytes();
                for split in 1..wire.len() {
                    let (message, rest) = read(&wire, &[split, wire.len()]);
                    assert_eq!(rest.unwrap(), b"QUIT\r\n", "{sequence:?} split at {split}");
                    assert!(
                        message.ends_with(b"MAIL FROM:<x@y>\r\nDATA\r\n\r\n"),
                        "{sequence:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn lines_with_dots() {
        for (wire, message) in [
            (".\r\n", ""),
            ("\r\n.\r\n", "\r\n"),
            ("..\r\n.\r\n", ".\r\n"),
            ("...\r\n.\r\n", "..\r\n"),
            (".a\r\n.\r\n", "a\r\n"),
            (".\na\r\n.\r\n", ".\r\na\r\n"),
            (".\ra\r\n.\r\n", ".\r\na\r\n"),
            (".\r\r\na\r\n.\r\n", ".\r\na\r\n"),
            ("a\n.\nb\n..c\r\n.\r\n", "a\r\n.\r\nb\r\n..c\r\n"),
            ("a\r\r\n.\r\n", "a\r\n"),
            ("a\r\r\r\r\n..\r\n.\r\n", "a\r\n\r\n\r\n.\r\n"),
        ] {
            for size in [1, 2, 3, 100] {
                let (read, rest) = read(wire.as_bytes(), &[size]);
                assert_eq!(String::from_utf8(read).unwrap(), message, "{wire:?} by {size}");
                assert_eq!(rest, Some(Vec::new()), "{wire:?}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        #[test]
        fn bare_line_ends_are_noticed(message in nasty(), sizes in prop::collection::vec(1usize..9, 1..5)) {
            let mut wire = stuff(&message);
            wire.extend_from_slice(b".\r\n");
            let without_pairs = wire.windows(2).fold((Vec::new(), false), |(mut rest, skip), pair| {
                let is_pair = !skip && pair == b"\r\n";
                if !skip && !is_pair {
                    rest.push(pair[0]);
                }
                (rest, is_pair)
            }).0;
            let expected = without_pairs.iter().any(|octet| matches!(octet, b'\r' | b'\n'));
            for sizes in [&sizes[..], &[1], &[usize::MAX / 2]] {
                let (mut reader, mut at) = (DataReader::new(), 0_usize);
                for size in sizes.iter().cycle() {
                    let end = at.saturating_add(*size).min(wire.len());
                    let mut piece = &wire[at..end];
                    while let Decoded::Text(_) = reader.next(&mut piece) {}
                    at = end;
                    if at == wire.len() {
                        break;
                    }
                }
                prop_assert_eq!(reader.has_bare_line_ends(), expected);
            }
        }
    }

    #[test]
    fn ordinary_text_goes_through_in_one_piece() {
        let text = "An ordinary line of text.\r\n".repeat(100);
        let mut input = text.as_bytes();
        let mut reader = DataReader::new();
        assert_eq!(reader.next(&mut input), Decoded::Text(text.as_bytes()));
        assert_eq!(reader.next(&mut input), Decoded::More);
    }
}
