//! How much each mailbox may send, and how fast. Pure: the runner owns the one value of [`Pace`].
//!
//! The limits are those of the mailbox in its cloud, whichever account reaches it: accounts that send as the same
//! mailbox share them. Everything is counted before it goes, so that no answer is waited for to know the limit:
//!
//! | limit | Graph | SMTP submission | counted |
//! |---|---|---|---|
//! | at once | 4 requests | 3 connections | from the beginning of an attempt to its end |
//! | upload | 150 MB in 5 min | | while it goes, and 5 min from its end |
//! | a minute | | 30 messages | 30 at once, then one every two seconds |
//! | a day | 10,000 recipients | with Graph's | relayed or uncertain, by the hour; kept over a restart |
//!
//! (Microsoft Graph, "Outlook service limits"; Exchange Online, "Sending limits".) The last tenth of a day is kept for
//! senders that have had less than a tenth of it, where there is more than one: a runaway device stops before
//! the others must. `max_in_flight` limits all mailboxes of an application together; it is off, and switches itself on
//! when Graph complains about concurrency that is none of the mailbox's.

use super::quota::{Day, Rate, Volume, hour_of};
use crate::mail::Timestamp;
use crate::spool::{Lane, Sent, Turn};
use std::collections::{HashMap, HashSet};
use std::time::Duration;
use tokio::time::Instant;

/// Which protocol an attempt goes by: each has limits of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// Microsoft Graph.
    Graph,
    /// SMTP submission.
    Smtp,
}

/// What one mailbox may do by one transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Attempts under way at most; at least 1.
    pub at_once: usize,
    /// Octets on the wire in five minutes; 0 for no limit.
    pub upload: u64,
    /// Messages in a minute; 0 for no limit.
    pub per_minute: u32,
}

/// The pace of an account's mailboxes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Where its mailboxes are: mailboxes of the same name in different clouds are different.
    pub cloud: String,
    /// The application that it signs in as.
    pub application: String,
    /// By Microsoft Graph.
    pub graph: Limits,
    /// By SMTP submission.
    pub smtp: Limits,
    /// Recipients of one mailbox in 24 hours, by all transports; 0 for no limit.
    pub recipients_per_day: u64,
    /// Attempts under way at most for all mailboxes of the application together; 0 for no limit.
    pub max_in_flight: usize,
}

/// The terms of all accounts, by their names.
pub type Paces = HashMap<String, Terms>;

/// Both clocks: what is short goes by the steady one, what is kept by the time of day.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub(super) time: Timestamp,
    pub(super) moment: Instant,
}

/// What an attempt will cost.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load<'a> {
    pub(super) transport: Transport,
    /// Octets of the message.
    pub(super) size: u64,
    pub(super) recipients: u64,
    /// Who it is sent for; see [`crate::spool::Turn`].
    pub(super) sender: &'a str,
}

/// Why an attempt cannot begin yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// Until one that is under way ends.
    Turn,
    /// Until this moment.
    Until(Instant),
    /// The recipients of the day are used up, until then.
    Day(Timestamp),
    /// This sender has used its share of the day, until then; others may go.
    Share(Timestamp),
}

/// Permission for one attempt, to be given back by [`Pace::end`].
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(super) struct Ticket {
    mailbox: Mailbox,
    application: String,
    transport: Transport,
    octets: u64,
    recipients: u64,
}

/// Something that an administrator should know, each said once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Notice {
    /// Nine tenths of the recipients of a day are used.
    Near { mailbox: String, used: u64, limit: u64 },
    /// All are, or all that one sender may have: mail waits until then.
    Reached {
        mailbox: String,
        limit: u64,
        until: Timestamp,
    },
    /// Graph wants fewer requests of this application at once.
    Narrowed { application: String, at_once: usize },
}

