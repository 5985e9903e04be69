//! The loop that decides when something is tried. The only place in this room that waits for time.

mod desk;
mod held;
mod look;
mod pacing;
mod planning;

use super::attempt::{Context, OpenTime, attempt, interrupted};
use super::control::{Attention, Control, Desk, Place, Trouble, control};
use super::gates::{Change, Errand, Gate, Gates, Passage};
use super::lanes::Lanes;
use super::pace::{Pace, Paces, Ticket};
use super::plan::{Account, Planner};
use super::reports::{Reporter, Undertaker};
use super::retry::Schedule;
use super::settle::GateNews;
use crate::clock::Clock;
use crate::mail::Cause;
use crate::mail::QueueId;
use crate::mail::Timestamp;
use crate::report::Policy;
use crate::spool::{Broken, Lane, Part, PartId, Parts, Sent, Store, Turns};
use crate::upstream::Upstream;
use std::collections::{BTreeMap, HashMap, HashSet};
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
    lanes: Lanes,
    pace: Pace,
    /// Whose turn it is in each lane.
    turns: HashMap<Lane, Turns>,
    waiting: pacing::Waiting,
    /// Whether it was read what was sent in earlier runs; nothing is sent before.
    sent_read: bool,
    /// Whether there may be messages without a plan.
    unplanned: bool,
    /// When the whole queue is looked through again for lanes with mail.
    survey: Instant,
    /// Names this run where a time is counted within one.
    run_began: Timestamp,
    tasks: JoinSet<Finished>,
    work: HashMap<Id, Work>,
    /// Whether the attempts that the last run did not see the end of were found and are being settled.
    interrupted_found: bool,
    /// What a task panicked over; not touched again before the next start.
    abandoned: Abandoned,
    /// The time of day at the last look.
    last_look: Option<Timestamp>,
    /// Accounts whose mail waits because an administrator said so, and since when; the empty name is all of them.
    paused: BTreeMap<String, Timestamp>,
    /// What a person must put right, also from earlier runs.
    broken: BTreeMap<Gate, Broken>,
    /// Whether what earlier runs left to remember was read; nothing is sent before.
    remembered: bool,
    /// When it is looked next for what has been held for too long.
    held_look: Instant,
    desk: Desk,
    control: Control,
}

/// What a task is about.
#[derive(Debug)]
enum Work {
    Planning(QueueId),
    Attempt {
        part: PartId,
        lane: Lane,
        errand: Errand,
        ticket: Ticket,
    },
    /// Something else that must end before we do.
    Other,
}

/// What a task came to.
#[derive(Debug, Default)]
pub(super) struct Finished {
    /// What it tells about account and mailbox.
    pub(super) news: Vec<GateNews>,
    /// Lanes that have something new waiting.
    pub(super) lanes: Vec<Lane>,
    /// Parts whose own waits began in a trouble that is over now.
    pub(super) recovered: Vec<PartId>,
    /// True if the upstream was given the message.
    pub(super) tried: bool,
    /// What counts for the limits of the mailbox.
    pub(super) sent: Option<Sent>,
    /// Something was left without a plan.
    pub(super) unplanned: bool,
    /// What waits may have changed anywhere.
    pub(super) survey: bool,
    /// What somebody should be told.
    pub(super) attention: Vec<Attention>,
    /// Of what it was warned.
    pub(super) warned: Vec<Broken>,
}

impl Finished {
    /// Only these news.
    pub(super) fn telling(news: Vec<GateNews>) -> Self {
        Self {
            news,
            ..Self::default()
        }
    }
}

#[derive(Debug, Default)]
struct Abandoned {
    messages: HashSet<QueueId>,
    parts: HashSet<PartId>,
}

/// The name that stands for all accounts among those that are paused; no account has it.
const ALL: &str = "";

/// Attempts under way at most, over all mailboxes.
const MAX_ATTEMPTS: usize = 64;

/// Messages being planned at most.
const MAX_PLANNING: usize = 32;

/// How often the queue is looked at when nothing seems to be due, as a safety net.
const LOOK: Duration = Duration::from_secs(60);

/// How long to wait after the queue could not be read.
const SPOOL_TROUBLE: Duration = Duration::from_secs(1);

