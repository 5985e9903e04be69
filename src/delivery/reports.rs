//! Whether a report is due about what became of a message, and all that the spool needs to queue it with the outcome.
//!
//! Who is told, how often and in which words is decided in `report`; here it meets the queue. From the question
//! whether there was a report about the same thing within the hour until the answer is written, only one is at it:
//! so fifty failures at once are one report and a count of forty-nine.

use super::plan::{Account, Planner};
use crate::explain::local::BOUNCED;
use crate::mail::Address;
use crate::mail::BodyType;
use crate::mail::Cause;
use crate::mail::Disposition;
use crate::mail::Envelope;
use crate::mail::Peer;
use crate::mail::QueueId;
use crate::mail::Recipient;
use crate::mail::Ret;
use crate::mail::ReversePath;
use crate::mail::Scope;
use crate::mail::Timestamp;
use crate::mail::header::MAX_HEADER_BLOCK;
use crate::report::{
    self, Kind, Limit, MAX_RETURNED, Notice, Original, Outcome, Policy, Silence, compose, limit,
};
use crate::spool::{Body, Message, NewReport, Origin, Part, Reports, Store, StoreError, Told};
use crate::telemetry::Event;
use crate::telemetry::event::{Reported, What};
use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::{Mutex, OwnedMutexGuard};

/// Prepares reports; without settings there are none. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Reporter(Option<Arc<Settings>>);

#[derive(Debug)]
struct Settings {
    policy: Policy,
    accounts: Vec<Account>,
    planner: Planner,
    hostname: String,
    /// Held from the question what was told last until the answer is written.
    turn: Arc<Mutex<()>>,
}

/// What a report may be about: a part, and what became of those of its recipients that were waiting, in their order.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case<'a> {
    pub(super) part: &'a Part,
    pub(super) message: &'a Message,
    pub(super) body: &'a Body,
    pub(super) dispositions: &'a [Disposition],
}

/// Reports that are ready to be queued. Keep it until they are written: nobody else decides about reports meanwhile.
#[derive(Debug, Default)]
pub(super) struct Tidings {
    pub(super) reports: Reports,
    /// For the log; the reports have them for the history.
    pub(super) told: Vec<Reported>,
    turn: Option<OwnedMutexGuard<()>>,
}

/// The name of the listener in the records of reports; no listener can be called so.
const NO_LISTENER: &str = "-";

impl Reporter {
    /// Reports go out by the account of the message, or by another one of `accounts` if that one is the trouble.
    pub(super) fn new(policy: Policy, accounts: Vec<Account>, planner: Planner, hostname: String) -> Self {
        Self(Some(Arc::new(Settings {
            policy,
            accounts,
            planner,
            hostname,
            turn: Arc::default(),
        })))
    }

    /// What is to be told with the end of an attempt: who failed, and who was relayed if that was asked for.
    pub(super) async fn of_outcome(&self, store: &Store, case: Case<'_>, now: Timestamp) -> Tidings {
        let mut tidings = Tidings::default();
        if let Some(settings) = &self.0 {
            for kind in [Kind::Failed, Kind::Relayed] {
                settings.tell(&mut tidings, store, case, kind, now).await;
            }
        }
        tidings
    }

    /// What is to be told of a message that is late, for those who still wait for it.
    pub(super) async fn of_delay(&self, store: &Store, case: Case<'_>, now: Timestamp) -> Tidings {
        let mut tidings = Tidings::default();
        if let Some(settings) = &self.0 {
            settings.tell(&mut tidings, store, case, Kind::Delayed, now).await;
        }
        tidings
    }

    /// What is to be told of a message that is held for too long.
    pub(super) async fn of_hold(&self, store: &Store, case: Case<'_>, now: Timestamp) -> Tidings {
        let mut tidings = Tidings::default();
        if let Some(settings) = &self.0 {
            settings.tell(&mut tidings, store, case, Kind::Held, now).await;
        }
        tidings
    }
}

/// Tells senders that an administrator has given their messages up. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Undertaker {
    store: Store,
    reporter: Reporter,
}

