//! What an event changes in the history, and how a message is made of what the history has kept. Pure.

use crate::db::history::record::{Arrival, Change, Entry, Named, Outcome, Past, PastEvent, PastFate, Whom};
use crate::mail::Address;
use crate::telemetry::Event;
use crate::telemetry::event::{self, Accepted, Acted, Action, Attempted, What};

/// What `event` changes.
pub(super) fn entry(event: &Event) -> Entry {
    let change = match &event.what {
        What::Accepted(accepted) => Change::Arrived(Box::new(arrival(accepted))),
        What::Attempted(attempted) => happened("attempted", event, Some(outcome(attempted))),
        What::Acted(acted) => happened("acted", event, consequence(acted)),
        What::Reported(_) => happened("reported", event, None),
        What::Alerted(_) => happened("alerted", event, None),
    };
    Entry {
        event: event.id,
        at: event.at,
        message: event.message,
        change,
    }
}

/// The acceptance of a message that is in the history, if that is known.
fn accepted(past: &Past) -> Option<Accepted> {
    let arrival = past.arrival.clone()?;
    let to = past.recipients.iter().map(|recipient| recipient.address.clone());
    Some(Accepted {
        arrived: arrival.arrived,
        from: arrival.sender.map(|sender| sender.address),
        to: to.collect(),
        size: arrival.size,
        client: arrival.client,
        listener: arrival.listener,
        user: arrival.user,
        tls: arrival.tls,
        message_id: arrival.message_id.map(|id| format!("<{id}>")),
        subject: arrival.subject,
        // Only we write this column.
        parts: serde_json::from_str(&arrival.plan).unwrap_or_default(),
    })
}

/// The events of a message that is in the history, with the addresses that are not kept twice. Those that cannot be
/// read, because a newer version wrote them, are left out.
pub(super) fn events(past: &Past) -> Vec<Event> {
    let address = |number: usize| {
        let known = past
            .recipients
            .iter()
            .find(|recipient| recipient.number == number);
        known.map_or_else(String::new, |recipient| recipient.address.clone())
    };
    let arrival = accepted(past);
    let read = |PastEvent { id, at, detail }: &PastEvent| {
        let Some(detail) = detail else {
            let what = What::Accepted(arrival.clone()?);
            return Some(Event {
                id: *id,
                at: *at,
                message: Some(past.id),
                what,
            });
        };
        let mut event = Event::from_json(detail).ok()?;
        if let What::Attempted(Attempted { recipients, .. }) = &mut event.what {
            for (number, text) in recipients {
                *text = address(*number);
            }
        }
        Some(event)
    };
    past.events.iter().filter_map(read).collect()
}

/// A Message-ID without its brackets, which some leave out.
pub(super) fn without_brackets(message_id: &str) -> &str {
    let inside = message_id.trim();
    let inside = inside.strip_prefix('<').unwrap_or(inside);
    inside.strip_suffix('>').unwrap_or(inside)
}

/// How an address is found: lower case, `domain@local`.
pub(super) fn key(address: &str) -> String {
    match address.parse::<Address>() {
        Ok(address) => format!("{}@{}", address.domain(), address.local()).to_ascii_lowercase(),
        Err(_) => address.to_ascii_lowercase(),
    }
}

/// What an attempt makes of a recipient.
pub(super) fn fate(outcome: event::Outcome) -> PastFate {
    match outcome {
        event::Outcome::Relayed => PastFate::Relayed,
        event::Outcome::Failed => PastFate::Failed,
        event::Outcome::Deferred | event::Outcome::Held | event::Outcome::Uncertain => PastFate::Waiting,
    }
}

/// What an action makes of the recipients to whom it can be done, if it changes what is known of them.
pub(super) fn fate_by(action: Action) -> Option<PastFate> {
    match action {
        Action::Retry | Action::Import => Some(PastFate::Waiting),
        Action::Bounce => Some(PastFate::Bounced),
        Action::Delete => Some(PastFate::Deleted),
        Action::Hold | Action::Release => None,
    }
}

fn named(address: &str) -> Named {
    Named {
        address: address.to_owned(),
        key: key(address),
    }
}

fn arrival(accepted: &Accepted) -> Arrival {
    let message_id = accepted.message_id.as_deref();
    Arrival {
        arrived: accepted.arrived,
        sender: accepted.from.as_deref().map(named),
        message_id: message_id.map(|id| without_brackets(id).to_owned()),
        subject: accepted.subject.clone(),
        client: accepted.client.clone(),
        listener: accepted.listener.clone(),
        user: accepted.user.clone(),
        tls: accepted.tls,
        size: accepted.size,
        // Strings and numbers: this cannot fail.
        plan: serde_json::to_string(&accepted.parts).unwrap_or_default(),
        recipients: accepted.to.iter().map(|to| named(to)).collect(),
    }
}

/// Kept as it was told, but for the addresses, which stand in the table of recipients already.
fn happened(kind: &'static str, event: &Event, outcome: Option<Outcome>) -> Change {
    let mut kept = event.clone();
    if let What::Attempted(Attempted { recipients, .. }) = &mut kept.what {
        recipients.iter_mut().for_each(|(_, address)| address.clear());
    }
    Change::Happened {
        kind,
        detail: kept.to_json(),
        outcome,
    }
}

fn outcome(attempted: &Attempted) -> Outcome {
    let recipients = attempted.recipients.iter();
    Outcome {
        whom: Whom::These(
            recipients
                .map(|(number, address)| (*number, named(address)))
                .collect(),
        ),
        fate: fate(attempted.outcome),
        status: attempted.status.clone(),
        text: attempted.upstream.clone(),
    }
}

fn consequence(acted: &Acted) -> Option<Outcome> {
    Some(Outcome {
        whom: Whom::Rest,
        fate: fate_by(acted.action)?,
        status: String::new(),
        text: String::new(),
    })
}
