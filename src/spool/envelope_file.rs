//! The envelope beside a large body, as text, so that the message can be queued again without the database.
//!
//! One line for each fact, `key value`, in the order of writing; `notify` and `orcpt` belong to the `to` before them.
//! Values are kept as they are but for line ends, which become blanks. The last line is `end`: without it the file
//! is not whole. Version 1 had no `end` and knew neither TLS, users, SMTPUTF8 nor reports.

use crate::db::record::{Message, Origin};
use crate::mail::Address;
use crate::mail::BodyType;
use crate::mail::Envelope;
use crate::mail::EnvelopeId;
use crate::mail::OriginalRecipient;
use crate::mail::Peer;
use crate::mail::QueueId;
use crate::mail::Recipient;
use crate::mail::Ret;
use crate::mail::ReversePath;
use crate::mail::Timestamp;
use std::fmt::{Display, Write};
use std::str::FromStr;

/// Why a text is not the envelope of a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeFileError {
    /// Neither version 1 nor 2.
    #[error("the envelope is of an unknown version: a newer smtp-oauth-bridge can read it")]
    Version,
    /// It ends too early.
    #[error("the envelope is not whole: {0}")]
    Incomplete(&'static str),
    /// This line means nothing.
    #[error("line {0} of the envelope is damaged")]
    Line(usize),
}

/// The text of a message's envelope.
#[must_use]
pub fn write_envelope(message: &Message) -> String {
    let mut text = String::from("version 2\n");
    let mut line = |key: &str, value: &dyn Display| {
        let value = value.to_string().replace(['\r', '\n'], " ");
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{key} {value}");
    };
    let Message { envelope, origin, .. } = message;
    line("id", &message.id);
    line("arrived", &message.arrived.millis());
    line("size", &message.size);
    line("checksum", &format_args!("{:08x}", message.checksum));
    if envelope.body_type() == BodyType::EightBitMime {
        line("body", &"8BITMIME");
    }
    if envelope.smtputf8() {
        line("smtputf8", &"yes");
    }
    if let Some(ret) = envelope.ret() {
        line("ret", &ret);
    }
    if let Some(id) = envelope.envelope_id() {
        line("envid", id);
    }
    line("client", &origin.client);
    line("protocol", &if origin.esmtp { "ESMTP" } else { "SMTP" });
    if origin.tls {
        line("tls", &"yes");
    }
    if let Some(user) = &origin.user {
        line("user", user);
    }
    line("listener", &origin.listener);
    line("greeting", &origin.greeting);
    line("from", envelope.reverse_path());
    for recipient in envelope.recipients() {
        line("to", &format_args!("<{}>", recipient.address));
        if let Some(notify) = recipient.notify {
            line("notify", &notify);
        }
        if let Some(original) = &recipient.original {
            line("orcpt", original);
        }
    }
    text.push_str("end\n");
    text
}

/// The message that [`write_envelope`] wrote, of this version of the program or an older one.
///
/// # Errors
/// [`EnvelopeFileError`]
pub fn read_envelope(text: &str) -> Result<Message, EnvelopeFileError> {
    let mut lines = text.split_inclusive('\n').enumerate();
    let has_end = match lines.next() {
        Some((_, "version 1\n")) => false,
        Some((_, "version 2\n")) => true,
        _ => return Err(EnvelopeFileError::Version),
    };
    let (mut facts, mut ended) = (Facts::default(), !has_end);
    for (n, line) in lines {
        let damaged = EnvelopeFileError::Line(n + 1);
        let Some(line) = line.strip_suffix('\n') else {
            return Err(EnvelopeFileError::Incomplete("it breaks off in a line"));
        };
        // It is never written.
        if line.contains('\r') {
            return Err(damaged);
        }
        if has_end && ended {
            return Err(damaged);
        }
        if has_end && line == "end" {
            ended = true;
            continue;
        }
        let (key, value) = line.split_once(' ').ok_or(damaged.clone())?;
        facts.note(key, value).ok_or(damaged)?;
    }
    if !ended {
        return Err(EnvelopeFileError::Incomplete("the last line is not `end`"));
    }
    facts.message()
}

/// What has been read so far.
#[derive(Default)]
struct Facts {
    id: Option<QueueId>,
    arrived: Option<i64>,
    size: Option<u64>,
    checksum: Option<u32>,
    body_type: BodyType,
    smtputf8: bool,
    ret: Option<Ret>,
    envelope_id: Option<EnvelopeId>,
    client: Option<Peer>,
    esmtp: bool,
    tls: bool,
    user: Option<String>,
    listener: String,
    greeting: String,
    reverse_path: Option<ReversePath>,
    recipients: Vec<Recipient>,
}

