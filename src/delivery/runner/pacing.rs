//! What the runner does about the pace of the mailboxes: who waits for a place or for an hour, and who is told.

use super::{Finished, Runner, Work};
use crate::delivery::control::{Attention, Health, Trouble};
use crate::delivery::pace::{Load, Notice, Now, Ticket, Transport, Wait};
use crate::delivery::quota::{COUNTING, hour_of};
use crate::explain::MAILBOX_CONCURRENCY;
use crate::explain::local;
use crate::mail::Disposition;
use crate::mail::Timestamp;
use crate::spool::{InTurn, Lane, Part, PartId, Slots};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Lanes that have mail due, and wait for something that is not theirs.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// For the end of an attempt, perhaps of another lane; since when, so that all get their turn.
    places: HashMap<Lane, Instant>,
    /// Because the recipients of the day are used up: since when, and until when.
    days: HashMap<Lane, (Timestamp, Timestamp)>,
}

/// What a question to the spool leaves out: what is under way or abandoned.
pub(super) type Busy = Arc<HashSet<PartId>>;

/// How attempts go out; one transport, as long as there is no other.
const TRANSPORT: Transport = Transport::Graph;

impl Runner {
    /// What the mailboxes have sent in the last day is asked for until it could be read once; nothing is sent before.
    pub(super) async fn read_sent(&mut self, now: Timestamp) {
        if self.sent_read {
            return;
        }
        match self.context.store.sent(hour_of(now) - COUNTING).await {
            Ok(sent) => {
                self.pace.restore(sent);
                self.sent_read = true;
                self.survey = Instant::now();
            }
            Err(error) => {
                tracing::error!(%error, "it cannot be read how much was sent today; nothing is sent yet");
            }
        }
    }

    /// The parts that a question leaves out.
    pub(super) fn busy(&self) -> Busy {
        let under_way = self.work.values().filter_map(|work| match work {
            Work::Attempt { part, .. } => Some(*part),
            Work::Planning(_) | Work::Other => None,
        });
        Arc::new(under_way.chain(self.abandoned.parts.iter().copied()).collect())
    }

    /// How much of a lane may be asked for now; nothing if it has to wait, which is remembered.
    pub(super) fn room(&mut self, lane: &Lane, now: Now, busy: &Busy) -> Slots {
        let take = match self.pace.room(lane, TRANSPORT, now) {
            Ok(room) => room,
            Err(wait) => {
                self.wait_for(lane, wait, now);
                return Slots::None;
            }
        };
        if self.waiting.days.remove(lane).is_some() {
            self.lanes
                .set_open(lane, self.is_open(lane, now.moment), now.moment);
        }
        let (barred, until) = self.pace.barred(lane, now);
        if let Some(until) = until {
            self.wait_for(lane, Wait::Share(until), now);
        }
        Slots::InTurn(InTurn {
            take,
            turns: self.turns.get(lane).cloned().unwrap_or_default(),
            busy: busy.clone(),
            barred: Arc::new(barred),
        })
    }

    /// True if the pace allows one more attempt of a lane.
    pub(super) fn has_room(&self, lane: &Lane, now: Now) -> bool {
        self.pace.room(lane, TRANSPORT, now).is_ok()
    }

    /// Permission to begin an attempt; if there is none, the lane is looked at again in time.
    pub(super) fn ticket(&mut self, part: &Part, lane: &Lane, now: Now) -> Option<Ticket> {
        let sender = part.turn.to_string();
        let load = Load {
            transport: TRANSPORT,
            size: part.size,
            recipients: part.waiting.len() as u64,
            sender: &sender,
        };
        match self.pace.begin(lane, load, now) {
            Ok(ticket) => {
                self.turns.entry(lane.clone()).or_default().served(&part.turn);
                Some(ticket)
            }
            Err(wait) => {
                self.wait_for(lane, wait, now);
                None
            }
        }
    }

    /// Looks at a lane again when what it waits for may have come.
    fn wait_for(&mut self, lane: &Lane, wait: Wait, now: Now) {
        let until = match wait {
            Wait::Turn => {
                self.waiting.places.entry(lane.clone()).or_insert(now.moment);
                return;
            }
            Wait::Until(moment) => moment,
            Wait::Share(time) => now.moment + time.since(now.time),
            Wait::Day(time) => {
                self.waiting
                    .days
                    .entry(lane.clone())
                    .and_modify(|(_, until)| *until = time)
                    .or_insert((now.time, time));
                self.lanes.set_open(lane, false, now.moment);
                now.moment + time.since(now.time)
            }
        };
        // A step of the clock must not make anybody wait for longer.
        let until = until.clamp(now.moment + Duration::from_millis(1), now.moment + LOOK_AT_LIMITS);
        self.lanes
            .wake(lane, until, now.moment, self.is_open(lane, now.moment));
    }

    /// An attempt of `lane` ended: counts it, tells what is new, and lets those go on who wait for a place.
    pub(super) fn paid(&mut self, lane: &Lane, ticket: Ticket, finished: &Finished, now: Instant) {
        let narrowed = finished
            .news
            .iter()
            .any(|news| news.is_about(MAILBOX_CONCURRENCY));
        let narrowed = narrowed
            .then(|| self.pace.over_concurrency(lane, &ticket))
            .flatten();
        let now = Now {
            time: self.context.clock.now(),
            moment: now,
        };
        self.pace.end(ticket, finished.tried, finished.sent.as_ref(), now);
        let notices = self.pace.notices(lane, now);
        for notice in narrowed.into_iter().chain(notices) {
            self.context.maillog.pace(&notice.to_string());
            self.call_for(Attention::Limit {
                text: notice.to_string(),
            });
        }
        for (lane, since) in std::mem::take(&mut self.waiting.places) {
            let open = self.is_open(&lane, now.moment);
            self.lanes.wake(&lane, since, now.moment, open);
        }
    }

    /// True if the recipients of the day are used up for a lane.
    pub(super) fn is_day_over(&self, lane: &Lane) -> bool {
        self.waiting.days.contains_key(lane)
    }

    /// How the lanes stand that wait for the day to end.
    pub(super) fn days_over(&self) -> impl Iterator<Item = (&Lane, Health)> {
        self.waiting.days.iter().filter_map(|(lane, (since, until))| {
            let Disposition::Deferred(cause) = local::DAY_USED_UP.disposition(until.to_string(), None) else {
                return None;
            };
            let trouble = Trouble {
                since: *since,
                cause,
                next_probe: *until,
            };
            Some((lane, Health::Throttled(trouble)))
        })
    }
}

/// A lane that waits for a limit is looked at so often, whatever was computed.
const LOOK_AT_LIMITS: Duration = Duration::from_secs(300);

impl std::fmt::Display for Notice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Near { mailbox, used, limit } => write!(
                f,
                "{mailbox} has sent to {used} of the {limit} recipients that a mailbox may have in 24 hours: look for \
                 a device or program that sends more than it should"
            ),
            Self::Reached {
                mailbox,
                limit,
                until,
            } => write!(
                f,
                "{mailbox} has sent to {limit} recipients in 24 hours, which is all that a mailbox may: its mail waits, \
                 nothing is lost, and goes on at {until}"
            ),
            Self::Narrowed { application, at_once } => write!(
                f,
                "Microsoft Graph asks for fewer requests at once: all mailboxes of the application {application} have \
                 {at_once} together from now on; `max_in_flight` in the account's section `limits` sets it for good"
            ),
        }
    }
}