/// A message that is about to be given up. Keep it until that is written: nobody else decides about reports meanwhile.
#[derive(Debug)]
pub struct GivenUp {
    /// The parts that wait or are held.
    pub parts: Vec<u32>,
    /// The enhanced status code that each of them gets (RFC 3463).
    pub status: String,
    /// The words that each of them gets.
    pub cause: String,
    /// To be queued in the same transaction.
    pub reports: Reports,
    /// For the log.
    pub told: Vec<Reported>,
    _turn: Option<OwnedMutexGuard<()>>,
}

impl Undertaker {
    pub(super) fn new(store: Store, reporter: Reporter) -> Self {
        Self { store, reporter }
    }

    /// What is told if all of a message that waits or is held is given up now.
    ///
    /// # Errors
    /// [`StoreError`]
    ///
    /// # Cancellation
    /// Safe.
    pub async fn give_up(&self, id: QueueId, now: Timestamp) -> Result<GivenUp, StoreError> {
        let failed = BOUNCED.disposition("", None);
        let parts = self.store.parts_at_rest(id).await?.whole;
        let mut tidings = Tidings::default();
        // Whoever wants to get rid of a damaged message need not be able to read it.
        if let (Some(settings), Ok((message, body))) = (&self.reporter.0, self.store.message(id).await) {
            for part in &parts {
                let case = Case {
                    part,
                    message: &message,
                    body: &body,
                    dispositions: &vec![failed.clone(); part.waiting.len()],
                };
                settings
                    .tell(&mut tidings, &self.store, case, Kind::Failed, now)
                    .await;
            }
        }
        Ok(GivenUp {
            parts: parts.iter().map(|part| part.id.number).collect(),
            status: BOUNCED.status.with_class(failed.class()),
            cause: BOUNCED.text(),
            reports: tidings.reports,
            told: tidings.told,
            _turn: tidings.turn,
        })
    }
}

impl Settings {
    /// Adds to `tidings` what is to be told of those recipients whom `kind` concerns, if there are any.
    async fn tell(&self, tidings: &mut Tidings, store: &Store, case: Case<'_>, kind: Kind, now: Timestamp) {
        let concerned = concerned(case, kind);
        let Some((_, first)) = concerned.first() else {
            return;
        };
        let wanted: Vec<(&Recipient, &Disposition)> = concerned
            .iter()
            .copied()
            .filter(|(recipient, _)| report::is_wanted(&self.policy, kind, recipient))
            .collect();
        if wanted.is_empty() && kind == Kind::Relayed {
            // The normal case, of which there is nothing to tell.
            return;
        }
        let to = report::recipient(
            &self.policy,
            kind,
            case.message.report,
            case.message.envelope.reverse_path(),
        );
        let to = to.and_then(|to| {
            if wanted.is_empty() {
                Err(Silence::NotAsked)
            } else {
                Ok(to)
            }
        });
        let carrier = || carrier(&self.accounts, case.part, first).ok_or(Silence::NoAccount);
        let (to, carrier) = match to.and_then(|to| Ok((to, carrier()?))) {
            Ok(found) => found,
            Err(silence) => return tidings.add_silence(case, kind, silence.to_string(), now),
        };
        // Success was asked for, message by message; all else can come as a storm.
        let held_back = match kind {
            Kind::Relayed => 0,
            Kind::Failed | Kind::Delayed | Kind::Held => {
                let cause = format!(
                    "{} {}",
                    word(kind),
                    first.cause().map_or("", |cause: &Cause| cause.code)
                );
                match self.limited(tidings, store, to.address(), cause, now).await {
                    Limit::Send { held_back } => held_back,
                    Limit::HoldBack { .. } => {
                        let why = "there was a report about the same within the hour; the next one tells how many there were";
                        return tidings.add_silence(case, kind, why.to_owned(), now);
                    }
                }
            }
        };
        let octets = beginning(case, kind).await;
        let original = Original {
            id: case.message.id,
            arrived: case.message.arrived,
            envelope: &case.message.envelope,
            octets: &octets,
            whole: octets.len() as u64 == case.body.size(),
        };
        let outcomes: Vec<Outcome<'_>> = wanted
            .iter()
            .map(|(recipient, disposition)| Outcome::of(recipient, disposition))
            .collect();
        let id = QueueId::new(now);
        let report = compose(&Notice {
            kind,
            id,
            at: now,
            hostname: &self.hostname,
            account: &case.part.account,
            mailbox: &case.part.mailbox,
            from: &carrier.mailbox,
            to: &to,
            original: &original,
            outcomes: &outcomes,
            held_back,
        });
        match self.queued(id, report, to.address(), carrier, now) {
            Some(report) => tidings.add_report(case, kind, to.address(), report, now),
            // An envelope with one recipient can always be made; if it could not, that would be said here.
            None => tidings.add_silence(case, kind, "its envelope cannot be made".to_owned(), now),
        }
    }

