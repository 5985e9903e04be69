//! What is held for long: broken accounts are remembered over a restart, and whoever waits for a person is told of.
//!
//! Mail behind a broken account waits for `hold_for`; well before, a warning tells when that ends. Then somebody is told
//! of each message, once, and it waits for a person from then on: what was reported as not sent does not go out by
//! itself weeks later. What waited for a person all along is told of after the same time, and stays as it is.

use super::{Finished, Runner, place};
use crate::delivery::attempt::{Context, lanes_of};
use crate::delivery::control::{Attention, Place};
use crate::delivery::gates::Gate;
use crate::delivery::reports::{Case, Tidings};
use crate::explain::local;
use crate::mail::Cause;
use crate::mail::Disposition;
use crate::mail::Timestamp;
use crate::spool::{Broken, Lane, Occasion, Part, Parts, StoreError};
use std::time::Duration;
use tokio::time::Instant;

/// How often is looked, unless `hold_for` is short.
const LOOK: Duration = Duration::from_secs(3600);

/// Parts that are looked at in one go.
const PAGE: usize = 100;

/// The last warning comes so long before the end.
const LAST_WARNING: Duration = Duration::from_secs(86_400);

impl Runner {
    /// Reads what was broken in the last run: since then it counts, if it is so still.
    pub(super) fn remember_broken(&mut self, broken: Vec<Broken>) {
        for broken in broken {
            self.broken.insert(gate_of(&broken), broken);
        }
    }

    /// After a gate was closed because a person must act.
    pub(super) fn broke(&mut self, gate: &Gate) {
        if self.broken.contains_key(gate) {
            return;
        }
        let Place { account, mailbox } = place(gate);
        let broken = Broken {
            account,
            mailbox,
            since: self.context.clock.now(),
            warned: 0,
        };
        self.broken.insert(gate.clone(), broken.clone());
        let context = self.context.clone();
        self.start_other(async move {
            if let Err(error) = context.store.broke(broken).await {
                tracing::warn!(%error, "it could not be written since when an account is broken");
            }
            Finished::default()
        });
    }

    /// After mail went through a gate.
    pub(super) fn mended(&mut self, gate: &Gate) {
        if self.gates.is_closed(gate) || self.broken.remove(gate).is_none() {
            return;
        }
        let (context, Place { account, mailbox }) = (self.context.clone(), place(gate));
        self.start_other(async move {
            if let Err(error) = context.store.mended(account, mailbox).await {
                tracing::warn!(%error, "it could not be written that an account is well");
            }
            Finished::default()
        });
    }

    /// Looks, now and then, for what has been held for too long.
    pub(super) fn mind_the_held(&mut self) {
        let moment = Instant::now();
        if self.held_look > moment {
            return;
        }
        let hold_for = self.context.schedule.hold_for;
        let pause = (hold_for / 100).clamp(Duration::from_secs(1), LOOK);
        self.held_look = moment + pause;
        // What was broken in an earlier run and was not met in this one may be well.
        let closed = self.gates.closed().filter_map(|(gate, state)| {
            let broken = self.broken.get(gate)?.clone();
            Some((broken, state.cause.clone()))
        });
        let closed: Vec<(Broken, Cause)> = closed.collect();
        let context = self.context.clone();
        self.start_other(async move {
            let now = context.clock.now();
            let mut finished = Finished::default();
            for (broken, cause) in closed {
                if let Err(error) = look_behind(&context, broken, &cause, now, &mut finished).await {
                    tracing::error!(%error, "what is held could not be looked at");
                }
            }
            if let Err(error) = look_at_held(&context, now, &mut finished).await {
                tracing::error!(%error, "what waits for a person could not be looked at");
            }
            finished
        });
    }

    /// After a warning was given.
    pub(super) fn warned(&mut self, warned: Vec<Broken>) {
        for broken in warned {
            if let Some(known) = self.broken.get_mut(&gate_of(&broken)) {
                known.warned = broken.warned;
            }
        }
    }
}

