//! The header of the PROXY protocol.

use smtp_oauth_bridge::smtp::proxy::{HeaderError, MAX_HEADER, parse};

/// The input is what a load balancer sends first.
pub fn proxy(input: &[u8]) {
    let answer = parse(input);
    // What is known does not change with what comes later, and is not known from less than the header.
    match &answer {
        Ok(Some((announced, length))) => {
            assert!(*length > 0 && *length <= input.len() && *length <= MAX_HEADER);
            assert_eq!(parse(&input[..*length]), Ok(Some((*announced, *length))));
            assert_eq!(parse(&[&input[..*length], b"\r\nx"].concat()), answer);
            assert_eq!(parse(&input[..length - 1]), Ok(None));
        }
        Ok(None) => {
            assert!(
                input.len() < MAX_HEADER,
                "a header of this length is never complete"
            );
            for cut in 0..input.len() {
                assert_eq!(parse(&input[..cut]), Ok(None));
            }
        }
        Err(error) => {
            assert_eq!(parse(&[input, b"\r\n"].concat()), Err(*error));
            if *error == HeaderError::Absent {
                assert!(!input.starts_with(b"PROXY ") && !input.starts_with(b"\r\n\r\n\0\r\nQUIT\n"));
            }
        }
    }
}
