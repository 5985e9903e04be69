use super::*;
use crate::explain::{GraphAnswer, graph, local};
use crate::mail::{BodyType, EnvelopeId, OriginalRecipient, Receipt, ReversePath};
use mail_parser::{MessageParser, MimeHeaders};

const ARRIVED: Timestamp = Timestamp::from_millis(1_795_250_820_123);
const MESSAGE: &[u8] =
    b"From: Scanner <scanner@contoso.example>\r\nTo: bob@y.example\r\nSubject: Scan from floor 3\r\n\
    Message-ID: <1@scanner>\r\n\r\nbody\r\n";

fn id(last: u8) -> QueueId {
    let mut bytes = [0; 16];
    (bytes[0], bytes[1], bytes[6], bytes[8], bytes[15]) = (0x01, 0x9d, 0x70, 0x80, last);
    QueueId::from_bytes(bytes)
}

fn address(text: &str) -> Address {
    text.parse().unwrap()
}

fn envelope(recipients: &[&str]) -> Envelope {
    let recipients = recipients.iter().map(|text| address(text));
    let sender = ReversePath::Address(address("scanner@contoso.example"));
    Envelope::new(sender, recipients, BodyType::SevenBit).unwrap()
}

fn refused(code: &str) -> Disposition {
    let answer = GraphAnswer {
        status: 400,
        code: Some(code),
        ..GraphAnswer::default()
    };
    graph(answer).disposition(
        "ErrorInvalidRecipients: At least one recipient is not valid. (request-id 4f0c)",
        None,
    )
}

