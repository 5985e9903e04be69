//! The rules of `smtp::data` and `smtp::chunk` written a second time: slow, over the whole message at once, and as
//! close to their documentation as code can be.

/// The message of DATA that `wire` begins with, and how many octets of `wire` it took; `None` if it does not end.
pub fn data(wire: &[u8]) -> Option<(Vec<u8>, usize)> {
    let with_command = [b"\r\n", wire].concat();
    let end = with_command
        .windows(5)
        .position(|octets| octets == b"\r\n.\r\n")?;
    // `end` counts the CRLF of the command, and leaves out that of the last line.
    let mut text = Vec::new();
    for line in lines(&wire[..end]) {
        match line {
            [b'.', next, ..] if !matches!(next, b'\r' | b'\n') => text.extend_from_slice(&line[1..]),
            _ => text.extend_from_slice(line),
        }
    }
    Some((normalise(&text), end + 3))
}

/// The message that these octets of all chunks are.
pub fn chunks(octets: &[u8]) -> Vec<u8> {
    let mut text = normalise(octets);
    if !text.is_empty() && !text.ends_with(b"\r\n") {
        text.extend_from_slice(b"\r\n");
    }
    text
}

/// What a client sends after DATA for these octets (RFC 5321 §4.5.2), with the end.
pub fn stuff(octets: &[u8]) -> Vec<u8> {
    let mut wire = Vec::new();
    for line in lines(octets) {
        if line.starts_with(b".") {
            wire.push(b'.');
        }
        wire.extend_from_slice(line);
    }
    if !wire.is_empty() && !wire.ends_with(b"\r\n") {
        wire.extend_from_slice(b"\r\n");
    }
    wire.extend_from_slice(b".\r\n");
    wire
}

/// Every line end as CRLF: CR CR LF, CR LF, CR and LF are one each.
pub fn normalise(text: &[u8]) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::new(), text);
    while let Some((&octet, tail)) = rest.split_first() {
        let ends = [&b"\r\r\n"[..], b"\r\n", b"\r", b"\n"];
        rest = match ends.iter().find_map(|end| rest.strip_prefix(*end)) {
            Some(tail) => {
                out.extend_from_slice(b"\r\n");
                tail
            }
            None => {
                out.push(octet);
                tail
            }
        };
    }
    out
}

/// True if CR and LF stand only together.
pub fn has_only_crlf(text: &[u8]) -> bool {
    let lone = |octet| text.iter().filter(|&&o| o == octet).count();
    let pairs = text.windows(2).filter(|pair| pair == b"\r\n").count();
    lone(b'\r') == pairs && lone(b'\n') == pairs
}

/// The lines that end in CRLF, with it, and what is behind the last of them.
fn lines(text: &[u8]) -> Vec<&[u8]> {
    let (mut lines, mut start) = (Vec::new(), 0);
    for at in 0..text.len() {
        if text[start..=at].ends_with(b"\r\n") {
            lines.push(&text[start..=at]);
            start = at + 1;
        }
    }
    lines.push(&text[start..]);
    lines
}
