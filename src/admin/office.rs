//! What can be asked and ordered. No HTTP here.

use super::routes::Pieces;
use super::view;
use crate::clock::Clock;
use crate::config::parse_duration;
use crate::delivery::{Control, ControlError, Undertaker};
use crate::mail::Envelope;
use crate::mail::QueueId;
use crate::mail::Timestamp;
use crate::spool::{
    AcceptError, Body, Change, Changed, Entry, Fate, Filter, ImportError, InspectError, Inspector, Message,
    Operator, Order, PartState, Pattern, RecipientState, Reports, Search, State, StoreError, read_envelope,
};
use crate::telemetry::Maillog;
use crate::telemetry::event::{Acted, Action, Event, What};
use bytes::Bytes;

/// Where administrators are served. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Office {
    pub(super) side: Side,
    pub(super) facts: Facts,
}

/// From where the queue is seen.
#[derive(Clone, Debug)]
pub enum Side {
    /// No bridge runs; nothing can be changed.
    Closed(Inspector),
    /// The spool is open, and is ours; without a handle on the queue runner, nothing is sent from it.
    Open(Box<Operator>, Option<Box<Running>>),
}

/// The queue runner's side of a bridge that runs.
#[derive(Clone, Debug)]
pub struct Running {
    /// Tells how delivery stands, and pauses it.
    pub control: Control,
    /// Tells senders that their messages were given up.
    pub undertaker: Undertaker,
}

/// What does not change.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Tells the time.
    pub clock: Clock,
    /// The bridge's name.
    pub hostname: String,
    /// When it was started, if it runs.
    pub started: Option<Timestamp>,
}

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub(super) enum OfficeError {
    /// What was asked for makes no sense.
    #[error("{0}")]
    Nonsense(String),
    /// It is not there.
    #[error("{0}")]
    NotFound(String),
    /// It cannot be done now.
    #[error("{0}")]
    Trouble(String),
}

/// Messages on a page if nobody says how many.
const PAGE: usize = 50;

/// Messages on a page at most.
pub(super) const MAX_PAGE: usize = 1000;

/// Names on a page at most; they cost less.
pub(super) const MAX_IDS: usize = 10_000;

impl Office {
    /// An office that sees the queue from `side`.
    #[must_use]
    pub fn new(side: Side, facts: Facts) -> Self {
        Self { side, facts }
    }

    pub(super) fn inspector(&self) -> &Inspector {
        match &self.side {
            Side::Closed(inspector) => inspector,
            Side::Open(operator, _) => operator.inspector(),
        }
    }

    fn operator(&self) -> Result<&Operator, OfficeError> {
        match &self.side {
            Side::Open(operator, _) => Ok(operator),
            Side::Closed(_) => Err(OfficeError::Trouble(
                "the bridge does not run: nothing can be changed".to_owned(),
            )),
        }
    }

    fn now(&self) -> Timestamp {
        self.facts.clock.now()
    }

    /// A page of messages.
    pub(super) async fn list(&self, query: view::Query) -> Result<view::List, OfficeError> {
        let search = self.search(query, PAGE, MAX_PAGE).await?;
        let page = self.inspector().page(search).await?;
        let now = self.now();
        Ok(view::List {
            messages: page.entries.iter().map(|entry| message(entry, now)).collect(),
            next: page.next,
            looked_at: page.looked_at,
        })
    }

    /// Names only.
    pub(super) async fn ids(&self, query: view::Query) -> Result<view::Ids, OfficeError> {
        let search = self.search(query, MAX_IDS, MAX_IDS).await?;
        let (ids, next) = self.inspector().ids(search).await?;
        Ok(view::Ids { ids, next })
    }

