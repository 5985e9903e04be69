//! Every line that tells of a message's life, with fixed field names. Nobody else logs these events.
//!
//! | event | when | fields besides `id` |
//! |---|---|---|
//! | `accepted` | 250 was said | `from` `to` `size` `client` `greeting` `listener` |
//! | `refused` | a client, sender, recipient or message was turned away | `client` `listener` `reply` |
//! | `no TLS` | a handshake failed | `client` `listener` `reason` |
//! | `lost` | the connection broke before the final dot | `client` `listener` `octets` |
//! | `planned` | the parts were decided | `part` `account` `mailbox` `recipients` `changes` |
//! | `relayed` | the upstream took it for these recipients | `part` `to` `account` `mailbox` `upstream` `attempt` `age` |
//! | `deferred` | it will be tried again by itself | the same with `status` `cause` `upstream` `next` |
//! | `held` | a person must act | the same |
//! | `failed` | it can never go | the same |
//! | `uncertain` | nobody knows whether it went | the same |
//! | `released` | nothing is left to be done; the message is gone from the queue | `age` |
//! | `dead-letter` | nothing is left to be tried; the message stays | `age` |
//! | `imported` | an administrator took it over from a file | `from` `to` `size` `by` |
//! | `acted` | an administrator did something with it | `action` `by` |
//! | `reported` | somebody was told what became of it | `action` `to` `report` |
//! | `not reported` | nobody was told | `action` `why` |
//! | `paused` / `resumed` | an administrator stopped the sending, or lets it go on | `account` |
//! | (a sentence) | a limit of a mailbox is near, reached or found out | none |
//! | `alert` / `all-clear` | administrators were told of trouble, or of its end | `name` `way` `text` |
//! | `account broken` / `account well` | a gate closed or opened | `account` `mailbox` `cause` `upstream` `probe` |

use super::event::{Action, Alerted, Attempted, Outcome, Reported};
use crate::mail::Address;
use crate::mail::Cause;
use crate::mail::Envelope;
use crate::mail::Peer;
use crate::mail::QueueId;
use crate::mail::Timestamp;
use std::fmt;
use std::time::Duration;
use tracing::{info, warn};

/// Writes the life of messages. Cheap to clone; later the same calls feed metrics.
#[derive(Clone, Copy, Debug, Default)]
pub struct Maillog;

/// Who a client is.
#[derive(Clone, Copy, Debug)]
pub struct Client<'a> {
    /// Its address.
    pub address: Peer,
    /// The listener it came to.
    pub listener: &'a str,
}

impl Maillog {
    /// 250 was said.
    pub fn accepted(&self, id: QueueId, envelope: &Envelope, size: u64, client: Client<'_>, greeting: &str) {
        let to: Vec<&Address> = envelope.addresses().collect();
        let to = List(&to);
        let from = envelope.reverse_path();
        let Client { address, listener } = client;
        info!(target: "mail", %id, %from, %to, size, client = %address, greeting, listener, "accepted");
    }

    /// A client, sender, recipient or message was turned away with `reply`.
    pub fn refused(&self, client: Client<'_>, reply: &str) {
        warn!(target: "mail", client = %client.address, listener = client.listener, reply, "refused");
    }

    /// A client and we could not agree on TLS; the connection is closed.
    pub fn no_tls(&self, client: Client<'_>, reason: &str) {
        warn!(target: "mail", client = %client.address, listener = client.listener, reason, "no TLS");
    }

    /// The connection broke after `octets` of a message, before the final dot.
    pub fn lost(&self, client: Client<'_>, octets: u64) {
        warn!(
            target: "mail", client = %client.address, listener = client.listener, octets,
            "lost: the connection broke before the end of a message, which the client has to send again; \
             if it happens again, look for a time limit, a size limit or an energy-saving mode in the device"
        );
    }

    /// The parts of a message were decided; one line for each.
    pub fn planned(
        &self,
        id: QueueId,
        part: u32,
        account: &str,
        mailbox: &Address,
        recipients: usize,
        changes: &str,
    ) {
        info!(target: "mail", %id, part, account, %mailbox, recipients, changes, "planned");
    }

    /// What an attempt came to, for the recipients that share it; the same value goes into the history.
    pub fn attempted(&self, id: QueueId, attempt: &Attempted) {
        let to: Vec<&str> = attempt.recipients.iter().map(|(_, to)| to.as_str()).collect();
        let (to, age) = (List(&to), Seconds(attempt.age()));
        let Attempted {
            part,
            account,
            mailbox,
            number,
            status,
            cause,
            upstream,
            next,
            ..
        } = attempt;
        match attempt.outcome {
            Outcome::Relayed => {
                info!(target: "mail", %id, part, %to, account, mailbox, upstream, attempt = number, %age, "relayed");
            }
            Outcome::Deferred => {
                info!(target: "mail", %id, part, %to, account, mailbox, status, cause, upstream, attempt = number, %age, %next, "deferred");
            }
            Outcome::Held => {
                warn!(target: "mail", %id, part, %to, account, mailbox, status, cause, upstream, attempt = number, %age, %next, "held");
            }
            Outcome::Failed => {
                warn!(target: "mail", %id, part, %to, account, mailbox, status, cause, upstream, attempt = number, %age, %next, "failed");
            }
            Outcome::Uncertain => {
                warn!(target: "mail", %id, part, %to, account, mailbox, status, cause, upstream, attempt = number, %age, %next, "uncertain");
            }
        }
    }

