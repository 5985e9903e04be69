//! What is in trouble, made of what is known. Pure; time is an argument.

use super::decide::{Told, World};
use super::topic::{Topic, Trouble};
use crate::config::{format_duration, format_size};
use crate::delivery::{AccountStatus, Health, Status};
use crate::mail::Cause;
use crate::mail::Timestamp;
use crate::spool::{Ages, Oldest, SpoolRoom};
use std::time::Duration;

/// Everything that is known about the bridge. What is `None` could not be found out.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Since when this run of the program lasts.
    pub started: Timestamp,
    /// How delivery stands.
    pub status: Option<Status>,
    /// Names of topics that were heard to be over in this run, and not to have come back.
    pub well: Vec<String>,
    /// How long the oldest messages wait.
    pub ages: Option<Ages>,
    /// How much room there is.
    pub room: Option<SpoolRoom>,
    /// What has an end.
    pub ends: Option<Vec<Expiring>>,
    /// What was found at the start.
    pub found: Vec<Trouble>,
}

/// Something that ends: a certificate, a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expiring {
    /// What, for example `the secret of account office`.
    pub what: String,
    /// When it ends.
    pub at: Timestamp,
    /// What to do about it.
    pub remedy: String,
}

/// What is too much.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How old the oldest waiting message may be; `None` for any age.
    pub queue: Option<Duration>,
    /// How long mail may wait for a person.
    pub hold_for: Duration,
}

const DAY: Duration = Duration::from_secs(24 * 3600);

/// So long after the start an account that seems well is well: what waited has been tried until then.
const SETTLED: Duration = Duration::from_secs(120);

/// So many mailboxes of an account are told one by one.
const ONE_BY_ONE: usize = 3;

/// So long before its end something is told of, and weekly; in the last days daily.
const NEAR: Duration = Duration::from_secs(30 * 86_400);
const VERY_NEAR: Duration = Duration::from_secs(3 * 86_400);

/// What is in trouble, and what is not known. `told` is what was told by all ways.
#[must_use]
pub fn world(facts: &Facts, limits: &Limits, told: &[Told], now: Timestamp) -> World {
    let mut world = World {
        troubles: facts.found.clone(),
        unknown: Vec::new(),
    };
    match &facts.status {
        Some(status) => {
            for account in &status.accounts {
                broken(&mut world, account);
            }
            held(&mut world, status);
        }
        None => unclear(&mut world, &Topic::Held),
    }
    late(&mut world, facts, limits, now);
    held_long(&mut world, facts, limits, told, now);
    room(&mut world, facts.room, now);
    ends(&mut world, facts.ends.as_deref(), told, now);
    for told in told.iter().filter(|told| told.over.is_none()) {
        if let Some(topic) = Topic::named(&told.name)
            && is_unproven(&topic, facts, &world, now)
        {
            world.unknown.push(told.name.clone());
        }
    }
    world
}

fn broken(world: &mut World, account: &AccountStatus) {
    let name = &account.name;
    if let Health::Broken(trouble) = &account.health {
        let topic = Topic::Account(name.clone());
        let what = format!("No mail goes out through the account \"{name}\"");
        world
            .troubles
            .push(stopped(topic, &what, &trouble.cause, trouble.since));
    }
    let broken: Vec<_> = account
        .mailboxes
        .iter()
        .filter_map(|mailbox| match &mailbox.health {
            Health::Broken(trouble) => Some((&mailbox.mailbox, trouble)),
            _ => None,
        })
        .collect();
    if broken.len() <= ONE_BY_ONE {
        for (mailbox, trouble) in broken {
            let topic = Topic::Mailbox {
                account: name.clone(),
                mailbox: mailbox.clone(),
            };
            let what = format!("No mail goes out from the mailbox {mailbox} (account \"{name}\")");
            world
                .troubles
                .push(stopped(topic, &what, &trouble.cause, trouble.since));
        }
    } else if let Some((_, first)) = broken.iter().min_by_key(|(_, trouble)| trouble.since) {
        let what = format!(
            "No mail goes out from {} mailboxes of the account \"{name}\"; one of them says",
            broken.len()
        );
        let topic = Topic::Mailboxes(name.clone());
        world
            .troubles
            .push(stopped(topic, &what, &first.cause, first.since));
    }
}

fn stopped(topic: Topic, what: &str, cause: &Cause, since: Timestamp) -> Trouble {
    Trouble {
        topic,
        since,
        text: format!(
            "{what}: {}. Nothing is lost: it waits, and goes out by itself once this is put right.",
            cause.public.trim_end_matches('.')
        ),
        detail: cause.diagnostic.clone(),
        repeat: Some(DAY),
    }
}