/// Warns of the end of `hold_for`, and tells of what has reached it, behind one broken gate.
async fn look_behind(
    context: &Context,
    mut broken: Broken,
    cause: &Cause,
    now: Timestamp,
    finished: &mut Finished,
) -> Result<(), StoreError> {
    let hold_for = context.schedule.hold_for;
    let place = Place {
        account: broken.account.clone(),
        mailbox: broken.mailbox.clone(),
    };
    let oldest = context
        .store
        .oldest_waiting(broken.account.clone(), broken.mailbox.clone())
        .await?;
    let Some(oldest) = oldest else { return Ok(()) };
    // Nothing waits for longer than the account is broken, nor for longer than it is here.
    let ends = oldest.max(broken.since).plus(hold_for);
    let due = warnings_due(hold_for, ends.since(now));
    if due > broken.warned {
        broken.warned = due;
        context.store.broke(broken.clone()).await?;
        context
            .maillog
            .hold_ends(&place.account, place.mailbox.as_deref(), cause, ends);
        finished.attention.push(Attention::HoldEnds {
            place: place.clone(),
            cause: cause.clone(),
            ends,
        });
        finished.warned.push(broken.clone());
    }
    if now < ends {
        return Ok(());
    }
    let mut told = 0;
    loop {
        let page = context.store.waiting_since(
            broken.account.clone(),
            broken.mailbox.clone(),
            now.minus(hold_for),
            PAGE,
        );
        let Parts { whole, damaged } = page.await?;
        if whole.is_empty() || context.stop.is_cancelled() {
            break;
        }
        for part in whole {
            tell(context, &part, Some(cause), finished).await?;
            context.store.hold_told(part.id).await?;
            told += 1;
        }
        if !damaged.is_empty() {
            // They are put aside when it is their turn.
            break;
        }
    }
    if told > 0 {
        finished.attention.push(Attention::HeldTooLong {
            place: Some(place),
            messages: told,
        });
    }
    Ok(())
}

/// Tells of what has waited for a person for too long.
async fn look_at_held(context: &Context, now: Timestamp, finished: &mut Finished) -> Result<(), StoreError> {
    context.store.note_held(now).await?;
    let mut told = 0;
    loop {
        let before = now.minus(context.schedule.hold_for);
        let Parts { whole, .. } = context.store.held_since(before, PAGE).await?;
        if whole.is_empty() || context.stop.is_cancelled() {
            break;
        }
        for part in whole {
            tell(context, &part, None, finished).await?;
            told += 1;
        }
    }
    if told > 0 {
        finished.attention.push(Attention::HeldTooLong {
            place: None,
            messages: told,
        });
    }
    Ok(())
}

/// Tells whoever must know that `part` is held for too long; `cause` is what the account is broken by.
async fn tell(
    context: &Context,
    part: &Part,
    cause: Option<&Cause>,
    finished: &mut Finished,
) -> Result<(), StoreError> {
    let id = part.id.message;
    let why = cause.map_or_else(
        || local::HELD_TOO_LONG.disposition("", None),
        |cause| Disposition::Held(cause.clone()),
    );
    let mut tidings = match context.store.message(id).await {
        Ok((message, body)) => {
            let case = Case {
                part,
                message: &message,
                body: &body,
                dispositions: &vec![why; part.waiting.len()],
            };
            let now = context.clock.now();
            context.reporter.of_hold(&context.store, case, now).await
        }
        // The sender of what cannot be read is not known either: the log and whoever gets alerts must do.
        Err(error) if error.is_lasting() => Tidings::default(),
        Err(error) => return Err(error),
    };
    let reports = std::mem::take(&mut tidings.reports);
    finished.lanes.extend(lanes_of(&reports));
    if context
        .store
        .tell(Occasion::HeldTooLong(part.id), reports)
        .await?
    {
        context.maillog.held_too_long(id, part.id.number, cause);
        for reported in &tidings.told {
            context.maillog.reported(id, reported);
        }
    }
    Ok(())
}

/// How many warnings are due when `left` is left of `hold_for`: one after two thirds, one a day before the end.
fn warnings_due(hold_for: Duration, left: Duration) -> u8 {
    let first = hold_for / 3;
    u8::from(left <= first) + u8::from(left <= LAST_WARNING.min(first))
}

fn gate_of(broken: &Broken) -> Gate {
    match &broken.mailbox {
        None => Gate::Account(broken.account.clone()),
        Some(mailbox) => Gate::Mailbox(Lane {
            account: broken.account.clone(),
            mailbox: mailbox.clone(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_come_after_two_thirds_and_a_day_before_the_end() {
        let days = |days: u64| Duration::from_secs(days * 86_400);
        for (hold_for, left, due) in [
            (14, 14, 0),
            (14, 5, 0),
            (14, 4, 1),
            (14, 2, 1),
            (14, 1, 2),
            (14, 0, 2),
            (2, 1, 0),
            (2, 0, 2),
        ] {
            assert_eq!(
                warnings_due(days(hold_for), days(left)),
                due,
                "{left} of {hold_for}"
            );
        }
    }
}