    async fn search(&self, query: view::Query, usual: usize, most: usize) -> Result<Search, OfficeError> {
        let nonsense = |error: &dyn std::fmt::Display| OfficeError::Nonsense(error.to_string());
        let moment = |age: Option<String>| -> Result<Option<Timestamp>, OfficeError> {
            let Some(text) = age else { return Ok(None) };
            let age = parse_duration(&text).map_err(|error| {
                OfficeError::Nonsense(format!(
                    "{text:?} is no duration: {error}; write it as 30s, 2h or 5d"
                ))
            })?;
            Ok(Some(self.now().minus(age)))
        };
        let after = match query.after.as_deref().map(QueueId::beginning_with) {
            // All that begin so are left behind.
            Some(Some((_, last))) => Some(last),
            Some(None) => return Err(OfficeError::Nonsense("`after` is not an id".to_owned())),
            None => None,
        };
        Ok(Search {
            filter: Filter {
                state: query
                    .state
                    .map(|state| state.parse::<State>())
                    .transpose()
                    .map_err(|e| nonsense(&e))?,
                account: query.account,
                sender: query.sender.as_deref().map(Pattern::new),
                recipient: query.recipient.as_deref().map(Pattern::new),
                before: moment(query.older_than)?,
                since: moment(query.younger_than)?,
            },
            after,
            limit: query.limit.unwrap_or(usual).clamp(1, most),
        })
    }

    /// The one message whose id begins so.
    pub(super) async fn resolve(&self, beginning: &str) -> Result<QueueId, OfficeError> {
        let range = QueueId::beginning_with(beginning).ok_or_else(|| {
            OfficeError::Nonsense(format!(
                "{beginning:?} is not the id of a message, nor the beginning of one: `queue list` shows them"
            ))
        })?;
        match self.inspector().between(range, 2).await?[..] {
            [id] => Ok(id),
            [] => Err(OfficeError::NotFound(format!(
                "no message in the queue has an id that begins with {beginning}: it was sent or deleted, or never \
                 was here"
            ))),
            _ => Err(OfficeError::Nonsense(format!(
                "more than one message has an id that begins with {beginning}: write more of it"
            ))),
        }
    }

    /// All that is known of a message but its text.
    pub(super) async fn details(&self, id: QueueId) -> Result<view::Details, OfficeError> {
        let details = self.inspector().details(id).await?;
        let origin = &details.message.origin;
        Ok(view::Details {
            message: message(&details.entry, self.now()),
            client: origin.client.to_string(),
            greeting: origin.greeting.clone(),
            user: origin.user.clone(),
            tls: origin.tls,
            listener: origin.listener.clone(),
            parts: details.entry.parts.iter().map(part).collect(),
            recipients: details.recipients.iter().map(recipient).collect(),
        })
    }

    /// A message with its body.
    pub(super) async fn message(&self, id: QueueId) -> Result<(Message, Body), OfficeError> {
        Ok(self.inspector().message(id).await?)
    }

    /// A message without its text, with those recipients only who do not have it yet: who takes it over from here
    /// must not send it twice to the others.
    pub(super) async fn still_owed(&self, id: QueueId) -> Result<Message, OfficeError> {
        let details = self.inspector().details(id).await?;
        let mut message = details.message;
        let envelope = &message.envelope;
        let owed = envelope.recipients().iter().zip(&details.recipients);
        let owed: Vec<_> = owed
            .filter(|(_, state)| state.fate != Fate::Relayed)
            .map(|(recipient, _)| recipient.clone())
            .collect();
        if owed.len() < details.recipients.len() && !owed.is_empty() {
            message.envelope = Envelope::new(envelope.reverse_path().clone(), owed, envelope.body_type())
                .map_err(|error| OfficeError::Trouble(error.to_string()))?
                .with_smtputf8(envelope.smtputf8())
                .with_reports(envelope.ret(), envelope.envelope_id().cloned());
        }
        Ok(message)
    }

    /// Takes a message over: its envelope, the first octets of its text, and the rest as it comes.
    pub(super) async fn import(
        &self,
        envelope: &[u8],
        first: Bytes,
        rest: &mut Pieces,
        by: &str,
    ) -> Result<view::Imported, OfficeError> {
        let nonsense = |error: &dyn std::fmt::Display| OfficeError::Nonsense(error.to_string());
        let text = std::str::from_utf8(envelope).map_err(|_| nonsense(&"the envelope is not UTF-8"))?;
        let message = read_envelope(text).map_err(|e| nonsense(&e))?;
        let id = message.id;
        let Some(mut importing) = self.operator()?.import(message).await? else {
            return Ok(view::Imported { id, new: false });
        };
        importing.write(&first).await?;
        while let Some(piece) = rest.next().await? {
            importing.write(&piece).await?;
        }
        let acted = Acted {
            action: Action::Import,
            by: by.to_owned(),
        };
        let event = Event::new(self.now(), Some(id), What::Acted(acted));
        let message = importing.finish(vec![event.to_json()]).await?;
        Maillog.imported(id, &message.envelope, message.size, by);
        Ok(view::Imported { id, new: true })
    }

