//! Quoted-printable (RFC 2045 §6.7), and text broken into short lines.

/// The longest line of quoted-printable, without its CRLF.
const WIDTH: usize = 76;

/// The octets in quoted-printable. CRLF stays a line end; every other control character is encoded.
pub(super) fn quoted_printable(octets: &[u8]) -> String {
    let mut out = String::with_capacity(octets.len() + octets.len() / 8);
    let mut width = 0;
    let mut rest = octets;
    while let Some((&octet, tail)) = rest.split_first() {
        if let Some(tail) = rest.strip_prefix(b"\r\n") {
            out.push_str("\r\n");
            (width, rest) = (0, tail);
            continue;
        }
        let ends_line = tail.is_empty() || tail.starts_with(b"\r\n");
        let is_plain = match octet {
            b'=' => false,
            b'!'..=b'~' => true,
            // A blank at the end of a line would get lost.
            b' ' | b'\t' => !ends_line,
            _ => false,
        };
        let need = if is_plain { 1 } else { 3 };
        // Unless the line ends here, room for the soft break's "=" must be left.
        if width + need + usize::from(!ends_line) > WIDTH {
            out.push_str("=\r\n");
            width = 0;
        }
        if is_plain {
            out.push(char::from(octet));
        } else {
            out.push_str(&format!("={octet:02X}"));
        }
        width += need;
        rest = tail;
    }
    out
}

/// True if the octets can go as they are: ASCII without NUL, lines of at most 998 octets that end in CRLF (RFC 5322
/// §2.1.1).
pub(super) fn is_seven_bit(octets: &[u8]) -> bool {
    octets.is_ascii() && is_eight_bit(octets)
}

/// As [`is_seven_bit`], but octets outside ASCII are allowed (RFC 2045 §2.8).
pub(super) fn is_eight_bit(octets: &[u8]) -> bool {
    !octets.contains(&0)
        && octets.split(|octet| *octet == b'\n').all(|line| {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            line.len() <= 998 && !line.contains(&b'\r')
        })
}

/// The words of `text` in lines of at most `width` characters, each after `indent`; longer words stay whole.
pub(super) fn wrapped(text: &str, indent: &str, width: usize) -> String {
    let mut out = String::new();
    let mut used = 0;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if used > 0 && used + 1 + length > width {
            out.push_str("\r\n");
            used = 0;
        }
        if used == 0 {
            out.push_str(indent);
            used = indent.chars().count() + length;
        } else {
            out.push(' ');
            used += 1 + length;
        }
        out.push_str(word);
    }
    out.push_str("\r\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decoded(text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        let mut rest = text.as_bytes();
        while let Some((&octet, tail)) = rest.split_first() {
            rest = tail;
            if octet != b'=' {
                out.push(octet);
            } else if let Some(tail) = rest.strip_prefix(b"\r\n") {
                rest = tail;
            } else {
                out.push(u8::from_str_radix(std::str::from_utf8(&rest[..2]).unwrap(), 16).unwrap());
                rest = &rest[2..];
            }
        }
        out
    }

    proptest! {
        #[test]
        fn what_is_quoted_can_be_read_back_and_every_line_is_short_and_plain(
            octets in prop::collection::vec(prop_oneof![any::<u8>(), Just(b' '), Just(b'\r'), Just(b'\n'), Just(b'x')], 0..400)
        ) {
            let quoted = quoted_printable(&octets);
            prop_assert_eq!(decoded(&quoted), octets);
            prop_assert!(quoted.is_ascii());
            for line in quoted.split("\r\n") {
                prop_assert!(line.len() <= WIDTH, "{}", line);
                prop_assert!(!line.ends_with([' ', '\t']) && !line.contains(['\r', '\n', '\0']));
            }
        }
    }

    #[test]
    fn quoted_printable_as_people_know_it() {
        assert_eq!(
            quoted_printable("für\r\na=b \r\n".as_bytes()),
            "f=C3=BCr\r\na=3Db=20\r\n"
        );
        let long = "x".repeat(77);
        assert_eq!(
            quoted_printable(long.as_bytes()),
            format!("{}=\r\nxx", "x".repeat(75))
        );
        assert_eq!(quoted_printable(&long.as_bytes()[..76]), "x".repeat(76));
    }

    #[test]
    fn lines_are_wrapped_between_words() {
        assert_eq!(
            wrapped("one two  three\nfour", "  ", 9),
            "  one two\r\n  three\r\n  four\r\n"
        );
        assert_eq!(
            wrapped("one loooooooong two", "", 5),
            "one\r\nloooooooong\r\ntwo\r\n"
        );
        assert_eq!(wrapped("", "  ", 5), "\r\n");
    }

    #[test]
    fn what_may_go_unencoded() {
        assert!(is_seven_bit(b"a\r\nb\r\n") && is_seven_bit(b""));
        assert!(!is_seven_bit("ä\r\n".as_bytes()) && is_eight_bit("ä\r\n".as_bytes()));
        for bad in [&b"a\0b"[..], b"a\rb\r\n", &[b'x'; 999]] {
            assert!(!is_eight_bit(bad));
        }
        assert!(is_seven_bit(&[b'x'; 998]));
    }
}