/// A clock that goes back by less than this is being corrected, not wrong.
const CLOCK_STEP: Duration = Duration::from_secs(30);

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
        let (control, desk) = control();
        Self {
            context: Context::new(store, schedule, clock, hostname),
            planner,
            upstreams,
            gates: Gates::default(),
            lanes: Lanes::default(),
            pace: Pace::default(),
            turns: HashMap::new(),
            waiting: pacing::Waiting::default(),
            sent_read: false,
            unplanned: true,
            survey: Instant::now(),
            run_began: clock.now(),
            tasks: JoinSet::new(),
            work: HashMap::new(),
            interrupted_found: false,
            abandoned: Abandoned::default(),
            last_look: None,
            paused: BTreeMap::new(),
            broken: BTreeMap::new(),
            remembered: false,
            held_look: Instant::now(),
            desk,
            control,
        }
    }

    /// The same, with reports to those who `policy` says, by mail through one of `accounts`; without this there are none.
    #[must_use]
    pub fn reporting(mut self, policy: Policy, accounts: Vec<Account>) -> Self {
        self.context.reporter = Reporter::new(
            policy,
            accounts,
            self.planner.clone(),
            self.context.hostname.clone(),
        );
        self
    }

    /// With these limits; without, Microsoft's hold for each account.
    #[must_use]
    pub fn with_paces(mut self, paces: Paces) -> Self {
        self.context.paces = Arc::new(paces.clone());
        self.pace = Pace::new(paces);
        self
    }

    /// A handle for those who want to know, or to pause.
    #[must_use]
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// For administrators who give messages up; after [`reporting`](Self::reporting).
    #[must_use]
    pub fn undertaker(&self) -> Undertaker {
        Undertaker::new(self.context.store.clone(), self.context.reporter.clone())
    }

    /// Delivers until `stop`, then lets the attempts under way finish for at most `grace`, and longer only for
    /// outcomes that are known and not yet written. What is dropped then is uncertain at the next start.
    pub async fn run(mut self, stop: CancellationToken, grace: Duration) {
        self.context.stop = stop.clone();
        while !stop.is_cancelled() {
            // Whatever ended meanwhile, so that one look does for all of it.
            while let Some(ended) = self.tasks.try_join_next_with_id() {
                self.ended(ended);
            }
            let wake = self.launch().await;
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.context.store.arrival() => self.unplanned = true,
                () = tokio::time::sleep_until(wake) => {}
                Some(ended) = self.tasks.join_next_with_id() => self.ended(ended),
                Some(request) = self.desk.requests.recv() => self.serve(request).await,
            }
        }
        // Nobody is answered any more.
        self.desk.requests.close();
        let deadline = Instant::now() + grace;
        loop {
            let deadline = deadline.max(Instant::now() + Duration::from_millis(100));
            match tokio::time::timeout_at(deadline, self.tasks.join_next_with_id()).await {
                Ok(Some(ended)) => self.ended(ended),
                Ok(None) => return,
                Err(_) if self.context.unwritten() > 0 => {}
                Err(_) => break,
            }
        }
        tracing::warn!(
            attempts = self.under_way(),
            "stopped in the middle of attempts; they count as uncertain at the next start"
        );
        self.tasks.shutdown().await;
    }

    /// Starts everything that is due and allowed; answers when to look again if nothing else happens.
    async fn launch(&mut self) -> Instant {
        let now = self.context.clock.now();
        self.read_sent(now).await;
        self.settle_interrupted().await;
        self.remember().await;
        self.mind_the_clock(now);
        self.mind_the_held();
        match self.look(now).await {
            Ok(wake) => wake,
            Err(error) => {
                tracing::error!(%error, "the queue cannot be read");
                Instant::now() + SPOOL_TROUBLE
            }
        }
    }

    /// A part whose row cannot be read waits for a person; the others go on.
    fn put_aside(&mut self, part: PartId, damage: &str) {
        if !self.abandoned.parts.insert(part) {
            return;
        }
        tracing::error!(id = %part.message, part = part.number, damage, "a damaged record is put aside and waits for a person");
        let context = self.context.clone();
        self.start_other(async move {
            context.put_aside(part).await;
            Finished::default()
        });
    }

    /// Attempts that the last run did not see the end of: looked for until they could be read once.
    async fn settle_interrupted(&mut self) {
        // What these have sent is counted besides what was read.
        if self.interrupted_found || !self.sent_read {
            return;
        }
        match self.context.store.interrupted().await {
            Ok(Parts { whole, damaged }) => {
                self.interrupted_found = true;
                for part in whole {
                    let context = self.context.clone();
                    let lanes = vec![lane_of(&part)];
                    let open = OpenTime {
                        run: self.run_began,
                        at: Duration::ZERO,
                    };
                    self.start_other(async move {
                        let sent = interrupted(&context, part, open).await;
                        Finished {
                            lanes,
                            sent,
                            ..Finished::default()
                        }
                    });
                }
                for (part, damage) in damaged {
                    self.put_aside(part, &damage);
                }
            }
            Err(error) => tracing::error!(%error, "interrupted attempts cannot be read yet"),
        }
    }

    /// When the clock was set back, or was wrong in an earlier run, what was due by it must not wait for years.
    fn mind_the_clock(&mut self, now: Timestamp) {
        let steady = self.last_look.is_some_and(|last| now.plus(CLOCK_STEP) >= last);
        self.last_look = Some(now);
        if steady {
            return;
        }
        let (store, horizon) = (
            self.context.store.clone(),
            now.plus(self.context.schedule.longest_wait()),
        );
        self.start_other(async move {
            if let Err(error) = store.rein_in(now, horizon).await {
                tracing::error!(%error, "the times of waiting messages could not be checked");
            }
            Finished {
                survey: true,
                ..Finished::default()
            }
        });
    }

    fn start_other(&mut self, work: impl Future<Output = Finished> + Send + 'static) {
        let task = self.tasks.spawn(work);
        self.work.insert(task.id(), Work::Other);
    }

    fn ended(&mut self, ended: Result<(Id, Finished), JoinError>) {
        match ended {
            Ok((task, mut finished)) => {
                let now = Instant::now();
                let work = self.work.remove(&task);
                for lane in &finished.lanes {
                    self.wake(lane, now);
                }
                self.unplanned |= finished.unplanned;
                self.warned(std::mem::take(&mut finished.warned));
                for attention in std::mem::take(&mut finished.attention) {
                    self.call_for(attention);
                }
                if finished.survey {
                    self.survey = now;
                }
                if let Some(Work::Attempt {
                    lane, errand, ticket, ..
                }) = work
                {
                    self.paid(&lane, ticket, &finished, now);
                    self.wake(&lane, now);
                    self.hasten(&lane, errand, finished.recovered);
                    self.hear(&lane, errand, finished.news);
                } else {
                    self.pace.restore(finished.sent);
                }
            }
            Err(error) => self.abandon(&error),
        }
    }

    /// A task panicked: nothing is lost, but what it was about is left alone until the next start.
    fn abandon(&mut self, error: &JoinError) {
        tracing::error!(%error, "an attempt ended in a bug of this program; please report it");
        match self.work.remove(&error.id()) {
            Some(Work::Planning(id)) => {
                self.abandoned.messages.insert(id);
            }
            Some(Work::Attempt {
                part,
                lane,
                errand,
                ticket,
            }) => {
                self.abandoned.parts.insert(part);
                self.paid(&lane, ticket, &Finished::default(), Instant::now());
                self.wake(&lane, Instant::now());
                self.hear(&lane, errand, Vec::new());
            }
            Some(Work::Other) | None => {}
        }
    }

    fn hear(&mut self, lane: &Lane, errand: Errand, news: Vec<GateNews>) {
        let now = Instant::now();
        let moved = !news.is_empty() || errand == Errand::Probe;
        for news in news {
            match news {
                GateNews::Open(gate) => {
                    let change = self.gates.open(&gate, errand, now);
                    self.tell(change, None);
                    self.mended(&gate);
                }
                GateNews::Close { gate, cause, broken } => {
                    if broken {
                        self.broke(&gate);
                    }
                    let change = self.gates.close(gate, &cause, broken, errand, now);
                    self.tell(change, Some((&cause, broken)));
                }
            }
        }
        if errand == Errand::Probe {
            self.gates.probe_ended(lane, now);
        }
        if moved && (errand == Errand::Probe || self.gates.passage(lane, now) != Passage::Open) {
            self.gates_moved(Some(&lane.account));
        }
    }

    /// After a gate of an account, or a pause, has changed: looks at what lies behind.
    fn gates_moved(&mut self, account: Option<&str>) {
        let now = Instant::now();
        for lane in self.lanes.of(account) {
            let open = self.is_open(&lane, now);
            self.lanes.set_open(&lane, open, now);
            self.lanes.wake(&lane, now, now, open);
        }
    }

    /// What began to wait in a trouble that a probe found to be over waits no longer.
    fn hasten(&mut self, lane: &Lane, errand: Errand, parts: Vec<PartId>) {
        if errand != Errand::Probe || parts.is_empty() {
            return;
        }
        let (store, now, lanes) = (
            self.context.store.clone(),
            self.context.clock.now(),
            vec![lane.clone()],
        );
        self.start_other(async move {
            if let Err(error) = store.hasten(parts, now).await {
                tracing::warn!(%error, "what waits for its own time could not be made due at once");
            }
            Finished {
                lanes,
                ..Finished::default()
            }
        });
    }

    fn wake(&mut self, lane: &Lane, now: Instant) {
        let open = self.is_open(lane, now);
        self.lanes.wake(lane, now, now, open);
    }

    fn is_open(&self, lane: &Lane, now: Instant) -> bool {
        !self.is_paused(&lane.account)
            && !self.is_day_over(lane)
            && self.gates.passage(lane, now) == Passage::Open
    }

    fn is_paused(&self, account: &str) -> bool {
        !self.remembered
            || !self.sent_read
            || self.paused.contains_key(ALL)
            || self.paused.contains_key(account)
    }

    /// Which accounts are paused, and what was broken: asked until it could be read once.
    async fn remember(&mut self) {
        if self.remembered {
            return;
        }
        let store = &self.context.store;
        match tokio::try_join!(store.pauses(), store.broken()) {
            Ok((pauses, broken)) => {
                for (account, since) in pauses {
                    self.context.maillog.still_paused(&account, since);
                    self.paused.insert(account, since);
                }
                self.remember_broken(broken);
                self.remembered = true;
                self.gates_moved(None);
            }
            Err(error) => {
                tracing::error!(%error, "it cannot be read which accounts are paused; nothing is sent yet")
            }
        }
    }

    fn tell(&self, change: Option<Change>, cause: Option<(&Cause, bool)>) {
        let maillog = self.context.maillog;
        match (change, cause) {
            (Some(Change::Opened(gate, closed_for)), _) => {
                let (account, mailbox) = named(&gate);
                maillog.gate_opened(account, mailbox, closed_for);
                let place = place(&gate);
                self.call_for(Attention::Well {
                    place,
                    after: closed_for,
                });
            }
            (Some(Change::Closed(gate, probe)), Some((cause, broken))) => {
                let (account, mailbox) = named(&gate);
                maillog.gate_closed(account, mailbox, cause, broken, probe);
                let now = self.context.clock.now();
                let trouble = Trouble {
                    since: now,
                    cause: cause.clone(),
                    next_probe: now.plus(probe),
                };
                let place = place(&gate);
                self.call_for(if broken {
                    Attention::Broken { place, trouble }
                } else {
                    Attention::Throttled { place, trouble }
                });
            }
            _ => {}
        }
    }

    fn call_for(&self, attention: Attention) {
        // Nobody listens: then nobody has to be told.
        let _ = self.desk.attention.send(attention);
    }
}

fn lane_of(part: &Part) -> Lane {
    Lane {
        account: part.account.clone(),
        mailbox: part.mailbox.to_string(),
    }
}

fn place(gate: &Gate) -> Place {
    let (account, mailbox) = named(gate);
    Place {
        account: account.to_owned(),
        mailbox: mailbox.map(str::to_owned),
    }
}

fn named(gate: &Gate) -> (&str, Option<&str>) {
    match gate {
        Gate::Account(account) => (account, None),
        Gate::Mailbox(lane) => (&lane.account, Some(&lane.mailbox)),
    }
}
