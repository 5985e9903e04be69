//! The loop that decides when something is tried. The only place in this room that waits for time.

use super::attempt::{Context, attempt, interrupted};
use super::gates::{Change, Gate, Gates, Passage};
use super::plan::Planner;
use super::retry::Schedule;
use super::settle::GateNews;
use crate::clock::Clock;
use crate::mail::Cause;
use crate::mail::QueueId;
use crate::mail::Timestamp;
use crate::spool::{Agenda, Lane, Part, PartId, Slots, Store, StoreError};
use crate::telemetry::Maillog;
use crate::upstream::Upstream;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The upstream of each account, by the account's name.
pub type Upstreams = HashMap<String, Arc<dyn Upstream>>;

/// Delivers what is in the spool, until it is stopped.
pub struct Runner {
    context: Context,
    planner: Planner,
    upstreams: Upstreams,
    gates: Gates,
    tasks: JoinSet<Finished>,
    attempts: HashMap<Id, PartId>,
    lanes: HashMap<PartId, Lane>,
    planning: HashSet<QueueId>,
    /// Parts whose attempt ended in a bug; not tried again before the next start.
    abandoned: HashSet<PartId>,
}

/// What a task came to.
enum Finished {
    Planned(QueueId),
    Attempted(PartId, Vec<GateNews>),
}

/// Attempts under way at most, over all mailboxes.
const MAX_ATTEMPTS: usize = 64;

/// Requests in flight for one mailbox at most (Microsoft Graph, "Outlook service limits").
const MAX_PER_LANE: usize = 4;

/// Messages being planned at most.
const MAX_PLANNING: usize = 32;

/// How often the queue is looked at when nothing seems to be due, as a safety net.
const LOOK: Duration = Duration::from_secs(60);

/// How long to wait after the queue could not be read.
const SPOOL_TROUBLE: Duration = Duration::from_secs(1);

impl Runner {
    /// A runner for `store` that introduces itself as `hostname` in Received fields.
    #[must_use]
    pub fn new(
        store: Store,
        planner: Planner,
        upstreams: Upstreams,
        schedule: Schedule,
        clock: Clock,
        hostname: String,
    ) -> Self {
        Self {
            context: Context {
                store,
                schedule,
                clock,
                maillog: Maillog,
                hostname,
                stop: CancellationToken::new(),
            },
            planner,
            upstreams,
            gates: Gates::default(),
            tasks: JoinSet::new(),
            attempts: HashMap::new(),
            lanes: HashMap::new(),
            planning: HashSet::new(),
            abandoned: HashSet::new(),
        }
    }

