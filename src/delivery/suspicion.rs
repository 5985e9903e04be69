//! When what happens to one message after the other is not the messages' fault. Pure.
//!
//! An answer is read for one message, and the catalogue says how far it reaches. Some answers look like the message's
//! own trouble and are not: a gateway that answers 502 to everybody, a refusal with a new code after a change at the
//! provider. What happens to several different messages of a mailbox in a row says more than each answer alone.

use super::gates::Gate;
use super::settle::GateNews;
use crate::explain::local;
use crate::mail::Disposition;
use crate::mail::QueueId;
use crate::mail::Scope;
use crate::spool::{Lane, PartId};
use std::collections::HashMap;

/// What the last messages of each lane had in common. A lane with nothing suspicious has no entry.
#[derive(Debug, Default)]
pub(super) struct Suspicion(HashMap<Lane, Streak>);

#[derive(Debug)]
struct Streak {
    kind: Kind,
    /// Different messages, no more than it takes.
    messages: Vec<QueueId>,
    /// Parts that wait by their own schedule because of it.
    deferred: Vec<PartId>,
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    /// Deferred or uncertain, by causes of scope message.
    Trouble,
    /// Refused for this reason, which the catalogue does not know.
    Unknown(Box<str>),
}

/// What follows besides what follows from the answer itself.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Finding {
    /// News about the mailbox.
    pub(super) news: Vec<GateNews>,
    /// Parts whose waits began in a trouble that is over.
    pub(super) recovered: Vec<PartId>,
}

/// So many different messages in a row in trouble, and the others wait while one at a time is tried.
const TROUBLED: usize = 3;

/// So many different messages in a row refused for one unknown reason, and it counts as the mailbox's.
const REFUSED: usize = 10;

/// Parts remembered for the end of a trouble at most; more than these wait by their own schedule.
const MAX_DEFERRED: usize = 1000;

impl Suspicion {
    /// Weighs what an upstream answered for `part` of `lane`. A refusal that is one too many is changed into
    /// [`Disposition::Held`].
    pub(super) fn weigh(&mut self, lane: &Lane, part: PartId, dispositions: &mut [Disposition]) -> Finding {
        let Some(kind) = kind(dispositions) else {
            let proves_well = |d: &Disposition| matches!(d, Disposition::Relayed(_) | Disposition::Failed(_));
            if !dispositions.iter().any(proves_well) {
                return Finding::default();
            }
            let over = self.0.remove(lane);
            return Finding {
                news: Vec::new(),
                recovered: over.map(|streak| streak.deferred).unwrap_or_default(),
            };
        };
        let streak = self.0.entry(lane.clone()).or_insert_with(|| Streak {
            kind: Kind::Trouble,
            messages: Vec::new(),
            deferred: Vec::new(),
        });
        if streak.kind != kind {
            streak.kind = kind;
            streak.messages.clear();
        }
        if streak.messages.len() < REFUSED && !streak.messages.contains(&part.message) {
            streak.messages.push(part.message);
        }
        let count = streak.messages.len();
        match &streak.kind {
            Kind::Trouble => {
                if waits_by_itself(dispositions)
                    && streak.deferred.len() < MAX_DEFERRED
                    && !streak.deferred.contains(&part)
                {
                    streak.deferred.push(part);
                }
                if count < TROUBLED {
                    return Finding::default();
                }
                trouble(lane, dispositions)
            }
            Kind::Unknown(name) => {
                if count >= REFUSED {
                    dispositions.iter_mut().for_each(|d| hold(d, name));
                }
                Finding::default()
            }
        }
    }
}

/// What the answer may have in common with others.
fn kind(dispositions: &[Disposition]) -> Option<Kind> {
    let first = dispositions.first()?;
    let kind_of = |disposition: &Disposition| match disposition {
        Disposition::Deferred(cause) | Disposition::Uncertain(cause) if cause.scope == Scope::Message => {
            Some(Kind::Trouble)
        }
        Disposition::Failed(cause) => cause.unknown.clone().map(Kind::Unknown),
        _ => None,
    };
    let kind = kind_of(first)?;
    let alike = dispositions
        .iter()
        .all(|other| kind_of(other).as_ref() == Some(&kind));
    alike.then_some(kind)
}

/// True if the part waits by the schedule alone: nobody asked for a pause, and its outcome is known.
fn waits_by_itself(dispositions: &[Disposition]) -> bool {
    dispositions
        .iter()
        .all(|d| matches!(d, Disposition::Deferred(cause) if cause.retry_after.is_none()))
}

fn trouble(lane: &Lane, dispositions: &[Disposition]) -> Finding {
    let last = dispositions.iter().find_map(Disposition::cause);
    let diagnostic = last.map_or_else(String::new, |cause| {
        format!("last: {} [{}]", cause.public, cause.diagnostic)
    });
    let Some(cause) = local::TROUBLE.disposition(diagnostic, None).cause().cloned() else {
        return Finding::default();
    };
    let close = GateNews::Close {
        gate: Gate::Mailbox(lane.clone()),
        cause,
        broken: false,
    };
    Finding {
        news: vec![close],
        recovered: Vec::new(),
    }
}

