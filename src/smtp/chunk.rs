//! The octets of BDAT (RFC 3030) without I/O: what belongs to the message.
//!
//! Where a message ends is said by its lengths, so nothing in it can mean an end, and no dot means anything. Bare line
//! ends become `<CR><LF>` by the same rule as in DATA ([`super::DataReader`]), also where a chunk ends between the
//! two; and a last line that is not ended gets an end. So the same message is stored whichever way it comes, and what
//! stands in the spool can always be sent on with DATA.

use memchr::memchr2;

/// Decodes the octets of all chunks of a message, in pieces of any size.
#[derive(Debug, Default)]
pub struct ChunkReader {
    state: State,
    bare: bool,
}

/// What came before the next octet.
#[derive(Clone, Copy, Debug, Default)]
enum State {
    /// A line end, or nothing at all.
    #[default]
    LineStart,
    /// Anything else that is decoded.
    Text,
    /// One CR that is not yet decoded.
    Cr,
    /// Two CR that are not yet decoded.
    CrCr,
}

const CRLF: &[u8] = b"\r\n";

impl ChunkReader {
    /// A reader at the first octet of the first chunk.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Decodes some of `input` and moves it past what was used. `None`, if the input is used up.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Option<&'a [u8]> {
        loop {
            let (&octet, rest) = input.split_first()?;
            // The state after `octet`, what it decodes to, and whether it was used up.
            let (state, text, used): (State, &'static [u8], bool) = match (self.state, octet) {
                (State::LineStart | State::Text, b'\r') => (State::Cr, b"", true),
                (State::LineStart | State::Text, b'\n') => (State::LineStart, CRLF, true),
                (State::LineStart | State::Text, _) => return Some(self.run(input)),
                (State::Cr | State::CrCr, b'\n') => (State::LineStart, CRLF, true),
                (State::Cr, b'\r') => (State::CrCr, b"", true),
                (State::CrCr, b'\r') => (State::CrCr, CRLF, true),
                (State::Cr, _) => (State::LineStart, CRLF, false),
                (State::CrCr, _) => (State::LineStart, b"\r\n\r\n", false),
            };
            // Whatever decodes to a line end without being one.
            self.bare |= text.contains(&b'\n') && !matches!((self.state, octet), (State::Cr, b'\n'));
            self.state = state;
            if used {
                *input = rest;
            }
            if !text.is_empty() {
                return Some(text);
            }
        }
    }

    /// True if a CR or LF came that was not part of `<CR><LF>`, which RFC 5321 §2.3.8 forbids. A CR at the end of
    /// what was read so far counts, if that is said to be `whole`.
    #[must_use]
    pub fn has_bare_line_ends(&self, whole: bool) -> bool {
        self.bare || matches!((self.state, whole), (State::CrCr, _) | (State::Cr, true))
    }

    /// What is still to be added after the last octet of the last chunk.
    #[must_use]
    pub fn finish(self) -> &'static [u8] {
        match self.state {
            State::LineStart => b"",
            State::Text | State::Cr => CRLF,
            State::CrCr => b"\r\n\r\n",
        }
    }

    /// Ordinary text: as many octets as go through unchanged. The first is neither CR nor LF.
    fn run<'a>(&mut self, input: &mut &'a [u8]) -> &'a [u8] {
        let text: &'a [u8] = input;
        let mut at = 0;
        self.state = State::Text;
        let end = loop {
            let ahead = text.get(at..).unwrap_or_default();
            let Some(found) = memchr2(b'\r', b'\n', ahead) else {
                break text.len();
            };
            match ahead.get(found..).unwrap_or_default() {
                [b'\r', b'\n'] => {
                    self.state = State::LineStart;
                    break text.len();
                }
                [b'\r', b'\n', ..] => at += found + 2,
                // Not a pair, or not yet.
                _ => break at + found,
            }
        };
        // `end` is at most the length of the text.
        let (run, rest) = text.split_at(end);
        *input = rest;
        run
    }
}

