//! Where a message ends and what it says: `DataReader` and `ChunkReader` against the naive reference, and against the
//! crate `smtp-proto` wherever that is known to be right.

use super::naive;
use smtp_oauth_bridge::smtp::{ChunkReader, DataReader, Decoded};
use smtp_proto::request::receiver::DataReceiver;

/// The first octet is the size of the pieces in which the rest is read.
pub fn data(input: &[u8]) {
    let Some((&size, wire)) = input.split_first() else {
        return;
    };
    let size = usize::from(size % 64) + 1;
    let wire = [wire, b"\r\n.\r\n"].concat();
    let expected = naive::data(&wire).expect("it has an end");
    for size in [size, 1, wire.len()] {
        assert_eq!(read(&wire, size), expected, "in pieces of {size}");
    }
    second_oracle(&wire, &expected);

    let text = &input[1..];
    let chunked = naive::chunks(text);
    assert_eq!(read_chunks(text, size), chunked);
    // The same message is stored, whichever way it comes. In DATA the last line has to have an end.
    let mut whole = text.to_vec();
    if !whole.is_empty() && !whole.ends_with(b"\r\n") {
        whole.extend_from_slice(b"\r\n");
    }
    assert_eq!(read(&naive::stuff(&whole), size).0, naive::chunks(&whole));
}

/// `smtp-proto` 0.2.5 agrees, but for its known differences:
///
/// | input | what it does | why we do not |
/// |---|---|---|
/// | a dot is the first octet | it takes no dot away, and an empty message has no end | RFC 5321 §4.1.1.4: the CRLF of DATA begins the first line |
/// | CRLF, dot, several CR, LF | that is an end | only one sequence is; any other is a way to smuggle messages |
/// | bare CR or LF | they stay; and a dot before one is taken away, as before anything | only CRLF goes out again |
fn second_oracle(wire: &[u8], (text, end): &(Vec<u8>, usize)) {
    let several_cr = wire.windows(5).any(|octets| octets == b"\r\n.\r\r");
    if wire.starts_with(b".") || several_cr {
        return;
    }
    let (mut octets, mut theirs) = (wire.iter(), Vec::new());
    assert!(
        DataReceiver::new().ingest(&mut octets, &mut theirs),
        "smtp-proto sees no end"
    );
    assert_eq!(
        wire.len() - octets.len(),
        *end,
        "smtp-proto sees the end elsewhere"
    );
    if naive::has_only_crlf(&wire[..*end]) {
        assert_eq!(&theirs, text, "smtp-proto reads something else");
    }
}

fn read(wire: &[u8], size: usize) -> (Vec<u8>, usize) {
    let (mut reader, mut text, mut used) = (DataReader::new(), Vec::new(), 0);
    for piece in wire.chunks(size) {
        let mut rest = piece;
        loop {
            match reader.next(&mut rest) {
                Decoded::Text(octets) => {
                    assert!(!octets.is_empty());
                    text.extend_from_slice(octets);
                }
                Decoded::More => break assert!(rest.is_empty()),
                Decoded::End => return (text, used + piece.len() - rest.len()),
            }
        }
        used += piece.len();
    }
    panic!("no end was found");
}

fn read_chunks(octets: &[u8], size: usize) -> Vec<u8> {
    let (mut reader, mut text) = (ChunkReader::new(), Vec::new());
    for mut piece in octets.chunks(size) {
        while let Some(octets) = reader.next(&mut piece) {
            assert!(!octets.is_empty());
            text.extend_from_slice(octets);
        }
        assert!(piece.is_empty());
    }
    text.extend_from_slice(reader.finish());
    text
}
