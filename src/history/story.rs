//! The life of one message, put together from what is known of it. Pure.

use super::entry::{fate, fate_by};
use crate::db::Entry;
use crate::db::history::record::PastFate;
use crate::mail::QueueId;
use crate::mail::Timestamp;
use crate::telemetry::Event;
use crate::telemetry::event::{Accepted, What};
use std::collections::{BTreeMap, HashSet};

/// The life of one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Story {
    /// The message.
    pub id: QueueId,
    /// How it arrived, the last time if it was imported again; none if that is not known.
    pub accepted: Option<Accepted>,
    /// What else happened, in order.
    pub events: Vec<Event>,
    /// What became of each recipient, in the envelope's order.
    pub recipients: Vec<RecipientStory>,
    /// How it stands in the queue; none if it is not there.
    pub standing: Option<Entry>,
}

/// What became of one recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecipientStory {
    /// Position in the envelope.
    pub number: usize,
    /// The address.
    pub address: String,
    /// What is known.
    pub fate: PastFate,
    /// How often it was given a final fate since it was last sent on its way; 1 in the end.
    pub outcomes: u32,
    /// Enhanced status code of the last attempt.
    pub status: String,
    /// The upstream's words at the last attempt.
    pub upstream: String,
    /// When the fate was learned; none while nothing was.
    pub at: Option<Timestamp>,
}

impl Story {
    /// From what was told, in order. Of an event that is there twice only the first counts.
    #[must_use]
    pub fn new(id: QueueId, told: impl IntoIterator<Item = Event>, standing: Option<Entry>) -> Self {
        let mut seen = HashSet::new();
        let told = told.into_iter().filter(|event| seen.insert(event.id));
        let (mut accepted, mut events, mut known) = (None, Vec::new(), BTreeMap::new());
        for event in told {
            learn(&mut known, &event);
            match event.what {
                What::Accepted(newest) => accepted = Some(newest),
                _ => events.push(event),
            }
        }
        Self {
            id,
            accepted,
            events,
            recipients: known.into_values().collect(),
            standing,
        }
    }

    /// When it arrived, as far as that is known.
    #[must_use]
    pub fn arrived(&self) -> Option<Timestamp> {
        let accepted = self.accepted.as_ref().map(|accepted| accepted.arrived);
        accepted.or_else(|| self.events.first().map(|event| event.at))
    }
}

/// What an event tells of recipients.
fn learn(known: &mut BTreeMap<usize, RecipientStory>, event: &Event) {
    match &event.what {
        What::Accepted(accepted) => {
            for (number, address) in accepted.to.iter().enumerate() {
                // What is imported after it was done or given up has a new life.
                let recipient = known
                    .entry(number)
                    .or_insert_with(|| RecipientStory::new(number, address));
                (recipient.fate, recipient.outcomes) = (PastFate::Waiting, 0);
            }
        }
        What::Attempted(attempted) => {
            for (number, address) in &attempted.recipients {
                let recipient = known
                    .entry(*number)
                    .or_insert_with(|| RecipientStory::new(*number, address));
                if matches!(recipient.fate, PastFate::Bounced | PastFate::Deleted) {
                    // It was being sent when it was given up, so that did not take effect.
                    recipient.outcomes = 0;
                }
                recipient.learn(fate(attempted.outcome), event.at);
                recipient.status.clone_from(&attempted.status);
                recipient.upstream.clone_from(&attempted.upstream);
            }
        }
        What::Acted(acted) => {
            let Some(fate) = fate_by(acted.action) else { return };
            let can = |now: PastFate| match fate {
                PastFate::Waiting => now != PastFate::Relayed,
                _ => now == PastFate::Waiting,
            };
            for recipient in known.values_mut().filter(|recipient| can(recipient.fate)) {
                if fate == PastFate::Waiting {
                    recipient.outcomes = 0;
                }
                recipient.learn(fate, event.at);
            }
        }
        What::Reported(_) | What::Alerted(_) => {}
    }
}

impl RecipientStory {
    fn new(number: usize, address: &str) -> Self {
        Self {
            number,
            address: address.to_owned(),
            fate: PastFate::Waiting,
            outcomes: 0,
            status: String::new(),
            upstream: String::new(),
            at: None,
        }
    }

    fn learn(&mut self, fate: PastFate, at: Timestamp) {
        self.fate = fate;
        self.outcomes += u32::from(fate != PastFate::Waiting);
        self.at = Some(at);
    }
}
