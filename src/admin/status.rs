//! How the bridge stands, and whether somebody has to do something about it.

use super::office::{Office, OfficeError, Side};
use super::view::{Account, Deliveries, Health, Mailbox, Room, Status, about};

use crate::delivery::{self, AccountStatus, MailboxStatus};
use crate::mail::Timestamp;
use crate::spool::{LaneCounts, Overview, SpoolRoom};

impl Office {
    /// How the bridge stands.
    pub(super) async fn status(&self) -> Result<Status, OfficeError> {
        let overview = self.inspector().overview().await?;
        let now = self.facts.clock.now();
        let mut status = Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            hostname: self.facts.hostname.clone(),
            running: self.facts.started.is_some(),
            uptime_seconds: self.facts.started.map(|started| now.since(started).as_secs()),
            messages: overview.messages,
            deliveries: deliveries(&overview),
            oldest_waiting_seconds: overview.oldest_waiting.map(|oldest| now.since(oldest).as_secs()),
            ..Status::default()
        };
        match &self.side {
            Side::Open(operator, Some(running)) => {
                let delivery = running.control.status().await?;
                status.paused_since = delivery.paused.map(|since| since.to_string());
                status.accounts = delivery.accounts.iter().map(account).collect();
                status.room = Some(room(operator.room()));
            }
            Side::Open(..) | Side::Closed(_) => {
                let pause = |name: &str| overview.pauses.iter().find(|(paused, _)| paused == name);
                status.paused_since = pause("").map(|(_, since)| since.to_string());
                status.accounts = without_bridge(&overview.lanes, |name| {
                    pause(name).map(|(_, since)| since.to_string())
                });
            }
        }
        status.troubles = troubles(&status);
        status.healthy = status.troubles.is_empty();
        Ok(status)
    }
}

/// What somebody has to do. Dead letters are no trouble: whoever sent them was told. Neither is a pause: an
/// administrator wanted it.
fn troubles(status: &Status) -> Vec<String> {
    let mut troubles = Vec::new();
    if !status.running {
        troubles.push("the bridge does not run: no mail is accepted or sent".to_owned());
    }
    for account in &status.accounts {
        if account.configured == Some(false) {
            troubles.push(format!(
                "mail waits for the account {}, which is not in the configuration any more",
                account.name
            ));
        }
        let mailboxes = account.mailboxes.iter().map(|mailbox| {
            (
                format!("mailbox {} of account {}", mailbox.mailbox, account.name),
                &mailbox.health,
            )
        });
        let all = [(format!("account {}", account.name), &account.health)]
            .into_iter()
            .chain(mailboxes);
        for (what, health) in all.filter(|(_, health)| health.state == "broken") {
            let cause = health.cause.as_deref().unwrap_or("the reason is not known");
            troubles.push(format!("{what} is broken, its mail waits: {cause}"));
        }
    }
    if status.deliveries.held > 0 {
        troubles.push(format!(
            "held for a person: {} (`queue list --state held` shows them)",
            status.deliveries.held
        ));
    }
    if let Some(room) = status.room {
        if room.used >= room.max_size {
            troubles.push(format!(
                "the spool is full: waiting mail takes {} of {}, and no mail is accepted",
                about(room.used),
                about(room.max_size)
            ));
        }
        if let Some(free) = room.free.filter(|free| *free < room.min_free) {
            troubles.push(format!(
                "the disk is full: {} are free and {} must stay free, so no mail is accepted",
                about(free),
                about(room.min_free)
            ));
        }
    }
    troubles
}

fn deliveries(overview: &Overview) -> Deliveries {
    let sum = |count: fn(&LaneCounts) -> u64| overview.lanes.iter().map(count).sum::<u64>();
    Deliveries {
        waiting: (sum(|lane| lane.waiting) + overview.unplanned).saturating_sub(overview.sending),
        sending: overview.sending,
        held: sum(|lane| lane.held),
        failed: sum(|lane| lane.failed),
        uncertain: overview.uncertain,
    }
}

fn account(status: &AccountStatus) -> Account {
    Account {
        name: status.name.clone(),
        configured: Some(status.configured),
        paused_since: status.paused.map(|since| since.to_string()),
        health: health(&status.health),
        mailboxes: status.mailboxes.iter().map(mailbox).collect(),
    }
}