fn held(world: &mut World, status: &Status) {
    let mailboxes = || status.accounts.iter().flat_map(|account| &account.mailboxes);
    let held: u64 = mailboxes().map(|mailbox| mailbox.held).sum();
    if held > 0 {
        world.troubles.push(Trouble {
            topic: Topic::Held,
            since: status.at,
            text: format!(
                "Held for you to decide, and not tried by themselves: {held} deliveries. \
                 `smtp-oauth-bridge queue list --state held` shows them with their reasons."
            ),
            detail: String::new(),
            repeat: Some(DAY),
        });
    }
}

fn late(world: &mut World, facts: &Facts, limits: &Limits, now: Timestamp) {
    let (Some(limit), Some(ages)) = (limits.queue, &facts.ages) else {
        return unclear(world, &Topic::Late);
    };
    let Some(oldest) = ages.waiting.as_ref().filter(|o| now.since(o.arrived) >= limit) else {
        return;
    };
    let account = account_of(facts, oldest);
    let mailbox = account.and_then(|a| {
        a.mailboxes
            .iter()
            .find(|m| Some(&m.mailbox) == oldest.mailbox.as_ref())
    });
    let health = || {
        [account.map(|a| &a.health), mailbox.map(|m| &m.health)]
            .into_iter()
            .flatten()
    };
    if health().any(|health| matches!(health, Health::Broken(_))) {
        // That is an alert of its own, which says more.
        return unclear(world, &Topic::Late);
    }
    let mut why = String::new();
    let mut detail = String::new();
    let paused = account
        .and_then(|a| a.paused)
        .or(facts.status.as_ref().and_then(|s| s.paused));
    if let Some(since) = paused {
        why = format!(" Its account is paused since {since}: `smtp-oauth-bridge resume` sends it.");
    } else if let Some(Health::Throttled(trouble)) =
        health().find(|health| matches!(health, Health::Throttled(_)))
    {
        why = format!(" The reason: {}.", trouble.cause.public.trim_end_matches('.'));
        detail.clone_from(&trouble.cause.diagnostic);
    }
    let age = now.since(oldest.arrived).as_secs();
    let age = if age < 60 { age } else { age / 60 * 60 };
    let age = format_duration(Duration::from_secs(age));
    world.troubles.push(Trouble {
        topic: Topic::Late,
        since: oldest.arrived.plus(limit),
        text: format!(
            "The oldest message waits for {age} already, since {}; the limit (queue_alert) is {}.{why} \
             `smtp-oauth-bridge status` and `smtp-oauth-bridge queue list` show more.",
            oldest.arrived,
            format_duration(limit)
        ),
        detail,
        repeat: Some(DAY),
    });
}

fn account_of<'a>(facts: &'a Facts, oldest: &Oldest) -> Option<&'a AccountStatus> {
    let accounts = &facts.status.as_ref()?.accounts;
    accounts
        .iter()
        .find(|account| Some(&account.name) == oldest.account.as_ref())
}

/// A restart forgets since when an account is broken; what was told of it has not forgotten.
fn held_long(world: &mut World, facts: &Facts, limits: &Limits, told: &[Told], now: Timestamp) {
    let Some(ages) = &facts.ages else {
        return unclear(world, &Topic::HeldLong);
    };
    let broken = world
        .troubles
        .iter()
        .filter(|trouble| trouble.topic.account().is_some());
    let since = broken.map(|trouble| {
        let name = trouble.topic.to_string();
        let before = told
            .iter()
            .filter(|told| told.name == name && told.over.is_none());
        before
            .map(|told| told.since)
            .min()
            .map_or(trouble.since, |since| since.min(trouble.since))
    });
    let held = ages.held.as_ref().map(|oldest| oldest.arrived);
    let Some(since) = since.chain(held).min() else {
        return;
    };
    if now.since(since) < limits.hold_for * 3 / 4 {
        return;
    }
    let limit = format_duration(limits.hold_for);
    let rest = match limits.hold_for.checked_sub(now.since(since)) {
        Some(_) => format!("the time for it (hold_for, {limit}) is nearly over"),
        None => format!("longer than the time for it (hold_for, {limit})"),
    };
    world.troubles.push(Trouble {
        topic: Topic::HeldLong,
        since: since.plus(limits.hold_for * 3 / 4),
        text: format!(
            "Mail waits since {since} for something that you must put right; {rest}. It stays in the queue, and its \
             senders think that it has arrived: `smtp-oauth-bridge status` says what is wrong."
        ),
        detail: String::new(),
        repeat: Some(DAY),
    });
}

