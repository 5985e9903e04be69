//! How a message is split into parts, once, before its first attempt, and what the history is told of it.

use crate::config::SenderPattern;
use crate::explain::local;
use crate::mail::Address;
use crate::mail::Disposition;
use crate::mail::ReversePath;
use crate::mail::Timestamp;
use crate::mail::header::{HeaderBlock, HeaderChanges, MAX_HEADER_BLOCK};
use crate::policy::{Choice, choose_mailbox, fit_header_to_envelope, summary};
use crate::spool::{Body, BodyError, Message, Plan, PlannedPart};
use crate::telemetry::Event;
use crate::telemetry::event::{Accepted, PartPlanned, What};
use serde::{Deserialize, Serialize};

/// Decides which parts a message is sent in. Pure but for reading the beginning of the body.
#[derive(Clone, Debug)]
pub struct Planner {
    account: Account,
    /// Whether the history may know the subjects.
    subjects: bool,
}

/// The account that a message goes out by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its name in the configuration.
    pub name: String,
    /// The mailbox that sends what has no better sender.
    pub mailbox: Address,
    /// Senders that have a mailbox of their own.
    pub send_as: Vec<SenderPattern>,
}

/// What was decided about a message, and what its header says of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Outline {
    pub(super) parts: Vec<Planned>,
    message_id: Option<String>,
    subject: Option<String>,
}

/// A part, with what the log says about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Planned {
    pub(super) part: PlannedPart,
    pub(super) summary: String,
}

/// What a plan says about the header; stored with the part as JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum HeaderPlan {
    /// Send it with these changes, from a mailbox that the configuration names.
    Change(HeaderChanges),
    /// Send it with these changes, from a mailbox that fits a pattern of the configuration.
    ChangeByPattern(HeaderChanges),
    /// It waits for a person.
    Hold {
        /// Why, for the operator.
        diagnostic: String,
    },
    /// It can never be sent to these recipients.
    Refuse {
        /// For replies and reports.
        public: String,
        /// For the operator.
        diagnostic: String,
    },
}

impl Planner {
    /// All mail goes out by this account; its From field decides from which mailbox.
    #[must_use]
    pub fn new(account: Account) -> Self {
        Self {
            account,
            subjects: true,
        }
    }

    /// With `false`, the history does not learn the subjects of messages.
    #[must_use]
    pub fn telling_subjects(mut self, subjects: bool) -> Self {
        self.subjects = subjects;
        self
    }

    /// The same for mail that goes out by `account`, whatever else would be chosen.
    #[must_use]
    pub(super) fn by(&self, account: Account) -> Self {
        Self {
            account,
            ..self.clone()
        }
    }

    /// The parts of a message; together they have each recipient once. Blocks on the disk.
    ///
    /// # Errors
    /// The body cannot be read at the moment. One that can never be read is planned to be held.
    pub(super) fn plan(&self, message: &Message, body: &Body) -> Result<Outline, BodyError> {
        match body.beginning(MAX_HEADER_BLOCK) {
            Ok(beginning) => {
                let whole = beginning.len() as u64 == body.size();
                Ok(self.outline(message, &beginning, whole))
            }
            Err(error) if error.is_lasting() => {
                Ok(vec![self.held(everybody(message), &error.to_string())].into())
            }
            Err(error) => Err(error),
        }
    }

    /// The plan of a message that begins with these octets, or consists of them if `whole`.
    pub(super) fn outline(&self, message: &Message, beginning: &[u8], whole: bool) -> Outline {
        let block = match HeaderBlock::parse(beginning, whole) {
            Ok(block) => block,
            Err(error) => {
                return vec![self.refused(everybody(message), &error.to_string(), &error.to_string())].into();
            }
        };
        let recipients: Vec<Address> = message.envelope.addresses().cloned().collect();
        Outline {
            parts: self.parts(&block, &recipients),
            message_id: block.message_id().map(|id| bounded(&id, MAX_MESSAGE_ID)),
            subject: block
                .subject()
                .filter(|_| self.subjects)
                .map(|subject| bounded(&subject, MAX_SUBJECT)),
        }
    }

    fn parts(&self, block: &HeaderBlock<'_>, recipients: &[Address]) -> Vec<Planned> {
        let from: Vec<Address> = block.from().into_iter().map(|mailbox| mailbox.address).collect();
        let sender = choose_mailbox(&self.account.mailbox, &self.account.send_as, &from);
        let everybody: Vec<usize> = (0..recipients.len()).collect();
        let misfit = match fit_header_to_envelope(block, recipients) {
            Ok(changes) => return vec![self.changed(block, &sender, everybody, changes)],
            Err(misfit) => misfit,
        };
        // Those who cannot be written into a header are refused; the others need not suffer for it.
        let (bad, good): (Vec<usize>, Vec<usize>) = everybody
            .into_iter()
            .partition(|n| misfit.recipients.is_empty() || misfit.recipients.contains(&recipients[*n]));
        let mut parts = vec![self.refused(bad, &misfit.public, &misfit.diagnostic)];
        if !good.is_empty() {
            let addresses: Vec<Address> = good.iter().map(|n| recipients[*n].clone()).collect();
            parts.push(match fit_header_to_envelope(block, &addresses) {
                Ok(changes) => self.changed(block, &sender, good, changes),
                Err(misfit) => self.refused(good, &misfit.public, &misfit.diagnostic),
            });
        }
        parts
    }