fn mailbox(status: &MailboxStatus) -> Mailbox {
    Mailbox {
        mailbox: status.mailbox.clone(),
        health: health(&status.health),
        waiting: status.waiting,
        held: status.held,
        failed: status.failed,
        under_way: status.under_way as u64,
    }
}

fn health(health: &delivery::Health) -> Health {
    let (state, trouble) = match health {
        delivery::Health::Well => ("well", None),
        delivery::Health::Throttled(trouble) => ("throttled", Some(trouble)),
        delivery::Health::Broken(trouble) => ("broken", Some(trouble)),
    };
    let moment = |of: fn(&delivery::Trouble) -> Timestamp| trouble.map(|trouble| of(trouble).to_string());
    Health {
        state: state.to_owned(),
        since: moment(|trouble| trouble.since),
        cause: trouble.map(|trouble| trouble.cause.public.clone()),
        detail: trouble.map(|trouble| trouble.cause.diagnostic.clone()),
        next_try: moment(|trouble| trouble.next_probe),
    }
}

/// The accounts that have mail, as far as the queue alone tells.
fn without_bridge(lanes: &[LaneCounts], paused: impl Fn(&str) -> Option<String>) -> Vec<Account> {
    let mut accounts: Vec<Account> = Vec::new();
    let unknown = || Health {
        state: "unknown".to_owned(),
        ..Health::default()
    };
    for counts in lanes {
        let name = &counts.lane.account;
        if accounts.last().is_none_or(|account| account.name != *name) {
            accounts.push(Account {
                name: name.clone(),
                configured: None,
                paused_since: paused(name),
                health: unknown(),
                mailboxes: Vec::new(),
            });
        }
        if let Some(account) = accounts.last_mut() {
            account.mailboxes.push(Mailbox {
                mailbox: counts.lane.mailbox.clone(),
                health: unknown(),
                waiting: counts.waiting,
                held: counts.held,
                failed: counts.failed,
                under_way: 0,
            });
        }
    }
    accounts
}

fn room(room: SpoolRoom) -> Room {
    Room {
        used: room.used,
        max_size: room.max_size,
        free: room.free,
        min_free: room.min_free,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn well() -> Status {
        Status {
            running: true,
            room: Some(Room {
                used: 1,
                max_size: 100,
                free: Some(50),
                min_free: 10,
            }),
            accounts: vec![Account {
                name: "office".to_owned(),
                configured: Some(true),
                paused_since: Some("2026-11-21T08:00:00.000Z".to_owned()),
                health: Health {
                    state: "throttled".to_owned(),
                    ..Health::default()
                },
                mailboxes: Vec::new(),
            }],
            deliveries: Deliveries {
                failed: 7,
                waiting: 1_000,
                ..Deliveries::default()
            },
            ..Status::default()
        }
    }

    #[test]
    fn what_passes_by_itself_is_no_trouble() {
        assert_eq!(troubles(&well()), [""; 0]);
    }

    #[test]
    fn what_a_person_must_do_is_trouble() {
        type Row = (fn(&mut Status), &'static str);
        let table: [Row; 7] = [
            (|status| status.running = false, "does not run"),
            (|status| status.deliveries.held = 2, "held for a person: 2"),
            (
                |status| status.accounts[0].health.state = "broken".to_owned(),
                "account office is broken",
            ),
            (
                |status| status.accounts[0].configured = Some(false),
                "not in the configuration",
            ),
            (|status| status.room.as_mut().unwrap().used = 100, "spool is full"),
            (
                |status| status.room.as_mut().unwrap().free = Some(9),
                "disk is full",
            ),
            (
                |status| {
                    let health = Health {
                        state: "broken".to_owned(),
                        cause: Some("The mailbox is disabled.".to_owned()),
                        ..Health::default()
                    };
                    status.accounts[0].mailboxes.push(Mailbox {
                        mailbox: "a@x.example".to_owned(),
                        health,
                        waiting: 1,
                        held: 0,
                        failed: 0,
                        under_way: 0,
                    });
                },
                "mailbox a@x.example of account office is broken, its mail waits: The mailbox is disabled.",
            ),
        ];
        for (spoil, wanted) in table {
            let mut status = well();
            spoil(&mut status);
            let found = troubles(&status);
            assert!(found.len() == 1 && found[0].contains(wanted), "{found:?}");
        }
    }
}
