//! Our state machine against `mailin` 0.6.5, on the part of SMTP that both know: the same class of reply to every
//! command, and the same messages. Where they differ on purpose stands in `DIFFERENCES`.

use crate::corpora::checks::naive;
use crate::corpora::checks::wire::{Event, Wire};
use proptest::prelude::*;
use smtp_oauth_bridge::config::Access;
use smtp_oauth_bridge::mail::{BodyType, ReversePath};
use smtp_oauth_bridge::smtp::{DataError, MAX_BAD_IN_A_ROW, SessionSettings};
use std::cell::RefCell;
use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;

/// A command that both answer, but not alike.
struct Difference {
    /// Who is right, and why.
    why: &'static str,
    /// The class of our reply, and of theirs.
    classes: (u16, u16),
    /// Whether it is about this command.
    applies: fn(&Moment) -> bool,
    /// A dialog whose last line shows it.
    example: &'static [&'static str],
}

/// A command and what was before it.
struct Moment<'a> {
    /// The line as it was sent, without its end.
    line: &'a str,
    /// The same in upper case, without blanks around it.
    plain: String,
    /// They have taken HELO or EHLO.
    greeted: bool,
    /// MAIL was accepted by both.
    in_transaction: bool,
    /// So many commands before this one were bad.
    bad: u32,
}

const DIFFERENCES: [Difference; 14] = [
    Difference {
        why: "MAIL without HELO: scripts forget it, Postfix takes it too, and nothing depends on it",
        classes: (2, 5),
        applies: |m| !m.greeted && m.is_mail(),
        example: &["MAIL FROM:<a@x.example>"],
    },
    Difference {
        why: "the null sender: RFC 5321 §4.5.5 has every server take it",
        classes: (2, 5),
        applies: |m| m.plain.contains("<>") && m.is_mail(),
        example: &["EHLO x", "MAIL FROM:<>"],
    },
    Difference {
        why: "a blank after the colon: many devices write it",
        classes: (2, 5),
        applies: |m| m.is_path() && m.plain.contains(": "),
        example: &["EHLO x", "MAIL FROM: <a@x.example>"],
    },
    Difference {
        why: "no brackets: some devices leave them out",
        classes: (2, 5),
        applies: |m| m.is_path() && !m.plain.contains('<'),
        example: &["EHLO x", "MAIL FROM:a@x.example"],
    },
    Difference {
        why: "parameters: mailin knows BODY and nothing else; we have announced SIZE, SMTPUTF8 and DSN",
        classes: (2, 5),
        applies: |m| {
            m.is_path()
                && ["SIZE=", "SMTPUTF8", "RET=", "NOTIFY="]
                    .iter()
                    .any(|p| m.plain.contains(p))
        },
        example: &["EHLO x", "MAIL FROM:<a@x.example> SIZE=5"],
    },
    Difference {
        why: "blanks before or behind a command mean nothing (RFC 5321 §4.1.1 has servers tolerate those behind)",
        classes: (2, 5),
        applies: |m| m.line.trim() != m.line && m.plain != "DATA",
        example: &["RSET "],
    },
    Difference {
        why: "the same, before a message",
        classes: (3, 5),
        applies: |m| m.line.trim() != m.line && m.plain == "DATA",
        example: &[
            "EHLO x",
            "MAIL FROM:<a@x.example>",
            "RCPT TO:<b@x.example>",
            "DATA ",
        ],
    },
    Difference {
        why: "NOOP with a text: RFC 5321 §4.1.1.9 allows it",
        classes: (2, 5),
        applies: |m| m.plain.starts_with("NOOP "),
        example: &["NOOP x"],
    },
    Difference {
        why: "VRFY is served at any time (RFC 5321 §4.1.4), not only between HELO and MAIL",
        classes: (2, 5),
        applies: |m| m.plain.starts_with("VRFY") && (!m.greeted || m.in_transaction || m.plain == "VRFY"),
        example: &["VRFY b"],
    },
    Difference {
        why: "HELP: RFC 5321 §4.5.1 does not ask for it, but a person at telnet is glad of it",
        classes: (2, 5),
        applies: |m| m.plain == "HELP",
        example: &["HELP"],
    },
    Difference {
        why: "a client without a name: a name is never a reason to refuse mail (RFC 5321 §4.1.4)",
        classes: (2, 5),
        applies: |m| matches!(m.plain.as_str(), "HELO" | "EHLO"),
        example: &["HELO"],
    },
    Difference {
        why: "a recipient without a domain: we have no mailboxes of our own, so it goes nowhere",
        classes: (5, 2),
        applies: |m| m.plain.starts_with("RCPT") && !m.plain.contains('@'),
        example: &["EHLO x", "MAIL FROM:<a@x.example>", "RCPT TO:<root>"],
    },
    Difference {
        why: "no address at all: mailin does not look into the brackets; nobody can deliver to it or report to it",
        classes: (5, 2),
        applies: |m| m.is_path() && ["<@", "@>", "@@"].iter().any(|bad| m.plain.contains(bad)),
        example: &["EHLO x", "MAIL FROM:<a@>"],
    },
    Difference {
        why: "too many bad commands in a row: it is not mail, we say 421 and close",
        classes: (4, 5),
        applies: |m| m.bad + 1 >= MAX_BAD_IN_A_ROW,
        example: &["X"; MAX_BAD_IN_A_ROW as usize],
    },
];

