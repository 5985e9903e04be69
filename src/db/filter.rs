//! Which messages of the queue somebody wants to see.

use crate::mail::QueueId;
use crate::mail::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Which messages are meant; everything that is set must hold. The default means all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// One of its parts is in this state.
    pub state: Option<State>,
    /// One of its parts goes out by this account; with `state`, the same part.
    pub account: Option<String>,
    /// Its reverse-path.
    pub sender: Option<Pattern>,
    /// One of its recipients, whatever became of it.
    pub recipient: Option<Pattern>,
    /// It arrived before this moment.
    pub before: Option<Timestamp>,
    /// It arrived at this moment or later.
    pub since: Option<Timestamp>,
}

/// How a message, or a part of it, stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It will be tried by itself.
    Waiting,
    /// An attempt is under way.
    Sending,
    /// It waits for a person.
    Held,
    /// It can never go: a dead letter.
    Failed,
    /// Nobody knows whether an earlier attempt went through; it is waiting or held.
    Uncertain,
}

/// Addresses, by a pattern. Case does not matter.
///
/// `*` stands for anything; `@example.com` means the whole domain; a text without `@` and `*` is looked for anywhere
/// in the address; `<>` is the null reverse-path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(Vec<String>);

impl State {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Waiting,
        Self::Sending,
        Self::Held,
        Self::Failed,
        Self::Uncertain,
    ];

    /// As it is typed and shown.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Sending => "sending",
            Self::Held => "held",
            Self::Failed => "failed",
            Self::Uncertain => "uncertain",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// A word that names no state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no state {0:?}: it is waiting, sending, held, failed or uncertain")]
pub struct NoSuchState(String);

impl FromStr for State {
    type Err = NoSuchState;

    fn from_str(text: &str) -> Result<Self, NoSuchState> {
        Self::ALL
            .into_iter()
            .find(|state| state.word() == text)
            .ok_or_else(|| NoSuchState(text.to_owned()))
    }
}

impl Pattern {
    /// From what was typed.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let text = text.trim().to_lowercase();
        let text = match text.as_str() {
            "<>" | "" => String::new(),
            text if text.contains('*') => text.to_owned(),
            text if text.starts_with('@') => format!("*{text}"),
            text if text.contains('@') => text.trim_matches(['<', '>']).to_owned(),
            text => format!("*{text}*"),
        };
        Self(text.split('*').map(str::to_owned).collect())
    }

    /// True if `address` is meant; an empty one is the null reverse-path.
    #[must_use]
    pub fn matches(&self, address: &str) -> bool {
        let [first, rest @ ..] = &self.0[..] else {
            return false;
        };
        if rest.is_empty() && address.is_ascii() {
            return address.eq_ignore_ascii_case(first);
        }
        let address = address.to_lowercase();
        let [between @ .., last] = rest else {
            return address == *first;
        };
        let Some(mut left) = address.strip_prefix(first.as_str()) else {
            return false;
        };
        for piece in between {
            let Some(at) = left.find(piece.as_str()) else {
                return false;
            };
            left = &left[at + piece.len()..];
        }
        left.ends_with(last.as_str())
    }
}

impl Filter {
    /// The ids that can be meant: greater than the first, less than the second.
    pub(super) fn ids(&self, after: Option<QueueId>) -> (QueueId, QueueId) {
        let since = self.since.map(|since| QueueId::earliest(since).previous());
        let lowest = after.max(since).unwrap_or(QueueId::from_bytes([0; 16]));
        let highest = self.before.map(QueueId::earliest);
        (lowest, highest.unwrap_or(QueueId::from_bytes([0xff; 16])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_what_people_type() {
        for (pattern, address, matches) in [
            ("bob@example.com", "Bob@Example.com", true),
            ("<bob@example.com>", "bob@example.com", true),
            ("bob@example.com", "abob@example.com", false),
            ("bob@example.com", "bob@example.com.evil", false),
            ("@example.com", "anybody@EXAMPLE.com", true),
            ("@example.com", "anybody@sub.example.com", false),
            ("*@*.example.com", "anybody@sub.example.com", true),
            ("bob", "Bobby@example.com", true),
            ("bob", "alice@bobs.example", true),
            ("bob", "alice@example.com", false),
            ("b*b@*", "bob@example.com", true),
            ("b*b@*", "bb@example.com", true),
            ("b*b@*", "b@example.com", false),
            ("*", "", true),
            ("<>", "", true),
            ("<>", "a@b", false),
            ("äpfel", "ÄPFEL@example.com", true),
            ("Ä@x.example", "ä@x.example", true),
            ("a*a", "a", false),
        ] {
            assert_eq!(
                Pattern::new(pattern).matches(address),
                matches,
                "{pattern} {address}"
            );
        }
    }

    #[test]
    fn states_are_typed_as_they_are_shown() {
        for state in State::ALL {
            assert_eq!(state.to_string().parse(), Ok(state));
        }
        let error = "bounced".parse::<State>().unwrap_err().to_string();
        assert!(error.contains("waiting, sending, held"), "{error}");
    }

    #[test]
    fn ages_become_ids() {
        let at = Timestamp::from_millis;
        let filter = Filter {
            since: Some(at(1_000)),
            before: Some(at(2_000)),
            ..Filter::default()
        };
        let (low, high) = filter.ids(None);
        for (arrived, wanted) in [(999, false), (1_000, true), (1_999, true), (2_000, false)] {
            let id = QueueId::new(at(arrived));
            assert_eq!(low < id && id < high, wanted, "{arrived}");
        }
        let after = QueueId::new(at(1_500));
        assert_eq!(filter.ids(Some(after)).0, after);
        assert_eq!(filter.ids(Some(QueueId::new(at(500)))).0, low);
    }
}
