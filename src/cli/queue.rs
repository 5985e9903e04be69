//! `queue`: the messages that wait, are held, or have failed.

use super::archive;
use super::args::{Act, Filters, Queue};
use super::exit::Failure;
use super::reach::{Intent, Reached, reach};
use super::table::{ago, table, terminal_width, visible};
use super::{json, runtime, say};
use crate::admin::Door;
use crate::admin::view::{Details, Ids, List, Message, Query, Recipient, ResultOf, Results, about};
use crate::mail::QueueId;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::Path;

/// Messages that are changed by one request: few enough to be answered soon.
const STEP: usize = 500;

/// Names that are asked for at once.
const NAMES: usize = 10_000;

/// Does what was asked for.
pub(super) fn queue(config: Option<&Path>, command: Queue) -> Result<(), Failure> {
    let intent = match &command {
        Queue::List { .. } | Queue::Show { .. } | Queue::Export(_) | Queue::Backup { .. } => Intent::Look,
        Queue::Import(_)
        | Queue::Retry(_)
        | Queue::Hold(_)
        | Queue::Release(_)
        | Queue::Bounce(_)
        | Queue::Delete(_) => Intent::Change,
    };
    runtime()?.block_on(async {
        let reached = reach(config, intent).await?;
        let done = carry_out(&reached, command).await;
        reached.close().await;
        done
    })
}

async fn carry_out(reached: &Reached, command: Queue) -> Result<(), Failure> {
    let door = &reached.door;
    match command {
        Queue::List {
            filters,
            after,
            limit,
            json,
        } => list(door, &filters, after, limit, json).await,
        Queue::Show { id, json } => show(door, &id, json).await,
        Queue::Retry(act) => change(door, "retry", "retried", act).await,
        Queue::Hold(act) => change(door, "hold", "held", act).await,
        Queue::Release(act) => change(door, "release", "released", act).await,
        Queue::Bounce(act) => change(door, "bounce", "given up", act).await,
        Queue::Delete(act) => change(door, "delete", "deleted", act).await,
        Queue::Export(export) => archive::export(door, export).await,
        Queue::Import(import) => archive::import(door, import).await,
        Queue::Backup { file } => archive::backup(door, &file).await,
    }
}

async fn list(
    door: &Door,
    filters: &Filters,
    after: Option<String>,
    limit: usize,
    as_json: bool,
) -> Result<(), Failure> {
    let mut whole = List {
        messages: Vec::new(),
        next: None,
        looked_at: 0,
    };
    let mut query = Query {
        after,
        ..filters.query()
    };
    // The bridge answers within a second with what it has found until then.
    loop {
        query.limit = Some(limit - whole.messages.len());
        let page: List = get(door, "/v1/queue", &query).await?;
        whole.messages.extend(page.messages);
        whole.looked_at += page.looked_at;
        whole.next = page.next;
        query.after = page.next.map(|next| next.to_string());
        if whole.next.is_none() || whole.messages.len() >= limit {
            break;
        }
    }
    if as_json {
        return json(&whole);
    }
    if whole.messages.is_empty() {
        say("no messages");
        return Ok(());
    }
    let rows: Vec<Vec<String>> = whole.messages.iter().map(row).collect();
    let headings = ["ID", "AGE", "SIZE", "STATE", "FROM", "TO", "LAST ANSWER"];
    say(table(&headings, &rows, &[4, 5, 6], terminal_width()).trim_end());
    if let Some(next) = whole.next {
        // Not among the rows: somebody may count them.
        let _ = writeln!(io::stderr(), "there may be more: go on with --after {next}");
    }
    Ok(())
}

fn row(message: &Message) -> Vec<String> {
    let more = message.open.saturating_sub(1);
    let first = message.to.first();
    vec![
        message.id.to_string(),
        ago(message.age_seconds),
        about(message.size),
        state(message),
        sender(message),
        match (first, more) {
            (None, _) => String::new(),
            (Some(to), 0) => to.address.clone(),
            (Some(to), more) => format!("{} +{more}", to.address),
        },
        first.map(answer).unwrap_or_default(),
    ]
}

fn state(message: &Message) -> String {
    match message.uncertain {
        true => format!("{}, uncertain", message.state),
        false => message.state.to_string(),
    }
}

fn sender(message: &Message) -> String {
    match message.sender.as_str() {
        "" => "<>".to_owned(),
        sender => sender.to_owned(),
    }
}

