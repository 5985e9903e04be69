//! What administrators should know of.

use crate::mail::Timestamp;
use std::fmt;
use std::time::Duration;

/// Something administrators should know of, as long as it lasts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What it is about.
    pub topic: Topic,
    /// Since when, as far as is known.
    pub since: Timestamp,
    /// What is wrong and what to do, in plain language.
    pub text: String,
    /// The upstream's or the system's own words; may be empty.
    pub detail: String,
    /// How often it is told while it lasts; `None` for what happened once and is not going to be over.
    pub repeat: Option<Duration>,
}

/// What a trouble is about. Two troubles of one topic are the same trouble.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Topic {
    /// All mail of an account waits until a person has done something.
    Account(String),
    /// The mail of one mailbox does.
    Mailbox {
        /// The account's name.
        account: String,
        /// The mailbox.
        mailbox: String,
    },
    /// The mail of several mailboxes of this account does: one alert for all of them.
    Mailboxes(String),
    /// The oldest message waits for longer than it should.
    Late,
    /// Messages wait for a person, each for a reason of its own.
    Held,
    /// Mail waits for a person for nearly as long as is allowed, or longer.
    HeldLong,
    /// There will soon be no room for new mail.
    RoomShort,
    /// There is no room for new mail.
    RoomGone,
    /// This was damaged and set aside at the start.
    Damaged(String),
    /// This ends soon: a certificate, a secret.
    Expiring(String),
}

impl Topic {
    /// The topic of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let plain = [
            Self::Late,
            Self::Held,
            Self::HeldLong,
            Self::RoomShort,
            Self::RoomGone,
        ];
        if let Some(topic) = plain.into_iter().find(|topic| topic.to_string() == name) {
            return Some(topic);
        }
        let (kind, what) = name.split_once(": ")?;
        Some(match kind {
            "account broken" => Self::Account(what.to_owned()),
            "mailboxes broken" => Self::Mailboxes(what.to_owned()),
            "mailbox broken" => {
                let (mailbox, account) = what.strip_suffix(')')?.rsplit_once(" (")?;
                Self::Mailbox {
                    account: account.to_owned(),
                    mailbox: mailbox.to_owned(),
                }
            }
            "damaged" => Self::Damaged(what.to_owned()),
            "expiring" => Self::Expiring(what.to_owned()),
            _ => return None,
        })
    }

    /// The account that has the trouble, if it is one account's.
    #[must_use]
    pub fn account(&self) -> Option<&str> {
        match self {
            Self::Account(account) | Self::Mailbox { account, .. } | Self::Mailboxes(account) => {
                Some(account)
            }
            _ => None,
        }
    }

    /// A word for programs: which kind of trouble it is.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Account(_) => "account_broken",
            Self::Mailbox { .. } => "mailbox_broken",
            Self::Mailboxes(_) => "mailboxes_broken",
            Self::Late => "queue_old",
            Self::Held => "held",
            Self::HeldLong => "held_long",
            Self::RoomShort => "room_short",
            Self::RoomGone => "room_gone",
            Self::Damaged(_) => "damaged",
            Self::Expiring(_) => "expiring",
        }
    }
}

impl fmt::Display for Topic {
    /// Its name, for example `account broken: office`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Account(account) => write!(f, "account broken: {account}"),
            Self::Mailbox { account, mailbox } => write!(f, "mailbox broken: {mailbox} ({account})"),
            Self::Mailboxes(account) => write!(f, "mailboxes broken: {account}"),
            Self::Late => f.write_str("mail is late"),
            Self::Held => f.write_str("mail waits for you"),
            Self::HeldLong => f.write_str("mail waits for you for long"),
            Self::RoomShort => f.write_str("little room for mail"),
            Self::RoomGone => f.write_str("no room for mail"),
            Self::Damaged(what) => write!(f, "damaged: {what}"),
            Self::Expiring(what) => write!(f, "expiring: {what}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_known_by_its_name() {
        let text = |text: &str| text.to_owned();
        for topic in [
            Topic::Account(text("office")),
            Topic::Mailbox {
                account: text("office"),
                mailbox: text("a (b)@x.example"),
            },
            Topic::Mailboxes(text("office")),
            Topic::Late,
            Topic::Held,
            Topic::HeldLong,
            Topic::RoomShort,
            Topic::RoomGone,
            Topic::Damaged(text("queue.db: see below")),
            Topic::Expiring(text("the secret of office")),
        ] {
            assert_eq!(Topic::named(&topic.to_string()), Some(topic));
        }
        for name in ["", "something else", "else: office", "mailbox broken: x"] {
            assert_eq!(Topic::named(name), None, "{name}");
        }
    }
}