fn hold(disposition: &mut Disposition, name: &str) {
    if let Disposition::Failed(cause) = disposition {
        let diagnostic = format!("{name}: {}", cause.diagnostic);
        *disposition = local::UNKNOWN_TOO_OFTEN.disposition(diagnostic, cause.retry_after);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::{Receipt, Timestamp};
    use std::time::Duration;

    fn lane() -> Lane {
        Lane {
            account: "office".to_owned(),
            mailbox: "a@x.example".to_owned(),
        }
    }

    fn part() -> PartId {
        PartId {
            message: QueueId::new(Timestamp::from_millis(1)),
            number: 0,
        }
    }

    fn refused(name: &str) -> Disposition {
        let mut disposition = local::MISFIT.disposition("400", None);
        disposition.cause_mut().unwrap().unknown = Some(name.into());
        disposition
    }

    fn cut() -> Disposition {
        local::CUT.disposition("", None)
    }

    fn relayed() -> Disposition {
        Disposition::Relayed(Receipt::default())
    }

    /// Weighs an answer for a part, and returns what became of it.
    fn weigh(suspicion: &mut Suspicion, part: PartId, answer: Disposition) -> (Disposition, Finding) {
        let mut dispositions = [answer];
        let finding = suspicion.weigh(&lane(), part, &mut dispositions);
        let [disposition] = dispositions;
        (disposition, finding)
    }

    #[test]
    fn the_tenth_different_message_in_a_row_with_one_unknown_cause_is_held_and_all_that_follow() {
        let mut suspicion = Suspicion::default();
        for n in 1..=12 {
            let (disposition, _) = weigh(&mut suspicion, part(), refused("400 ErrorNew"));
            assert_eq!(matches!(disposition, Disposition::Held(_)), n >= 10, "{n}");
            if let Disposition::Held(cause) = disposition {
                assert_eq!(cause.scope, Scope::Mailbox);
                assert!(cause.diagnostic.contains("400 ErrorNew"), "{}", cause.diagnostic);
            }
        }
    }

    #[test]
    fn the_same_message_another_cause_a_success_or_a_known_refusal_break_the_row() {
        let same = part();
        let mut suspicion = Suspicion::default();
        for _ in 0..30 {
            let (disposition, _) = weigh(&mut suspicion, same, refused("400 ErrorNew"));
            assert!(matches!(disposition, Disposition::Failed(_)));
        }
        for other in [
            refused("400 ErrorOther"),
            relayed(),
            local::MISFIT.disposition("", None),
        ] {
            let mut suspicion = Suspicion::default();
            for _ in 0..9 {
                weigh(&mut suspicion, part(), refused("400 ErrorNew"));
            }
            weigh(&mut suspicion, part(), other);
            let (disposition, _) = weigh(&mut suspicion, part(), refused("400 ErrorNew"));
            assert!(matches!(disposition, Disposition::Failed(_)));
        }
    }

    #[test]
    fn a_closed_gate_of_another_cause_neither_breaks_a_row_nor_adds_to_it() {
        let mut suspicion = Suspicion::default();
        for _ in 0..9 {
            weigh(&mut suspicion, part(), refused("400 ErrorNew"));
        }
        weigh(&mut suspicion, part(), local::UNREACHABLE.disposition("", None));
        let (disposition, _) = weigh(&mut suspicion, part(), refused("400 ErrorNew"));
        assert!(matches!(disposition, Disposition::Held(_)));
    }

    #[test]
    fn the_third_different_message_in_trouble_closes_the_mailbox_and_a_success_gives_their_waits_back() {
        let mut suspicion = Suspicion::default();
        let (first, second, third) = (part(), part(), part());
        for known in [first, first, second] {
            assert_eq!(weigh(&mut suspicion, known, cut()).1, Finding::default());
        }
        let (disposition, finding) = weigh(&mut suspicion, third, local::UNHEARD.disposition("", None));
        assert!(
            matches!(disposition, Disposition::Uncertain(_)),
            "itself unchanged"
        );
        assert!(matches!(
            &finding.news[..],
            [GateNews::Close {
                gate: Gate::Mailbox(_),
                broken: false,
                ..
            }]
        ));
        let (_, finding) = weigh(&mut suspicion, part(), relayed());
        assert_eq!(
            finding.recovered,
            [first, second],
            "not the one of unknown outcome"
        );
        assert!(finding.news.is_empty() && suspicion.0.is_empty());
    }

    #[test]
    fn who_was_asked_to_wait_is_not_hastened() {
        let mut suspicion = Suspicion::default();
        let asked = local::CUT.disposition("", Some(Duration::from_secs(60)));
        weigh(&mut suspicion, part(), asked);
        assert_eq!(weigh(&mut suspicion, part(), relayed()).1, Finding::default());
    }

    #[test]
    fn lanes_are_judged_each_for_itself() {
        let mut suspicion = Suspicion::default();
        for n in 0..9 {
            let lane = Lane {
                mailbox: n.to_string(),
                ..lane()
            };
            assert_eq!(suspicion.weigh(&lane, part(), &mut [cut()]), Finding::default());
        }
    }
}