    /// Does something to messages, one after the other; what goes wrong with one does not stop the others.
    pub(super) async fn act(
        &self,
        action: Action,
        ids: Vec<QueueId>,
        by: &str,
    ) -> Result<view::Results, OfficeError> {
        if action == Action::Import {
            return Err(OfficeError::Nonsense(
                "what is imported is not in the queue yet".to_owned(),
            ));
        }
        self.operator()?;
        // All at once: the spool's writer commits what has gathered in one transaction.
        let mut changing = tokio::task::JoinSet::new();
        for (position, id) in ids.iter().copied().enumerate() {
            let (office, by) = (self.clone(), by.to_owned());
            changing.spawn(async move { (position, office.act_on(id, action, &by).await) });
        }
        let mut answers = vec![None; ids.len()];
        while let Some(answer) = changing.join_next().await {
            if let Ok((position, answer)) = answer {
                answers[position] = Some(answer);
            }
        }
        let results = ids.into_iter().zip(answers);
        let results: Vec<view::ResultOf> = results
            .map(|(id, answer)| {
                answer.unwrap_or_else(|| left(id, "this is a bug of this program; please report it"))
            })
            .collect();
        if let (Side::Open(_, Some(running)), true) = (&self.side, results.iter().any(|result| result.done)) {
            // If it is stopping, the next start looks at everything anyway.
            let _ = running.control.look_again().await;
        }
        Ok(view::Results { results })
    }

    async fn act_on(&self, id: QueueId, action: Action, by: &str) -> view::ResultOf {
        let failed = |error: &dyn std::fmt::Display| {
            left(id, &format!("nothing was done, as far as is known: {error}"))
        };
        let operator = match self.operator() {
            Ok(operator) => operator,
            Err(error) => return failed(&error),
        };
        let at = self.now();
        let acted = Acted {
            action,
            by: by.to_owned(),
        };
        let (mut reports, mut given_up) = (Reports::default(), None);
        let order = match (action, &self.side) {
            (Action::Hold, _) => Order::Hold,
            (Action::Release, _) => Order::Release,
            (Action::Delete, _) => Order::Delete,
            (Action::Retry | Action::Import, _) => Order::Retry,
            (Action::Bounce, Side::Open(_, Some(running))) => {
                // The turn to report is given back when this is dropped, after the change is written.
                match running.undertaker.give_up(id, at).await {
                    Err(error) => return failed(&error),
                    Ok(found) => {
                        let given_up = given_up.insert(found);
                        reports = std::mem::take(&mut given_up.reports);
                        Order::Bounce {
                            parts: given_up.parts.clone(),
                            status: given_up.status.clone(),
                            cause: given_up.cause.clone(),
                        }
                    }
                }
            }
            (Action::Bounce, _) => {
                return left(
                    id,
                    "its sender has to be told by mail: start the bridge first, which can be paused",
                );
            }
        };
        let event = Event::new(at, Some(id), What::Acted(acted));
        let change = Change {
            message: id,
            order,
            at,
            events: vec![event.to_json()],
            reports,
        };
        let changed = match operator.change(change).await {
            Ok(changed) => changed,
            Err(error) => return failed(&error),
        };
        if let Changed::Done(_) = changed {
            Maillog.acted(id, action, by);
            let told = given_up.iter().flat_map(|given_up| &given_up.told);
            told.for_each(|reported| Maillog.reported(id, reported));
        }
        result(id, action, &changed)
    }

    /// Stops sending, or goes on. Without a running bridge it is written down for the next start.
    pub(super) async fn pause(&self, account: Option<String>, pause: bool) -> Result<(), OfficeError> {
        match &self.side {
            Side::Open(_, Some(running)) if pause => Ok(running.control.pause(account).await?),
            Side::Open(_, Some(running)) => Ok(running.control.resume(account).await?),
            Side::Open(operator, None) => Ok(operator
                .pause(account.as_deref(), pause.then(|| self.now()))
                .await?),
            Side::Closed(_) => self.operator().map(drop),
        }
    }
}

fn left(id: QueueId, text: &str) -> view::ResultOf {
    view::ResultOf {
        id,
        done: false,
        text: Some(text.to_owned()),
        may_arrive_twice: false,
    }
}

