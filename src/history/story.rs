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
    /// How it arrived; none if that is not known.
    pub accepted: Option<Accepted>,
    /// What happened then, in order; among it that it was accepted again, from a file.
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
        let (mut seen, mut first, mut events) = (HashSet::new(), None, Vec::new());
        for event in told {
            if !seen.insert(event.id) {
                continue;
            }
            match event.what {
                What::Accepted(accepted) if first.is_none() && events.is_empty() => first = Some(accepted),
                _ => events.push(event),
            }
        }
        Self {
            id,
            recipients: recipients(first.as_ref(), &events),
            accepted: first,
            events,
            standing,
        }
    }

    /// From a message that nothing was told of yet.
    #[must_use]
    pub fn untold(id: QueueId, accepted: Accepted, standing: Option<Entry>) -> Self {
        Self {
            id,
            recipients: recipients(Some(&accepted), &[]),
            accepted: Some(accepted),
            events: Vec::new(),
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

fn recipients(accepted: Option<&Accepted>, events: &[Event]) -> Vec<RecipientStory> {
    let unknown = |number, address: &str| RecipientStory {
        number,
        address: address.to_owned(),
        fate: PastFate::Waiting,
        outcomes: 0,
        status: String::new(),
        upstream: String::new(),
        at: None,
    };
    let to = accepted
        .map(|accepted| accepted.to.as_slice())
        .unwrap_or_default();
    let mut known: BTreeMap<usize, RecipientStory> = to
        .iter()
        .enumerate()
        .map(|(number, address)| (number, unknown(number, address)))
        .collect();
    for event in events {
        match &event.what {
            What::Attempted(attempted) => {
                for (number, address) in &attempted.recipients {
                    let recipient = known.entry(*number).or_insert_with(|| unknown(*number, address));
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
                if let Some(fate) = fate_by(acted.action) {
                    let can = |now: PastFate| match fate {
                        PastFate::Waiting => now != PastFate::Relayed,
                        _ => now == PastFate::Waiting,
                    };
                    let whom = known.values_mut().filter(|recipient| can(recipient.fate));
                    whom.for_each(|recipient| {
                        if fate == PastFate::Waiting {
                            recipient.outcomes = 0;
                        }
                        recipient.learn(fate, event.at);
                    });
                }
            }
            What::Accepted(again) => {
                for (number, address) in again.to.iter().enumerate() {
                    let at = known.get(&number).and_then(|recipient| recipient.at);
                    known.insert(
                        number,
                        RecipientStory {
                            at,
                            ..unknown(number, address)
                        },
                    );
                }
            }
            What::Reported(_) | What::Alerted(_) => {}
        }
    }
    known.into_values().collect()
}

impl RecipientStory {
    fn learn(&mut self, fate: PastFate, at: Timestamp) {
        self.fate = fate;
        self.outcomes += u32::from(fate != PastFate::Waiting);
        self.at = Some(at);
    }
}
