//! The table of envelope and header, and what must hold for any header.

use super::*;
use proptest::prelude::*;

#[path = "../../tests/envelope/cases.rs"]
mod cases;

fn is_recipient_field(field: &Field<'_>) -> bool {
    field.is("To") || field.is("Cc") || REMOVED.iter().any(|name| field.is(name))
}

/// What must hold whatever the message is; gives the outgoing header.
fn assert_safe(message: &[u8], envelope: &[Address], changes: &HeaderChanges) -> Vec<u8> {
    let block = HeaderBlock::parse(message, true).unwrap();
    let json = serde_json::to_string(changes).unwrap();
    let changes: HeaderChanges = serde_json::from_str(&json).unwrap();
    let header = changes.apply(block.head()).unwrap();
    check_recipients(&header, envelope).unwrap();
    check_ourselves(&header, envelope).unwrap();
    if changes.is_empty() {
        assert_eq!(changes.head_len(), 0);
        assert_eq!(header, block.head());
        return header;
    }
    assert_eq!(changes.head_len(), block.head_len());
    assert!(header.ends_with(b"\r\n\r\n") || header == b"\r\n");
    let mut untouched = Vec::new();
    for (n, field) in block.fields().iter().enumerate() {
        let may_change = is_recipient_field(field) || field.name().is_none() || field.needs_scrub();
        assert!(may_change || changes.edit(n).is_none(), "{:?}", field.raw());
        if changes.edit(n).is_none() {
            untouched.push(field.raw().trim_ascii_end());
        }
    }
    let out = HeaderBlock::parse(&header, true).unwrap();
    let mut left = out.fields().iter().map(|f| f.raw().trim_ascii_end());
    for text in untouched {
        assert!(left.any(|t| t == text), "lost: {}", String::from_utf8_lossy(text));
    }
    for field in out.fields() {
        let ours = changes.top().iter().any(|t| t.as_bytes() == field.raw());
        assert!(!ours || !field.has_overlong_line());
    }
    header
}

#[test]
fn the_table_of_envelope_and_header() {
    let cases = cases::all();
    assert!(cases.len() >= 80, "{} cases", cases.len());
    for case in cases {
        let name = &case.name;
        let envelope: Vec<Address> = case.envelope.iter().map(|a| a.parse().unwrap()).collect();
        let block = HeaderBlock::parse(&case.message, true).unwrap();
        let changes = match (
            fit_header_to_envelope(&block, &envelope),
            case.expect.strip_prefix("misfit"),
        ) {
            (Ok(changes), None) => changes,
            (Err(misfit), Some(who)) => {
                let list: Vec<String> = misfit.recipients.iter().map(ToString::to_string).collect();
                assert_eq!(list.join(", "), who.trim(), "{name}");
                continue;
            }
            (result, _) => panic!("{name}: {result:?}"),
        };
        assert_eq!(
            changes.is_empty(),
            case.expect == "unchanged",
            "{name}: {changes:?}"
        );
        let header = assert_safe(&case.message, &envelope, &changes);
        let out = HeaderBlock::parse(&header, true).unwrap();
        for field in &case.stay {
            let raw =
                |block: &HeaderBlock<'_>| block.named(field).map(|f| f.raw().to_vec()).collect::<Vec<_>>();
            assert!(!raw(&block).is_empty(), "{name}: the message has no {field}");
            assert_eq!(raw(&out), raw(&block), "{name}: {field}");
        }
        for field in &case.gone {
            assert!(
                !out.has_field(field),
                "{name}: {field}\n{}",
                String::from_utf8_lossy(&header)
            );
        }
        if let Some(log) = case.log {
            assert_eq!(summary(&block, &changes), log, "{name}");
        }
    }
}

#[test]
fn what_goes_out_word_for_word() {
    for (message, expected) in [
        (
            "From: a@x\r\nTo: \"Bob, B.\" <bob@x>, eve@x\r\nBcc: zoe@x\r\n\r\n",
            "To: \"Bob, B.\" <bob@x>\r\nBcc: dan@x\r\nFrom: a@x\r\nX-Original-To: \"Bob, B.\" <bob@x>, eve@x\r\n\r\n",
        ),
        (
            "To: eve@x\r\nCc : zoe@x\r\n",
            "To: undisclosed-recipients:;\r\nBcc: bob@x, dan@x\r\nX-Original-To: eve@x\r\nX-Original-Cc: zoe@x\r\n\r\n",
        ),
        ("Hello\r\n\r\nTo: eve@x", "Bcc: bob@x, dan@x\r\n\r\n"),
    ] {
        let envelope = ["bob@x", "dan@x"].map(|a| a.parse().unwrap());
        let block = HeaderBlock::parse(message.as_bytes(), true).unwrap();
        let changes = fit_header_to_envelope(&block, &envelope).unwrap();
        let out = String::from_utf8(changes.apply(block.head()).unwrap()).unwrap();
        assert_eq!(out, expected);
    }
}

#[test]
fn the_check_tells_who_is_missing_and_who_is_too_many() {
    let envelope: Vec<Address> = ["bob@x", "eve@x"].iter().map(|a| a.parse().unwrap()).collect();
    let wrong = check_recipients(b"To: bob@x, dan@x\r\nCc: root\r\n\r\n", &envelope).unwrap_err();
    assert_eq!(
        format!("{wrong:?}"),
        "Mismatch { missing: [<eve@x>], extra: [<dan@x>], unreadable: [\"root\"] }"
    );
    assert!(check_recipients(b"", &envelope).is_err());
    assert!(check_recipients(b"To: bob@x, eve@x\r\nResent-To: dan@x\r\n\r\n", &envelope).is_err());
    check_recipients(b"To: BOB@x\r\nBcc: Eve <eve@X>\r\n\r\n", &envelope).unwrap();
}