    /// Whether it may be told now, and remembers that it was, or that it would have been.
    async fn limited(
        &self,
        tidings: &mut Tidings,
        store: &Store,
        to: &Address,
        cause: String,
        now: Timestamp,
    ) -> Limit {
        if tidings.turn.is_none() {
            tidings.turn = Some(self.turn.clone().lock_owned().await);
        }
        let recipient = to.key();
        let last = store.told(recipient.clone(), cause.clone()).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "it cannot be read what was reported last; a report too many may go out");
            None
        });
        let limit = limit(last.as_ref().map(|told| (told.since, told.held_back)), now);
        let (since, held_back) = match (limit, last) {
            (Limit::HoldBack { held_back }, Some(last)) => (last.since, held_back),
            _ => (now, 0),
        };
        tidings.reports.told.push(Told {
            recipient,
            cause,
            since,
            held_back,
        });
        limit
    }

    fn queued(
        &self,
        id: QueueId,
        report: Vec<u8>,
        to: &Address,
        carrier: &Account,
        now: Timestamp,
    ) -> Option<NewReport> {
        self.planner.mail_of_ours(carrier.clone(), id, report, to, now)
    }
}

impl Planner {
    /// Mail that we write ourselves, as a message of the queue: from nobody, so that nothing comes back (RFC 3464 §2),
    /// and with its plan. Nothing if its envelope cannot be made.
    #[must_use]
    pub fn mail_of_ours(
        &self,
        carrier: Account,
        id: QueueId,
        octets: Vec<u8>,
        to: &Address,
        now: Timestamp,
    ) -> Option<NewReport> {
        let body_type = if octets.is_ascii() {
            BodyType::SevenBit
        } else {
            BodyType::EightBitMime
        };
        let message = Message {
            id,
            arrived: now,
            envelope: Envelope::new(ReversePath::Null, [to.clone()], body_type).ok()?,
            origin: Origin {
                client: Peer::Local,
                greeting: String::new(),
                esmtp: false,
                listener: NO_LISTENER.to_owned(),
                tls: false,
                user: None,
            },
            size: octets.len() as u64,
            checksum: crc32fast::hash(&octets),
            report: true,
        };
        let outline = self.by(carrier).outline(&message, &octets, true);
        Some(NewReport {
            plan: outline.plan(Some(&message), now),
            message,
            body: Bytes::from(octets),
        })
    }
}

impl Tidings {
    fn add_report(&mut self, case: Case<'_>, kind: Kind, to: &Address, report: NewReport, now: Timestamp) {
        self.add(
            case,
            Reported {
                action: word(kind).to_owned(),
                to: Some(to.to_string()),
                report: Some(report.message.id),
                why_not: String::new(),
            },
            now,
        );
        self.reports.new.push(report);
    }

    fn add_silence(&mut self, case: Case<'_>, kind: Kind, why_not: String, now: Timestamp) {
        self.add(
            case,
            Reported {
                action: word(kind).to_owned(),
                to: None,
                report: None,
                why_not,
            },
            now,
        );
    }

    fn add(&mut self, case: Case<'_>, reported: Reported, now: Timestamp) {
        let event = Event::new(now, Some(case.message.id), What::Reported(reported.clone()));
        self.reports.events.push(event.to_json());
        self.told.push(reported);
    }
}

/// Which account a report about `part` goes out by: that of the message, unless `reason` is about it.
fn carrier<'a>(accounts: &'a [Account], part: &Part, reason: &Disposition) -> Option<&'a Account> {
    let is_well = |account: &&Account| match reason.cause().map(|cause| cause.scope) {
        Some(Scope::Account) => account.name != part.account,
        Some(Scope::Mailbox) => account.name != part.account || account.mailbox != part.mailbox,
        Some(Scope::Recipient | Scope::Message) | None => true,
    };
    let well = || accounts.iter().filter(is_well);
    let own = well().find(|account| account.name == part.account);
    own.or_else(|| well().next())
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Failed => "failed",
        Kind::Delayed => "delayed",
        Kind::Relayed => "relayed",
        Kind::Held => "held",
    }
}

