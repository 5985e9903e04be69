//! One attempt at one part: read, get ready, mark, deliver, settle.

use super::control::Attention;
use super::pace::Paces;
use super::plan::HeaderPlan;
use super::reports::{Case, Reporter, Tidings};
use super::retry::Schedule;
use super::runner::Finished;
use super::settle::{Moment, Verdict, settle, unprepared};
use super::suspicion::{Finding, Suspicion};
use crate::clock::Clock;
use crate::explain::local;
use crate::mail::Address;
use crate::mail::Disposition;
use crate::mail::Report;
use crate::mail::Scope;
use crate::mail::Timestamp;
use crate::mail::header::{HeaderBlock, Hop, MAX_HEADER_BLOCK, Protocol, received_field};
use crate::policy::check_recipients;
use crate::spool::{
    Body, Ending, Lane, Message, Next, Occasion, Part, PartId, PlannedPart, Reports, Sent, Store, StoreError,
};
use crate::telemetry::Maillog;
use crate::telemetry::event::{Attempted, Event, Outcome, Reported, Then, What};
use crate::upstream::Parcel;
use crate::upstream::Upstream;
use bytes::Bytes;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// What every attempt needs. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Context {
    pub(super) store: Store,
    pub(super) schedule: Schedule,
    pub(super) clock: Clock,
    pub(super) maillog: Maillog,
    pub(super) reporter: Reporter,
    /// The limits of each account's mailboxes.
    pub(super) paces: Arc<Paces>,
    pub(super) hostname: String,
    /// Cancelled when no attempt may begin any more.
    pub(super) stop: CancellationToken,
    /// How many outcomes are known and not yet written.
    unwritten: Arc<AtomicUsize>,
    /// What the last answers had in common. Held for a moment only: attempts of a mailbox end side by side.
    suspicion: Arc<Mutex<Suspicion>>,
}

/// How long mail of a lane could have gone in this run of the program when an attempt began.
#[derive(Clone, Copy, Debug)]
pub(super) struct OpenTime {
    /// When the run began.
    pub(super) run: Timestamp,
    /// How long.
    pub(super) at: Duration,
}

impl Context {
    pub(super) fn new(store: Store, schedule: Schedule, clock: Clock, hostname: String) -> Self {
        let (stop, unwritten) = (CancellationToken::new(), Arc::new(AtomicUsize::new(0)));
        let suspicion = Arc::new(Mutex::new(Suspicion::default()));
        Self {
            store,
            schedule,
            clock,
            maillog: Maillog,
            reporter: Reporter::default(),
            paces: Arc::default(),
            hostname,
            stop,
            unwritten,
            suspicion,
        }
    }

    /// How many outcomes are known and not yet written.
    pub(super) fn unwritten(&self) -> usize {
        self.unwritten.load(Ordering::Relaxed)
    }

    fn weigh(&self, part: &Part, report: &mut Report) -> Finding {
        let lane = Lane {
            account: part.account.clone(),
            mailbox: part.mailbox.to_string(),
        };
        // What a panic could leave half done is a row that is one short.
        let mut suspicion = self.suspicion.lock().unwrap_or_else(PoisonError::into_inner);
        suspicion.weigh(&lane, part.id, &mut report.dispositions)
    }

    /// Puts a part aside for a person, if the spool can be written; else it is met again at the next start.
    pub(super) async fn put_aside(&self, part: PartId) {
        if let Err(error) = self.store.hold(part).await {
            tracing::error!(id = %part.message, %error, "the damaged record could not be put aside");
        }
    }
}

/// After the spool failed us, nothing is tried for so long.
const SPOOL_TROUBLE: Duration = Duration::from_secs(1);

/// Tries `part` once, and writes down what came of it. Answers what that tells about account and mailbox.
///
/// Cancellation: leaves a marker behind if the upstream was called; the outcome is uncertain then.
pub(super) async fn attempt(
    context: &Context,
    part: Part,
    upstream: Option<Arc<dyn Upstream>>,
    open: OpenTime,
) -> Finished {
    match try_once(context, &part, upstream, open).await {
        Ok(finished) => finished,
        Err(error) => {
            tracing::error!(id = %part.id.message, %error, "an attempt was put off, because the spool fails");
            tokio::time::sleep(SPOOL_TROUBLE).await;
            Finished::default()
        }
    }
}

