//! Reads history and queue together: the newest has not reached the history yet, and only the queue knows what is next.

use super::entry::{events, key, without_brackets};
use super::story::Story;
use crate::db::history::record::Wanted;
use crate::db::history::{HistoryError, HistoryReader};
use crate::db::{DbError, Entry, OpenError, QueueReader};
use crate::mail::Address;
use crate::mail::QueueId;
use crate::mail::ReversePath;
use crate::mail::Timestamp;
use crate::telemetry::Event;
use crate::telemetry::event::{Accepted, Attempted, What};
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::str::FromStr;

/// History and queue, for reading.
#[derive(Debug)]
pub struct Archive {
    history: Option<HistoryReader>,
    queue: Option<QueueReader>,
    trouble: Option<HistoryError>,
}

/// Why they cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The history.
    #[error("{0}\nhint: run this as the user of the bridge, or as root")]
    History(#[from] HistoryError),
    /// The queue.
    #[error("{0}\nhint: run this as the user of the bridge, or as root")]
    Queue(#[from] DbError),
    /// The queue cannot be opened.
    #[error("{0}\nhint: run this as the user of the bridge, or as root")]
    Open(#[from] OpenError),
}

/// What is looked for, as it is typed: an id or its beginning, an address, `@domain`, a Message-ID, a client's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target(Vec<Wanted>);

/// Nothing can be meant by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "is none of: a queue id or the beginning of one (at least 4 of its 32 hexadecimal digits, as in the log), an address, \
     @domain, a Message-ID, the IP address of a client"
)]
pub struct TargetError;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The newest first.
    pub stories: Vec<Story>,
    /// True if there are older ones that were left out.
    pub more: bool,
}

/// Events in the outbox, and messages without a plan, that are looked through at most.
const NEWEST: usize = 200_000;

/// Digits of a queue id at least; fewer are too many messages.
const SHORTEST_BEGINNING: usize = 4;

impl Archive {
    /// Opens what is there; neither needs to be. A history that cannot be opened leaves what the queue knows: see
    /// [`Archive::trouble`].
    ///
    /// # Errors
    /// The queue's.
    pub fn open(history: &Path, queue: &Path) -> Result<Self, ArchiveError> {
        let history = history.exists().then(|| HistoryReader::open(history));
        let (history, trouble) = match history.transpose() {
            Ok(history) => (history.flatten(), None),
            Err(error) => (None, Some(error)),
        };
        Ok(Self {
            history,
            trouble,
            queue: queue
                .exists()
                .then(|| QueueReader::open_closed(queue))
                .transpose()?,
        })
    }

    /// Why the history could not be opened, if it is there.
    #[must_use]
    pub fn trouble(&self) -> Option<&HistoryError> {
        self.trouble.as_ref()
    }

    /// The newest messages that arrived at `since` or later, at most `limit`.
    ///
    /// # Errors
    /// [`ArchiveError`]
    pub fn search(&self, target: &Target, since: Timestamp, limit: usize) -> Result<Found, ArchiveError> {
        let mut ids = BTreeSet::new();
        // First the queue, then the history: what goes from the one to the other in between is in both, not in none.
        if let Some(queue) = &self.queue {
            ids.extend(queue.at_once(|queue| in_queue(queue, target))?);
        }
        if let Some(history) = &self.history {
            for wanted in &target.0 {
                ids.extend(history.search(wanted, since, limit + 1)?);
            }
        }
        ids.retain(|id| id.arrived() >= since);
        let more = ids.len() > limit;
        let wanted: Vec<QueueId> = ids.into_iter().rev().take(limit).collect();
        Ok(Found {
            stories: self.stories(&wanted)?,
            more,
        })
    }

    fn stories(&self, ids: &[QueueId]) -> Result<Vec<Story>, ArchiveError> {
        let mut newest = match &self.queue {
            Some(queue) => queue.at_once(|queue| Newest::of(queue, ids))?,
            None => Newest::default(),
        };
        let mut stories = Vec::new();
        for id in ids {
            let past = match &self.history {
                Some(history) => history.past(*id)?,
                None => None,
            };
            let told = past.as_ref().map(events).unwrap_or_default();
            let newer = newest.events.remove(id).unwrap_or_default();
            let standing = newest.standings.remove(id);
            let mut story = Story::new(*id, told.into_iter().chain(newer), standing);
            if story.accepted.is_none()
                && let Some(unplanned) = newest.unplanned.remove(id)
            {
                let accepted = Event::new(id.arrived(), Some(*id), What::Accepted(unplanned));
                story = Story::new(*id, story.events.into_iter().chain([accepted]), story.standing);
            }
            stories.push(story);
        }
        Ok(stories)
    }
}

/// What only the queue knows.
#[derive(Default)]
struct Newest {
    events: HashMap<QueueId, Vec<Event>>,
    standings: HashMap<QueueId, Entry>,
    unplanned: HashMap<QueueId, Accepted>,
}

impl Newest {
    fn of(queue: &QueueReader, ids: &[QueueId]) -> Result<Self, DbError> {
        let mut newest = Self::default();
        for event in outbox(queue)? {
            if let Some(id) = event.message.filter(|id| ids.contains(id)) {
                newest.events.entry(id).or_default().push(event);
            }
        }
        for id in ids {
            if let Some(standing) = queue.entry(*id)? {
                if standing.parts.is_empty()
                    && let Some(accepted) = unplanned(queue, *id)?
                {
                    newest.unplanned.insert(*id, accepted);
                }
                newest.standings.insert(*id, standing);
            }
        }
        Ok(newest)
    }
}

