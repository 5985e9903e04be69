//! Tests of the session, which needs no socket.

use super::super::host::Addressing;
use super::*;
use crate::mail::BodyType;
use crate::spool::Room;

fn session() -> Session {
    let settings = SessionSettings::sample();
    Session::new(Arc::new(settings), "192.0.2.1".parse().unwrap())
}

fn code(session: &mut Session, line: &str) -> u16 {
    session.command(line.as_bytes(), || Room::Enough).reply.code()
}

#[test]
fn sequences_of_commands() {
    for (lines, codes) in [
        ("RCPT TO:<b@x>|DATA", vec![503, 503]),
        (
            "MAIL FROM:<a@x>|DATA|RCPT TO:<b@x>|DATA",
            vec![250, 554, 250, 354],
        ),
        (
            "MAIL FROM:<a@x>|MAIL FROM:<b@x>|RSET|MAIL FROM:<b@x>",
            vec![250, 503, 250, 250],
        ),
        ("MAIL FROM:<a@x>|HELO x|RCPT TO:<b@x>", vec![250, 250, 503]),
        (
            "MAIL FROM:<a@x>|RCPT TO:<b@x>|DATA|DATA",
            vec![250, 250, 354, 503],
        ),
        (
            "MAIL FROM:<a@x> SIZE=1001|MAIL FROM:<a@x> SIZE=1000",
            vec![552, 250],
        ),
        (
            "STARTTLS|AUTH PLAIN|BDAT 1|VRFY x|EXPN x|HELP|NOOP|QUIT",
            vec![502, 502, 503, 252, 502, 214, 250, 221],
        ),
    ] {
        let mut session = session();
        let said: Vec<u16> = lines.split('|').map(|line| code(&mut session, line)).collect();
        assert_eq!(said, codes, "{lines}");
    }
}

#[test]
fn the_message_carries_envelope_and_origin() {
    let mut session = session();
    for line in [
        "EHLO scanner",
        "MAIL FROM:<a@x> BODY=8BITMIME",
        "RCPT TO:<b@x>",
        "RCPT TO:<B@X>",
    ] {
        assert_eq!(code(&mut session, line), 250);
    }
    let Action::ReadData(incoming) = session.command(b"DATA", || Room::Enough).action else {
        panic!("a message follows");
    };
    assert_eq!(incoming.envelope.recipients().len(), 1);
    assert_eq!(incoming.envelope.body_type(), BodyType::EightBitMime);
    let Origin {
        client,
        greeting,
        esmtp,
        listener,
        ..
    } = incoming.origin;
    assert_eq!((client, esmtp), ("192.0.2.1".parse().unwrap(), true));
    assert_eq!((greeting.as_str(), listener.as_str()), ("scanner", "test"));
}

#[test]
fn tls_forgets_what_was_said_before_it() {
    let settings = SessionSettings {
        starttls: true,
        ..(*session().settings).clone()
    };
    let mut session = Session::new(Arc::new(settings), Peer::Local);
    let offers = |session: &mut Session| {
        let mut text = Vec::new();
        let step = session.command(b"EHLO scanner", || Room::Enough);
        step.reply.write_to(&mut text);
        String::from_utf8(text).unwrap().contains("STARTTLS")
    };
    assert!(offers(&mut session));
    assert_eq!(code(&mut session, "MAIL FROM:<a@x>"), 250);
    let step = session.command(b"STARTTLS", || Room::Enough);
    assert_eq!((step.reply.code(), step.action), (220, Action::StartTls));
    session.tls_started();
    assert!(session.greeting.is_empty() && !session.esmtp);
    assert_eq!(code(&mut session, "RCPT TO:<b@x>"), 503);
    assert!(!offers(&mut session));
    assert_eq!(code(&mut session, "STARTTLS"), 503);
    for line in ["MAIL FROM:<a@x>", "RCPT TO:<b@x>"] {
        assert_eq!(code(&mut session, line), 250);
    }
    let Action::ReadData(incoming) = session.command(b"DATA", || Room::Enough).action else {
        panic!("the message follows");
    };
    assert!(incoming.origin.tls);
}

#[test]
fn what_is_said_after_the_final_dot() {
    let mut session = session();
    for (error, code) in [
        (DataError::TooLarge, 552),
        (DataError::Full, 452),
        (DataError::Disk, 451),
    ] {
        assert_eq!(session.data_finished(Err(error)).code(), code);
    }
}

#[test]
fn without_room_no_message_begins() {
    let mut session = session();
    let step = session.command(b"MAIL FROM:<a@x>", || Room::Full);
    assert_eq!((step.reply.code(), step.refused), (452, true));
    assert_eq!(code(&mut session, "RCPT TO:<b@x>"), 503);
}