impl Facts {
    fn note(&mut self, key: &str, value: &str) -> Option<()> {
        match key {
            "id" => self.id = Some(parsed(value)?),
            "arrived" => self.arrived = Some(parsed(value)?),
            "size" => self.size = Some(parsed(value)?),
            "checksum" => self.checksum = Some(u32::from_str_radix(value, 16).ok()?),
            "body" => self.body_type = word(value, "8BITMIME", BodyType::EightBitMime)?,
            "smtputf8" => self.smtputf8 = word(value, "yes", true)?,
            "ret" => self.ret = Some(parsed(value)?),
            "envid" => self.envelope_id = Some(EnvelopeId::new(value).ok()?),
            "client" => self.client = Some(parsed(value)?),
            "protocol" => self.esmtp = word(value, "ESMTP", true).or_else(|| word(value, "SMTP", false))?,
            "tls" => self.tls = word(value, "yes", true)?,
            "user" => self.user = Some(value.to_owned()),
            "listener" => value.clone_into(&mut self.listener),
            "greeting" => value.clone_into(&mut self.greeting),
            "from" if value == "<>" => self.reverse_path = Some(ReversePath::Null),
            "from" => self.reverse_path = Some(ReversePath::Address(path(value)?)),
            "to" => self.recipients.push(path(value)?.into()),
            "notify" => self.recipients.last_mut()?.notify = Some(parsed(value)?),
            "orcpt" => self.recipients.last_mut()?.original = Some(OriginalRecipient::new(value).ok()?),
            _ => return None,
        }
        Some(())
    }

    fn message(self) -> Result<Message, EnvelopeFileError> {
        let missing = EnvelopeFileError::Incomplete;
        let reverse_path = self.reverse_path.ok_or(missing("the sender is missing"))?;
        let envelope = Envelope::new(reverse_path, self.recipients, self.body_type)
            .map_err(|_| missing("the recipients are missing"))?
            .with_smtputf8(self.smtputf8)
            .with_reports(self.ret, self.envelope_id);
        Ok(Message {
            id: self.id.ok_or(missing("the id is missing"))?,
            arrived: Timestamp::from_millis(self.arrived.ok_or(missing("the arrival time is missing"))?),
            envelope,
            origin: Origin {
                client: self.client.ok_or(missing("the client is missing"))?,
                greeting: self.greeting,
                esmtp: self.esmtp,
                listener: self.listener,
                tls: self.tls,
                user: self.user,
            },
            size: self.size.ok_or(missing("the size is missing"))?,
            checksum: self.checksum.ok_or(missing("the checksum is missing"))?,
            // Reports are small and have no file.
            report: false,
        })
    }
}

fn parsed<T: FromStr>(value: &str) -> Option<T> {
    value.parse().ok()
}

fn word<T>(value: &str, expected: &str, meaning: T) -> Option<T> {
    (value == expected).then_some(meaning)
}

