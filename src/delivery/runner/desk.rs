//! What the runner answers to those who hold a [`Control`](super::Control).

use super::{ALL, Runner, Work};
use crate::delivery::control::{
    AccountStatus, ControlError, Health, MailboxStatus, Request, Status, Trouble,
};
use crate::delivery::gates::{Gate, State};
use crate::mail::Timestamp;
use crate::spool::{Lane, LaneCounts};
use std::collections::{BTreeMap, HashMap};
use tokio::time::Instant;

impl Runner {
    /// Does what a request asks for. Who no longer waits for the answer does not get it.
    pub(super) async fn serve(&mut self, request: Request) {
        match request {
            Request::Status(answer) => drop(answer.send(self.status().await)),
            Request::Pause(account, answer) => drop(answer.send(self.pause(account).await)),
            Request::Resume(account, answer) => drop(answer.send(self.resume(account).await)),
            Request::LookAgain => self.survey = Instant::now(),
        }
    }

    async fn status(&self) -> Result<Status, ControlError> {
        let counts = self.context.store.lanes().await;
        let mut accounts: BTreeMap<String, AccountStatus> = BTreeMap::new();
        for name in self.upstreams.keys() {
            self.account(&mut accounts, name);
        }
        for LaneCounts {
            lane,
            waiting,
            held,
            failed,
        } in counts.map_err(ControlError::Unreadable)?
        {
            let mailbox = self.mailbox(&mut accounts, &lane);
            (mailbox.waiting, mailbox.held, mailbox.failed) = (waiting, held, failed);
        }
        let mut under_way: HashMap<&Lane, usize> = HashMap::new();
        for work in self.work.values() {
            if let Work::Attempt { lane, .. } = work {
                *under_way.entry(lane).or_default() += 1;
            }
        }
        for (lane, count) in under_way {
            self.mailbox(&mut accounts, lane).under_way = count;
        }
        let (at, moment) = (self.context.clock.now(), Instant::now());
        for (gate, state) in self.gates.closed() {
            let health = health(
                state,
                self.broken.get(gate).map(|broken| broken.since),
                at,
                moment,
            );
            match gate {
                Gate::Account(name) => self.account(&mut accounts, name).health = health,
                Gate::Mailbox(lane) => self.mailbox(&mut accounts, lane).health = health,
            }
        }
        for (lane, health) in self.days_over() {
            let mailbox = self.mailbox(&mut accounts, lane);
            if mailbox.health == Health::Well {
                mailbox.health = health;
            }
        }
        let planning = self
            .work
            .values()
            .filter(|work| matches!(work, Work::Planning(_)));
        Ok(Status {
            at,
            paused: self.paused.get(ALL).copied(),
            planning: planning.count(),
            accounts: accounts.into_values().collect(),
        })
    }

    fn account<'a>(
        &self,
        accounts: &'a mut BTreeMap<String, AccountStatus>,
        name: &str,
    ) -> &'a mut AccountStatus {
        accounts.entry(name.to_owned()).or_insert_with(|| AccountStatus {
            name: name.to_owned(),
            configured: self.upstreams.contains_key(name),
            paused: self.paused.get(name).copied(),
            health: Health::Well,
            mailboxes: Vec::new(),
        })
    }

    fn mailbox<'a>(
        &self,
        accounts: &'a mut BTreeMap<String, AccountStatus>,
        lane: &Lane,
    ) -> &'a mut MailboxStatus {
        let mailboxes = &mut self.account(accounts, &lane.account).mailboxes;
        let at = mailboxes
            .binary_search_by(|known| known.mailbox.cmp(&lane.mailbox))
            .unwrap_or_else(|at| {
                let unknown = MailboxStatus {
                    mailbox: lane.mailbox.clone(),
                    health: Health::Well,
                    waiting: 0,
                    held: 0,
                    failed: 0,
                    under_way: 0,
                };
                mailboxes.insert(at, unknown);
                at
            });
        &mut mailboxes[at]
    }

    async fn pause(&mut self, account: Option<String>) -> Result<(), ControlError> {
        let account = self.known(account)?;
        let now = self.context.clock.now();
        // Written again if it is asked for again: the first time the disk may have failed.
        if self.paused.insert(account.clone(), now).is_none() {
            self.gates_moved((account != ALL).then_some(account.as_str()));
            self.context.maillog.paused(&account);
        }
        let written = self.context.store.pause(&account, now).await;
        written.map_err(|error| ControlError::Spool {
            done: "nothing is sent any more",
            error,
        })
    }

    async fn resume(&mut self, account: Option<String>) -> Result<(), ControlError> {
        let account = self.known(account)?;
        if account != ALL && self.paused.contains_key(ALL) {
            return Err(ControlError::AllPaused(account));
        }
        if account == ALL {
            self.paused.clear();
        } else {
            self.paused.remove(&account);
        }
        self.gates_moved((account != ALL).then_some(account.as_str()));
        self.context.maillog.resumed(&account);
        let written = self.context.store.resume(&account).await;
        written.map_err(|error| ControlError::Spool {
            done: "mail is sent again",
            error,
        })
    }

    /// The account of that name, or the name that stands for all.
    fn known(&self, account: Option<String>) -> Result<String, ControlError> {
        let Some(name) = account else {
            return Ok(ALL.to_owned());
        };
        // What is paused can be resumed, though the configuration may have lost it.
        if self.upstreams.contains_key(&name) || self.paused.contains_key(&name) && name != ALL {
            return Ok(name);
        }
        let mut known: Vec<&str> = self.upstreams.keys().map(String::as_str).collect();
        known.sort_unstable();
        Err(ControlError::UnknownAccount {
            name,
            known: known.join(", "),
        })
    }
}

/// The health that a closed gate means, in the time of day of `at`, which is `moment`.
fn health(state: State<'_>, broken: Option<Timestamp>, at: Timestamp, moment: Instant) -> Health {
    let ago = moment.saturating_duration_since(state.since);
    let trouble = Trouble {
        // It may have been broken in the last run already.
        since: broken.filter(|_| state.broken).unwrap_or(at.minus(ago)),
        cause: state.cause.clone(),
        next_probe: at.plus(state.until.saturating_duration_since(moment)),
    };
    if state.broken {
        Health::Broken(trouble)
    } else {
        Health::Throttled(trouble)
    }
}