fn room(world: &mut World, room: Option<SpoolRoom>, now: Timestamp) {
    let Some(SpoolRoom {
        used,
        max_size,
        free,
        min_free,
    }) = room
    else {
        unclear(world, &Topic::RoomShort);
        return unclear(world, &Topic::RoomGone);
    };
    let disk = free.map(|free| (free < min_free, free < min_free.saturating_add(min_free / 2)));
    let (disk_gone, disk_short) = disk.unwrap_or_default();
    let gone = used >= max_size || disk_gone;
    let short = used >= max_size / 10 * 9 || disk_short;
    let topic = match (gone, short) {
        (true, _) => Topic::RoomGone,
        (false, true) => Topic::RoomShort,
        (false, false) => return,
    };
    let mut text = if gone {
        // Going back to little room is no end of the trouble that was told before.
        unclear(world, &Topic::RoomShort);
        "There is no room for mail: devices and programs are told to try again later (452).".to_owned()
    } else {
        "There is little room left for mail.".to_owned()
    };
    if disk_gone || disk_short {
        text.push_str(&format!(
            " The disk of the spool has {} free; {} must stay free (spool.min_free). Free some space.",
            about(free.unwrap_or(0)),
            about(min_free)
        ));
    }
    if used >= max_size / 10 * 9 {
        text.push_str(&format!(
            " Waiting mail takes {} of {} (spool.max_size). Put right what stops it, or raise the limit.",
            about(used),
            about(max_size)
        ));
    }
    world.troubles.push(Trouble {
        topic,
        since: now,
        text,
        detail: String::new(),
        repeat: Some(DAY),
    });
}

/// A size as people read it.
fn about(octets: u64) -> String {
    const MIB: u64 = 1024 * 1024;
    format_size(if octets < MIB { octets } else { octets / MIB * MIB })
}

fn ends(world: &mut World, ends: Option<&[Expiring]>, told: &[Told], now: Timestamp) {
    let Some(ends) = ends else {
        let told = told
            .iter()
            .filter(|told| matches!(Topic::named(&told.name), Some(Topic::Expiring(_))));
        return world.unknown.extend(told.map(|told| told.name.clone()));
    };
    for Expiring { what, at, remedy } in ends {
        let left = at.since(now);
        if left > NEAR {
            continue;
        }
        let text = if left.is_zero() {
            format!("Out of date since {at}: {what}. {remedy}.")
        } else {
            // Begun days count.
            let days = left.as_secs().div_ceil(DAY.as_secs());
            let days = if days == 1 {
                "one more day".to_owned()
            } else {
                format!("{days} more days")
            };
            format!("Good for {days} only, until {at}: {what}. {remedy}.")
        };
        world.troubles.push(Trouble {
            topic: Topic::Expiring(what.clone()),
            since: at.minus(NEAR),
            text,
            detail: String::new(),
            repeat: Some(if left > VERY_NEAR { DAY * 7 } else { DAY }),
        });
    }
}

fn unclear(world: &mut World, topic: &Topic) {
    world.unknown.push(topic.to_string());
}

/// Whether what was told of an account may still be so although it is not known to be: nothing was tried since.
fn is_unproven(topic: &Topic, facts: &Facts, world: &World, now: Timestamp) -> bool {
    let Some(name) = topic.account() else { return false };
    if world
        .troubles
        .iter()
        .any(|trouble| trouble.topic == Topic::Mailboxes(name.to_owned()))
    {
        return matches!(topic, Topic::Mailbox { .. });
    }
    let Some(status) = &facts.status else { return true };
    if facts.well.contains(&topic.to_string()) {
        return false;
    }
    let account = status.accounts.iter().find(|account| account.name == name);
    let Some(account) = account.filter(|account| account.configured) else {
        return false;
    };
    let health = match topic {
        Topic::Mailbox { mailbox, .. } => {
            let mailbox = account.mailboxes.iter().find(|status| status.mailbox == *mailbox);
            mailbox.map_or(&Health::Well, |status| &status.health)
        }
        _ => &account.health,
    };
    let is_paused = account.paused.is_some() || status.paused.is_some();
    matches!(health, Health::Throttled(_)) || is_paused || now.since(facts.started) < SETTLED
}

#[cfg(test)]
#[path = "world_tests.rs"]
mod tests;
