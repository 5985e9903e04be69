//! `status`, `pause` and `resume`.

use super::exit::Failure;
use super::reach::{Intent, reach};
use super::table::{ago, visible};
use super::{json, runtime, say};
use crate::admin::view::{Account, Health, Status, Which, about};
use std::fmt::Write;
use std::path::Path;

/// Says how the bridge stands. No success if somebody has to do something.
pub(super) fn status(config: Option<&Path>, as_json: bool) -> Result<(), Failure> {
    let status: Status = runtime()?.block_on(async {
        let reached = reach(config, Intent::Look).await?;
        let status = reached.door.get("/v1/status").await;
        reached.close().await;
        Ok::<_, Failure>(status?)
    })?;
    if as_json {
        json(&status)?;
    } else {
        say(text(&status).trim_end());
    }
    match status.healthy {
        true => Ok(()),
        false => Err(Failure::told()),
    }
}

/// Stops the sending of an account's mail, or of all, or lets it go on.
pub(super) fn pause(config: Option<&Path>, account: Option<String>, pause: bool) -> Result<(), Failure> {
    let which = Which {
        account: account.clone(),
    };
    let path = if pause { "/v1/pause" } else { "/v1/resume" };
    runtime()?.block_on(async {
        let reached = reach(config, Intent::Change).await?;
        let done = reached.door.post::<serde_json::Value>(path, &which).await;
        reached.close().await;
        Ok::<_, Failure>(done?)
    })?;
    let whose = account.map_or("all accounts".to_owned(), |name| format!("account {name}"));
    say(&match pause {
        true => format!(
            "the mail of {whose} is accepted and not sent, also after a restart, until `smtp-oauth-bridge resume`"
        ),
        false => format!("the mail of {whose} is sent again"),
    });
    Ok(())
}

fn text(status: &Status) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let mut line = |line: String| {
        let _ = writeln!(text, "{}", visible(&line));
    };
    line(format!(
        "{}: smtp-oauth-bridge {}, {}",
        status.hostname,
        status.version,
        match status.uptime_seconds {
            Some(seconds) => format!("running for {}", ago(seconds)),
            None => "not running".to_owned(),
        }
    ));
    let deliveries = status.deliveries;
    let oldest = status.oldest_waiting_seconds.map_or_else(String::new, |seconds| {
        format!(", the oldest for {}", ago(seconds))
    });
    line(format!(
        "queue: {} messages: {} waiting{oldest}, {} being sent, {} held, {} failed; {} uncertain",
        status.messages,
        deliveries.waiting,
        deliveries.sending,
        deliveries.held,
        deliveries.failed,
        deliveries.uncertain
    ));
    if let Some(room) = status.room {
        let free = room.free.map_or("an unknown amount".to_owned(), about);
        line(format!(
            "room: {} of {} used; {free} free on the disk, {} must stay free",
            about(room.used),
            about(room.max_size),
            about(room.min_free)
        ));
    }
    if let Some(since) = &status.paused_since {
        line(format!(
            "paused: nothing is sent since {since}, until `smtp-oauth-bridge resume`"
        ));
    }
    for account in &status.accounts {
        line(account_line(account));
        for mailbox in &account.mailboxes {
            line(format!(
                "  {}: {}; {} waiting, {} held, {} failed",
                mailbox.mailbox,
                health(&mailbox.health),
                mailbox.waiting,
                mailbox.held,
                mailbox.failed
            ));
        }
    }
    for trouble in &status.troubles {
        line(format!("TO DO: {trouble}"));
    }
    text
}

fn account_line(account: &Account) -> String {
    let paused = account
        .paused_since
        .as_ref()
        .map_or_else(String::new, |since| format!(", paused since {since}"));
    format!("account {}: {}{paused}", account.name, health(&account.health))
}

fn health(health: &Health) -> String {
    let mut text = health.state.clone();
    if let Some(since) = &health.since {
        let _ = write!(text, " since {since}");
    }
    if let Some(cause) = &health.cause {
        let _ = write!(text, ": {cause}");
    }
    if let Some(detail) = health.detail.as_ref().filter(|detail| !detail.is_empty()) {
        let _ = write!(text, " [{detail}]");
    }
    if let Some(next) = &health.next_try {
        let _ = write!(text, "; tried again at {next}");
    }
    text
}
