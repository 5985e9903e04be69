//! The one task that looks, decides and sends.

use super::decide::{Tell, Told, World, decide};
use super::topic::{Topic, Trouble};
use super::ways::{Unsent, Way};
use super::world::{Expiring, Facts, Limits, world};
use crate::clock::Clock;
use crate::delivery::{Attention, Control, Place, Status};
use crate::mail::Timestamp;
use crate::spool::{Operator, Reports, Store, ToldAlert};
use crate::telemetry::event::{Alerted, What};
use crate::telemetry::{Event, Maillog};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

/// What alerts are about, and how they go.
#[derive(Clone)]
pub struct Settings {
    /// How they go; without any, nothing is done.
    pub ways: Vec<Way>,
    /// What is too much.
    pub limits: Limits,
    /// Who we are.
    pub hostname: String,
    /// What was found at the start.
    pub found: Vec<Trouble>,
    /// What ends when, as it is now; `None` if that cannot be found out. May block on the disk.
    pub ends: Ends,
}

/// How it is found out what ends when.
pub type Ends = Arc<dyn Fn(Timestamp) -> Option<Vec<Expiring>> + Send + Sync>;

/// Tells administrators when mail stops.
pub struct Alerts {
    store: Store,
    operator: Operator,
    control: Control,
    news: Receiver<Attention>,
    clock: Clock,
    settings: Settings,
    senders: Vec<Sender>,
    sending: JoinSet<Sent>,
    facts: Facts,
    world: World,
    /// Since when each trouble lasts, where nobody else remembers it.
    since: HashMap<String, Timestamp>,
    /// When it is looked again what ends when.
    look_at_ends: Instant,
    /// Rows that could not be written yet; what they say was told.
    unwritten: Vec<ToldAlert>,
    /// Whether what was told in earlier runs was read; nothing is told before.
    told_read: bool,
}

/// One way, with what it was told.
struct Sender {
    way: Arc<Way>,
    told: Vec<Told>,
    busy: bool,
    failures: usize,
    /// Not before this moment.
    next: Instant,
    /// What could not go this way at the last look.
    no_way: HashSet<String>,
    /// Of what the log says so already.
    said: HashSet<String>,
}

/// What came of sending.
struct Sent {
    sender: usize,
    tell: Tell,
    at: Timestamp,
    result: Result<Reports, Unsent>,
}

/// How often it is looked how things are, if nothing happens.
const LOOK: Duration = Duration::from_secs(30);

/// How long after a look the next one may come, if something happens.
const SOON: Duration = Duration::from_secs(1);

const LOOK_AT_ENDS: Duration = Duration::from_secs(3600);

/// How long the runner may take to say how things are.
const PATIENCE: Duration = Duration::from_secs(10);

/// Seconds to wait after an alert could not be sent; the last repeats.
const WAITS: [u64; 5] = [2, 10, 60, 300, 900];

impl Alerts {
    /// Watches what `control` and `operator` lead to. Nothing happens before it is run; what the runner says from now on
    /// is heard.
    #[must_use]
    pub fn new(store: Store, operator: Operator, control: Control, clock: Clock, settings: Settings) -> Self {
        let sender = |way: &Way| Sender {
            way: Arc::new(way.clone()),
            told: Vec::new(),
            busy: false,
            failures: 0,
            next: Instant::now(),
            no_way: HashSet::new(),
            said: HashSet::new(),
        };
        Self {
            store,
            operator,
            news: control.attention(),
            control,
            senders: settings.ways.iter().map(sender).collect(),
            sending: JoinSet::new(),
            facts: Facts {
                started: clock.now(),
                status: None,
                well: Vec::new(),
                ages: None,
                room: None,
                ends: None,
                found: settings.found.clone(),
            },
            clock,
            settings,
            world: World::default(),
            since: HashMap::new(),
            look_at_ends: Instant::now(),
            unwritten: Vec::new(),
            told_read: false,
        }
    }

