//! Where a session's questions are answered.

use super::connection::Surroundings;
use super::crowd::Guest;
use super::host::{Addressing, Host};
use super::rates::Counted;
use crate::mail::Peer;
use crate::spool::Room;
use tokio::time::Instant;

/// What the session asks.
pub(super) struct Desk<'a> {
    pub(super) surroundings: &'a Surroundings,
    pub(super) guest: &'a Guest,
    pub(super) client: Peer,
}

impl Host for Desk<'_> {
    fn room(&self) -> Room {
        self.surroundings.intake.room()
    }

    fn may_send(&self) -> bool {
        self.surroundings
            .rates
            .may(self.client, Counted::Message, Instant::now())
    }

    fn may_address(&self) -> Addressing {
        if !self.guest.may_grow() {
            return Addressing::NoMemory;
        }
        match self
            .surroundings
            .rates
            .may(self.client, Counted::Recipient, Instant::now())
        {
            true => Addressing::Yes,
            false => Addressing::TooFast,
        }
    }
}
