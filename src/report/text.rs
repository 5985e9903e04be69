//! The part for people: what happened, why, what to do, and where the message is now. Plain words, short lines.

use super::Kind;
use super::compose::{Notice, Outcome};
use super::quoted::wrapped;
use super::recipient::Told;

const WIDTH: usize = 72;

/// Recipients that are listed; the others stand in the part for programs.
const MAX_LISTED: usize = 50;

/// The whole text, with CRLF.
pub(super) fn text(notice: &Notice<'_>) -> String {
    let mut out = paragraph(&format!("This is the mail bridge {}.", notice.hostname));
    for group in groups(notice) {
        out.push_str("\r\n");
        out.push_str(&paragraph(opening(notice)));
        out.push_str("\r\n");
        for outcome in group.iter().take(MAX_LISTED) {
            out.push_str(&format!("    {}\r\n", outcome.recipient.address));
        }
        if let Some(more @ 1..) = group.len().checked_sub(MAX_LISTED) {
            out.push_str(&format!(
                "    and {more} more, listed in the second part of this report\r\n"
            ));
        }
        out.push_str("\r\n");
        out.push_str(&paragraph(consequence(notice)));
        // A group is never empty, and its members differ in nothing but their address.
        if let Some(outcome) = group.first() {
            why(&mut out, notice, outcome);
        }
    }
    if notice.held_back > 0 {
        out.push_str("\r\n");
        out.push_str(&paragraph(&held_back(notice)));
    }
    out.push_str("\r\nThe message:\r\n\r\n");
    facts(&mut out, notice);
    out.push_str("\r\n");
    out.push_str(&paragraph(ending(notice)));
    out
}

fn opening(notice: &Notice<'_>) -> &'static str {
    match (notice.kind, notice.to) {
        (Kind::Failed, Told::Sender(_)) => "Your message could not be delivered to:",
        (Kind::Failed, Told::Admin(_)) => "A message could not be delivered to:",
        (Kind::Delayed, Told::Sender(_)) => "Your message has not been delivered yet to:",
        (Kind::Delayed, Told::Admin(_)) => "A message has not been delivered yet to:",
        (Kind::Relayed, _) => "Your message was handed on for:",
        (Kind::Held, Told::Sender(_)) => {
            "Your message waits, and cannot be delivered before somebody has done something, to:"
        }
        (Kind::Held, Told::Admin(_)) => {
            "A message waits, and cannot be delivered before you have done something, to:"
        }
    }
}

fn consequence(notice: &Notice<'_>) -> &'static str {
    match notice.kind {
        Kind::Failed => "It will not be tried again by itself.",
        Kind::Delayed => "It is not lost, and need not be sent again: the bridge goes on trying.",
        Kind::Relayed => {
            "The mail system that took it sends no reports of success. This does not mean that it has been read, or \
             that it has arrived; if it does not arrive, that system tells you."
        }
        Kind::Held => {
            "It is not lost: it stays in the queue of the bridge until its administrator lets it go out."
        }
    }
}

fn ending(notice: &Notice<'_>) -> &'static str {
    match (notice.kind, notice.to) {
        (Kind::Failed, Told::Sender(_)) => {
            "The bridge keeps the message. Its administrator finds it by the queue id and can send it again."
        }
        (Kind::Failed, Told::Admin(_)) => {
            "The bridge keeps the message. You find it by the queue id, and can send it again when the reason is gone."
        }
        (Kind::Delayed, _) => "If it cannot be delivered in the end, there will be another report.",
        (Kind::Relayed, _) => "You get this because your program asked for a report of success.",
        (Kind::Held, Told::Sender(_)) => "Please tell the administrator of the bridge.",
        (Kind::Held, Told::Admin(_)) => {
            "You find it by the queue id, and can let it go out when the reason is gone."
        }
    }
}

fn why(out: &mut String, notice: &Notice<'_>, outcome: &Outcome<'_>) {
    if !outcome.meaning.is_empty() {
        out.push_str("\r\n");
        out.push_str(&paragraph(&format!("Why: {}", sentence(&outcome.meaning))));
    }
    if !outcome.remedy.is_empty() {
        out.push_str("\r\n");
        out.push_str(&paragraph(&format!("What to do: {}", sentence(&outcome.remedy))));
    }
    if let Some(diagnostic) = notice.diagnostic(outcome) {
        out.push_str("\r\nIn the words of the mail system:\r\n\r\n");
        out.push_str(&wrapped(diagnostic, "    ", WIDTH));
    }
}

fn held_back(notice: &Notice<'_>) -> String {
    let what = match notice.held_back {
        1 => "one more message".to_owned(),
        n => format!("{n} more messages"),
    };
    format!(
        "Since the last report about this you were not told of {what} with the same reason, because there is no more \
         than one report an hour about it."
    )
}

fn facts(out: &mut String, notice: &Notice<'_>) {
    let original = notice.original;
    let subject = original.subject();
    if !subject.is_empty() {
        out.push_str(&format!("    Subject:   {subject}\r\n"));
    }
    out.push_str(&format!(
        "    Sender:    {}\r\n",
        original.envelope.reverse_path()
    ));
    out.push_str(&format!("    Accepted:  {}\r\n", original.arrived.rfc5322()));
    out.push_str(&format!("    Queue id:  {}\r\n", original.id));
    out.push_str(&format!(
        "    Account:   {} (mailbox {})\r\n",
        notice.account, notice.mailbox
    ));
}

fn paragraph(text: &str) -> String {
    wrapped(text, "", WIDTH)
}

/// With a capital letter and a full stop.
fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    let Some(first) = chars.next() else {
        return String::new();
    };
    let rest = chars.as_str();
    let stop = if rest.ends_with(['.', '!', '?', ':']) {
        ""
    } else {
        "."
    };
    format!("{}{rest}{stop}", first.to_uppercase())
}

/// Recipients to whom the same applies, together.
fn groups<'n, 'a>(notice: &'n Notice<'a>) -> Vec<Vec<&'n Outcome<'a>>> {
    let mut groups: Vec<Vec<&Outcome<'_>>> = Vec::new();
    for outcome in notice.outcomes {
        let same = |group: &&mut Vec<&Outcome<'_>>| {
            group.first().is_some_and(|first| {
                (&first.meaning, &first.remedy, &first.diagnostic)
                    == (&outcome.meaning, &outcome.remedy, &outcome.diagnostic)
            })
        };
        match groups.iter_mut().find(same) {
            Some(group) => group.push(outcome),
            None => groups.push(vec![outcome]),
        }
    }
    groups
}
