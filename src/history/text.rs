//! A story for people: what is known, in plain language, and not more than that.

use super::story::{RecipientStory, Story};
use crate::db::history::record::PastFate;
use crate::db::{PartState, State};
use crate::mail::QueueId;
use crate::mail::Timestamp;
use crate::telemetry::event::{
    Accepted, Acted, Action, Attempted, Outcome, PartPlanned, Reported, Then, What,
};
use std::fmt::{self, Write};

/// The story, line by line.
#[must_use]
pub fn text(story: &Story) -> String {
    let mut lines = Lines::default();
    // Writing into a string cannot fail.
    let _ = tell(&mut lines, story);
    lines.0
}

/// Recipients that are named in one line.
const NAMED: usize = 5;

/// Under the time at the beginning of a line.
const INDENT: &str = "                            ";

#[derive(Default)]
struct Lines(String);

impl Lines {
    fn at(&mut self, time: impl fmt::Display, what: impl fmt::Display) -> fmt::Result {
        writeln!(self.0, "  {time:<24}  {what}")
    }

    fn more(&mut self, what: impl fmt::Display) -> fmt::Result {
        writeln!(self.0, "{INDENT}{what}")
    }
}

fn tell(lines: &mut Lines, story: &Story) -> fmt::Result {
    write!(lines.0, "message {}", story.id)?;
    match story
        .accepted
        .as_ref()
        .and_then(|accepted| accepted.subject.as_deref())
    {
        Some(subject) => writeln!(lines.0, ", {subject:?}")?,
        None => writeln!(lines.0)?,
    }
    match &story.accepted {
        Some(known) => accepted(lines, known)?,
        None => lines.at(
            "",
            "how it was accepted is not known: the history began later, or was lost",
        )?,
    }
    for event in &story.events {
        match &event.what {
            What::Accepted(_) | What::Alerted(_) => {}
            What::Attempted(known) => attempted(lines, story.id, event.at, known)?,
            What::Acted(Acted { action, by }) => {
                lines.at(event.at, format_args!("{} by {by}", done(*action)))?
            }
            What::Reported(known) => lines.at(event.at, reported(known))?,
        }
    }
    now(lines, story)
}

fn accepted(lines: &mut Lines, accepted: &Accepted) -> fmt::Result {
    let from = accepted.from.as_deref().unwrap_or_default();
    let to = Named(accepted.to.iter().map(String::as_str).collect());
    lines.at(accepted.arrived, format_args!("accepted from <{from}> for {to}"))?;
    let tls = if accepted.tls { "with TLS" } else { "without TLS" };
    let user = accepted
        .user
        .as_ref()
        .map_or_else(String::new, |user| format!(", logged in as {user:?}"));
    lines.more(format_args!(
        "{} octets, by client {} at listener {}, {tls}{user}",
        accepted.size, accepted.client, accepted.listener
    ))?;
    if let Some(message_id) = &accepted.message_id {
        lines.more(format_args!("Message-ID {message_id}"))?;
    }
    for part in &accepted.parts {
        let PartPlanned {
            account,
            mailbox,
            recipients,
            changes,
        } = part;
        let whom = match accepted.parts.len() {
            1 => String::new(),
            _ => format!(" for {}", Named(addresses(accepted, recipients))),
        };
        lines.more(format_args!(
            "to be sent{whom} by account {account} as mailbox {mailbox}"
        ))?;
        if changes != "none" {
            lines.more(format_args!("changes to its header: {changes}"))?;
        }
    }
    Ok(())
}

fn addresses<'a>(accepted: &'a Accepted, recipients: &[usize]) -> Vec<&'a str> {
    recipients
        .iter()
        .filter_map(|number| accepted.to.get(*number))
        .map(String::as_str)
        .collect()
}

fn attempted(lines: &mut Lines, id: QueueId, at: Timestamp, attempted: &Attempted) -> fmt::Result {
    let to = Named(attempted.recipients.iter().map(|(_, to)| to.as_str()).collect());
    let Attempted {
        account,
        mailbox,
        number,
        status,
        cause,
        upstream,
        next,
        ..
    } = attempted;
    let took = match attempted.took {
        Some(millis) => format!(", answered after {}.{:03} s", millis / 1000, millis % 1000),
        None => String::new(),
    };
    let what = match attempted.outcome {
        Outcome::Relayed => {
            return lines
                .at(at, format_args!("handed to {} for {to}", receiver(upstream)))
                .and_then(|()| {
                    lines.more(format_args!(
                        "by account {account} as mailbox {mailbox}, attempt {number}{took}"
                    ))
                })
                .and_then(|()| match upstream.is_empty() {
                    true => Ok(()),
                    false => lines.more(format_args!("its words: {upstream}")),
                });
        }
        Outcome::Deferred => "not yet",
        Outcome::Held => "held",
        Outcome::Failed => "failed",
        Outcome::Uncertain => "no answer",
    };
    lines.at(at, format_args!("{what}: {cause}"))?;
    lines.more(format_args!(
        "for {to}, attempt {number} by account {account} as mailbox {mailbox}{took}"
    ))?;
    if !upstream.is_empty() {
        lines.more(format_args!(
            "status {status}; the words of the other side: {upstream}"
        ))?;
    }
    match next {
        Then::Done => Ok(()),
        Then::Due(due) => lines.more(format_args!("next try at {due}")),
        Then::AccountWell => lines.more(format_args!(
            "tried again by itself as soon as account {account} is well"
        )),
        Then::Person => lines.more(format_args!(
            "waits for a person: put the cause right, then `smtp-oauth-bridge queue release {id}`"
        )),
        Then::DeadLetter => lines.more(format_args!(
            "kept as a dead letter: when the cause is gone, `smtp-oauth-bridge queue retry {id}` sends it again"
        )),
    }
}