    /// Tells administrators until `stop`. What is being sent then is told again in the next run.
    pub async fn run(mut self, stop: CancellationToken) {
        if self.senders.is_empty() {
            return;
        }
        let mut last = None;
        let mut look = Instant::now();
        let mut listening = true;
        loop {
            let retry = self
                .senders
                .iter()
                .filter(|s| !s.busy && s.failures > 0)
                .map(|s| s.next)
                .min();
            let wake = retry.map_or(look, |retry| retry.min(look));
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep_until(wake) => {}
                news = self.news.recv(), if listening => {
                    listening = self.hear(news);
                    let soon = last.map_or_else(Instant::now, |last: Instant| last + SOON);
                    look = look.min(soon);
                }
                Some(sent) = self.sending.join_next() => {
                    // A task that panicked is told by its hook; its way stays busy, and the others go on.
                    if let Ok(sent) = sent {
                        self.sent(sent).await;
                    }
                }
            }
            if Instant::now() >= look {
                self.look().await;
                last = Some(Instant::now());
                look = Instant::now() + self.until_next_look();
            }
            self.send();
        }
    }

    /// Takes in what the runner says; false if it will say nothing more.
    fn hear(&mut self, news: Result<Attention, RecvError>) -> bool {
        match news {
            Ok(Attention::Well { place, .. }) => {
                let name = name_of(place);
                if !self.facts.well.contains(&name) {
                    self.facts.well.push(name);
                }
            }
            Ok(Attention::Broken { place, .. } | Attention::Throttled { place, .. }) => {
                let name = name_of(place);
                self.facts.well.retain(|well| *well != name);
            }
            // Something was missed, which may be that an account broke again.
            Err(RecvError::Lagged(_)) => self.facts.well.clear(),
            // The look that follows sees what waits for a person.
            Ok(
                Attention::HoldEnds { .. } | Attention::HeldTooLong { .. } | Attention::PersonNeeded { .. }
                // Mail does not stop at a limit, it waits; if it waits for long, that is told.
                | Attention::Limit { .. },
            ) => {}
            Err(RecvError::Closed) => return false,
        }
        true
    }

    /// Finds out how things are.
    async fn look(&mut self) {
        if !self.told_read {
            match self.store.alerts().await {
                Ok(rows) => self.remember(rows),
                Err(error) => return tracing::error!(%error, "it cannot be read which alerts were told"),
            }
        }
        for row in std::mem::take(&mut self.unwritten) {
            self.write(row, Reports::default()).await;
        }
        let status = timeout(PATIENCE, self.control.status()).await;
        self.facts.status = status.ok().and_then(Result::ok);
        self.facts.ages = match timeout(PATIENCE, self.operator.inspector().ages()).await {
            Ok(Ok(ages)) => Some(ages),
            _ => None,
        };
        let operator = self.operator.clone();
        let room = tokio::task::spawn_blocking(move || operator.room());
        self.facts.room = timeout(PATIENCE, room).await.ok().and_then(Result::ok);
        let now = self.clock.now();
        if Instant::now() >= self.look_at_ends {
            let ends = self.settings.ends.clone();
            let found = tokio::task::spawn_blocking(move || ends(now));
            if let Ok(Ok(Some(found))) = timeout(PATIENCE, found).await {
                self.facts.ends = Some(found);
            }
            self.look_at_ends = Instant::now() + LOOK_AT_ENDS;
        }
        let told: Vec<Told> = self
            .senders
            .iter()
            .flat_map(|sender| sender.told.clone())
            .collect();
        self.world = world(&self.facts, &self.settings.limits, &told, now);
        let mut since = HashMap::new();
        for trouble in &mut self.world.troubles {
            let name = trouble.topic.to_string();
            let first = self.since.get(&name).copied().unwrap_or(trouble.since);
            trouble.since = first.min(trouble.since);
            since.insert(name, trouble.since);
        }
        self.since = since;
        for sender in &mut self.senders {
            sender.no_way.clear();
            let told = &sender.told;
            sender.said.retain(|name| {
                self.since.contains_key(name) || told.iter().any(|t| t.name == *name && t.over.is_none())
            });
        }
    }

    /// So that a message which gets too old is told of when it does.
    fn until_next_look(&self) -> Duration {
        let oldest = self.facts.ages.as_ref().and_then(|ages| ages.waiting.as_ref());
        let late = oldest
            .zip(self.settings.limits.queue)
            .map(|(oldest, limit)| oldest.arrived.plus(limit));
        let now = self.clock.now();
        match late {
            Some(late) if late >= now => late.since(now).clamp(SOON, LOOK),
            _ => LOOK,
        }
    }

    /// What earlier runs have told.
    fn remember(&mut self, rows: Vec<ToldAlert>) {
        for sender in &mut self.senders {
            let mine = rows.iter().filter(|row| row.way == sender.way.name());
            sender.told = mine
                .map(|row| Told {
                    name: row.name.clone(),
                    since: row.since,
                    told: row.told,
                    over: row.over,
                    text: row.text.clone(),
                })
                .collect();
        }
        self.told_read = true;
    }

    /// Starts what is to be told: one alert at a time for each way.
    fn send(&mut self) {
        if !self.told_read {
            return;
        }
        let at = self.clock.now();
        for (number, sender) in self.senders.iter_mut().enumerate() {
            if sender.busy || Instant::now() < sender.next {
                continue;
            }
            let mut due = decide(&self.world, &sender.told, at).into_iter();
            // What has no way does not keep the others; it is asked again at the next look.
            let Some(tell) = due.find(|tell| !sender.no_way.contains(&name(tell))) else {
                continue;
            };
            sender.busy = true;
            let (way, host) = (sender.way.clone(), self.settings.hostname.clone());
            let status: Option<Status> = self.facts.status.clone();
            self.sending.spawn(async move {
                let result = way.send(&tell, status.as_ref(), &host, at).await;
                Sent {
                    sender: number,
                    tell,
                    at,
                    result,
                }
            });
        }
    }

    async fn sent(&mut self, sent: Sent) {
        let Sent {
            sender: number,
            tell,
            at,
            result,
        } = sent;
        let Some(sender) = self.senders.get_mut(number) else {
            return;
        };
        sender.busy = false;
        let (way, name) = (sender.way.clone(), name(&tell));
        let mail = match result {
            Ok(mail) => mail,
            Err(Unsent::NoWay(reason)) => {
                if sender.said.insert(name.clone()) {
                    tracing::warn!(alert = name, way = %way, reason, "an alert cannot be told this way");
                }
                sender.no_way.insert(name);
                return;
            }
            Err(Unsent::Later(reason)) => return self.failed(number, &name, &reason),
        };
        let row = row(&tell, &way, at);
        let is_mail = !mail.new.is_empty();
        if is_mail && !self.write(row.clone(), mail).await {
            // What could not be queued was not told.
            self.unwritten.pop();
            return self.failed(number, &name, "it cannot be queued at the moment");
        }
        let Some(sender) = self.senders.get_mut(number) else {
            return;
        };
        sender.failures = 0;
        sender.told.retain(|told| told.name != name);
        sender.told.push(Told {
            name: row.name.clone(),
            since: row.since,
            told: row.told,
            over: row.over,
            text: row.text.clone(),
        });
        if !is_mail {
            self.write(row, Reports::default()).await;
        }
    }

    fn failed(&mut self, number: usize, name: &str, reason: &str) {
        let Some(sender) = self.senders.get_mut(number) else {
            return;
        };
        let seconds = WAITS[sender.failures.min(WAITS.len() - 1)];
        sender.failures += 1;
        sender.next = Instant::now() + Duration::from_secs(seconds);
        tracing::warn!(
            alert = name, way = %sender.way, reason, again_in = %format!("{seconds}s"),
            "an alert could not be sent"
        );
    }

    /// Remembers that an alert was told, with the mail that tells it; what cannot be written is kept for the next look.
    async fn write(&mut self, row: ToldAlert, mut mail: Reports) -> bool {
        let alerted = Alerted {
            name: row.name.clone(),
            way: row.way.clone(),
            over: row.over.is_some_and(|over| over > row.told),
            text: row.text.clone(),
        };
        let at = row.over.unwrap_or(row.told);
        mail.events
            .push(Event::new(at, None, What::Alerted(alerted.clone())).to_json());
        let is_mail = !mail.new.is_empty();
        match self.store.alerted(row.clone(), mail).await {
            Ok(()) => {
                if is_mail {
                    // It is planned already; if the runner stops, the next one finds it.
                    let _ = self.control.look_again().await;
                }
                Maillog.alerted(&alerted);
                true
            }
            Err(error) => {
                tracing::warn!(%error, alert = row.name, "it could not be written that an alert was told");
                self.unwritten.push(row);
                false
            }
        }
    }
}

fn name(tell: &Tell) -> String {
    match tell {
        Tell::Trouble { trouble, .. } => trouble.topic.to_string(),
        Tell::Over(told) => told.name.clone(),
    }
}

/// What is remembered once `tell` was told at `at`.
fn row(tell: &Tell, way: &Way, at: Timestamp) -> ToldAlert {
    let way = way.name().to_owned();
    match tell {
        Tell::Trouble { trouble, .. } => ToldAlert {
            name: trouble.topic.to_string(),
            way,
            since: trouble.since,
            told: at,
            over: trouble.repeat.is_none().then_some(at),
            text: trouble.text.clone(),
        },
        Tell::Over(told) => ToldAlert {
            name: told.name.clone(),
            way,
            since: told.since,
            told: told.told,
            over: Some(at),
            text: told.text.clone(),
        },
    }
}

/// The name of the topic that a trouble of `place` is.
fn name_of(place: Place) -> String {
    let Place { account, mailbox } = place;
    match mailbox {
        None => Topic::Account(account).to_string(),
        Some(mailbox) => Topic::Mailbox { account, mailbox }.to_string(),
    }
}

impl fmt::Debug for Alerts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Alerts")
            .field("ways", &self.settings.ways)
            .finish_non_exhaustive()
    }
}