// And two about messages, which `Pair::data` and `Pair::envelopes` exclude where they stand:
//
// * After a 451 or 552 at the end of a message mailin stays in DATA and takes the next commands for text.
// * A recipient that was named twice gets a message once from us, and stands twice in mailin's envelope.
//
// Bare line ends are not part of the common subset: in a line of mailin's own server `<LF>.<CR><LF>` ends a message,
// which is how messages are smuggled. `fuzz/checks/naive.rs` is the reference for them.

impl Moment<'_> {
    fn is_mail(&self) -> bool {
        self.plain.starts_with("MAIL FROM")
    }

    fn is_path(&self) -> bool {
        self.is_mail() || self.plain.starts_with("RCPT TO")
    }
}

/// A message as both can tell it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mail {
    from: String,
    to: Vec<String>,
    eight_bit: bool,
    text: Vec<u8>,
}

#[derive(Default)]
struct Theirs {
    open: Option<Mail>,
    accepted: Vec<Mail>,
    trouble: bool,
}

#[derive(Clone, Default)]
struct Handler(Rc<RefCell<Theirs>>);

impl mailin::Handler for Handler {
    fn data_start(&mut self, _: &str, from: &str, eight_bit: bool, to: &[String]) -> mailin::Response {
        let (from, to, text) = (from.to_owned(), to.to_vec(), Vec::new());
        self.0.borrow_mut().open = Some(Mail {
            from,
            to,
            eight_bit,
            text,
        });
        mailin::response::OK
    }

    fn data(&mut self, octets: &[u8]) -> io::Result<()> {
        if let Some(mail) = &mut self.0.borrow_mut().open {
            mail.text.extend_from_slice(octets);
        }
        Ok(())
    }

    fn data_end(&mut self) -> mailin::Response {
        let mut theirs = self.0.borrow_mut();
        if theirs.trouble {
            return mailin::response::INTERNAL_ERROR;
        }
        let open = theirs.open.take();
        theirs.accepted.extend(open);
        mailin::response::OK
    }
}

/// Both of them, with the same client.
struct Pair {
    ours: Wire,
    session: mailin::Session<Handler>,
    theirs: Handler,
    greeted: bool,
    in_transaction: bool,
    bad: u32,
    closed: bool,
    /// How often each difference was seen.
    seen: [u32; DIFFERENCES.len()],
}

impl Pair {
    fn new() -> Self {
        let ours = Wire::new(SessionSettings {
            hostname: "bridge.test".into(),
            listener: "test".into(),
            max_message_size: 1 << 20,
            lenient: true,
            access: Access::default(),
            starttls: false,
        });
        let theirs = Handler::default();
        let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let session = mailin::SessionBuilder::new("bridge.test").build(client, theirs.clone());
        assert_eq!(session.greeting().code, 220);
        assert_eq!(ours.last_reply().code(), 220);
        Self {
            ours,
            session,
            theirs,
            greeted: false,
            in_transaction: false,
            bad: 0,
            closed: false,
            seen: [0; DIFFERENCES.len()],
        }
    }