fn outbox(queue: &QueueReader) -> Result<impl Iterator<Item = Event>, DbError> {
    let outbox = queue.outbox(NEWEST)?.into_iter();
    Ok(outbox.filter_map(|(_, text)| Event::from_json(&text).ok()))
}

fn in_queue(queue: &QueueReader, target: &Target) -> Result<Vec<QueueId>, DbError> {
    let mut ids: Vec<QueueId> = outbox(queue)?
        .filter(|event| target.matches(event))
        .filter_map(|event| event.message)
        .collect();
    for id in queue.untold(NEWEST)? {
        let by_id = target.0.iter().any(|wanted| is_id(wanted, id));
        if by_id || unplanned(queue, id)?.is_some_and(|accepted| target.matches_message(&accepted)) {
            ids.push(id);
        }
    }
    Ok(ids)
}

/// A message whose plan is not made, as far as the queue knows it. A damaged one is left out: the rest is shown.
fn unplanned(queue: &QueueReader, id: QueueId) -> Result<Option<Accepted>, DbError> {
    let message = match queue.message(id) {
        Ok(Some(message)) => message,
        Ok(None) | Err(DbError::Row { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let from = match message.envelope.reverse_path() {
        ReversePath::Null => None,
        ReversePath::Address(address) => Some(address.to_string()),
    };
    Ok(Some(Accepted {
        arrived: message.arrived,
        from,
        to: message.envelope.addresses().map(ToString::to_string).collect(),
        size: message.size,
        client: message.origin.client.to_string(),
        listener: message.origin.listener,
        user: message.origin.user,
        tls: message.origin.tls,
        message_id: None,
        subject: None,
        parts: Vec::new(),
    }))
}

impl Target {
    fn matches(&self, event: &Event) -> bool {
        if self
            .0
            .iter()
            .any(|wanted| event.message.is_some_and(|id| is_id(wanted, id)))
        {
            return true;
        }
        match &event.what {
            What::Accepted(accepted) => self.matches_message(accepted),
            What::Attempted(Attempted { recipients, .. }) => recipients
                .iter()
                .any(|(_, address)| self.matches_address(address)),
            What::Acted(_) | What::Reported(_) | What::Alerted(_) => false,
        }
    }

    fn matches_message(&self, accepted: &Accepted) -> bool {
        let mut addresses = accepted.to.iter().chain(&accepted.from);
        let by_field = self.0.iter().any(|wanted| match wanted {
            Wanted::MessageId(wanted) => {
                accepted.message_id.as_deref().map(without_brackets) == Some(wanted.as_str())
            }
            Wanted::Client(wanted) => accepted.client == *wanted,
            Wanted::Ids(..) | Wanted::Address(_) | Wanted::Domain(_) => false,
        });
        by_field || addresses.any(|address| self.matches_address(address))
    }

    fn matches_address(&self, address: &str) -> bool {
        let key = key(address);
        self.0.iter().any(|wanted| match wanted {
            Wanted::Address(wanted) => key == *wanted,
            Wanted::Domain(domain) => key.split('@').next() == Some(domain),
            Wanted::Ids(..) | Wanted::MessageId(_) | Wanted::Client(_) => false,
        })
    }
}

fn is_id(wanted: &Wanted, id: QueueId) -> bool {
    matches!(wanted, Wanted::Ids(first, last) if (*first..=*last).contains(&id))
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let text = text.trim();
        if let Some(domain) = text.strip_prefix('@') {
            let domain = domain.to_ascii_lowercase();
            return if domain.is_empty() || domain.contains('@') {
                Err(TargetError)
            } else {
                Ok(Self(vec![Wanted::Domain(domain)]))
            };
        }
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(Self(vec![Wanted::Client(ip.to_canonical().to_string())]));
        }
        let mut wanted = Vec::new();
        if text.len() >= SHORTEST_BEGINNING {
            wanted.extend(QueueId::beginning_with(text).map(|(first, last)| Wanted::Ids(first, last)));
        }
        let message_id = without_brackets(text);
        // An address and a Message-ID may look alike.
        if let Ok(address) = message_id.parse::<Address>()
            && (!address.domain().is_empty() || wanted.is_empty())
        {
            wanted.push(Wanted::Address(key(message_id)));
        }
        if !message_id.is_empty() && (message_id.contains('@') || message_id != text) {
            wanted.push(Wanted::MessageId(message_id.to_owned()));
        }
        if wanted.is_empty() {
            Err(TargetError)
        } else {
            Ok(Self(wanted))
        }
    }
}

impl fmt::Display for Target {
    /// What it is taken for, for those who find nothing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<&str> = self
            .0
            .iter()
            .map(|wanted| match wanted {
                Wanted::Ids(..) => "the beginning of a queue id",
                Wanted::Address(_) => "the address of a sender or recipient",
                Wanted::Domain(_) => "the domain of a sender or recipient",
                Wanted::MessageId(_) => "a Message-ID",
                Wanted::Client(_) => "the address of a client",
            })
            .collect();
        f.write_str(&words.join(" or "))
    }
}
