//! What is to be told now. Pure; time is an argument.

use super::{Topic, Trouble};
use crate::mail::Timestamp;
use std::time::Duration;

/// How things are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct World {
    /// What is in trouble, each topic once.
    pub troubles: Vec<Trouble>,
    /// Names of topics of which nothing is known yet: what was told of them is not over.
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
    /// When it was told that it is over, if it was.
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

/// How often a trouble that lasts is told again.
pub(super) const REPEAT: Duration = Duration::from_secs(24 * 3600);

/// A trouble that comes back so soon after its all-clear is told only once it has lasted for [`PROVEN`].
pub(super) const RELAPSE: Duration = Duration::from_secs(3600);

/// See [`RELAPSE`].
pub(super) const PROVEN: Duration = Duration::from_secs(5 * 60);

/// What one way is to be told at `now`, and has not been told according to `told`.
#[must_use]
pub fn decide(world: &World, told: &[Told], now: Timestamp) -> Vec<Tell> {
    let before = |topic: &Topic| {
        let name = topic.to_string();
        told.iter().find(|told| told.name == name)
    };
    let mut tell: Vec<Tell> = Vec::new();
    for trouble in &world.troubles {
        let due = match before(&trouble.topic) {
            None => Some(false),
            Some(Told { over: None, told, .. }) => (now.since(*told) >= REPEAT).then_some(true),
            Some(Told { over: Some(over), .. }) => {
                let relapse = now.since(*over) < RELAPSE;
                (!relapse || now.since(trouble.since) >= PROVEN).then_some(false)
            }
        };
        if let Some(again) = due {
            let trouble = trouble.clone();
            tell.push(Tell::Trouble { trouble, again });
        }
    }
    let lasts = |name: &String| {
        let is_trouble = world.troubles.iter().any(|t| t.topic.to_string() == *name);
        is_trouble || world.unknown.contains(name)
    };
    let over = told
        .iter()
        .filter(|told| told.over.is_none() && !lasts(&told.name));
    tell.extend(over.cloned().map(Tell::Over));
    tell
}
