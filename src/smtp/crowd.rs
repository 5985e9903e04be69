//! How many clients are here, and whether there is room for one more; and how much their envelopes weigh.

use crate::mail::Peer;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What all recipients that are named and not yet stored may weigh together. A thousand long addresses are half a
/// megabyte, and five thousand clients may name a thousand each.
const MAX_ENVELOPES: usize = 16 * 1024 * 1024;
/// What each client may name in any case, so that a few greedy ones keep nobody from sending.
const SMALL_ENVELOPE: usize = 4 * 1024;

/// What all listeners share: places, and memory for envelopes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Capacity(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    places: Places,
    envelopes: AtomicUsize,
}

/// The clients of one listener.
#[derive(Debug)]
pub(super) struct Crowd {
    places: Places,
    /// Places for each client.
    each: usize,
    /// By their [`Peer::source`].
    clients: Mutex<HashMap<Peer, usize>>,
}

#[derive(Debug)]
struct Places {
    max: usize,
    taken: AtomicUsize,
}

/// A client that is here. Dropping it gives its place to others.
#[derive(Debug)]
pub(super) struct Guest {
    crowd: Arc<Crowd>,
    capacity: Capacity,
    /// Whose place it is, where that counts.
    client: Option<Peer>,
    envelope: usize,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// All listeners together.
    All(usize),
    /// This listener.
    Listener(usize),
    /// This client.
    Client(usize),
}

impl Capacity {
    /// Places for so many connections.
    #[must_use]
    pub fn new(max_connections: usize) -> Self {
        Self(Arc::new(Shared {
            places: Places::new(max_connections),
            envelopes: AtomicUsize::new(0),
        }))
    }
}

impl Crowd {
    pub(super) fn new(max_connections: usize, each: usize) -> Self {
        Self {
            places: Places::new(max_connections),
            each,
            clients: Mutex::default(),
        }
    }

    /// A place, if there is one. It is not yet the place of anybody.
    pub(super) fn enter(self: &Arc<Self>, capacity: &Capacity) -> Result<Guest, Full> {
        if !self.places.take() {
            return Err(Full::Listener(self.places.max));
        }
        if !capacity.0.places.take() {
            self.places.give();
            return Err(Full::All(capacity.0.places.max));
        }
        Ok(Guest {
            crowd: self.clone(),
            capacity: capacity.clone(),
            client: None,
            envelope: 0,
        })
    }

    fn clients(&self) -> MutexGuard<'_, HashMap<Peer, usize>> {
        // Numbers are whole at every moment.
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Guest {
    /// Says whose place it is. Programs on this machine are exempt: they are many behind one address, and whoever
    /// runs them can do worse.
    pub(super) fn is(&mut self, client: Peer) -> Result<(), Full> {
        if client.is_this_machine() || self.client.is_some() {
            return Ok(());
        }
        let client = client.source();
        let mut clients = self.crowd.clients();
        let places = clients.entry(client).or_default();
        if *places >= self.crowd.each {
            return Err(Full::Client(self.crowd.each));
        }
        *places += 1;
        drop(clients);
        self.client = Some(client);
        Ok(())
    }

    /// True if connections run short, here or in all.
    pub(super) fn is_crowded(&self) -> bool {
        self.crowd.places.are_short() || self.capacity.0.places.are_short()
    }

    /// Notes what this client's envelope weighs now.
    pub(super) fn weigh(&mut self, envelope: usize) {
        let all = &self.capacity.0.envelopes;
        if envelope > self.envelope {
            all.fetch_add(envelope - self.envelope, Ordering::Relaxed);
        } else {
            all.fetch_sub(self.envelope - envelope, Ordering::Relaxed);
        }
        self.envelope = envelope;
    }

    /// True if there is memory for another recipient.
    pub(super) fn may_grow(&self) -> bool {
        self.envelope < SMALL_ENVELOPE || self.capacity.0.envelopes.load(Ordering::Relaxed) < MAX_ENVELOPES
    }
}

#[cfg(test)]
impl Guest {
    /// For tests: a guest that has all the room there is.
    pub(super) fn alone() -> Self {
        let crowd = Arc::new(Crowd::new(100, 100));
        // It is empty.
        crowd.enter(&Capacity::new(100)).unwrap()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.weigh(0);
        self.crowd.places.give();
        self.capacity.0.places.give();
        if let Some(client) = self.client
            && let Entry::Occupied(mut places) = self.crowd.clients().entry(client)
        {
            *places.get_mut() -= 1;
            if *places.get() == 0 {
                places.remove();
            }
        }
    }
}

impl Places {
    fn new(max: usize) -> Self {
        Self {
            max,
            taken: AtomicUsize::new(0),
        }
    }

