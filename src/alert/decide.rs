//! What is to be told now. Pure; time is an argument.

use super::topic::Trouble;
use crate::mail::Timestamp;
use std::time::Duration;

/// How things are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct World {
    /// What is in trouble, each topic once.
    pub troubles: Vec<Trouble>,
    /// Names of topics of which nothing certain is known: what was told of them is not over.
    pub unknown: Vec<String>,
}

/// What was told of a topic by one way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The topic's name.
    pub name: String,
    /// Since when it was in trouble.
    pub since: Timestamp,
    /// When it was told last.
    pub told: Timestamp,
    /// When it was told that it is over, if it was; what happens once is over when it is told.
    pub over: Option<Timestamp>,
    /// What was told.
    pub text: String,
}

/// Something to be told by one way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tell {
    /// It has begun, or lasts.
    Trouble {
        /// What.
        trouble: Trouble,
        /// True if it was told before and lasts.
        again: bool,
    },
    /// It is over.
    Over(Told),
}

/// A trouble that comes back so soon after its all-clear is told only once it has lasted for [`PROVEN`]: what comes and
/// goes every minute must not be two messages a minute.
const RELAPSE: Duration = Duration::from_secs(3600);

/// See [`RELAPSE`].
const PROVEN: Duration = Duration::from_secs(5 * 60);

/// What one way is to be told at `now`, and has not been told according to `told`.
#[must_use]
pub fn decide(world: &World, told: &[Told], now: Timestamp) -> Vec<Tell> {
    let mut tell = Vec::new();
    for trouble in &world.troubles {
        let name = trouble.topic.to_string();
        let again = match told.iter().find(|told| told.name == name) {
            None => Some(false),
            Some(told) => repeated(trouble, told, now),
        };
        if let Some(again) = again {
            let trouble = trouble.clone();
            tell.push(Tell::Trouble { trouble, again });
        }
    }
    let lasts = |name: &String| {
        world.unknown.contains(name) || world.troubles.iter().any(|t| t.topic.to_string() == *name)
    };
    let over = told
        .iter()
        .filter(|told| told.over.is_none() && !lasts(&told.name));
    tell.extend(over.cloned().map(Tell::Over));
    tell
}

/// Whether a trouble that was told before is to be told now, and if so, whether as one that lasts.
fn repeated(trouble: &Trouble, told: &Told, now: Timestamp) -> Option<bool> {
    let repeat = trouble.repeat?;
    match told.over {
        // A clock that was set back has told it in the future.
        None => (now.since(told.told) >= repeat || told.told > now.plus(repeat)).then_some(true),
        Some(over) => {
            let relapse = now.since(over) < RELAPSE && now >= over;
            (!relapse || now.since(trouble.since) >= PROVEN).then_some(false)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::topic::Topic;
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn at(minutes: u64) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000).plus(Duration::from_secs(60 * minutes))
    }

    fn trouble(since: u64) -> Trouble {
        Trouble {
            topic: Topic::Account("office".to_owned()),
            since: at(since),
            text: "The secret has expired.".to_owned(),
            detail: String::new(),
            repeat: Some(DAY),
        }
    }

    fn told(since: u64, told: u64, over: Option<u64>) -> Told {
        Told {
            name: "account broken: office".to_owned(),
            since: at(since),
            told: at(told),
            over: over.map(at),
            text: "The secret has expired.".to_owned(),
        }
    }

    /// Begun at minute 0 unless said otherwise: what is known, what was told, at which minute, and what is told then.
    #[test]
    fn what_is_told_when() {
        let once = Trouble {
            repeat: None,
            ..trouble(0)
        };
        let unknown = || World {
            troubles: Vec::new(),
            unknown: vec!["account broken: office".to_owned()],
        };
        let with = |trouble: Trouble| World {
            troubles: vec![trouble],
            unknown: Vec::new(),
        };
        let nothing = World::default;
        let table = [
            ("all is well", nothing(), None, 0, ""),
            ("it begins", with(trouble(0)), None, 0, "begun"),
            ("it was told", with(trouble(0)), Some(told(0, 0, None)), 1439, ""),
            (
                "it lasts a day",
                with(trouble(0)),
                Some(told(0, 0, None)),
                1440,
                "lasts",
            ),
            (
                "a restart forgets since when",
                with(trouble(70)),
                Some(told(0, 0, None)),
                71,
                "",
            ),
            (
                "a restart knows nothing yet",
                unknown(),
                Some(told(0, 0, None)),
                71,
                "",
            ),
            ("it is over", nothing(), Some(told(0, 0, None)), 5, "over"),
            ("that was told", nothing(), Some(told(0, 0, Some(5))), 6, ""),
            ("it flickers", with(trouble(7)), Some(told(0, 0, Some(5))), 8, ""),
            (
                "it came back to stay",
                with(trouble(7)),
                Some(told(0, 0, Some(5))),
                12,
                "begun",
            ),
            (
                "it is back much later",
                with(trouble(65)),
                Some(told(0, 0, Some(5))),
                65,
                "begun",
            ),
            ("nothing was told", nothing(), None, 9, ""),
            ("it happened", with(once.clone()), None, 0, "begun"),
            (
                "it happened and was told",
                with(once.clone()),
                Some(told(0, 0, Some(0))),
                9999,
                "",
            ),
            (
                "it happened in an earlier run",
                nothing(),
                Some(told(0, 0, Some(0))),
                9,
                "",
            ),
            (
                "the clock was years ahead",
                with(trouble(0)),
                Some(told(0, 999_999, None)),
                9,
                "lasts",
            ),
            (
                "the clock was years ahead at the end",
                with(trouble(0)),
                Some(told(0, 0, Some(999_999))),
                9,
                "begun",
            ),
        ];
        for (case, world, told, minute, expected) in table {
            let told: Vec<Told> = told.into_iter().collect();
            let got: Vec<&str> = decide(&world, &told, at(minute))
                .iter()
                .map(|tell| match tell {
                    Tell::Trouble { again: false, .. } => "begun",
                    Tell::Trouble { again: true, .. } => "lasts",
                    Tell::Over(_) => "over",
                })
                .collect();
            assert_eq!(got.join(" "), expected, "{case}");
        }
    }

    #[test]
    fn what_comes_and_goes_is_told_a_few_times_an_hour_at_most() {
        let mut rows: Vec<Told> = Vec::new();
        let mut count = 0;
        for minute in 0..600 {
            // A minute of trouble, a minute without.
            let world = World {
                troubles: (minute % 2 == 0).then(|| trouble(minute)).into_iter().collect(),
                unknown: Vec::new(),
            };
            for tell in decide(&world, &rows, at(minute)) {
                count += 1;
                rows = vec![match tell {
                    Tell::Trouble { trouble, .. } => Told {
                        since: trouble.since,
                        ..told(0, minute, None)
                    },
                    Tell::Over(told) => Told {
                        over: Some(at(minute)),
                        ..told
                    },
                }];
            }
        }
        assert!((4..=22).contains(&count), "{count} in ten hours");
    }
}