#[test]
fn bad_commands_end_a_session_but_an_accepted_message_excuses_them() {
    let mut in_a_row = session();
    let codes: Vec<u16> = (0..MAX_BAD_IN_A_ROW).map(|_| code(&mut in_a_row, "X")).collect();
    assert_eq!(codes.iter().filter(|&&c| c == 500).count(), 19);
    assert_eq!(codes.last(), Some(&421));

    let mut in_all = session();
    let mut excused = session();
    for n in 1..=MAX_BAD {
        assert_eq!(code(&mut in_all, "X") == 421, n == MAX_BAD);
        assert_eq!(code(&mut excused, "X"), 500);
        assert_eq!(code(&mut in_all, "NOOP"), 250);
        let id = QueueId::new(crate::mail::Timestamp::from_millis(0));
        assert_eq!(excused.data_finished(Ok(id)).code(), 250);
    }
}

#[test]
fn an_idle_session_is_small() {
    assert!(size_of::<Session>() <= 96, "{}", size_of::<Session>());
}

#[test]
fn commands_without_a_message_end_a_session_and_recipients_do_not_count() {
    let mut session = session();
    assert_eq!(code(&mut session, "MAIL FROM:<a@x>"), 250);
    for n in 0..MAX_COMMANDS + 10 {
        let expected = if n < MAX_RECIPIENTS as u32 { 250 } else { 452 };
        assert_eq!(code(&mut session, &format!("RCPT TO:<r{n}@x>")), expected);
        assert!(session.weight() > 100);
    }
    for _ in 1..MAX_COMMANDS {
        assert_eq!(code(&mut session, "NOOP"), 250);
    }
    assert_eq!(code(&mut session, "DATA"), 421);
    let id = QueueId::new(crate::mail::Timestamp::from_millis(0));
    session.data_finished(Ok(id));
    assert_eq!(code(&mut session, "NOOP"), 250);
}

#[test]
fn a_client_that_is_too_fast_is_told_so() {
    struct Strict(Addressing);
    impl Host for Strict {
        fn room(&self) -> Room {
            Room::Enough
        }
        fn may_send(&self) -> bool {
            self.0 != Addressing::Yes
        }
        fn may_address(&self) -> Addressing {
            self.0
        }
    }
    let mut session = session();
    let mut say = |line: &str, answer| {
        let step = session.command(line.as_bytes(), Strict(answer));
        (step.reply.code(), step.refused)
    };
    assert_eq!(say("MAIL FROM:<a@x>", Addressing::Yes), (450, true));
    assert_eq!(say("MAIL FROM:<a@x>", Addressing::TooFast), (250, false));
    assert_eq!(say("RCPT TO:<b@x>", Addressing::TooFast), (450, true));
    assert_eq!(say("RCPT TO:<b@x>", Addressing::NoMemory), (452, true));
    assert_eq!(say("RCPT TO:<b@x>", Addressing::Yes), (250, false));
    // Who is named already is not counted again.
    assert_eq!(say("RCPT TO:<b@x>", Addressing::TooFast), (250, false));
}

#[test]
fn odd_parameters_come_to_few_lines_in_the_log() {
    use super::super::parameters::RcptParameters;
    use super::super::transaction::MAX_ODD_TOLD;
    let mut session = session();
    assert_eq!(code(&mut session, "MAIL FROM:<a@x>"), 250);
    let many = RcptParameters::parse("x ".repeat(1000).as_bytes());
    let first = session.ignored(&many.odd, many.more_odd);
    assert_eq!(
        first.unwrap(),
        "x (unknown), x (unknown), x (unknown), and 997 more"
    );
    for _ in 0..100 {
        assert_eq!(
            code(&mut session, &format!("RCPT TO:<b@x> {}", "x ".repeat(1000))),
            250
        );
    }
    assert_eq!(session.odd_told, MAX_ODD_TOLD);
    assert_eq!(session.ignored(&many.odd, many.more_odd), None);
}

#[test]
fn what_brings_no_message_on_is_counted() {
    let too_many = |before: &str, line: &str| {
        let mut session = session();
        for line in before.split('|') {
            assert!(code(&mut session, line) < 400, "{line}");
        }
        (0..MAX_COMMANDS + 1).any(|_| code(&mut session, line) == 421)
    };
    let begun = "MAIL FROM:<a@x>|RCPT TO:<b@x>";
    assert!(too_many(begun, "RCPT TO:<B@x>"), "a recipient named again");
    assert!(too_many(begun, "RCPT TO:<b>"), "one without a domain");
    assert!(!too_many(begun, "BDAT 1"), "pieces that are taken");

    let mut session = session();
    for line in begun.split('|') {
        code(&mut session, line);
    }
    session.command(b"BDAT 1", || Room::Enough);
    session.chunk_failed(DataError::Disk);
    assert!(
        (0..MAX_COMMANDS).any(|_| code(&mut session, "BDAT 1") == 421),
        "pieces of a message that was refused"
    );
}

#[test]
fn recipients_beyond_the_limit_are_told_so_each_time() {
    let mut session = session();
    code(&mut session, "MAIL FROM:<a@x>");
    for n in 0..MAX_RECIPIENTS {
        assert_eq!(code(&mut session, &format!("RCPT TO:<{n}@x>")), 250);
    }
    for n in 0..2 * MAX_COMMANDS {
        assert_eq!(code(&mut session, &format!("RCPT TO:<more{n}@x>")), 452);
    }
    assert_eq!(code(&mut session, "DATA"), 354);
}