    /// Every recipient has it: the message is gone from the queue.
    pub fn released(&self, id: QueueId, age: Duration) {
        info!(target: "mail", %id, age = %Seconds(age), "released");
    }

    /// Nothing is left to be tried, and somebody did not get it: the message stays as a dead letter.
    pub fn dead_letter(&self, id: QueueId, age: Duration) {
        warn!(target: "mail", %id, age = %Seconds(age), "dead-letter: the message stays in the spool");
    }

    /// Somebody was told what became of a message, or why that was not done; the same value goes into the history.
    pub fn reported(&self, id: QueueId, reported: &Reported) {
        let action = &reported.action;
        match (&reported.to, &reported.report) {
            (Some(to), Some(report)) => info!(target: "mail", %id, action, to, %report, "reported"),
            _ => info!(target: "mail", %id, action, why = reported.why_not, "not reported"),
        }
    }

    /// An administrator has done something with a message.
    pub fn acted(&self, id: QueueId, action: Action, by: &str) {
        info!(target: "mail", %id, action = action.word(), by, "acted: an administrator stepped in");
    }

    /// An administrator has taken a message over from a file.
    pub fn imported(&self, id: QueueId, envelope: &Envelope, size: u64, by: &str) {
        let to: Vec<&Address> = envelope.addresses().collect();
        let (from, to) = (envelope.reverse_path(), List(&to));
        info!(target: "mail", %id, %from, %to, size, by, "imported");
    }

    /// Administrators were told of something; the same value goes into the history.
    pub fn alerted(&self, alerted: &Alerted) {
        let Alerted {
            name,
            way,
            over,
            text,
        } = alerted;
        if *over {
            info!(target: "mail", name, way, "all-clear");
        } else {
            warn!(target: "mail", name, way, text, "alert");
        }
    }

    /// Mail of an account or mailbox waits from now on.
    pub fn gate_closed(
        &self,
        account: &str,
        mailbox: Option<&str>,
        cause: &Cause,
        broken: bool,
        probe: Duration,
    ) {
        let mailbox = mailbox.unwrap_or("all");
        let Cause {
            public, diagnostic, ..
        } = cause;
        let probe = Seconds(probe);
        if broken {
            warn!(target: "mail", account, mailbox, cause = public, upstream = diagnostic, %probe, "account broken: its mail waits, nothing is lost");
        } else {
            info!(target: "mail", account, mailbox, cause = public, upstream = diagnostic, %probe, "account paused");
        }
    }

    /// Mail waits for something that a person must put right, and at `ends` the first of it will have waited for as
    /// long as `hold_for` allows.
    pub fn hold_ends(&self, account: &str, mailbox: Option<&str>, cause: &Cause, ends: Timestamp) {
        let mailbox = mailbox.unwrap_or("all");
        let Cause {
            public, diagnostic, ..
        } = cause;
        warn!(target: "mail", account, mailbox, cause = public, upstream = diagnostic, %ends, "account still broken: its mail has waited for long, and is reported to its senders after `ends`");
    }

    /// A message has waited for as long as `hold_for` allows: it waits for a person from now on. `cause` is what its
    /// account is broken by.
    pub fn held_too_long(&self, id: QueueId, part: u32, cause: Option<&Cause>) {
        let cause = cause.map_or("it waits for a person", |cause| &cause.public);
        warn!(target: "mail", %id, part, cause, "held too long: the message is kept, and goes out when somebody releases it");
    }

    /// A limit of a mailbox is near or reached, or was found out.
    pub fn pace(&self, text: &str) {
        warn!(target: "mail", "{text}");
    }

    /// An administrator paused the mail of an account; the empty name is all of them.
    pub fn paused(&self, account: &str) {
        warn!(target: "mail", account = or_all(account), "paused: mail is accepted and waits until `resume`");
    }

    /// It was paused in an earlier run and is so still.
    pub fn still_paused(&self, account: &str, since: Timestamp) {
        warn!(target: "mail", account = or_all(account), %since, "still paused: mail is accepted and waits until `resume`");
    }

    /// An administrator lifted a pause.
    pub fn resumed(&self, account: &str) {
        info!(target: "mail", account = or_all(account), "resumed: mail is sent again");
    }

    /// Mail of an account or mailbox flows again.
    pub fn gate_opened(&self, account: &str, mailbox: Option<&str>, closed_for: Duration) {
        let mailbox = mailbox.unwrap_or("all");
        info!(target: "mail", account, mailbox, closed_for = %Seconds(closed_for), "account well: its mail flows again");
    }
}

fn or_all(account: &str) -> &str {
    if account.is_empty() { "all" } else { account }
}

struct List<'a, T>(&'a [T]);

impl<T: fmt::Display> fmt::Display for List<'_, T> {
    /// The first ten in angle brackets, and how many more there are.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, address) in self.0.iter().take(10).enumerate() {
            write!(f, "{}<{}>", if n > 0 { "," } else { "" }, address)?;
        }
        match self.0.len().saturating_sub(10) {
            0 => Ok(()),
            more => write!(f, ",and-{more}-more"),
        }
    }
}

struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}s", self.0.as_secs_f64())
    }
}
