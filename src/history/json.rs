//! A story for programs: one object, all times in RFC 3339.

use super::story::Story;
use crate::db::history::record::PastFate;
use crate::db::{Entry, PartState};
use crate::telemetry::Event;
use crate::telemetry::event::{Acted, Alerted, Attempted, Reported, What};
use serde_json::{Value, json};

/// The story as a JSON object in one line.
#[must_use]
pub fn json(story: &Story) -> String {
    let accepted = story.accepted.as_ref();
    let recipients: Vec<Value> = story
        .recipients
        .iter()
        .map(|recipient| {
            json!({
                "number": recipient.number,
                "address": recipient.address,
                "fate": fate(recipient.fate),
                "outcomes": recipient.outcomes,
                "status": recipient.status,
                "upstream": recipient.upstream,
                "at": recipient.at.map(|at| at.to_string()),
            })
        })
        .collect();
    json!({
        "id": story.id,
        "arrived": story.arrived().map(|at| at.to_string()),
        "from": accepted.and_then(|a| a.from.clone()),
        "message_id": accepted.and_then(|a| a.message_id.clone()),
        "subject": accepted.and_then(|a| a.subject.clone()),
        "size": accepted.map(|a| a.size),
        "client": accepted.map(|a| a.client.clone()),
        "listener": accepted.map(|a| a.listener.clone()),
        "user": accepted.and_then(|a| a.user.clone()),
        "tls": accepted.map(|a| a.tls),
        "parts": accepted.map(|a| a.parts.clone()).unwrap_or_default(),
        "recipients": recipients,
        "events": story.events.iter().map(event).collect::<Vec<_>>(),
        "queue": story.standing.as_ref().map(standing),
    })
    .to_string()
}

/// The word for a fate.
pub(super) fn fate(fate: PastFate) -> &'static str {
    match fate {
        PastFate::Waiting => "waiting",
        PastFate::Relayed => "relayed",
        PastFate::Failed => "failed",
        PastFate::Bounced => "bounced",
        PastFate::Deleted => "deleted",
    }
}

fn event(event: &Event) -> Value {
    let mut value = match &event.what {
        // Not among the events of a story.
        What::Accepted(_) => json!({}),
        What::Attempted(attempted) => self::attempted(attempted),
        What::Acted(Acted { action, by }) => json!({ "event": "acted", "action": action, "by": by }),
        What::Reported(Reported {
            action,
            to,
            report,
            why_not,
        }) => {
            json!({ "event": "reported", "action": action, "to": to, "report": report, "why_not": why_not })
        }
        What::Alerted(Alerted {
            name,
            way,
            over,
            text,
        }) => {
            json!({ "event": "alerted", "name": name, "way": way, "over": over, "text": text })
        }
    };
    value["id"] = json!(event.id);
    value["at"] = json!(event.at.to_string());
    value
}

fn attempted(attempted: &Attempted) -> Value {
    let Attempted {
        part,
        account,
        mailbox,
        number,
        recipients,
        outcome,
        status,
        cause,
        upstream,
        age,
        took,
        next,
    } = attempted;
    let to: Vec<&str> = recipients.iter().map(|(_, address)| address.as_str()).collect();
    json!({
        "event": "attempted",
        "part": part,
        "account": account,
        "mailbox": mailbox,
        "attempt": number,
        "to": to,
        "outcome": outcome,
        "status": status,
        "cause": cause,
        "upstream": upstream,
        "age_ms": age,
        "took_ms": took,
        "next": next.to_string(),
    })
}

fn standing(entry: &Entry) -> Value {
    let part = |part: &PartState| {
        json!({
            "part": part.number,
            "account": part.account,
            "mailbox": part.mailbox,
            "state": part.state,
            "due": part.due.to_string(),
            "began": part.began.map(|at| at.to_string()),
            "attempts": part.attempts,
        })
    };
    Value::Array(entry.parts.iter().map(part).collect())
}
