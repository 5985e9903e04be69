//! An upstream that answers what it was told to, and remembers what it was given: for tests, and to see what would
//! go out without sending it.

use super::{Answer, Parcel, Upstream};
use crate::mail::Disposition;
use crate::mail::Receipt;
use crate::mail::Report;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// Answers from a script, then relays everything. Cheap to clone; all clones share script and memory.
#[derive(Clone, Debug, Default)]
pub struct Scripted(Arc<Mutex<Play>>);

#[derive(Debug, Default)]
struct Play {
    prepare: VecDeque<Result<(), Disposition>>,
    deliver: VecDeque<Disposition>,
    delivered: Vec<(Parcel, Vec<u8>)>,
}

impl Scripted {
    /// The next answers to [`Upstream::prepare`].
    pub fn will_prepare(&self, answers: impl IntoIterator<Item = Result<(), Disposition>>) {
        self.play(|play| play.prepare.extend(answers));
    }

    /// The next answers to [`Upstream::deliver`], each for all recipients of its parcel.
    pub fn will_answer(&self, answers: impl IntoIterator<Item = Disposition>) {
        self.play(|play| play.deliver.extend(answers));
    }

    /// What was given to [`Upstream::deliver`] so far, with the octets of each outgoing message.
    #[must_use]
    pub fn delivered(&self) -> Vec<(Parcel, Vec<u8>)> {
        self.play(|play| play.delivered.clone())
    }

    fn play<T>(&self, act: impl FnOnce(&mut Play) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn answer(&self, parcel: &Parcel) -> Disposition {
        let mut octets = parcel.head.to_vec();
        let read = parcel.body.pieces(parcel.skip).and_then(|mut pieces| {
            while let Some(piece) = pieces.next_piece()? {
                octets.extend_from_slice(&piece);
            }
            Ok(())
        });
        if let Err(error) = read {
            return crate::explain::local::UNREADABLE.disposition(error.to_string(), None);
        }
        self.play(|play| {
            play.delivered.push((parcel.clone(), octets));
            play.deliver
                .pop_front()
                .unwrap_or_else(|| Disposition::Relayed(Receipt::default()))
        })
    }
}

impl Upstream for Scripted {
    fn prepare(&self) -> Answer<'_, Result<(), Disposition>> {
        Box::pin(async { self.play(|play| play.prepare.pop_front()).unwrap_or(Ok(())) })
    }

    fn deliver<'a>(&'a self, parcel: &'a Parcel) -> Answer<'a, Report> {
        Box::pin(async { parcel.report(self.answer(parcel)) })
    }
}
