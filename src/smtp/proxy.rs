//! The header of the PROXY protocol, in which a load balancer says who the real client is (HAProxy's specification
//! "The PROXY protocol, versions 1 & 2", 2020/03/05). Strict: a sender of headers is a program, not a device.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The longest header of version 1, with its CRLF (§2.1).
const MAX_V1: usize = 107;
/// The first octets of version 2 (§2.2).
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Octets of version 2 before the addresses (§2.2).
const HEAD_V2: usize = 16;
/// The longest rest of a header of version 2. The protocol allows 64 KiB; addresses and what load balancers add to
/// them (TLS names, certificates' names, identifiers of networks) take a few hundred.
const MAX_V2: usize = 4096;

/// The longest header.
pub const MAX_HEADER: usize = HEAD_V2 + MAX_V2;

/// Who is behind a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announced {
    /// This client.
    Client(IpAddr),
    /// Nobody: the load balancer speaks for itself, to see whether we are well (§2.2, LOCAL).
    Itself,
    /// A client of which no address is known (§2.1 UNKNOWN, §2.2 UNSPEC and Unix sockets).
    Unknown,
}

/// Why octets are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Something else.
    #[error("no PROXY header came first")]
    Absent,
    /// Damaged, or of a kind that does not exist.
    #[error("the PROXY header is malformed")]
    Malformed,
    /// Longer than any that is sensible.
    #[error("the PROXY header is too long")]
    TooLong,
}

/// Reads the header at the start of `octets`: who is announced, and how long the header is. `None` if more octets
/// are needed, which is never the case for [`MAX_HEADER`] of them.
///
/// # Errors
/// [`HeaderError`], as soon as it is known that these octets cannot become a header.
pub fn parse(octets: &[u8]) -> Result<Option<(Announced, usize)>, HeaderError> {
    if starts_alike(octets, SIGNATURE) {
        version_2(octets)
    } else if starts_alike(octets, b"PROXY ") {
        version_1(octets)
    } else {
        Err(HeaderError::Absent)
    }
}

/// True if one begins with the other.
fn starts_alike(octets: &[u8], start: &[u8]) -> bool {
    let common = octets.len().min(start.len());
    octets.get(..common) == start.get(..common)
}

/// §2.1: one line of text.
fn version_1(octets: &[u8]) -> Result<Option<(Announced, usize)>, HeaderError> {
    let window = octets.get(..MAX_V1).unwrap_or(octets);
    let Some(end) = memchr::memchr(b'\n', window) else {
        return if octets.len() < MAX_V1 {
            Ok(None)
        } else {
            Err(HeaderError::TooLong)
        };
    };
    let line = window
        .get(..end)
        .and_then(|line| line.strip_suffix(b"\r"))
        .and_then(|line| std::str::from_utf8(line).ok())
        .ok_or(HeaderError::Malformed)?;
    let words: Vec<&str> = line.split(' ').collect();
    let announced = match words[..] {
        // What follows UNKNOWN is to be ignored.
        ["PROXY", "UNKNOWN", ..] => Announced::Unknown,
        [
            "PROXY",
            family,
            source,
            destination,
            source_port,
            destination_port,
        ] => {
            if !is_port(source_port) || !is_port(destination_port) {
                return Err(HeaderError::Malformed);
            }
            Announced::Client(match family {
                "TCP4" => pair::<Ipv4Addr>(source, destination)?,
                "TCP6" => pair::<Ipv6Addr>(source, destination)?,
                _ => return Err(HeaderError::Malformed),
            })
        }
        _ => return Err(HeaderError::Malformed),
    };
    Ok(Some((announced, end + 1)))
}

/// The first of two addresses of one family.
fn pair<A: std::str::FromStr + Into<IpAddr>>(source: &str, destination: &str) -> Result<IpAddr, HeaderError> {
    match (source.parse::<A>(), destination.parse::<A>()) {
        (Ok(source), Ok(_)) => Ok(source.into()),
        _ => Err(HeaderError::Malformed),
    }
}