/// Settles an attempt that the end of the program cut off. It is told before it is written, so that no kill in
/// between can hide that the message may go out twice.
/// Answers what counts for the limits of the mailbox.
pub(super) async fn interrupted(context: &Context, mut part: Part, open: OpenTime) -> Option<Sent> {
    // The marker counted this attempt already.
    part.progress.attempts = part.progress.attempts.saturating_sub(1);
    let message = context
        .store
        .message(part.id.message)
        .await
        .ok()
        .map(|(message, _)| message);
    let disposition = local::INTERRUPTED.disposition("no answer was heard", None);
    let report = Report::all(part.waiting.len(), disposition);
    let mut conclusion = Conclusion::of(context, &part, message.as_ref(), report, open, None);
    conclusion.tell_outcome(context);
    // Nothing has failed, so there is nothing to report.
    let ending = conclusion.write(context, None).await;
    conclusion.tell_ending(context, ending);
    conclusion.verdict.settlement.sent
}

async fn try_once(
    context: &Context,
    part: &Part,
    upstream: Option<Arc<dyn Upstream>>,
    open: OpenTime,
) -> Result<Finished, StoreError> {
    let began = Instant::now();
    let (message, body) = match context.store.message(part.id.message).await {
        Ok(found) => found,
        Err(error) if error.is_lasting() => return Ok(unreadable(context, part, &error, open).await),
        Err(error) => return Err(error),
    };
    let Some(upstream) = upstream else {
        let failure = local::NO_ACCOUNT.disposition(part.account.clone(), None);
        return Ok(Finished::telling(unprepared(part, &failure)));
    };
    let parcel = match pack(context, part, &message, body.clone()).await? {
        Ok(parcel) => parcel,
        // The upstream was not asked, so this tells nothing about it.
        Err(disposition) => {
            let report = Report::all(part.waiting.len(), disposition);
            let ended = conclude(context, part, Some((&message, &body)), report, open, None).await;
            return Ok(Finished {
                news: Vec::new(),
                ..ended
            });
        }
    };
    let prepared = tokio::select! {
        biased;
        // Nothing has begun yet, so nothing has to be finished.
        () = context.stop.cancelled() => return Ok(Finished::default()),
        prepared = upstream.prepare() => prepared,
    };
    if let Err(failure) = prepared {
        return Ok(Finished::telling(unprepared(part, &failure)));
    }
    match context.store.mark(part.id, context.clock.now()).await {
        // It was held, bounced or deleted while it got ready.
        Err(error) if error.is_withdrawn() => return Ok(Finished::default()),
        marked => marked?,
    }
    let handed_over = Instant::now();
    let mut report = upstream.deliver(&parcel).await;
    let took = handed_over.elapsed();
    let finding = context.weigh(part, &mut report);
    // The attempt itself counts as well: only what is waiting for can stand still.
    let open = OpenTime {
        at: open.at + began.elapsed(),
        ..open
    };
    let mut finished = conclude(context, part, Some((&message, &body)), report, open, Some(took)).await;
    finished.news.extend(finding.news);
    finished.recovered = finding.recovered;
    Ok(finished)
}

/// A message whose record is gone or damaged waits for a person.
async fn unreadable(context: &Context, part: &Part, error: &StoreError, open: OpenTime) -> Finished {
    let report = Report::all(
        part.waiting.len(),
        local::UNREADABLE.disposition(error.to_string(), None),
    );
    if part.waiting.is_empty() {
        // Nobody to tell it about in a line of its own.
        tracing::error!(id = %part.id.message, %error, "a message cannot be read and waits for a person");
    }
    let ended = conclude(context, part, None, report, open, None).await;
    Finished {
        news: Vec::new(),
        ..ended
    }
}

/// Makes the outgoing message: our Received field, the header with the planned changes, the rest as it is stored.
/// Checks that it names exactly the part's recipients. The outer error is of the moment, the inner one for good.
async fn pack(
    context: &Context,
    part: &Part,
    message: &Message,
    body: Body,
) -> Result<Result<Parcel, Disposition>, StoreError> {
    let (changes, listed) = match HeaderPlan::from_json(&part.changes) {
        Ok(HeaderPlan::Change(changes)) => (changes, true),
        Ok(HeaderPlan::ChangeByPattern(changes)) => (changes, false),
        Ok(HeaderPlan::Hold { diagnostic }) => {
            return Ok(Err(local::UNREADABLE.disposition(diagnostic, None)));
        }
        Ok(HeaderPlan::Refuse { public, diagnostic }) => {
            return Ok(Err(local::MISFIT.saying(public, diagnostic)));
        }
        Err(damaged) => return Ok(Err(damaged)),
    };
    // A report is ours from the beginning: it was received from nobody.
    let received = if message.report {
        String::new()
    } else {
        received(context, message, part)
    };
    let recipients: Vec<Address> = part.waiting.iter().map(|(_, address)| address.clone()).collect();
    let (id, mailbox) = (message.id, part.mailbox.clone());
    let packed = tokio::task::spawn_blocking(move || {
        let unreadable =
            |error: &dyn std::fmt::Display| local::UNREADABLE.disposition(error.to_string(), None);
        let beginning = match body.beginning(MAX_HEADER_BLOCK) {
            Ok(beginning) => beginning,
            Err(error) if error.is_lasting() => return Ok(Err(unreadable(&error))),
            Err(error) => return Err(StoreError::from(error)),
        };
        let whole = beginning.len() as u64 == body.size();
        let made = HeaderBlock::parse(&beginning, whole)
            .map_err(|e| unreadable(&e))
            .and_then(|block| {
                let mut head = received.into_bytes();
                head.extend_from_slice(&changes.apply(block.head()).map_err(|e| unreadable(&e))?);
                check_recipients(&head, &recipients)
                    .map_err(|e| local::MISFIT.disposition(e.to_string(), None))?;
                let from = block.from().into_iter().map(|mailbox| mailbox.address).collect();
                Ok((head, block.head_len() as u64, from))
            });
        Ok(made.map(|(head, skip, from)| Parcel {
            id,
            mailbox,
            listed,
            from,
            recipients,
            head: Bytes::from(head),
            skip,
            body,
        }))
    });
    match packed.await {
        Ok(packed) => packed,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(StoreError::Closing),
    }
}