    /// A client with this dialog, whose messages are these in turn; those that are `true` cannot be stored.
    fn dialog(&mut self, lines: &[String], messages: &[(Vec<u8>, bool)]) -> Result<(), TestCaseError> {
        let mut messages = messages.iter().cycle();
        for line in lines {
            if self.command(line)? == 3 {
                let (text, trouble) = messages.next().expect("there is one");
                self.data(text, *trouble)?;
            }
            if self.closed {
                break;
            }
        }
        self.envelopes()
    }

    /// Both answer alike, or it is a known difference. The class of the answer that both gave, or 0.
    fn command(&mut self, line: &str) -> Result<u16, TestCaseError> {
        let wire = format!("{line}\r\n");
        let (ours, theirs) = (self.say_to_us(&wire), self.say_to_them(&wire));
        let moment = Moment {
            line,
            plain: line.trim().to_uppercase(),
            greeted: self.greeted,
            in_transaction: self.in_transaction,
            bad: self.bad,
        };
        let known = DIFFERENCES
            .iter()
            .position(|d| d.classes == (ours, theirs) && (d.applies)(&moment));
        let plain = moment.plain.clone();
        self.closed = self.ours.is_closed();
        self.bad = if ours < 4 { 0 } else { self.bad + 1 };
        if ours == theirs {
            let taken = ours == 2;
            self.greeted |= taken && (plain.starts_with("HELO") || plain.starts_with("EHLO"));
            self.in_transaction = match plain.get(..4) {
                Some("MAIL") if taken => true,
                Some("HELO" | "EHLO" | "RSET") if taken => false,
                _ => self.in_transaction && ours != 3,
            };
            return Ok(ours);
        }
        let Some(known) = known else {
            return Err(TestCaseError::fail(format!(
                "{line:?}: we say {ours}xx, they say {theirs}xx"
            )));
        };
        self.seen[known] += 1;
        if !self.closed {
            self.begin_again()?;
        }
        Ok(0)
    }

    /// After a difference both forget what was begun.
    fn begin_again(&mut self) -> Result<(), TestCaseError> {
        if self.ours.is_in_data() {
            self.ours.trouble = Some(DataError::Disk);
            self.ours.feed(b".\r\n");
            self.ours.trouble = None;
        }
        self.in_transaction = false;
        self.bad = 0;
        prop_assert_eq!((self.say_to_us("RSET\r\n"), self.say_to_them("RSET\r\n")), (2, 2));
        Ok(())
    }

    /// The text of a message, to its end.
    fn data(&mut self, text: &[u8], trouble: bool) -> Result<(), TestCaseError> {
        self.ours.trouble = trouble.then_some(DataError::Disk);
        self.theirs.0.borrow_mut().trouble = trouble;
        let wire = naive::stuff(text);
        self.ours.feed(&wire);
        let mut theirs = 0;
        for line in wire.split_inclusive(|&octet| octet == b'\n') {
            prop_assert_eq!(theirs, 0, "they see an end before the end");
            theirs = self.session.process(line).code / 100;
        }
        let ours = self.ours.last_reply().code() / 100;
        prop_assert_eq!((ours, theirs), if trouble { (4, 4) } else { (2, 2) });
        self.bad = 0;
        if trouble {
            // They are still in DATA.
            let known = self.session.process(b"NOOP\r\n");
            prop_assert_eq!(known.action, mailin::Action::NoReply, "that was a command");
            self.theirs.0.borrow_mut().trouble = false;
            prop_assert_eq!(self.say_to_them(".\r\n"), 2);
            self.theirs.0.borrow_mut().accepted.pop();
        }
        Ok(())
    }

    /// The same messages were accepted.
    fn envelopes(&self) -> Result<(), TestCaseError> {
        let ours = self.ours.events.iter().filter_map(|event| match event {
            Event::Took(message) => Some(message),
            _ => None,
        });
        let ours: Vec<Mail> = ours
            .map(|message| Mail {
                from: match message.envelope.reverse_path() {
                    ReversePath::Null => String::new(),
                    ReversePath::Address(address) => address.to_string(),
                },
                to: message.envelope.addresses().map(ToString::to_string).collect(),
                eight_bit: message.envelope.body_type() == BodyType::EightBitMime,
                text: message.text.clone(),
            })
            .collect();
        let mut theirs = self.theirs.0.borrow().accepted.clone();
        for mail in &mut theirs {
            let mut keys = HashSet::new();
            mail.to.retain(|to| keys.insert(to.to_lowercase()));
        }
        prop_assert_eq!(ours, theirs);
        Ok(())
    }