#[cfg(test)]
mod tests {
    use super::super::data::{DataReader, Decoded};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bare_line_ends_are_noticed() {
        for (message, so_far, whole) in [
            ("a\r\nb", false, false),
            ("a\r\n\r\n", false, false),
            ("", false, false),
            ("a\r", false, true),
            ("\n", true, true),
            ("a\nb\r\n", true, true),
            ("a\rb\r\n", true, true),
            ("a\r\r", true, true),
            ("a\r\r\n", true, true),
            ("a\r\n\nb", true, true),
        ] {
            for size in [1, 2, 100] {
                let mut reader = ChunkReader::new();
                for mut piece in message.as_bytes().chunks(size) {
                    while reader.next(&mut piece).is_some() {}
                }
                let found = [false, true].map(|whole| reader.has_bare_line_ends(whole));
                assert_eq!(found, [so_far, whole], "{message:?} by {size}");
            }
        }
    }

    fn by_chunks(message: &[u8], sizes: &[usize]) -> Vec<u8> {
        let (mut reader, mut stored, mut rest) = (ChunkReader::new(), Vec::new(), message);
        let mut sizes = sizes.iter().cycle();
        while !rest.is_empty() {
            let (mut piece, tail) = rest.split_at((*sizes.next().unwrap()).min(rest.len()));
            while let Some(text) = reader.next(&mut piece) {
                assert!(!text.is_empty());
                stored.extend_from_slice(text);
            }
            assert!(piece.is_empty());
            rest = tail;
        }
        stored.extend_from_slice(reader.finish());
        stored
    }

    fn by_data(message: &[u8]) -> Vec<u8> {
        let mut wire = Vec::new();
        for &octet in message {
            if octet == b'.' && (wire.is_empty() || wire.ends_with(b"\r\n")) {
                wire.push(b'.');
            }
            wire.push(octet);
        }
        wire.extend_from_slice(b".\r\n");
        let (mut reader, mut stored, mut rest) = (DataReader::new(), Vec::new(), &wire[..]);
        loop {
            match reader.next(&mut rest) {
                Decoded::Text(text) => stored.extend_from_slice(text),
                Decoded::End => break stored,
                Decoded::More => panic!("the message does not end"),
            }
        }
    }

    /// Text of which much is line ends and dots.
    fn nasty() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            Just("\r"),
            Just("\n"),
            Just("\r\n"),
            Just("."),
            Just("a"),
            Just("\0"),
            Just("ordinary")
        ];
        prop::collection::vec(piece, 0..30).prop_map(|pieces| pieces.concat().into_bytes())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn bdat_and_data_store_the_same(message in nasty(), sizes in prop::collection::vec(1usize..9, 1..5)) {
            // DATA cannot say that a message does not end in CRLF.
            let mut whole = message.clone();
            if !whole.is_empty() && !whole.ends_with(CRLF) {
                whole.extend_from_slice(CRLF);
            }
            for sizes in [&sizes[..], &[1], &[usize::MAX]] {
                prop_assert_eq!(by_chunks(&whole, sizes), by_data(&whole));
                let stored = by_chunks(&message, sizes);
                prop_assert_eq!(&stored, &by_chunks(&message, &[1]));
                prop_assert!(stored.is_empty() || stored.ends_with(CRLF));
                if message.last().is_some_and(|last| !b"\r\n".contains(last)) {
                    prop_assert_eq!(stored, by_data(&whole));
                }
            }
        }
    }

    #[test]
    fn line_ends_and_dots() {
        for (message, stored) in [
            ("", ""),
            (".", ".\r\n"),
            ("..a\r\n.\r\n", "..a\r\n.\r\n"),
            ("a\nb\rc\r\r\nd", "a\r\nb\r\nc\r\nd\r\n"),
            ("a\n", "a\r\n"),
            ("a\r", "a\r\n"),
            ("a\r\r", "a\r\n\r\n"),
            ("a\r\n\n", "a\r\n\r\n"),
            ("a\r\n\r", "a\r\n\r\n"),
        ] {
            for size in [1, 2, 100] {
                let read = by_chunks(message.as_bytes(), &[size]);
                assert_eq!(String::from_utf8(read).unwrap(), stored, "{message:?} by {size}");
            }
        }
    }

    #[test]
    fn ordinary_text_goes_through_in_one_piece() {
        let text = "An ordinary line of text.\r\n.\r\n".repeat(100);
        let mut input = text.as_bytes();
        let mut reader = ChunkReader::new();
        assert_eq!(reader.next(&mut input), Some(text.as_bytes()));
        assert_eq!(reader.next(&mut input), None);
        assert_eq!(reader.finish(), b"");
    }
}
