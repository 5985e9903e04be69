//! The envelope beside a large body: what is read is what was written.

use smtp_oauth_bridge::spool::{read_envelope, write_envelope};

/// The input is such a file.
pub fn envelope(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let Ok(message) = read_envelope(text) else {
        return;
    };
    assert!(!message.envelope.recipients().is_empty());
    let written = write_envelope(&message);
    assert_eq!(read_envelope(&written).as_ref(), Ok(&message), "{written}");
    // Half a file is never taken for a whole one.
    for (cut, _) in written.char_indices() {
        assert!(read_envelope(&written[..cut]).is_err(), "{}", &written[..cut]);
    }
}