    /// Delivers until `stop`, then lets the attempts under way finish for at most `grace`. What is left after that
    /// is dropped, and uncertain at the next start.
    pub async fn run(mut self, stop: CancellationToken, grace: Duration) {
        self.context.stop = stop.clone();
        self.settle_interrupted().await;
        while !stop.is_cancelled() {
            let wake = self.launch().await;
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.context.store.arrival() => {}
                () = tokio::time::sleep_until(wake) => {}
                Some(finished) = self.tasks.join_next_with_id() => self.finished(finished),
            }
        }
        let deadline = Instant::now() + grace;
        while let Ok(Some(finished)) = tokio::time::timeout_at(deadline, self.tasks.join_next_with_id()).await
        {
            self.finished(finished);
        }
        if !self.lanes.is_empty() {
            tracing::warn!(
                attempts = self.lanes.len(),
                "stopped in the middle of attempts; they count as uncertain at the next start"
            );
        }
        self.tasks.shutdown().await;
    }

    /// Attempts that the last run did not see the end of.
    async fn settle_interrupted(&self) {
        match self.context.store.interrupted().await {
            Ok(parts) => {
                for part in parts {
                    interrupted(&self.context, part).await;
                }
            }
            Err(error) => tracing::error!(%error, "interrupted attempts could not be read"),
        }
    }

    /// Starts everything that is due and allowed; answers when to look again if nothing else happens.
    async fn launch(&mut self) -> Instant {
        let now = self.context.clock.now();
        let agenda = match self.agenda(now).await {
            Ok(agenda) => agenda,
            Err(error) => {
                tracing::error!(%error, "the queue cannot be read");
                return Instant::now() + SPOOL_TROUBLE;
            }
        };
        let Agenda {
            unplanned,
            due,
            next_due,
        } = agenda;
        for id in unplanned {
            if self.planning.len() < MAX_PLANNING && !self.planning.contains(&id) {
                self.start_planning(id);
            }
        }
        for part in due {
            let lane = lane_of(&part);
            let taken = self.lanes.contains_key(&part.id) || self.abandoned.contains(&part.id);
            if taken || self.lanes.len() >= MAX_ATTEMPTS {
                continue;
            }
            match self.gates.passage(&lane, now) {
                Passage::Open if self.under_way(&lane) < MAX_PER_LANE => self.start_attempt(part, lane),
                Passage::Probe { .. } if self.under_way(&lane) == 0 => {
                    self.gates.probe_started(&lane);
                    self.start_attempt(part, lane);
                }
                Passage::Open | Passage::Probe { .. } | Passage::Probing | Passage::Closed { .. } => {}
            }
        }
        let wake = [next_due, self.gates.next_probe(now)].into_iter().flatten().min();
        let wait = wake.map_or(LOOK, |wake| wake.since(now).max(Duration::from_millis(1)));
        Instant::now() + wait.min(LOOK)
    }

    async fn agenda(&self, now: Timestamp) -> Result<Agenda, StoreError> {
        // What is under way is still due in the eyes of the spool until its marker is written: ask for as many
        // more.
        let mut under_way: HashMap<Lane, usize> = HashMap::new();
        for lane in self.lanes.values() {
            *under_way.entry(lane.clone()).or_default() += 1;
        }
        let gates = self.gates.clone();
        let slots = move |lane: &Lane| {
            let under_way = under_way.get(lane).copied().unwrap_or(0);
            match gates.passage(lane, now) {
                Passage::Open => Slots {
                    take: MAX_PER_LANE + under_way,
                    skip: 0,
                },
                Passage::Probe { turn } => Slots {
                    take: 1 + under_way,
                    skip: turn as usize,
                },
                Passage::Closed { .. } | Passage::Probing => Slots { take: 0, skip: 0 },
            }
        };
        self.context
            .store
            .agenda(now, self.planning.len() + MAX_PLANNING, slots)
            .await
    }

    fn under_way(&self, lane: &Lane) -> usize {
        self.lanes.values().filter(|other| *other == lane).count()
    }

    fn start_planning(&mut self, id: QueueId) {
        self.planning.insert(id);
        let (context, planner) = (self.context.clone(), self.planner.clone());
        self.tasks.spawn(async move {
            plan(&context, planner, id).await;
            Finished::Planned(id)
        });
    }

    fn start_attempt(&mut self, part: Part, lane: Lane) {
        let id = part.id;
        let upstream = self.upstreams.get(&part.account).cloned();
        let context = self.context.clone();
        let task = self
            .tasks
            .spawn(async move { Finished::Attempted(id, attempt(&context, part, upstream).await) });
        self.attempts.insert(task.id(), id);
        self.lanes.insert(id, lane);
    }

    fn finished(&mut self, finished: Result<(Id, Finished), JoinError>) {
        match finished {
            Ok((_, Finished::Planned(id))) => {
                self.planning.remove(&id);
            }
            Ok((task, Finished::Attempted(part, news))) => {
                self.attempts.remove(&task);
                if let Some(lane) = self.lanes.remove(&part) {
                    self.hear(&lane, news);
                }
            }
            Err(error) => self.abandon(&error),
        }
    }

    /// A task panicked: nothing is lost, but what it was about is left alone until the next start.
    fn abandon(&mut self, error: &JoinError) {
        tracing::error!(%error, "an attempt ended in a bug of this program; please report it");
        if let Some(part) = self.attempts.remove(&error.id()) {
            self.abandoned.insert(part);
            if let Some(lane) = self.lanes.remove(&part) {
                self.hear(&lane, Vec::new());
            }
        }
    }

    fn hear(&mut self, lane: &Lane, news: Vec<GateNews>) {
        let now = self.context.clock.now();
        for news in news {
            match news {
                GateNews::Open(gate) => {
                    let change = self.gates.open(&gate, now);
                    self.tell(change, None);
                }
                GateNews::Close { gate, cause, broken } => {
                    let change = self.gates.close(gate, &cause, now);
                    self.tell(change, Some((&cause, broken)));
                }
            }
        }
        self.gates.attempt_ended(lane, now);
    }

    fn tell(&self, change: Option<Change>, cause: Option<(&Cause, bool)>) {
        let maillog = self.context.maillog;
        match (change, cause) {
            (Some(Change::Opened(gate, closed_for)), _) => {
                let (account, mailbox) = named(&gate);
                maillog.gate_opened(account, mailbox, closed_for);
            }
            (Some(Change::Closed(gate, probe)), Some((cause, broken))) => {
                let (account, mailbox) = named(&gate);
                maillog.gate_closed(account, mailbox, cause, broken, probe);
            }
            _ => {}
        }
    }
}

fn lane_of(part: &Part) -> Lane {
    Lane {
        account: part.account.clone(),
        mailbox: part.mailbox.clone(),
    }
}

fn named(gate: &Gate) -> (&str, Option<&crate::mail::Address>) {
    match gate {
        Gate::Account(account) => (account, None),
        Gate::Mailbox(lane) => (&lane.account, Some(&lane.mailbox)),
    }
}

/// Plans a message; one that cannot be read or written stays unplanned and is tried again.
async fn plan(context: &Context, planner: Planner, id: QueueId) {
    let planned = async {
        let (message, body) = context.store.message(id).await?;
        let parts = tokio::task::spawn_blocking(move || planner.plan(&message, &body));
        let parts = parts.await.map_err(|_| StoreError::Closing)?.map_err(|error| {
            tracing::error!(%id, %error, "a message cannot be planned");
            StoreError::Unknown(id)
        })?;
        let plan = parts.iter().map(|planned| planned.part.clone()).collect();
        context.store.plan(id, plan, context.clock.now()).await?;
        Ok::<_, StoreError>(parts)
    };
    match planned.await {
        Ok(parts) => {
            for (number, planned) in (0u32..).zip(parts) {
                let part = planned.part;
                context.maillog.planned(
                    id,
                    number,
                    &part.account,
                    &part.mailbox,
                    part.recipients.len(),
                    &planned.summary,
                );
            }
        }
        Err(error) => {
            tracing::error!(%id, %error, "planning was put off");
            tokio::time::sleep(SPOOL_TROUBLE).await;
        }
    }
}