/// A report about all recipients with the same disposition, changed by `change`.
fn report(
    envelope: &Envelope,
    octets: &[u8],
    disposition: &Disposition,
    change: impl Fn(&mut Notice<'_>),
) -> String {
    let outcomes: Vec<Outcome<'_>> = envelope
        .recipients()
        .iter()
        .map(|recipient| Outcome::of(recipient, disposition))
        .collect();
    let (to, mailbox) = (
        Told::Sender(address("scanner@contoso.example")),
        address("office@contoso.example"),
    );
    let original = Original {
        id: id(1),
        arrived: ARRIVED,
        envelope,
        octets,
        whole: true,
    };
    let mut notice = Notice {
        kind: Kind::Failed,
        id: id(2),
        at: ARRIVED.plus(std::time::Duration::from_secs(3600)),
        hostname: "bridge.example.lan",
        account: "office",
        mailbox: &mailbox,
        from: &mailbox,
        to: &to,
        original: &original,
        outcomes: &outcomes,
        held_back: 0,
    };
    change(&mut notice);
    let report = compose(&notice);
    assert_eq!(report, compose(&notice));
    String::from_utf8(report).unwrap()
}

/// The parts as a mail program sees them: type, and decoded content.
fn parts(report: &str) -> Vec<(String, String)> {
    let message = MessageParser::default().parse(report.as_bytes()).unwrap();
    let whole = message.content_type().unwrap();
    assert_eq!((whole.ctype(), whole.subtype()), ("multipart", Some("report")));
    assert_eq!(whole.attribute("report-type"), Some("delivery-status"));
    message.parts[1..]
        .iter()
        .filter_map(|part| {
            let kind = part.content_type()?;
            let content = match &part.body {
                mail_parser::PartType::Message(_) => {
                    let place = part.raw_body_offset() as usize..part.raw_end_offset() as usize;
                    report.as_bytes()[place].to_vec()
                }
                _ => part.contents().to_vec(),
            };
            let kind = format!("{}/{}", kind.ctype(), kind.subtype()?);
            Some((kind, String::from_utf8_lossy(&content).into_owned()))
        })
        .collect()
}

#[test]
fn a_whole_report() {
    let whole = report(
        &envelope(&["bob@y.example"]),
        MESSAGE,
        &refused("ErrorInvalidRecipients"),
        |notice| notice.held_back = 49,
    );
    assert_eq!(whole, include_str!("example.eml").replace('\n', "\r\n"));
}

#[test]
fn the_documentation_shows_a_real_report() {
    let text = parts(&include_str!("example.eml").replace('\n', "\r\n"))
        .remove(0)
        .1;
    let page = include_str!("../../docs/src/reports.md");
    assert!(page.contains(text.replace("\r\n", "\n").trim_end()), "{text}");
}

#[test]
fn every_part_can_be_read_back() {
    let mut to = envelope(&["bob@y.example", "jörg@müller.example"]);
    to = to.with_reports(Some(Ret::Full), Some(EnvelopeId::new("QQ 31+4=159").unwrap()));
    let mut recipients = to.recipients().to_vec();
    recipients[0].original = Some(OriginalRecipient::new("rfc822;bob+list@z.example").unwrap());
    let to = Envelope::new(to.reverse_path().clone(), recipients, BodyType::SevenBit)
        .unwrap()
        .with_reports(to.ret(), to.envelope_id().cloned());
    let whole = report(&to, MESSAGE, &refused("ErrorInvalidRecipients"), |_| ());
    let parts = parts(&whole);
    let kinds: Vec<&str> = parts.iter().map(|(kind, _)| kind.as_str()).collect();
    assert_eq!(kinds, ["text/plain", "message/delivery-status", "message/rfc822"]);
    assert!(
        parts[0]
            .1
            .contains("    bob@y.example\r\n    jörg@müller.example\r\n"),
        "{}",
        parts[0].1
    );
    for field in [
        "Reporting-MTA: dns; bridge.example.lan\r\n",
        "Original-Envelope-Id: QQ 31+4=159\r\n",
        "Arrival-Date: Sat, 21 Nov 2026 08:47:00 +0000\r\n",
        "\r\n\r\nOriginal-Recipient: rfc822; bob+list@z.example\r\nFinal-Recipient: rfc822; bob@y.example\r\n\
         Action: failed\r\nStatus: 5.1.3\r\nDiagnostic-Code: x-upstream; ErrorInvalidRecipients: At least one recipient\r\n \
         is not valid. (request-id 4f0c)\r\n\r\n",
        "Final-Recipient: utf-8; j\\x{F6}rg@m\\x{FC}ller.example\r\nAction: failed\r\n",
    ] {
        assert!(parts[1].1.contains(field), "{field}\n{}", parts[1].1);
    }
    assert_eq!(
        parts[2].1.trim_end(),
        std::str::from_utf8(MESSAGE).unwrap().trim_end()
    );
    assert!(whole.is_ascii());
    let message = MessageParser::default().parse(whole.as_bytes()).unwrap();
    assert_eq!(message.subject(), Some("Not delivered: Scan from floor 3"));
    assert_eq!(message.in_reply_to().as_text(), Some("1@scanner"));
}

#[test]
fn how_much_is_returned() {
    let headers = "text/rfc822-headers";
    let fields = "From: a@x.example\r\nSubject: x\r\n";
    let text = |octets: usize| format!("{fields}\r\n{}", "x\r\n".repeat(octets / 3));
    let (small, large) = (text(600), text(MAX_RETURNED + 100));
    let endless = format!("{fields}\r\n{}\r\n", "x".repeat(2000));
    let umlauts = format!("{fields}\r\nfür\r\n");
    let umlauts_above = format!("{fields}X-Name: Jörg\r\n\r\nx\r\n");
    let many = format!("{}\r\nx\r\n", "X-Field: some text of a field\r\n".repeat(5000));
    for (ret, kind, octets, expected) in [
        (None, Kind::Failed, &small, headers),
        (Some(Ret::Headers), Kind::Failed, &small, headers),
        (Some(Ret::Full), Kind::Failed, &small, "message/rfc822"),
        (Some(Ret::Full), Kind::Delayed, &small, headers),
        (Some(Ret::Full), Kind::Relayed, &small, headers),
        (Some(Ret::Full), Kind::Held, &small, headers),
        (Some(Ret::Full), Kind::Failed, &large, headers),
        (Some(Ret::Full), Kind::Failed, &endless, headers),
        (Some(Ret::Full), Kind::Failed, &umlauts, "message/rfc822"),
        (Some(Ret::Full), Kind::Failed, &umlauts_above, headers),
        (None, Kind::Failed, &many, headers),
    ] {
        let envelope = envelope(&["b@y.example"]).with_reports(ret, None);
        let report = report(&envelope, octets.as_bytes(), &refused("x"), |notice| {
            notice.kind = kind
        });
        let parts = parts(&report);
        assert_eq!(parts[2].0, expected, "{ret:?} {kind:?} {}", &octets[..40]);
        assert!(report.len() < 2 * MAX_RETURNED && is_eight_bit(report.as_bytes()));
        assert_eq!(report.is_ascii(), !report.contains("Transfer-Encoding: 8bit"));
        if octets.len() < 1000 {
            let end = if expected == headers {
                octets.find("\r\n\r\n").unwrap()
            } else {
                octets.len()
            };
            assert_eq!(parts[2].1.trim_end(), octets[..end].trim_end());
        }
    }
}

#[test]
fn what_cannot_be_read_is_reported_without_it() {
    for octets in [&b""[..], b"\r\n\r\nonly a text\r\n"] {
        let report = report(&envelope(&["b@y.example"]), octets, &refused("x"), |_| ());
        assert_eq!(parts(&report).len(), 2, "{report}");
        assert!(report.contains("Subject: Not delivered: a message without subject\r\n"));
        assert!(!report.contains("In-Reply-To"));
    }
}

#[test]
fn nothing_in_the_message_gets_into_the_header_of_the_report() {
    let octets = "Subject: =?utf-8?Q?a=0D=0ABcc:_eve@z.example?= für \u{7}\r\nMessage-ID: <a b@c>\r\n\r\n\
                  --=_019d0000000070008000000000000002_report--\r\n";
    let report = report(
        &envelope(&["b@y.example"]),
        octets.as_bytes(),
        &refused("x"),
        |_| (),
    );
    let block = HeaderBlock::parse(report.as_bytes(), true).unwrap();
    let names: Vec<&str> = block.fields().iter().filter_map(|field| field.name()).collect();
    assert_eq!(
        names,
        [
            "Date",
            "From",
            "To",
            "Subject",
            "Message-ID",
            "Auto-Submitted",
            "X-Auto-Response-Suppress",
            "MIME-Version",
            "Content-Type"
        ]
    );
    assert_eq!(
        block.subject().unwrap(),
        "Not delivered: a Bcc: eve@z.example für"
    );
}

#[test]
fn senders_do_not_read_what_is_said_about_the_accounts_and_administrators_do() {
    let refused = local::UNREACHABLE.disposition("proxy.internal refused", None);
    let (envelope, admin) = (
        envelope(&["b@y.example"]),
        Told::Admin(address("it@contoso.example")),
    );
    let to_sender = report(&envelope, MESSAGE, &refused, |notice| notice.kind = Kind::Held);
    assert!(!to_sender.contains("proxy.internal"), "{to_sender}");
    let to_sender = parts(&to_sender);
    assert!(to_sender[0].1.contains("Why: The server cannot be reached.\r\n"));
    assert!(to_sender[1].1.contains("Action: delayed\r\nStatus: 4.4.1\r\n"));
    let outcome = Outcome::of(&envelope.recipients()[0], &refused);
    let original = Original {
        id: id(1),
        arrived: ARRIVED,
        envelope: &envelope,
        octets: MESSAGE,
        whole: true,
    };
    let mailbox = address("office@contoso.example");
    let to_admin = compose(&Notice {
        kind: Kind::Held,
        id: id(2),
        at: ARRIVED,
        hostname: "bridge",
        account: "office",
        mailbox: &mailbox,
        from: &mailbox,
        to: &admin,
        original: &original,
        outcomes: &[outcome],
        held_back: 0,
    });
    let to_admin = parts(std::str::from_utf8(&to_admin).unwrap());
    assert!(to_admin[0].1.contains("proxy.internal refused"));
    assert!(
        to_admin[1]
            .1
            .contains("Diagnostic-Code: x-upstream; proxy.internal refused\r\n")
    );
    assert!(
        to_admin[0].1.contains("What to do: Check the network,"),
        "{}",
        to_admin[0].1
    );
}

#[test]
fn success_is_relayed_to_a_system_without_reports() {
    let relayed = Disposition::Relayed(Receipt::default());
    let parts = parts(&report(
        &envelope(&["b@y.example"]),
        MESSAGE,
        &relayed,
        |notice| {
            notice.kind = Kind::Relayed;
        },
    ));
    assert!(parts[1].1.contains("Action: relayed\r\nStatus: 2.1.9\r\n"));
    assert!(!parts[0].1.contains("Why:") && !parts[1].1.contains("Diagnostic-Code"));
}

#[test]
fn lines_of_the_text_are_short_whatever_there_is_to_say() {
    let many: Vec<String> = (0..120).map(|n| format!("r{n}@y.example")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let report = report(
        &envelope(&many),
        MESSAGE,
        &refused("ErrorSendAsDenied"),
        |notice| notice.held_back = 1,
    );
    let parts = parts(&report);
    assert!(
        parts[0].1.split("\r\n").all(|line| line.chars().count() <= 76),
        "{}",
        parts[0].1
    );
    assert!(parts[0].1.contains("and 70 more") && parts[0].1.contains("not told of one more message"));
    assert_eq!(parts[1].1.matches("Final-Recipient:").count(), 120);
}