fn received(context: &Context, message: &Message, part: &Part) -> String {
    let only = match &part.waiting[..] {
        [(_, address)] => Some(address),
        _ => None,
    };
    received_field(&Hop {
        greeting: &message.origin.greeting,
        client: message.origin.client,
        hostname: &context.hostname,
        protocol: Protocol {
            extended: message.origin.esmtp,
            tls: message.origin.tls,
            authenticated: message.origin.user.is_some(),
            smtputf8: message.envelope.smtputf8(),
        },
        queue_id: &message.id.to_string(),
        arrival: message.arrived,
        recipient: only,
    })
}

/// Writes what follows from a report into the spool, then tells the log. `took` is how long the upstream had.
async fn conclude(
    context: &Context,
    part: &Part,
    message: Option<(&Message, &Body)>,
    report: Report,
    open: OpenTime,
    took: Option<Duration>,
) -> Finished {
    let about = message.map(|(message, _)| message);
    let mut conclusion = Conclusion::of(context, part, about, report, open, took);
    let ending = conclusion.write(context, message).await;
    conclusion.tell_outcome(context);
    conclusion.tell_ending(context, ending);
    let mut lanes = lanes_of(&conclusion.verdict.settlement.reports);
    if conclusion.verdict.late
        && let Some((message, body)) = message
    {
        lanes.extend(warn_of_delay(context, conclusion.case(message, body), conclusion.now).await);
    }
    let mut attention = Vec::new();
    if conclusion.verdict.settlement.next == Next::Held
        && let Some(cause) = conclusion
            .verdict
            .dispositions
            .iter()
            .find_map(Disposition::cause)
    {
        attention.push(Attention::PersonNeeded {
            part: part.id,
            cause: cause.clone(),
        });
    }
    Finished {
        lanes,
        attention,
        tried: took.is_some(),
        sent: conclusion.verdict.settlement.sent,
        ..Finished::telling(conclusion.verdict.gates)
    }
}

/// Tells that a message is late, once. Answers where the report waits.
async fn warn_of_delay(context: &Context, case: Case<'_>, now: Timestamp) -> Vec<Lane> {
    let mut tidings = context.reporter.of_delay(&context.store, case, now).await;
    let reports = std::mem::take(&mut tidings.reports);
    let (id, lanes) = (case.message.id, lanes_of(&reports));
    if reports.is_empty() {
        return lanes;
    }
    match context.store.tell(Occasion::Delay(id), reports).await {
        Ok(true) => tidings
            .told
            .iter()
            .for_each(|reported| context.maillog.reported(id, reported)),
        // It was told before.
        Ok(false) => return Vec::new(),
        Err(error) => tracing::warn!(%id, %error, "a warning of the delay cannot be queued yet"),
    }
    lanes
}

/// Where reports wait to be sent.
pub(super) fn lanes_of(reports: &Reports) -> Vec<Lane> {
    let parts = reports.new.iter().flat_map(|report| &report.plan.parts);
    let lane = |part: &PlannedPart| Lane {
        account: part.account.clone(),
        mailbox: part.mailbox.to_string(),
    };
    parts.map(lane).collect()
}

/// What follows from a report, and what is said about it.
struct Conclusion<'a> {
    part: &'a Part,
    now: Timestamp,
    age: Duration,
    verdict: Verdict,
    /// For the log; the settlement has them for the history.
    attempted: Vec<Attempted>,
    reported: Vec<Reported>,
}