fn result(id: QueueId, action: Action, changed: &Changed) -> view::ResultOf {
    match changed {
        Changed::Done(done) => {
            let mut warnings = Vec::new();
            if done.may_arrive_twice {
                warnings.push("an earlier attempt may have gone through: it may arrive twice");
            }
            if done.some_under_way {
                warnings.push("a part of it is just being sent, and was left alone");
            }
            view::ResultOf {
                id,
                done: true,
                text: (!warnings.is_empty()).then(|| warnings.join("; ")),
                may_arrive_twice: done.may_arrive_twice,
            }
        }
        Changed::UnderWay => left(
            id,
            "it is just being sent, and cannot be called back: look again in a minute",
        ),
        Changed::Unplanned => left(
            id,
            "it has only just arrived and is not planned yet: try again when the bridge runs",
        ),
        Changed::Unknown => left(id, "it is not in the queue any more: it was sent or deleted"),
        Changed::Nothing => left(
            id,
            match action {
                Action::Hold => "nothing of it waits: it is held already, or failed",
                Action::Release => "nothing of it is held",
                Action::Bounce => "nothing of it waits: it has failed already",
                _ => "it is waiting to be tried already",
            },
        ),
    }
}

pub(super) fn message(entry: &Entry, now: Timestamp) -> view::Message {
    let states = || entry.parts.iter().filter_map(|part| part.state);
    let state = [State::Held, State::Failed, State::Sending]
        .into_iter()
        .find(|state| states().any(|other| other == *state));
    let shown = entry
        .parts
        .iter()
        .find(|part| part.state == state)
        .or(entry.parts.first());
    let next = entry
        .parts
        .iter()
        .filter(|part| part.state == Some(State::Waiting));
    view::Message {
        id: entry.id,
        arrived: entry.arrived.to_string(),
        age_seconds: now.since(entry.arrived).as_secs(),
        size: entry.size,
        sender: entry.sender.clone().unwrap_or_default(),
        state: state.unwrap_or(State::Waiting),
        uncertain: entry.parts.iter().any(PartState::is_uncertain),
        account: shown.map(|part| part.account.clone()),
        mailbox: shown.map(|part| part.mailbox.clone()),
        attempts: entry.parts.iter().map(|part| part.attempts).max().unwrap_or(0),
        next_attempt: next.map(|part| part.due).min().map(|due| due.to_string()),
        recipients: entry.recipients,
        open: entry.open_count,
        to: entry.open.iter().map(recipient).collect(),
    }
}

fn part(part: &PartState) -> view::Part {
    view::Part {
        number: part.number,
        account: part.account.clone(),
        mailbox: part.mailbox.clone(),
        state: part.state,
        uncertain: part.is_uncertain(),
        attempts: part.attempts,
        next_attempt: (part.state == Some(State::Waiting)).then(|| part.due.to_string()),
        sending_since: part.began.map(|began| began.to_string()),
    }
}

fn recipient(recipient: &RecipientState) -> view::Recipient {
    view::Recipient {
        address: recipient.address.clone(),
        fate: match recipient.fate {
            Fate::Waiting => "waiting",
            Fate::Relayed => "relayed",
            Fate::Failed => "failed",
        }
        .to_owned(),
        status: recipient.status.clone(),
        cause: recipient.cause.clone(),
    }
}

impl From<StoreError> for OfficeError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unknown(id) => Self::NotFound(format!(
                "message {id} is not in the queue any more: it was sent or deleted"
            )),
            error => Self::Trouble(error.to_string()),
        }
    }
}

impl From<ControlError> for OfficeError {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::UnknownAccount { .. } => Self::NotFound(error.to_string()),
            ControlError::AllPaused(_) => Self::Nonsense(error.to_string()),
            error => Self::Trouble(error.to_string()),
        }
    }
}

impl From<ImportError> for OfficeError {
    fn from(error: ImportError) -> Self {
        match error {
            ImportError::Damaged { .. } | ImportError::Accept(AcceptError::Header(_)) => {
                Self::Nonsense(error.to_string())
            }
            ImportError::Accept(_) => Self::Trouble(error.to_string()),
        }
    }
}

impl From<InspectError> for OfficeError {
    fn from(error: InspectError) -> Self {
        Self::Trouble(error.to_string())
    }
}