    fn take(&self) -> bool {
        let one_more = |taken| (taken < self.max).then_some(taken + 1);
        self.taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
            .is_ok()
    }

    fn give(&self) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
    }

    /// More than four fifths are taken.
    fn are_short(&self) -> bool {
        self.taken.load(Ordering::Relaxed).saturating_mul(5) > self.max.saturating_mul(4)
    }
}

impl fmt::Display for Full {
    /// Which key of the configuration it is, for the log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All(max) => write!(f, "max_connections = {max} of [limits] is reached"),
            Self::Listener(max) => write!(f, "max_connections = {max} of this listener is reached"),
            Self::Client(max) => write!(
                f,
                "max_connections_per_client = {max} of this listener is reached"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(text: &str) -> Peer {
        text.parse().unwrap()
    }

    #[test]
    fn places_are_taken_and_given_again() {
        let (all, one, other) = (
            Capacity::new(3),
            Arc::new(Crowd::new(2, 9)),
            Arc::new(Crowd::new(9, 9)),
        );
        let first = one.enter(&all).unwrap();
        let _second = one.enter(&all).unwrap();
        assert_eq!(one.enter(&all).unwrap_err(), Full::Listener(2));
        let _third = other.enter(&all).unwrap();
        assert_eq!(other.enter(&all).unwrap_err(), Full::All(3));
        drop(first);
        assert!(other.enter(&all).is_ok() && one.enter(&all).is_ok());
        let text = Full::All(3).to_string();
        assert_eq!(text, "max_connections = 3 of [limits] is reached");
    }

    #[test]
    fn each_client_has_its_share_and_this_machine_is_exempt() {
        let (all, crowd) = (Capacity::new(100), Arc::new(Crowd::new(100, 2)));
        let enter = |client: &str| {
            let mut guest = crowd.enter(&all).unwrap();
            guest.is(peer(client)).map(|()| guest)
        };
        let first = enter("192.0.2.1").unwrap();
        let _second = enter("192.0.2.1").unwrap();
        assert_eq!(enter("192.0.2.1").unwrap_err(), Full::Client(2));
        let _others = [enter("192.0.2.2").unwrap(), enter("2001:db8::1").unwrap()];
        drop(first);
        let again = enter("192.0.2.1").unwrap();
        let local: Vec<Guest> = ["127.0.0.1", "::1", "local"]
            .iter()
            .flat_map(|client| (0..5).map(|_| enter(client).unwrap()))
            .collect();
        drop((again, local, _second, _others));
        assert!(crowd.clients().is_empty());
        assert_eq!(crowd.places.taken.load(Ordering::Relaxed), 0);
        assert_eq!(all.0.places.taken.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn the_addresses_of_one_ipv6_network_share() {
        let (all, crowd) = (Capacity::new(100), Arc::new(Crowd::new(100, 2)));
        let mut guests: Vec<Guest> = (0..4).map(|_| crowd.enter(&all).unwrap()).collect();
        let mut is = |n: usize, client: &str| guests[n].is(peer(client));
        assert!(is(0, "2001:db8::1").is_ok() && is(1, "2001:db8::2").is_ok());
        assert_eq!(is(2, "2001:db8::3"), Err(Full::Client(2)));
        assert!(is(3, "2001:db8:0:1::3").is_ok());
        drop(guests);
        assert!(crowd.clients().is_empty());
    }

    #[test]
    fn above_four_fifths_it_is_crowded() {
        let (all, crowd) = (Capacity::new(100), Arc::new(Crowd::new(10, 10)));
        let mut guests = Vec::new();
        for n in 1..=10 {
            guests.push(crowd.enter(&all).unwrap());
            assert_eq!(guests[0].is_crowded(), n > 8, "{n}");
        }
        let big = Arc::new(Crowd::new(1000, 10));
        while guests.len() < 81 {
            guests.push(big.enter(&all).unwrap());
        }
        assert!(guests[80].is_crowded());
        guests.pop();
        assert!(!guests[79].is_crowded());
    }

    #[test]
    fn envelopes_have_a_budget_and_small_ones_are_exempt() {
        let (all, crowd) = (Capacity::new(100), Arc::new(Crowd::new(100, 10)));
        let (mut greedy, mut modest) = (crowd.enter(&all).unwrap(), crowd.enter(&all).unwrap());
        greedy.weigh(MAX_ENVELOPES - 1);
        assert!(greedy.may_grow());
        modest.weigh(100);
        assert!(modest.may_grow() && !greedy.may_grow());
        greedy.weigh(10);
        assert!(greedy.may_grow());
        drop((greedy, modest));
        assert_eq!(all.0.envelopes.load(Ordering::Relaxed), 0);
    }
}