#[test]
fn long_and_hostile_fields_are_rewritten() {
    let envelope = ["bob@x".parse().unwrap()];
    for piece in [
        "=?utf-8?b?",
        "=?a",
        "(",
        "\"",
        "<",
        "a@x,",
        ",",
        ":",
        ";",
        "\\",
        "[",
        "=?utf-8?q?=40?= ",
        "\r\n a@x,",
        "\r\nTo: x",
    ] {
        let message = format!("To: {}\r\n\r\n", piece.repeat(60_000 / piece.len()));
        let block = HeaderBlock::parse(message.as_bytes(), true).unwrap();
        fit_header_to_envelope(&block, &envelope).unwrap();
    }
}

/// Pieces of headers that readers disagree about.
fn fragment() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => prop::sample::select(vec![
            "To: ", "Cc: ", "Bcc: ", "TO:", "cc :", "Resent-To: ", "Subject: ", "From: ", "From bob ", "To\0: ", "T o: ",
            "\r\n", "\r\n", "\r\n", "\r\n ", "\r\n\t", "\r\n \r\n", ", ", ",", ";", ":", "<", ">", "(", ")", "\"", "\\",
            "@", "=?utf-8?q?", "?=", "=?utf-8?b?ZXZlQHg=?=", "=40", " ", "\t", "\0", "\u{c}", ".", "[", "]", "é", "\u{a0}",
            "\u{2028}", "undisclosed-recipients:;", "Team: ", "\r\n\r\n",
        ]).prop_map(str::to_owned),
        3 => prop::sample::select(vec![
            "bob@x.example", "eve@x.example", "<bob@x.example>", "Bob <bob@x.example>", "\"e e\"@x.example",
            "\"Eve\" <eve@x.example>", "zoe@y.example", "root", "jörg@müller.example", "a..b@x.example",
        ]).prop_map(str::to_owned),
        1 => "[a-zA-Z ]{1,8}",
        1 => "[ -~]{1,12}",
    ]
}

/// Lines that begin like fields more often than not, with pieces behind; or nothing but pieces.
fn message() -> impl Strategy<Value = String> {
    let start = prop::sample::select(vec![
        "To: ",
        "To: ",
        "To:",
        "to: ",
        "Cc: ",
        "Cc: ",
        "Bcc: ",
        "To : ",
        "Resent-To: ",
        "Subject: ",
        "From: ",
        "",
        " ",
        "\t",
        "X-Y: ",
    ]);
    let line = (start, prop::collection::vec(fragment(), 0..6))
        .prop_map(|(start, pieces)| format!("{start}{}\r\n", pieces.concat()));
    prop_oneof![
        4 => prop::collection::vec(line, 0..8).prop_map(|lines| format!("MIME-Version: 1.0\r\n{}", lines.concat())),
        1 => prop::collection::vec(fragment(), 0..40).prop_map(|pieces| pieces.concat()),
    ]
}

fn recipient() -> impl Strategy<Value = Address> {
    prop_oneof![
        4 => prop::sample::select(vec![
            "bob@x.example", "eve@x.example", "\"e e\"@x.example", "JÖRG@müller.example", "a..b@x.example", "root",
            "bob@[192.0.2.1]",
        ]).prop_map(|text| text.parse().unwrap()),
        1 => ("[ -~é]{1,12}", "[a-z]{1,5}").prop_filter_map("an address", |(local, domain)| Address::new(&local, &domain).ok()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn nobody_else_and_everybody(
        message in message(),
        envelope in prop::collection::vec(recipient(), 1..5),
    ) {
        let block = HeaderBlock::parse(message.as_bytes(), true).unwrap();
        match fit_header_to_envelope(&block, &envelope) {
            Ok(changes) => {
                assert_safe(message.as_bytes(), &envelope, &changes);
            }
            // Only a recipient may be a reason: there is a safe form of every header.
            Err(misfit) => prop_assert!(!misfit.recipients.is_empty(), "{misfit:?} {message:?}"),
        }
    }

    #[test]
    fn any_octets_at_all(
        mut message in prop::collection::vec(any::<u8>(), 0..300),
        envelope in prop::collection::vec(recipient(), 1..3),
    ) {
        message.retain(|b| *b != b'\r');
        let message: Vec<u8> = message
            .iter()
            .flat_map(|b| if *b == b'\n' { vec![b'\r', b'\n'] } else { vec![*b] })
            .collect();
        let block = HeaderBlock::parse(&message, true).unwrap();
        if let Ok(changes) = fit_header_to_envelope(&block, &envelope) {
            assert_safe(&message, &envelope, &changes);
        }
    }

    #[test]
    fn lists_survive_writing_and_reading(
        list in prop::collection::vec((prop::option::of("[ -~äß€]{0,40}"), recipient()), 1..30),
    ) {
        let list: Vec<Mailbox> = list
            .into_iter()
            .filter(|(_, address)| !address.domain().is_empty())
            .map(|(name, address)| Mailbox { name, address })
            .collect();
        let field = address_list_field("To", &list);
        let back = parse_strict(&field.as_bytes()[3..]).unwrap();
        let addresses = |list: &[Mailbox]| list.iter().map(|m| m.address.clone()).collect::<Vec<_>>();
        prop_assert_eq!(addresses(&back.mailboxes), addresses(&list));
    }
}
