//! What follows from a report, for the part it is about. Pure.

use super::gates::Gate;
use super::retry::Schedule;
use crate::explain::local;
use crate::mail::Cause;
use crate::mail::Disposition;
use crate::mail::Report;
use crate::mail::Scope;
use crate::mail::Timestamp;
use crate::spool::{Deferral, Fate, Lane, Next, Part, Progress, RecipientUpdate, Reports, Settlement};
use std::time::Duration;

/// What is to be written, said and done after an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// For the spool.
    pub(super) settlement: Settlement,
    /// The disposition of each recipient that was waiting, in their order; after giving up, no more the upstream's.
    pub(super) dispositions: Vec<Disposition>,
    /// What it says about account and mailbox.
    pub(super) gates: Vec<GateNews>,
    /// The message has been deferred for so long that its sender may be told: each time, though one telling is enough.
    pub(super) late: bool,
}

/// When an attempt is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    /// The time of day.
    pub(super) now: Timestamp,
    /// When the run of the program began.
    pub(super) run: Timestamp,
    /// How long mail of the lane could have gone in this run.
    pub(super) open: Duration,
}

/// What an attempt tells about a gate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum GateNews {
    /// Mail goes through.
    Open(Gate),
    /// None goes through, because of this; `broken` if a person must act.
    Close { gate: Gate, cause: Cause, broken: bool },
}

impl GateNews {
    /// True if a gate is closed for what the catalogue calls `code`.
    pub(super) fn is_about(&self, code: &str) -> bool {
        matches!(self, Self::Close { cause, .. } if cause.code == code)
    }
}

/// Decides what follows for `part`, as it was before the attempt, from `report`.
pub(super) fn settle(
    part: &Part,
    report: Report,
    schedule: &Schedule,
    moment: Moment,
    chance: f64,
) -> Verdict {
    let mut dispositions = report.dispositions;
    // An upstream that answers for fewer recipients than it was given leaves the others in doubt.
    dispositions.resize(
        part.waiting.len(),
        local::UNHEARD.disposition("no answer for this recipient", None),
    );
    let gates = gate_news(part, &dispositions);
    let mut progress = Progress {
        attempts: part.progress.attempts + 1,
        ..part.progress
    };
    // The wait that this attempt ended counts now, as far as it was spent.
    if let Some(deferral) = progress.deferral.take() {
        progress.deferred += deferral.counted(moment.run, moment.open);
    }
    let next = next(&dispositions, schedule, &mut progress, moment, chance);
    let late = progress.deferral.is_some()
        && schedule
            .delay_warning
            .is_some_and(|limit| progress.deferred >= limit);
    let next = match next {
        Decision::Do(next) => next,
        Decision::GiveUp => {
            dispositions.iter_mut().for_each(give_up);
            Next::Ended
        }
        Decision::AskAPerson => {
            dispositions.iter_mut().for_each(ask_a_person);
            Next::Held
        }
    };
    let recipients = part
        .waiting
        .iter()
        .zip(&dispositions)
        .map(|((position, _), d)| update(*position, d))
        .collect();
    let settlement = Settlement {
        part: part.id,
        next,
        progress,
        recipients,
        reports: Reports::default(),
        events: Vec::new(),
        sent: None,
    };
    Verdict {
        settlement,
        dispositions,
        gates,
        late,
    }
}

/// What failing to get ready tells: nothing about the part, which was not tried.
pub(super) fn unprepared(part: &Part, failure: &Disposition) -> Vec<GateNews> {
    gate_news(part, std::slice::from_ref(failure))
}

enum Decision {
    Do(Next),
    GiveUp,
    AskAPerson,
}