fn path(value: &str) -> Option<Address> {
    parsed(value.strip_prefix('<')?.strip_suffix('>')?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::Notify;
    use proptest::prelude::*;

    fn address() -> impl Strategy<Value = Address> {
        ("[ -~äλ]{1,12}", "|[a-z0-9.äλ-]{1,12}|\\[[0-9.]{1,9}\\]")
            .prop_filter_map("an address", |(local, domain)| Address::new(&local, &domain).ok())
    }

    fn recipient() -> impl Strategy<Value = Recipient> {
        let original = "[a-z0-9-]{1,8};[ -~ä]{1,20}".prop_map(|text| OriginalRecipient::new(&text).unwrap());
        let notify = (0u8..8).prop_map(|bits| Notify::from_bits(bits).unwrap());
        (address(), prop::option::of(notify), prop::option::of(original)).prop_map(
            |(address, notify, original)| Recipient {
                address,
                notify,
                original,
            },
        )
    }

    fn message() -> impl Strategy<Value = Message> {
        let sender = prop::option::of(address());
        let recipients = prop::collection::vec(recipient(), 1..5);
        let envelope_id =
            prop::option::of("[ -~]{1,30}").prop_map(|id| id.map(|id| EnvelopeId::new(id).unwrap()));
        let ret = prop::option::of(prop_oneof![Just(Ret::Full), Just(Ret::Headers)]);
        let envelope = (sender, recipients, any::<(bool, bool)>(), envelope_id, ret).prop_map(
            |(sender, recipients, (eight_bit, smtputf8), envelope_id, ret)| {
                let body_type = if eight_bit {
                    BodyType::EightBitMime
                } else {
                    BodyType::SevenBit
                };
                let sender = sender.map_or(ReversePath::Null, ReversePath::Address);
                Envelope::new(sender, recipients, body_type)
                    .unwrap()
                    .with_smtputf8(smtputf8)
                    .with_reports(ret, envelope_id)
            },
        );
        let user = prop::option::of("[^\r\n]{0,10}");
        let origin = (
            prop::option::of(any::<std::net::IpAddr>()),
            "[^\r\n]{0,20}",
            "[a-z]{1,8}",
            any::<(bool, bool)>(),
            user,
        )
            .prop_map(|(client, greeting, listener, (esmtp, tls), user)| Origin {
                client: client.map_or(Peer::Local, Peer::Address),
                greeting,
                esmtp,
                listener,
                tls,
                user,
            });
        (
            envelope,
            origin,
            any::<[u8; 16]>(),
            any::<i64>(),
            any::<(u64, u32)>(),
        )
            .prop_map(|(envelope, origin, id, arrived, (size, checksum))| Message {
                id: QueueId::from_bytes(id),
                arrived: Timestamp::from_millis(arrived),
                envelope,
                origin,
                size,
                checksum,
                report: false,
            })
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_and_nothing_shorter_is(message in message(), cut in any::<prop::sample::Index>()) {
            let text = write_envelope(&message);
            prop_assert_eq!(read_envelope(&text), Ok(message));
            let cut = text.floor_char_boundary(cut.index(text.len()));
            prop_assert!(read_envelope(&text[..cut]).is_err());
        }

        #[test]
        fn nothing_makes_it_panic(text in "(version [12]\n)?(([a-z0-9]{1,8}|to|from|id|notify) ?[ -~]{0,20}\n){0,20}") {
            let _ = read_envelope(&text);
        }
    }

    #[test]
    fn version_1_is_still_read() {
        let text = "version 1\nid 019d0000-0000-7000-8000-000000000001\narrived 1800000000000\nsize 70000\n\
                    checksum 0000beef\nbody 8BITMIME\nclient 192.0.2.7\nprotocol ESMTP\nlistener local\n\
                    greeting \nfrom <>\nto <a@x.example>\nto <\"b b\"@x.example>\n";
        let message = read_envelope(text).unwrap();
        assert_eq!((message.size, message.checksum), (70000, 0xbeef));
        assert_eq!(message.envelope.reverse_path(), &ReversePath::Null);
        assert_eq!(message.envelope.body_type(), BodyType::EightBitMime);
        let to: Vec<String> = message.envelope.addresses().map(ToString::to_string).collect();
        assert_eq!(to, ["a@x.example", "\"b b\"@x.example"]);
        assert!(message.origin.esmtp && !message.origin.tls && message.origin.user.is_none());
    }

    #[test]
    fn what_is_damaged_says_where() {
        let end = "from <a@x>\nto <b@x>\nend\n";
        for (text, error) in [
            (String::new(), EnvelopeFileError::Version),
            ("version 3\nend\n".into(), EnvelopeFileError::Version),
            ("version 2\nto b@x\nend\n".into(), EnvelopeFileError::Line(2)),
            (
                "version 2\nnotify NEVER\nend\n".into(),
                EnvelopeFileError::Line(2),
            ),
            (format!("version 2\n{end}x y\n"), EnvelopeFileError::Line(5)),
            (
                "version 2\nend\n".into(),
                EnvelopeFileError::Incomplete("the sender is missing"),
            ),
            (
                format!("version 2\n{end}"),
                EnvelopeFileError::Incomplete("the id is missing"),
            ),
        ] {
            assert_eq!(read_envelope(&text), Err(error), "{text}");
        }
    }

    #[test]
    fn a_carriage_return_is_damage() {
        let text = "version 2\nid 01900000-0000-7000-8000-000000000000\narrived 1\nsize 1\nchecksum 00000000\n\
                    client 192.0.2.1\nprotocol SMTP\nlistener x\ngreeting a\nfrom <>\nto <b@x>\nend\n";
        assert!(read_envelope(text).is_ok(), "{:?}", read_envelope(text));
        let damaged = text.replace("greeting a", "greeting a\rb");
        assert_eq!(read_envelope(&damaged), Err(EnvelopeFileError::Line(9)));
    }
}