/// Who took it over, as far as its words tell.
fn receiver(upstream: &str) -> &'static str {
    if upstream.starts_with("request-id=") {
        "Microsoft 365"
    } else {
        "the mail server"
    }
}

fn done(action: Action) -> &'static str {
    match action {
        Action::Hold => "put on hold",
        Action::Release => "released",
        Action::Retry => "sent on its way again",
        Action::Bounce => "given up, and its sender told,",
        Action::Delete => "deleted",
        Action::Import => "imported",
    }
}

fn reported(reported: &Reported) -> String {
    let Reported {
        action,
        to,
        report,
        why_not,
    } = reported;
    match (to, report) {
        (Some(to), Some(report)) => format!("a report ({action}) goes to <{to}> as message {report}"),
        (Some(to), None) => format!("a report ({action}) goes to <{to}>"),
        (None, _) => format!("no report ({action}) is sent: {why_not}"),
    }
}

/// How it stands, for recipients of the same fate together.
fn now(lines: &mut Lines, story: &Story) -> fmt::Result {
    for fate in [
        PastFate::Relayed,
        PastFate::Failed,
        PastFate::Bounced,
        PastFate::Deleted,
    ] {
        let to = with_fate(story, fate);
        let what = match fate {
            _ if to.0.is_empty() => continue,
            PastFate::Relayed => "handed over; what happened to it after that is not known here",
            PastFate::Failed => "failed",
            PastFate::Bounced => "given up",
            PastFate::Deleted | PastFate::Waiting => "deleted",
        };
        lines.at("now", format_args!("{to}: {what}"))?;
    }
    let waiting = with_fate(story, PastFate::Waiting);
    match &story.standing {
        _ if waiting.0.is_empty() && !story.recipients.is_empty() => Ok(()),
        None => lines.at(
            "now",
            format_args!("{waiting}: not in the queue any more, and its end is not in the history"),
        ),
        Some(standing) if standing.parts.is_empty() => lines.at(
            "now",
            format_args!("{waiting}: safe on the disk; how it goes out is decided next"),
        ),
        Some(standing) => {
            let open = standing.parts.iter().filter(|part| !is_over(part));
            open.into_iter()
                .try_for_each(|part| lines.at("now", format_args!("{}: {}", whom(story, part), stands(part))))
        }
    }
}

/// The recipients of a part that are not done.
fn whom<'a>(story: &'a Story, part: &PartState) -> Named<'a> {
    let planned = story
        .accepted
        .as_ref()
        .and_then(|accepted| accepted.parts.get(part.number as usize));
    let waits = |recipient: &&RecipientStory| {
        recipient.fate == PastFate::Waiting
            && planned.is_none_or(|planned| planned.recipients.contains(&recipient.number))
    };
    Named(
        story
            .recipients
            .iter()
            .filter(waits)
            .map(|recipient| recipient.address.as_str())
            .collect(),
    )
}

fn stands(part: &PartState) -> String {
    let PartState { account, due, .. } = part;
    match (part.state, part.began) {
        (_, Some(began)) => format!("is being sent since {began}"),
        (Some(State::Held), None) => "held: waits in the queue for a person".to_owned(),
        _ => format!(
            "waits in the queue; the next try is not before {due}, and when account {account} is well"
        ),
    }
}

fn is_over(part: &PartState) -> bool {
    matches!(part.state, None | Some(State::Failed))
}

fn with_fate(story: &Story, fate: PastFate) -> Named<'_> {
    Named(
        story
            .recipients
            .iter()
            .filter(|recipient| recipient.fate == fate)
            .map(|recipient| recipient.address.as_str())
            .collect(),
    )
}

/// Some addresses by name, the others by number.
struct Named<'a>(Vec<&'a str>);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("recipients that are not known");
        }
        for (n, address) in self.0.iter().take(NAMED).enumerate() {
            write!(f, "{}<{address}>", if n > 0 { ", " } else { "" })?;
        }
        match self.0.len().saturating_sub(NAMED) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}