/// A decimal number up to 65535, without zeros before it.
fn is_port(text: &str) -> bool {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    plain && text.parse::<u16>().is_ok()
}

/// §2.2: binary.
fn version_2(octets: &[u8]) -> Result<Option<(Announced, usize)>, HeaderError> {
    let Some((head, rest)) = octets.split_at_checked(HEAD_V2) else {
        return Ok(None);
    };
    let [version, family, high, low] = head[SIGNATURE.len()..] else {
        return Err(HeaderError::Malformed);
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > MAX_V2 {
        return Err(HeaderError::TooLong);
    }
    let Some(addresses) = rest.get(..length) else {
        return Ok(None);
    };
    // The addresses of source and destination, then their ports, then what is skipped.
    let announced = match (version, family) {
        (0x20, _) => Announced::Itself,
        (0x21, 0x11) if length >= 12 => {
            let source: Option<[u8; 4]> = addresses.first_chunk().copied();
            Announced::Client(source.ok_or(HeaderError::Malformed)?.into())
        }
        (0x21, 0x21) if length >= 36 => {
            let source: Option<[u8; 16]> = addresses.first_chunk().copied();
            Announced::Client(source.ok_or(HeaderError::Malformed)?.into())
        }
        (0x21, 0x00) => Announced::Unknown,
        (0x21, 0x31) if length >= 216 => Announced::Unknown,
        _ => return Err(HeaderError::Malformed),
    };
    Ok(Some((announced, HEAD_V2 + length)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let mut octets = SIGNATURE.to_vec();
        octets.extend([command, family]);
        octets.extend(u16::try_from(rest.len()).unwrap().to_be_bytes());
        octets.extend(rest);
        octets
    }

    fn client(text: &str) -> Announced {
        Announced::Client(text.parse().unwrap())
    }

    #[test]
    fn version_1_headers() {
        let longest = "PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n";
        for (header, announced) in [
            ("PROXY TCP4 192.0.2.1 10.0.0.1 56324 25\r\n", client("192.0.2.1")),
            ("PROXY TCP6 2001:db8::1 ::1 1 65535\r\n", client("2001:db8::1")),
            (
                "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
                client("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
            ),
            ("PROXY UNKNOWN\r\n", Announced::Unknown),
            (longest, Announced::Unknown),
        ] {
            let whole = format!("{header}EHLO x\r\n");
            assert_eq!(
                parse(whole.as_bytes()),
                Ok(Some((announced, header.len()))),
                "{header}"
            );
            for cut in 0..header.len() {
                assert_eq!(parse(&header.as_bytes()[..cut]), Ok(None), "{header} {cut}");
            }
        }
    }

    #[test]
    fn what_is_no_version_1_header() {
        for header in [
            "PROXY TCP4 192.0.2.1 10.0.0.1 56324 25\n",
            "PROXY  TCP4 192.0.2.1 10.0.0.1 56324 25\r\n",
            "PROXY TCP4 192.0.2.1 10.0.0.1 56324 25 \r\n",
            "PROXY TCP4 192.0.2.1 10.0.0.1 56324\r\n",
            "PROXY TCP4 192.0.2.1 ::1 56324 25\r\n",
            "PROXY TCP6 192.0.2.1 10.0.0.1 56324 25\r\n",
            "PROXY TCP4 192.0.2.01 10.0.0.1 56324 25\r\n",
            "PROXY TCP4 192.0.2.1 10.0.0.1 65536 25\r\n",
            "PROXY TCP4 192.0.2.1 10.0.0.1 025 25\r\n",
            "PROXY TCP4 192.0.2.1 10.0.0.1 +25 25\r\n",
            "PROXY UDP4 192.0.2.1 10.0.0.1 1 25\r\n",
            "PROXY \r\n",
        ] {
            assert_eq!(parse(header.as_bytes()), Err(HeaderError::Malformed), "{header}");
        }
        let endless = format!("PROXY UNKNOWN {}", "x".repeat(MAX_V1));
        assert_eq!(parse(endless.as_bytes()), Err(HeaderError::TooLong));
        assert_eq!(parse(&endless.as_bytes()[..MAX_V1 - 1]), Ok(None));
        for other in ["EHLO x\r\n", "proxy ", "\r\n\r\nQ", "P\n", "\x16\x03\x01"] {
            assert_eq!(parse(other.as_bytes()), Err(HeaderError::Absent), "{other:?}");
        }
    }

    #[test]
    fn version_2_headers() {
        let four = [192, 0, 2, 1, 10, 0, 0, 1, 0xdc, 4, 0, 25];
        let mut six = [0; 36];
        six[..16].copy_from_slice(&"2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
        let with_tlv = [&four[..], &[0x04, 0, 1, 7]].concat();
        for (header, announced) in [
            (v2(0x21, 0x11, &four), client("192.0.2.1")),
            (v2(0x21, 0x11, &with_tlv), client("192.0.2.1")),
            (v2(0x21, 0x21, &six), client("2001:db8::1")),
            (v2(0x20, 0x00, &[]), Announced::Itself),
            (v2(0x20, 0x11, &four), Announced::Itself),
            (v2(0x21, 0x00, &[1, 2, 3]), Announced::Unknown),
            (v2(0x21, 0x31, &[b'/'; 216]), Announced::Unknown),
            (v2(0x20, 0x00, &[0; MAX_V2]), Announced::Itself),
        ] {
            let mut whole = header.clone();
            whole.extend(b"EHLO x\r\n");
            assert_eq!(parse(&whole), Ok(Some((announced, header.len()))));
            for cut in 0..header.len() {
                assert_eq!(parse(&header[..cut]), Ok(None));
            }
        }
        for (header, error) in [
            (v2(0x11, 0x11, &four), HeaderError::Malformed),
            (v2(0x22, 0x11, &four), HeaderError::Malformed),
            (v2(0x21, 0x12, &four), HeaderError::Malformed),
            (v2(0x21, 0x41, &four), HeaderError::Malformed),
            (v2(0x21, 0x11, &four[..11]), HeaderError::Malformed),
            (v2(0x21, 0x21, &six[..35]), HeaderError::Malformed),
            (v2(0x21, 0x31, &[0; 215]), HeaderError::Malformed),
            (v2(0x21, 0x11, &[0; MAX_V2 + 1]), HeaderError::TooLong),
        ] {
            assert_eq!(parse(&header), Err(error));
        }
        // Too long is known before the rest has come.
        assert_eq!(
            parse(&v2(0x21, 0x11, &[0; MAX_V2 + 1])[..16]),
            Err(HeaderError::TooLong)
        );
    }

    proptest! {
        #[test]
        fn never_panics_and_never_reads_beyond_the_header(
            start in prop_oneof![
                Just(Vec::new()),
                Just(b"PROXY ".to_vec()),
                Just(b"PROXY TCP4 1.2.3.4 ".to_vec()),
                Just(SIGNATURE.to_vec()),
                (0x1fu8..0x23, any::<u8>(), 0u8..=1).prop_map(|(command, family, high)| {
                    [SIGNATURE, &[command, family, high]].concat()
                }),
            ],
            rest in prop::collection::vec(any::<u8>(), 0..600),
            behind in prop::collection::vec(any::<u8>(), 0..30),
        ) {
            let octets = [start, rest].concat();
            if let Ok(Some((announced, length))) = parse(&octets) {
                prop_assert!(length <= octets.len() && length <= MAX_HEADER);
                // The same with nothing or with anything else behind the header.
                prop_assert_eq!(parse(&octets[..length]), Ok(Some((announced, length))));
                let other = [&octets[..length], &behind].concat();
                prop_assert_eq!(parse(&other), Ok(Some((announced, length))));
                for cut in 0..length {
                    prop_assert_eq!(parse(&octets[..cut]), Ok(None));
                }
            }
        }
    }
}