fn answer(recipient: &Recipient) -> String {
    let parts = [recipient.status.as_deref(), recipient.cause.as_deref()];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

async fn show(door: &Door, id: &str, as_json: bool) -> Result<(), Failure> {
    let details: Details = door.get(&format!("/v1/queue/message/{}", escaped(id))).await?;
    if as_json {
        return json(&details);
    }
    let Details { message, .. } = &details;
    let mut facts = vec![
        ("id", message.id.to_string()),
        (
            "accepted",
            format!("{}, {} ago", message.arrived, ago(message.age_seconds)),
        ),
        ("state", state(message)),
        (
            "size",
            format!("{} ({} octets)", about(message.size), message.size),
        ),
        ("from", sender(message)),
        (
            "client",
            format!(
                "{} ({}), listener {}",
                details.client, details.greeting, details.listener
            ),
        ),
    ];
    if let Some(user) = &details.user {
        facts.push(("user", user.clone()));
    }
    for part in &details.parts {
        let state = part.state.map_or("sent".to_owned(), |state| state.to_string());
        let next = match (&part.sending_since, &part.next_attempt) {
            (Some(since), _) => format!(", being sent since {since}"),
            (None, Some(next)) => format!(", next attempt at {next}"),
            (None, None) => String::new(),
        };
        let uncertain = if part.uncertain {
            ", an earlier attempt may have gone through"
        } else {
            ""
        };
        facts.push((
            "part",
            format!(
                "{}: by account {} as {}: {state}, {} attempts{next}{uncertain}",
                part.number, part.account, part.mailbox, part.attempts
            ),
        ));
    }
    for recipient in &details.recipients {
        let answer = match answer(recipient) {
            answer if answer.is_empty() => String::new(),
            answer => format!(": {answer}"),
        };
        facts.push(("to", format!("{} {}{answer}", recipient.address, recipient.fate)));
    }
    let lines = facts
        .iter()
        .map(|(key, value)| format!("{key:<9} {}", visible(value)));
    say(&lines.collect::<Vec<_>>().join("\n"));
    Ok(())
}

async fn change(door: &Door, action: &str, done: &str, act: Act) -> Result<(), Failure> {
    let ids = chosen(door, &act.ids, act.all, &act.filters).await?;
    if act.all && !agreed(ids.len(), done, act.yes)? {
        say("nothing was done");
        return Ok(());
    }
    let mut all = Results::default();
    for step in ids.chunks(STEP) {
        let ids = Ids {
            ids: step.to_vec(),
            next: None,
        };
        let results: Results = door.post(&format!("/v1/queue/{action}"), &ids).await?;
        all.results.extend(results.results);
    }
    let failed = all.results.iter().filter(|result| !result.done).count();
    if act.json {
        json(&all)?;
    } else {
        // Of many, only what is worth reading.
        let worth = |result: &&ResultOf| !act.all || result.text.is_some();
        for result in all.results.iter().filter(worth) {
            let text = result.text.as_deref().map(visible);
            say(&match (result.done, text) {
                (true, None) => format!("{}: {done}", result.id),
                (true, Some(warning)) => format!("{}: {done}; {warning}", result.id),
                (false, why) => format!("{}: not {done}: {}", result.id, why.unwrap_or_default()),
            });
        }
        if act.all {
            say(&format!(
                "{} messages {done}, {failed} left as they are",
                all.results.len() - failed
            ));
        }
    }
    match failed {
        0 => Ok(()),
        _ => Err(Failure::told()),
    }
}

/// The messages that are meant: those that were named, or all that the filters let through.
pub(super) async fn chosen(
    door: &Door,
    named: &[String],
    all: bool,
    filters: &Filters,
) -> Result<Vec<QueueId>, Failure> {
    match (named.is_empty(), all) {
        (false, true) => Err(Failure::data("name messages, or take --all: not both")),
        (true, false) => Err(Failure::data(
            "which messages? Name their ids, or take --all with filters such as --state failed",
        )),
        (false, false) if !filters.is_empty() => Err(Failure::data(
            "filters go with --all, not with messages that are named",
        )),
        (false, false) => {
            let mut ids = Vec::new();
            for id in named {
                let details: Details = door.get(&format!("/v1/queue/message/{}", escaped(id))).await?;
                ids.push(details.message.id);
            }
            Ok(ids)
        }
        (true, true) => {
            let mut query = filters.query();
            query.limit = Some(NAMES);
            let mut ids = Vec::new();
            loop {
                let page: Ids = get(door, "/v1/queue/ids", &query).await?;
                ids.extend(page.ids);
                let Some(next) = page.next else { return Ok(ids) };
                query.after = Some(next.to_string());
            }
        }
    }
}

/// Asks a person; a program must have said so already.
fn agreed(count: usize, done: &str, yes: bool) -> Result<bool, Failure> {
    if yes || count == 0 {
        return Ok(true);
    }
    if !io::stdin().is_terminal() {
        return Err(Failure::data(format!(
            "{count} messages would be {done}: there is no terminal to ask whether that is wanted, so say it with --yes"
        )));
    }
    // If standard error is closed, the person does not see the question, and will hardly say yes.
    let _ = write!(io::stderr(), "{count} messages will be {done}. Go on? [y/N] ");
    let mut answer = String::new();
    io::stdin()
        .lock()
        .read_line(&mut answer)
        .map_err(|error| Failure::system(format!("standard input cannot be read: {error}")))?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

async fn get<T: DeserializeOwned>(door: &Door, path: &str, query: &impl Serialize) -> Result<T, Failure> {
    let value = serde_json::to_value(query).map_err(Failure::internal)?;
    let mut pairs = Vec::new();
    for (key, value) in value.as_object().into_iter().flatten() {
        let text = match value {
            serde_json::Value::Null => continue,
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        pairs.push(format!("{key}={}", escaped(&text)));
    }
    Ok(door.get(&format!("{path}?{}", pairs.join("&"))).await?)
}

/// As it may stand in a path or a query (RFC 3986 §2).
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                escaped.push(char::from(byte))
            }
            byte => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

impl Filters {
    fn query(&self) -> Query {
        Query {
            state: self.state.map(|state| state.to_string()),
            account: self.account.clone(),
            sender: self.sender.clone(),
            recipient: self.recipient.clone(),
            older_than: self.older_than.clone(),
            younger_than: self.younger_than.clone(),
            after: None,
            limit: None,
        }
    }

    fn is_empty(&self) -> bool {
        self.query() == Query::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_cannot_leave_its_place_in_a_request() {
        assert_eq!(escaped("a@b.example"), "a%40b.example");
        assert_eq!(escaped("*&x=/?#ä"), "%2A%26x%3D%2F%3F%23%C3%A4");
    }
}
