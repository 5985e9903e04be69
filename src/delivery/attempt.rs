//! One attempt at one part: read, get ready, mark, deliver, settle.

use super::plan::HeaderPlan;
use super::retry::Schedule;
use super::settle::{GateNews, Verdict, settle, unprepared};
use crate::clock::Clock;
use crate::explain::local;
use crate::mail::Cause;
use crate::mail::Disposition;
use crate::mail::Report;
use crate::mail::Scope;
use crate::mail::header::{HeaderBlock, Hop, MAX_HEADER_BLOCK, Protocol, received_field};
use crate::policy::check_recipients;
use crate::spool::{Body, Ending, Message, Next, Part, Store, StoreError};
use crate::telemetry::Maillog;
use crate::telemetry::maillog;
use crate::upstream::Parcel;
use crate::upstream::Upstream;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// What every attempt needs.
#[derive(Clone, Debug)]
pub(super) struct Context {
    pub(super) store: Store,
    pub(super) schedule: Schedule,
    pub(super) clock: Clock,
    pub(super) maillog: Maillog,
    pub(super) hostname: String,
    /// Cancelled when no attempt may begin any more.
    pub(super) stop: CancellationToken,
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
) -> Vec<GateNews> {
    match try_once(context, &part, upstream).await {
        Ok(news) => news,
        Err(error) => {
            tracing::error!(id = %part.id.message, %error, "an attempt was put off, because the spool fails");
            tokio::time::sleep(SPOOL_TROUBLE).await;
            Vec::new()
        }
    }
}

/// Settles an attempt that the end of the program cut off.
pub(super) async fn interrupted(context: &Context, part: Part) {
    let report = Report::all(part.waiting.len(), local::INTERRUPTED.disposition("", None));
    // The marker counted this attempt already.
    let mut part = part;
    part.progress.attempts = part.progress.attempts.saturating_sub(1);
    conclude(context, &part, None, report).await;
}

async fn try_once(
    context: &Context,
    part: &Part,
    upstream: Option<Arc<dyn Upstream>>,
) -> Result<Vec<GateNews>, StoreError> {
    let (message, body) = context.store.message(part.id.message).await?;
    let everybody = |disposition| Report::all(part.waiting.len(), disposition);
    let Some(upstream) = upstream else {
        let failure = local::NO_ACCOUNT.disposition(part.account.clone(), None);
        return Ok(unprepared(part, &failure));
    };
    let parcel = match pack(context, part, &message, body).await {
        Ok(parcel) => parcel,
        Err(disposition) => return Ok(conclude(context, part, Some(&message), everybody(disposition)).await),
    };
    let prepared = tokio::select! {
        biased;
        // Nothing has begun yet, so nothing has to be finished.
        () = context.stop.cancelled() => return Ok(Vec::new()),
        prepared = upstream.prepare() => prepared,
    };
    if let Err(failure) = prepared {
        return Ok(unprepared(part, &failure));
    }
    context.store.mark(part.id, context.clock.now()).await?;
    let report = upstream.deliver(&parcel).await;
    Ok(conclude(context, part, Some(&message), report).await)
}

/// Makes the outgoing message: our Received field, the header with the planned changes, the rest as it is stored.
/// Checks that it names exactly the part's recipients.
async fn pack(context: &Context, part: &Part, message: &Message, body: Body) -> Result<Parcel, Disposition> {
    let changes = match HeaderPlan::from_json(&part.changes)? {
        HeaderPlan::Change(changes) => changes,
        HeaderPlan::Refuse { public, diagnostic } => return Err(refused(public, diagnostic)),
    };
    let received = received(context, message, part);
    let recipients: Vec<_> = part.waiting.iter().map(|(_, address)| address.clone()).collect();
    let (id, mailbox) = (message.id, part.mailbox.clone());
    let packed = tokio::task::spawn_blocking(move || {
        let unreadable = |error: String| local::UNREADABLE.disposition(error, None);
        let beginning = body
            .beginning(MAX_HEADER_BLOCK)
            .map_err(|e| unreadable(e.to_string()))?;
        let whole = beginning.len() as u64 == body.size();
        let block = HeaderBlock::parse(&beginning, whole).map_err(|e| unreadable(e.to_string()))?;
        let mut head = received.into_bytes();
        head.extend_from_slice(
            &changes
                .apply(block.head())
                .map_err(|e| unreadable(e.to_string()))?,
        );
        check_recipients(&head, &recipients).map_err(|e| local::MISFIT.disposition(e.to_string(), None))?;
        let skip = block.head_len() as u64;
        Ok(Parcel {
            id,
            mailbox,
            recipients,
            head: Bytes::from(head),
            skip,
            body,
        })
    });
    packed
        .await
        .unwrap_or_else(|_| Err(local::UNREADABLE.disposition("the program is ending", None)))
}

fn refused(public: String, diagnostic: String) -> Disposition {
    let status = local::MISFIT.status;
    Disposition::Failed(Cause {
        scope: Scope::Message,
        status,
        public,
        diagnostic,
        retry_after: None,
    })
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

/// Writes what follows from a report into the spool, however long that takes, and tells the log.
async fn conclude(
    context: &Context,
    part: &Part,
    message: Option<&Message>,
    report: Report,
) -> Vec<GateNews> {
    let now = context.clock.now();
    let Verdict {
        settlement,
        dispositions,
        gates,
    } = settle(part, report, &context.schedule, now, fastrand::f64());
    let next = settlement.next;
    let number = settlement.progress.attempts;
    let ending = loop {
        match context.store.settle(settlement.clone()).await {
            Ok(ending) => break ending,
            // What was delivered must not be tried again: the outcome waits here until it can be written.
            Err(error) => {
                tracing::error!(id = %part.id.message, %error, "an outcome cannot be written yet; it is kept");
                tokio::time::sleep(SPOOL_TROUBLE).await;
            }
        }
    };
    let age = message.map_or(Duration::ZERO, |message| now.since(message.arrived));
    let about = maillog::Attempt {
        id: part.id.message,
        part: part.id.number,
        account: &part.account,
        mailbox: &part.mailbox,
        number,
        age,
    };
    for (disposition, to) in grouped(part, &dispositions) {
        context
            .maillog
            .attempted(about, &to, disposition, &told(next, disposition));
    }
    match ending {
        Ending::Open => {}
        Ending::Released { .. } => context.maillog.released(part.id.message, age),
        Ending::DeadLetter => context.maillog.dead_letter(part.id.message, age),
    }
    gates
}

/// Recipients with the same disposition share a line.
fn grouped<'a>(
    part: &'a Part,
    dispositions: &'a [Disposition],
) -> Vec<(&'a Disposition, Vec<&'a crate::mail::Address>)> {
    let mut groups: Vec<(&Disposition, Vec<&crate::mail::Address>)> = Vec::new();
    for ((_, address), disposition) in part.waiting.iter().zip(dispositions) {
        match groups.iter_mut().find(|(known, _)| *known == disposition) {
            Some((_, to)) => to.push(address),
            None => groups.push((disposition, vec![address])),
        }
    }
    groups
}

fn told(next: Next, disposition: &Disposition) -> String {
    match (disposition, next) {
        (Disposition::Failed(_), _) => "kept as a dead letter".to_owned(),
        (_, Next::Held) => "waits for a person".to_owned(),
        (_, Next::Due(due))
            if disposition
                .cause()
                .is_some_and(|cause| cause.scope < Scope::Mailbox) =>
        {
            due.to_string()
        }
        _ => "when the account is well".to_owned(),
    }
}