impl<'a> Conclusion<'a> {
    fn of(
        context: &Context,
        part: &'a Part,
        message: Option<&Message>,
        report: Report,
        open: OpenTime,
        took: Option<Duration>,
    ) -> Self {
        let now = context.clock.now();
        let moment = Moment {
            now,
            run: open.run,
            open: open.at,
        };
        let sent = sent(context, part, &report, now);
        let mut verdict = settle(part, report, &context.schedule, moment, fastrand::f64());
        let age = message.map_or(Duration::ZERO, |message| now.since(message.arrived));
        let attempted = attempted(part, &verdict, age, took);
        let event = |attempted: &Attempted| {
            let what = What::Attempted(attempted.clone());
            Event::new(now, Some(part.id.message), what).to_json()
        };
        verdict.settlement.sent = sent;
        verdict.settlement.events = attempted.iter().map(event).collect();
        Self {
            part,
            now,
            age,
            verdict,
            attempted,
            reported: Vec::new(),
        }
    }

    fn case<'c>(&'c self, message: &'c Message, body: &'c Body) -> Case<'c> {
        Case {
            part: self.part,
            message,
            body,
            dispositions: &self.verdict.dispositions,
        }
    }

    /// Writes it with the reports that are due, however long that takes: what was delivered must not be tried again.
    async fn write(&mut self, context: &Context, message: Option<(&Message, &Body)>) -> Ending {
        context.unwritten.fetch_add(1, Ordering::Relaxed);
        let mut tidings = match message {
            Some((message, body)) => {
                let case = Case {
                    part: self.part,
                    message,
                    body,
                    dispositions: &self.verdict.dispositions,
                };
                context.reporter.of_outcome(&context.store, case, self.now).await
            }
            None => Tidings::default(),
        };
        self.verdict.settlement.reports = std::mem::take(&mut tidings.reports);
        let ending = loop {
            match context.store.settle(self.verdict.settlement.clone()).await {
                Ok(ending) => break ending,
                Err(error) => {
                    tracing::error!(id = %self.part.id.message, %error, "an outcome cannot be written yet; it is kept");
                    tokio::time::sleep(SPOOL_TROUBLE).await;
                }
            }
        };
        context.unwritten.fetch_sub(1, Ordering::Relaxed);
        self.reported = std::mem::take(&mut tidings.told);
        ending
    }

    fn tell_outcome(&self, context: &Context) {
        for attempted in &self.attempted {
            context.maillog.attempted(self.part.id.message, attempted);
        }
        for reported in &self.reported {
            context.maillog.reported(self.part.id.message, reported);
        }
    }

    fn tell_ending(&self, context: &Context, ending: Ending) {
        let id = self.part.id.message;
        match ending {
            Ending::Open => {}
            Ending::Released { .. } => context.maillog.released(id, self.age),
            Ending::DeadLetter => context.maillog.dead_letter(id, self.age),
        }
    }
}

/// The recipients that count for the mailbox's daily limit: those that were relayed, or may have been.
fn sent(context: &Context, part: &Part, report: &Report, now: Timestamp) -> Option<Sent> {
    let counts = |d: &&Disposition| matches!(d, Disposition::Relayed(_) | Disposition::Uncertain(_));
    let recipients = report.dispositions.iter().filter(counts).count() as u64;
    let terms = context.paces.get(&part.account).filter(|_| recipients > 0)?;
    Some(terms.sent(&part.mailbox.to_string(), &part.turn, recipients, now))
}

/// What log and history are told; recipients with the same disposition share a line.
fn attempted(part: &Part, verdict: &Verdict, age: Duration, took: Option<Duration>) -> Vec<Attempted> {
    let mut groups: Vec<(&Disposition, Vec<(usize, String)>)> = Vec::new();
    for ((position, address), disposition) in part.waiting.iter().zip(&verdict.dispositions) {
        let recipient = (*position, address.to_string());
        match groups.iter_mut().find(|(known, _)| *known == disposition) {
            Some((_, to)) => to.push(recipient),
            None => groups.push((disposition, vec![recipient])),
        }
    }
    let settlement = &verdict.settlement;
    let attempted = |(disposition, recipients)| {
        Attempted {
            part: part.id.number,
            account: part.account.clone(),
            mailbox: part.mailbox.to_string(),
            number: settlement.progress.attempts,
            recipients,
            outcome: Outcome::of(disposition),
            status: String::new(),
            cause: String::new(),
            upstream: String::new(),
            age: millis(age),
            took: took.map(millis),
            next: then(settlement.next, disposition),
        }
        .with(disposition)
    };
    groups.into_iter().map(attempted).collect()
}

fn then(next: Next, disposition: &Disposition) -> Then {
    match (disposition, next) {
        (Disposition::Relayed(_), _) => Then::Done,
        (Disposition::Failed(_), _) => Then::DeadLetter,
        (_, Next::Held) => Then::Person,
        (_, Next::Due(due))
            if disposition
                .cause()
                .is_some_and(|cause| cause.scope < Scope::Mailbox) =>
        {
            Then::Due(due)
        }
        _ => Then::AccountWell,
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
