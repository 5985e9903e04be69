//! A whole connection: commands, DATA, BDAT, logins.

use super::wire::{Event, Message, Wire};
use super::{naive, settings, well_formed};

/// The first octet is that of [`settings`], the second the size of pieces, the rest what a client sends.
pub fn session(input: &[u8]) {
    let Some((settings, rest)) = settings(input) else {
        return;
    };
    let Some((&size, octets)) = rest.split_first() else {
        return;
    };
    let mut whole = Wire::new(settings.clone());
    whole.feed(octets);
    for event in &whole.events {
        match event {
            Event::Said(_, reply) => well_formed(reply),
            Event::Took(message) => took(message, octets),
            Event::NoCommands(_) | Event::Closed => {}
        }
    }
    answers(&whole.events);
    let mut pieces = Wire::new(settings);
    for piece in octets.chunks(usize::from(size % 64) + 1) {
        pieces.feed(piece);
    }
    assert_eq!(pieces.events, whole.events, "in pieces it is another session");
}

fn took(message: &Message, octets: &[u8]) {
    let Message { envelope, text, data } = message;
    let mut keys: Vec<String> = envelope.addresses().map(|address| address.key()).collect();
    assert!(!keys.is_empty());
    keys.sort();
    keys.dedup();
    assert_eq!(
        keys.len(),
        envelope.recipients().len(),
        "a recipient is there twice"
    );
    assert!(envelope.addresses().all(|address| !address.domain().is_empty()));
    assert!(text.is_empty() || text.ends_with(b"\r\n"));
    assert!(naive::has_only_crlf(text));
    if let Some(start) = data {
        let (expected, _) = naive::data(&octets[*start..]).expect("it has an end");
        assert_eq!(text, &expected);
    }
}

/// 354 and nothing else asks for text; a message is taken where 250 is said, and only there; 221 and 421 close.
fn answers(events: &[Event]) {
    let mut at = 0;
    for pair in events.windows(2) {
        match pair {
            [Event::Said(_, reply), Event::Closed] => {
                assert!(matches!(reply.code(), 221 | 421 | 500..), "{reply}")
            }
            [Event::Said(_, reply), next] if reply.code() == 354 => {
                assert!(matches!(next, Event::NoCommands(_)), "{next:?} after 354");
            }
            [Event::Said(_, reply), _] => {
                assert!(!matches!(reply.code(), 221 | 421), "{reply} and it goes on")
            }
            [Event::Took(_), Event::Said(_, reply)] => assert_eq!(reply.code(), 250),
            [Event::Took(_), _] => panic!("a message is taken and nothing said"),
            _ => {}
        }
        if let Event::NoCommands(range) = &pair[0] {
            assert!(range.start >= at && range.end >= range.start);
            at = range.end;
        }
    }
}