    fn say_to_us(&mut self, line: &str) -> u16 {
        self.ours.feed(line.as_bytes());
        self.ours.last_reply().code() / 100
    }

    fn say_to_them(&mut self, line: &str) -> u16 {
        self.session.process(line.as_bytes()).code / 100
    }
}

/// What clients say: mostly in the right order, so that messages come about.
fn lines() -> impl Strategy<Value = Vec<String>> {
    let path = prop_oneof![
        8 => "[a-c]{1,2}@[xy]\\.example".prop_map(|a| format!("<{a}>")),
        1 => Just("<A@X.example>".to_owned()),
        1 => Just("<a.b+c=d@[192.0.2.1]>".to_owned()),
        1 => prop::sample::select(vec!["<>", "<root>", "<a@>", "<@x>", "<a@@x>", "a@x.example", " <a@x.example>"])
            .prop_map(str::to_owned),
    ];
    let body = prop::sample::select(vec![
        "",
        "",
        "",
        "",
        " BODY=8BITMIME",
        " body=7bit",
        " SIZE=10",
        " SMTPUTF8",
    ]);
    let mail = (path.clone(), body).prop_map(|(path, body)| format!("MAIL FROM:{path}{body}"));
    let rcpt = path.prop_map(|path| format!("RCPT TO:{path}"));
    let other = prop::sample::select(vec![
        "RSET",
        "NOOP",
        "NOOP x",
        "VRFY a",
        "VRFY",
        "EXPN a",
        "HELP",
        "QUIT",
        "STARTTLS",
        "AUTH PLAIN",
        "DATA x",
        "DATAX",
        "HELO",
        "EHLO",
        "",
        "X",
        "MAIL",
        "RCPT",
        "MAIL FROM",
        "RCPT TO:",
        "MAIL TO:<a@x.example>",
        "rset",
        "Helo y",
        "MAIL FROM:<a@x.example> BODY=BINARYMIME",
    ]);
    let line = prop_oneof![
        3 => prop::sample::select(vec!["HELO client", "EHLO client.example", "ehlo [192.0.2.1]"]).prop_map(str::to_owned),
        6 => mail,
        8 => rcpt,
        6 => Just("DATA".to_owned()),
        3 => other.prop_map(str::to_owned),
    ];
    let line = (line, 0..24u8).prop_map(|(line, how)| match how {
        0 => line.to_lowercase(),
        1 => format!("{line} "),
        2 => format!(" {line}"),
        _ => line,
    });
    let usual = [
        "EHLO client",
        "MAIL FROM:<a@x.example>",
        "RCPT TO:<b@x.example>",
        "DATA",
    ];
    (prop::bool::ANY, prop::collection::vec(line, 0..40)).prop_map(move |(begun, lines)| {
        let usual = usual.iter().map(|line| (*line).to_owned());
        if begun {
            usual.chain(lines).collect()
        } else {
            lines
        }
    })
}

/// Text whose line ends are CRLF, with dots where they count.
fn text() -> impl Strategy<Value = Vec<u8>> {
    let line = prop::sample::select(vec![
        &b""[..],
        b".",
        b"..",
        b".a",
        b"a.",
        b"Subject: x",
        b"\xe4\0\x7f",
    ]);
    prop::collection::vec(line, 0..6)
        .prop_map(|lines| lines.iter().flat_map(|line| [*line, b"\r\n"].concat()).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn both_answer_alike_and_take_the_same_messages(
        lines in lines(),
        messages in prop::collection::vec((text(), prop::bool::weighted(0.1)), 1..4),
    ) {
        Pair::new().dialog(&lines, &messages)?;
    }
}

/// The table has nothing that is not so any more.
#[test]
fn every_difference_is_there() {
    for (n, difference) in DIFFERENCES.iter().enumerate() {
        let mut pair = Pair::new();
        let lines: Vec<String> = difference.example.iter().map(|line| (*line).to_owned()).collect();
        pair.dialog(&lines, &[(Vec::new(), false)]).expect(difference.why);
        let seen: u32 = pair.seen.iter().sum();
        assert!(seen == 1 && pair.seen[n] == 1, "{}", difference.why);
    }
}