/// The recipients to whom what `kind` says has happened.
fn concerned<'a>(case: Case<'a>, kind: Kind) -> Vec<(&'a Recipient, &'a Disposition)> {
    let recipients = case.message.envelope.recipients();
    let happened = |disposition: &Disposition| match kind {
        Kind::Failed => matches!(disposition, Disposition::Failed(_)),
        Kind::Relayed => matches!(disposition, Disposition::Relayed(_)),
        Kind::Delayed => matches!(disposition, Disposition::Deferred(_)),
        Kind::Held => matches!(disposition, Disposition::Held(_)),
    };
    let waiting = case.part.waiting.iter().zip(case.dispositions);
    waiting
        .filter(|(_, disposition)| happened(disposition))
        .filter_map(|((position, _), disposition)| Some((recipients.get(*position)?, disposition)))
        .collect()
}

/// As much of the message as the report may need; nothing if it cannot be read.
async fn beginning(case: Case<'_>, kind: Kind) -> Bytes {
    let body = case.body.clone();
    let whole_is_wanted = kind == Kind::Failed && case.message.envelope.ret() == Some(Ret::Full);
    let limit = if whole_is_wanted && body.size() <= MAX_RETURNED as u64 {
        MAX_RETURNED
    } else {
        MAX_HEADER_BLOCK
    };
    let read = tokio::task::spawn_blocking(move || body.beginning(limit)).await;
    match read {
        Ok(Ok(octets)) => octets,
        Ok(Err(error)) => {
            tracing::warn!(id = %case.message.id, %error, "the message cannot be read for a report about it");
            Bytes::new()
        }
        Err(_) => Bytes::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::{GraphAnswer, graph, local};
    use crate::spool::{PartId, Progress};

    fn account(name: &str, mailbox: &str) -> Account {
        Account {
            name: name.to_owned(),
            mailbox: mailbox.parse().unwrap(),
            send_as: Vec::new(),
        }
    }

    #[test]
    fn a_report_never_goes_out_by_what_it_is_about() {
        let graph = |code| {
            let answer = GraphAnswer {
                status: 403,
                code: Some(code),
                ..GraphAnswer::default()
            };
            graph(answer).disposition("", None)
        };
        let (message, mailbox) = (local::GIVEN_UP.disposition("", None), graph("ErrorAccessDenied"));
        let account_wide = graph("InvalidAuthenticationToken");
        let both = [
            account("lab", "lab@x.example"),
            account("office", "office@x.example"),
        ];
        let (one, own, other) = (&both[1..], "office@x.example", "anna@x.example");
        for (accounts, sends_as, reason, expected) in [
            (&both[..], own, &message, Some("office")),
            (&both[..], other, &message, Some("office")),
            (&both[..], own, &mailbox, Some("lab")),
            // Another mailbox of the account is the trouble: its own is well.
            (&both[..], other, &mailbox, Some("office")),
            (&both[..], own, &account_wide, Some("lab")),
            (&both[..], other, &account_wide, Some("lab")),
            (one, own, &message, Some("office")),
            (one, own, &mailbox, None),
            (one, other, &mailbox, Some("office")),
            (one, other, &account_wide, None),
            // The account of the message is not configured any more.
            (&both[..1], own, &message, Some("lab")),
        ] {
            let part = Part {
                id: PartId {
                    message: QueueId::new(Timestamp::from_millis(0)),
                    number: 0,
                },
                account: "office".to_owned(),
                mailbox: sends_as.parse().unwrap(),
                changes: String::new(),
                due: Timestamp::from_millis(0),
                progress: Progress::default(),
                waiting: Vec::new(),
                size: 0,
                turn: Default::default(),
            };
            let carrier = carrier(accounts, &part, reason).map(|account| account.name.as_str());
            assert_eq!(carrier, expected, "{sends_as} {reason:?}");
        }
    }
}