    /// The plan of a message whose record cannot be read: one part without recipients, to be held.
    pub(super) fn unreadable(&self, diagnostic: &str) -> Outline {
        vec![self.held(Vec::new(), diagnostic)].into()
    }

    fn held(&self, recipients: Vec<usize>, diagnostic: &str) -> Planned {
        let plan = HeaderPlan::Hold {
            diagnostic: diagnostic.to_owned(),
        };
        self.planned(recipients, &plan, "cannot be read".to_owned())
    }

    fn changed(
        &self,
        block: &HeaderBlock<'_>,
        sender: &Choice,
        recipients: Vec<usize>,
        changes: HeaderChanges,
    ) -> Planned {
        let summary = summary(block, &changes);
        let summary = if summary.is_empty() {
            "none".to_owned()
        } else {
            summary.join(", ")
        };
        let header = if sender.listed {
            HeaderPlan::Change(changes)
        } else {
            HeaderPlan::ChangeByPattern(changes)
        };
        let mut planned = self.planned(recipients, &header, summary);
        planned.part.mailbox = sender.mailbox.clone();
        planned
    }

    fn refused(&self, recipients: Vec<usize>, public: &str, diagnostic: &str) -> Planned {
        let plan = HeaderPlan::Refuse {
            public: public.to_owned(),
            diagnostic: diagnostic.to_owned(),
        };
        self.planned(recipients, &plan, "refused".to_owned())
    }

    fn planned(&self, recipients: Vec<usize>, header: &HeaderPlan, summary: String) -> Planned {
        let Account { name, mailbox, .. } = self.account.clone();
        Planned {
            part: PlannedPart {
                account: name,
                mailbox,
                changes: header.to_json(),
                recipients,
            },
            summary,
        }
    }
}

/// All recipients, by their positions.
fn everybody(message: &Message) -> Vec<usize> {
    (0..message.envelope.recipients().len()).collect()
}

impl From<Vec<Planned>> for Outline {
    fn from(parts: Vec<Planned>) -> Self {
        Self {
            parts,
            ..Self::default()
        }
    }
}

impl Outline {
    /// For the spool: all parts due at `now`, with the event for the history; none if the record is unreadable.
    pub(super) fn plan(&self, message: Option<&Message>, now: Timestamp) -> Plan {
        let accepted = message.map(|message| self.accepted(message, now).to_json());
        Plan {
            parts: self.parts.iter().map(|planned| planned.part.clone()).collect(),
            due: now,
            message_id: self.message_id.clone(),
            events: accepted.into_iter().collect(),
        }
    }

    fn accepted(&self, message: &Message, now: Timestamp) -> Event {
        let from = match message.envelope.reverse_path() {
            ReversePath::Null => None,
            ReversePath::Address(address) => Some(address.to_string()),
        };
        let parts = self.parts.iter().map(|Planned { part, summary }| PartPlanned {
            account: part.account.clone(),
            mailbox: part.mailbox.to_string(),
            recipients: part.recipients.clone(),
            changes: summary.clone(),
        });
        let accepted = Accepted {
            arrived: message.arrived,
            from,
            to: message.envelope.addresses().map(ToString::to_string).collect(),
            size: message.size,
            client: message.origin.client.to_string(),
            listener: message.origin.listener.clone(),
            user: message.origin.user.clone(),
            tls: message.origin.tls,
            message_id: self.message_id.clone(),
            subject: self.subject.clone(),
            parts: parts.collect(),
        };
        Event::new(now, Some(message.id), What::Accepted(accepted))
    }
}

/// Characters of a Subject that the history keeps.
const MAX_SUBJECT: usize = 200;

/// Characters of a Message-ID that are kept: a line of a header is no longer (RFC 5322 §2.1.1).
const MAX_MESSAGE_ID: usize = 998;

fn bounded(text: &str, characters: usize) -> String {
    text.chars()
        .filter(|c| !c.is_control())
        .take(characters)
        .collect()
}

impl HeaderPlan {
    fn to_json(&self) -> String {
        // Serializing strings and numbers into memory cannot fail; an unreadable plan would be held, not lost.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads a stored plan.
    pub(super) fn from_json(text: &str) -> Result<Self, Disposition> {
        serde_json::from_str(text).map_err(|error| {
            local::UNREADABLE.disposition(format!("the stored plan is damaged: {error}"), None)
        })
    }
}