/// Counts what all mailboxes send.
#[derive(Clone, Debug, Default)]
pub(super) struct Pace {
    terms: Paces,
    mailboxes: HashMap<Mailbox, Ledger>,
    applications: HashMap<String, Application>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Mailbox {
    cloud: String,
    address: String,
}

#[derive(Clone, Debug, Default)]
struct Ledger {
    transports: HashMap<Transport, Traffic>,
    /// Recipients of what is under way.
    reserved: u64,
    day: Day,
    near_told: bool,
    reached_told: bool,
}

#[derive(Clone, Debug)]
struct Traffic {
    in_flight: usize,
    /// Octets of what is under way.
    going: u64,
    gone: Volume,
    rate: Rate,
}

#[derive(Clone, Copy, Debug, Default)]
struct Application {
    in_flight: usize,
    /// What Graph's complaints have taught.
    learned: Option<usize>,
}

/// The span of `upload` ("150 megabytes (MB) upload in a 5-minute period").
const UPLOAD_SPAN: Duration = Duration::from_secs(300);

/// Octets of a request besides the message: its header with the token.
const REQUEST_HEADER: u64 = 4096;

impl Limits {
    /// Microsoft Graph, "Outlook service limits".
    pub const GRAPH: Self = Self {
        at_once: 4,
        upload: 150_000_000,
        per_minute: 0,
    };

    /// Exchange Online, "Sending limits" and "Improvements to SMTP AUTH client submission".
    pub const SMTP: Self = Self {
        at_once: 3,
        upload: 0,
        per_minute: 30,
    };
}

impl Default for Terms {
    /// Microsoft's limits, for an account that is not configured any more.
    fn default() -> Self {
        Self {
            cloud: "global".to_owned(),
            application: String::new(),
            graph: Limits::GRAPH,
            smtp: Limits::SMTP,
            recipients_per_day: 10_000,
            max_in_flight: 0,
        }
    }
}

impl Terms {
    /// What is to be written down when `recipients` were sent to from `mailbox` at `time`, for whoever had the turn.
    pub(super) fn sent(&self, mailbox: &str, turn: &Turn, recipients: u64, time: Timestamp) -> Sent {
        Sent {
            cloud: self.cloud.clone(),
            mailbox: mailbox.to_ascii_lowercase(),
            hour: hour_of(time),
            sender: turn.to_string(),
            recipients,
        }
    }

    fn limits(&self, transport: Transport) -> Limits {
        match transport {
            Transport::Graph => self.graph,
            Transport::Smtp => self.smtp,
        }
    }

    /// What is kept for senders of little.
    fn reserve(&self) -> u64 {
        self.recipients_per_day / 10
    }
}

impl Pace {
    pub(super) fn new(terms: Paces) -> Self {
        Self {
            terms,
            ..Self::default()
        }
    }

    /// Counts what an earlier run has written down, or what an attempt of it turns out to have sent.
    pub(super) fn restore(&mut self, sent: impl IntoIterator<Item = Sent>) {
        for sent in sent {
            let ledger = self.ledger(Mailbox {
                cloud: sent.cloud,
                address: sent.mailbox,
            });
            ledger.day.add(sent.hour, &sent.sender, sent.recipients);
        }
    }

    /// How many attempts of a lane may begin now, as far as their messages do not matter; 0 with the reason.
    pub(super) fn room(&self, lane: &Lane, transport: Transport, now: Now) -> Result<usize, Wait> {
        let terms = self.terms(&lane.account);
        let limits = terms.limits(transport);
        let mut room = limits.at_once;
        if let Some(most) = self.application_limit(&terms) {
            let in_flight = self
                .applications
                .get(&terms.application)
                .map_or(0, |a| a.in_flight);
            room = room.min(most.saturating_sub(in_flight));
        }
        if let Some(ledger) = self.mailboxes.get(&Mailbox::of(&terms, lane)) {
            if let Some(traffic) = ledger.transports.get(&transport) {
                room = room.min(limits.at_once.saturating_sub(traffic.in_flight));
                if limits.per_minute > 0 {
                    let next = traffic.rate.next(limits.per_minute, now.moment);
                    if next > now.moment {
                        return Err(Wait::Until(next));
                    }
                }
            }
            let limit = terms.recipients_per_day;
            if limit > 0 && ledger.day.used(now.time) >= limit {
                return Err(Wait::Day(ledger.day.below(limit - 1, now.time)));
            }
        }
        if room == 0 { Err(Wait::Turn) } else { Ok(room) }
    }