fn next(
    dispositions: &[Disposition],
    schedule: &Schedule,
    progress: &mut Progress,
    moment: Moment,
    chance: f64,
) -> Decision {
    let now = moment.now;
    use Disposition::{Deferred, Held, Uncertain};
    let waits_for = |wanted: fn(&Disposition) -> bool| dispositions.iter().any(wanted);
    let asked = dispositions
        .iter()
        .filter_map(|d| d.cause()?.retry_after)
        .max()
        .unwrap_or_default();
    if dispositions.is_empty() {
        // A part without recipients is damage; letting it end would release the message.
        return Decision::Do(Next::Held);
    }
    if waits_for(|d| matches!(d, Uncertain(_))) {
        progress.uncertain += 1;
        if progress.uncertain > schedule.uncertain_retries {
            return Decision::AskAPerson;
        }
        return Decision::Do(Next::Due(now.plus(schedule.uncertain_wait.max(asked))));
    }
    if waits_for(|d| matches!(d, Held(cause) if !closes_gate(cause))) {
        return Decision::Do(Next::Held);
    }
    if waits_for(|d| matches!(d, Deferred(cause) if !closes_gate(cause))) {
        if progress.deferred >= schedule.give_up_after {
            return Decision::GiveUp;
        }
        let wait = schedule.wait(progress.deferred, chance).max(asked);
        progress.deferral = Some(Deferral {
            run: moment.run,
            from: moment.open,
            wait,
        });
        return Decision::Do(Next::Due(now.plus(wait)));
    }
    if waits_for(|d| matches!(d, Deferred(_) | Held(_))) {
        // Behind a closed gate: its own schedule does not move, but the others behind the gate go first now.
        return Decision::Do(Next::Due(now));
    }
    Decision::Do(Next::Ended)
}

fn closes_gate(cause: &Cause) -> bool {
    cause.scope >= Scope::Mailbox
}

fn give_up(disposition: &mut Disposition) {
    if let Disposition::Deferred(cause) = disposition {
        let last = format!(
            "{}; last: {} {}",
            local::GIVEN_UP.meaning,
            cause.public,
            cause.diagnostic
        );
        *disposition = local::GIVEN_UP.disposition(last, None);
    }
}

fn ask_a_person(disposition: &mut Disposition) {
    if let Disposition::Uncertain(cause) = disposition {
        *disposition = local::UNCERTAIN_TOO_OFTEN.disposition(cause.diagnostic.clone(), None);
    }
}

fn update(recipient: usize, disposition: &Disposition) -> RecipientUpdate {
    let fate = match disposition {
        Disposition::Relayed(_) => Fate::Relayed,
        Disposition::Failed(_) => Fate::Failed,
        Disposition::Deferred(_) | Disposition::Held(_) | Disposition::Uncertain(_) => Fate::Waiting,
    };
    let (status, cause) = match disposition {
        Disposition::Relayed(receipt) => ("2.0.0".to_owned(), receipt.diagnostic.clone()),
        other => other.cause().map_or_else(Default::default, |cause| {
            (
                cause.status.with_class(other.class()),
                format!("{} [{}]", cause.public, cause.diagnostic),
            )
        }),
    };
    RecipientUpdate {
        recipient,
        fate,
        status,
        cause,
    }
}

/// Relayed and Failed show that account and mailbox work; a cause that names one of them closes its gate; a cause of
/// the mailbox shows that the account works. Anything else tells nothing.
fn gate_news(part: &Part, dispositions: &[Disposition]) -> Vec<GateNews> {
    let lane = Lane {
        account: part.account.clone(),
        mailbox: part.mailbox.to_string(),
    };
    let (account, mailbox) = (Gate::Account(part.account.clone()), Gate::Mailbox(lane));
    let worst = dispositions
        .iter()
        .filter_map(|d| Some((d, d.cause().filter(|cause| closes_gate(cause))?)));
    if let Some((disposition, cause)) = worst.max_by_key(|(_, cause)| cause.scope) {
        let broken = !matches!(disposition, Disposition::Deferred(_));
        let close = |gate| GateNews::Close {
            gate,
            cause: cause.clone(),
            broken,
        };
        return match cause.scope {
            Scope::Account => vec![close(account)],
            _ => vec![GateNews::Open(account), close(mailbox)],
        };
    }
    let pause = dispositions.iter().find_map(|d| match d {
        Disposition::Relayed(receipt) => receipt.pause,
        _ => None,
    });
    if let Some(pause) = pause
        && let Disposition::Deferred(cause) = local::PAUSE.disposition("a pause was asked for", Some(pause))
    {
        return vec![
            GateNews::Open(account),
            GateNews::Close {
                gate: mailbox,
                cause,
                broken: false,
            },
        ];
    }
    if dispositions
        .iter()
        .any(|d| matches!(d, Disposition::Relayed(_) | Disposition::Failed(_)))
    {
        return vec![GateNews::Open(account), GateNews::Open(mailbox)];
    }
    Vec::new()
}

#[cfg(test)]
#[path = "settle_tests.rs"]
mod tests;