    /// Senders of a lane that have used their share of the day, and until when they wait if there are any.
    pub(super) fn barred(&self, lane: &Lane, now: Now) -> (HashSet<String>, Option<Timestamp>) {
        let terms = self.terms(&lane.account);
        let Some(ledger) = self.mailboxes.get(&Mailbox::of(&terms, lane)) else {
            return (HashSet::new(), None);
        };
        if !ledger.is_scarce(&terms, now.time) {
            return (HashSet::new(), None);
        }
        let senders = ledger.day.senders_above(terms.reserve(), now.time);
        let senders: HashSet<String> = senders.map(str::to_owned).collect();
        let until = (!senders.is_empty()).then(|| ledger.plenty(&terms, now.time));
        (senders, until)
    }

    /// Lets an attempt begin, or says what it has to wait for.
    pub(super) fn begin(&mut self, lane: &Lane, load: Load<'_>, now: Now) -> Result<Ticket, Wait> {
        self.room(lane, load.transport, now)?;
        let terms = self.terms(&lane.account);
        let (limits, mailbox) = (terms.limits(load.transport), Mailbox::of(&terms, lane));
        // Base64 makes four octets of three.
        let octets = load.size.div_ceil(3) * 4 + REQUEST_HEADER;
        let ledger = self.ledger(mailbox.clone());
        ledger.admits(&terms, &load, now.time)?;
        let traffic = ledger.transports.entry(load.transport).or_default();
        traffic.admits(limits, octets, now.moment)?;
        traffic.in_flight += 1;
        traffic.going += octets;
        if limits.per_minute > 0 {
            traffic.rate.add(limits.per_minute, now.moment);
        }
        ledger.reserved += load.recipients;
        self.applications
            .entry(terms.application.clone())
            .or_default()
            .in_flight += 1;
        Ok(Ticket {
            mailbox,
            application: terms.application,
            transport: load.transport,
            octets,
            recipients: load.recipients,
        })
    }

    /// Says that an attempt ended. `tried` says whether the upstream was given the message at all, `sent` are the
    /// recipients that count from now on, as they were written down.
    pub(super) fn end(&mut self, ticket: Ticket, tried: bool, sent: Option<&Sent>, now: Now) {
        if let Some(application) = self.applications.get_mut(&ticket.application) {
            application.in_flight = application.in_flight.saturating_sub(1);
        }
        let ledger = self.ledger(ticket.mailbox);
        ledger.reserved = ledger.reserved.saturating_sub(ticket.recipients);
        let traffic = ledger.transports.entry(ticket.transport).or_default();
        traffic.in_flight = traffic.in_flight.saturating_sub(1);
        traffic.going = traffic.going.saturating_sub(ticket.octets);
        if tried {
            // How much of it has left us is not known; Graph counts what it has seen, taken or not.
            traffic.gone.add(ticket.octets, now.moment);
        }
        if let Some(sent) = sent {
            ledger.day.add(sent.hour, &sent.sender, sent.recipients);
        }
    }

    /// Graph has refused the attempt of `ticket` because of too many at once. If the mailbox was within its own
    /// limit, all mailboxes of the application share one from now on, and a smaller one each time.
    pub(super) fn over_concurrency(&mut self, lane: &Lane, ticket: &Ticket) -> Option<Notice> {
        let terms = self.terms(&lane.account);
        let limits = terms.limits(ticket.transport);
        let ledger = self.mailboxes.get(&ticket.mailbox)?;
        if ledger.transports.get(&ticket.transport)?.in_flight >= limits.at_once {
            return None;
        }
        let known = self.application_limit(&terms);
        let application = self.applications.entry(ticket.application.clone()).or_default();
        let fewer = application.in_flight.saturating_sub(1).max(1);
        let at_once = fewer.min(known.unwrap_or(limits.at_once));
        if known == Some(at_once) {
            return None;
        }
        application.learned = Some(at_once);
        Some(Notice::Narrowed {
            application: ticket.application.clone(),
            at_once,
        })
    }

    /// What is new about the day of a lane's mailbox.
    pub(super) fn notices(&mut self, lane: &Lane, now: Now) -> Vec<Notice> {
        let terms = self.terms(&lane.account);
        let (limit, key) = (terms.recipients_per_day, Mailbox::of(&terms, lane));
        let Some(ledger) = self.mailboxes.get_mut(&key).filter(|_| limit > 0) else {
            return Vec::new();
        };
        let (used, mut notices) = (ledger.day.used(now.time), Vec::new());
        let (near, reached) = (used >= limit - limit / 10, used >= limit);
        if near && !ledger.near_told {
            notices.push(Notice::Near {
                mailbox: key.address.clone(),
                used,
                limit,
            });
        }
        if reached && !ledger.reached_told {
            notices.push(Notice::Reached {
                mailbox: key.address,
                limit,
                until: ledger.day.below(limit - 1, now.time),
            });
        }
        // Not again for each hour that frees a few: the day must have become much better first.
        ledger.near_told = used >= limit / 2 && (near || ledger.near_told);
        ledger.reached_told = near && (reached || ledger.reached_told);
        notices
    }

    fn terms(&self, account: &str) -> Terms {
        self.terms.get(account).cloned().unwrap_or_default()
    }

    fn application_limit(&self, terms: &Terms) -> Option<usize> {
        let learned = self.applications.get(&terms.application).and_then(|a| a.learned);
        let configured = Some(terms.max_in_flight).filter(|most| *most > 0);
        [learned, configured].into_iter().flatten().min()
    }

    fn ledger(&mut self, mailbox: Mailbox) -> &mut Ledger {
        self.mailboxes.entry(mailbox).or_default()
    }
}

impl Ledger {
    /// True if only the last tenth of the day is left, and more than one sender wants it.
    fn is_scarce(&self, terms: &Terms, now: Timestamp) -> bool {
        let limit = terms.recipients_per_day;
        limit > 0 && self.day.used(now) + self.reserved >= limit - terms.reserve() && self.day.is_shared(now)
    }

    /// When more than the last tenth of the day will be left; a moment from now if that hangs on what is under way.
    fn plenty(&self, terms: &Terms, now: Timestamp) -> Timestamp {
        let until = self
            .day
            .below(terms.recipients_per_day - terms.reserve() - 1, now);
        until.max(now.plus(Duration::from_secs(1)))
    }

    fn admits(&self, terms: &Terms, load: &Load<'_>, now: Timestamp) -> Result<(), Wait> {
        let limit = terms.recipients_per_day;
        if limit == 0 {
            return Ok(());
        }
        // What is more than a whole day goes alone.
        let wanted = load.recipients.min(limit);
        if self.is_scarce(terms, now) && self.day.used_by(load.sender, now) >= terms.reserve() {
            return Err(Wait::Share(self.plenty(terms, now)));
        }
        if self.day.used(now) + wanted > limit {
            return Err(Wait::Day(self.day.below(limit - wanted, now)));
        }
        if self.day.used(now) + self.reserved + wanted > limit {
            return Err(Wait::Turn);
        }
        Ok(())
    }
}

impl Traffic {
    fn admits(&self, limits: Limits, octets: u64, now: Instant) -> Result<(), Wait> {
        if limits.upload == 0 {
            return Ok(());
        }
        let wanted = octets.min(limits.upload);
        let free = self.gone.below(limits.upload - wanted, now);
        if free > now {
            return Err(Wait::Until(free));
        }
        let with_what_goes = limits.upload.checked_sub(wanted + self.going);
        match with_what_goes.map(|allowed| self.gone.below(allowed, now)) {
            Some(free) if free <= now => Ok(()),
            _ => Err(Wait::Turn),
        }
    }
}

impl Default for Traffic {
    fn default() -> Self {
        Self {
            in_flight: 0,
            going: 0,
            gone: Volume::new(UPLOAD_SPAN),
            rate: Rate::default(),
        }
    }
}

impl Mailbox {
    fn of(terms: &Terms, lane: &Lane) -> Self {
        Self {
            cloud: terms.cloud.clone(),
            address: lane.mailbox.to_ascii_lowercase(),
        }
    }
}

#[cfg(test)]
#[path = "pace_tests.rs"]
mod tests;
