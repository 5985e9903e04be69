//! How many messages and recipients a client may send in a minute.
//!
//! The arithmetic is that of the crate `governor` (GCRA): a whole minute's worth at once, then evenly. Time is an
//! argument, and the table of clients is bounded.

use crate::config::Access;
use crate::mail::Peer;
use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Clients that are remembered. Beyond them the one that was heard least lately is forgotten.
const MAX_CLIENTS: usize = 10_000;
/// After this time without a word a client has its whole allowance again, and there is nothing to remember.
const MEMORY: Duration = Duration::from_secs(60);

/// The rates of one listener's clients.
#[derive(Debug)]
pub(super) struct Rates {
    messages: Option<Quota>,
    recipients: Option<Quota>,
    start: Instant,
    /// What time it is for the limiters; set under the lock of the table.
    now: Hand,
    /// By their [`Peer::source`].
    clients: Mutex<HashMap<Peer, Client>>,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counted {
    Message,
    Recipient,
}

type Limiter = RateLimiter<NotKeyed, InMemoryState, Hand, NoOpMiddleware<Nanos>>;

#[derive(Debug)]
struct Client {
    messages: Option<Limiter>,
    recipients: Option<Limiter>,
    heard: Instant,
}

/// A clock that shows what it was set to.
#[derive(Clone, Debug)]
struct Hand(Arc<AtomicU64>);

impl Rates {
    /// The limits of a listener; `start` is now.
    pub(super) fn new(access: &Access, start: Instant) -> Self {
        let quota = |each_minute| NonZeroU32::new(each_minute).map(Quota::per_minute);
        Self {
            messages: quota(access.messages_per_minute),
            recipients: quota(access.recipients_per_minute),
            start,
            now: Hand(Arc::new(AtomicU64::new(0))),
            clients: Mutex::default(),
        }
    }

    /// Counts one, and says whether it may be.
    pub(super) fn may(&self, client: Peer, counted: Counted, now: Instant) -> bool {
        let limited = match counted {
            Counted::Message => self.messages,
            Counted::Recipient => self.recipients,
        };
        if limited.is_none() {
            return true;
        }
        let client = client.source();
        // The table is whole at every moment.
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let since_start = now.saturating_duration_since(self.start).as_nanos();
        self.now
            .0
            .store(u64::try_from(since_start).unwrap_or(u64::MAX), Ordering::Relaxed);
        if clients.len() >= MAX_CLIENTS && !clients.contains_key(&client) {
            make_room(&mut clients, now);
        }
        let client = clients.entry(client).or_insert_with(|| self.newcomer(now));
        client.heard = now;
        let limiter = match counted {
            Counted::Message => &client.messages,
            Counted::Recipient => &client.recipients,
        };
        limiter.as_ref().is_none_or(|limiter| limiter.check().is_ok())
    }

    fn newcomer(&self, heard: Instant) -> Client {
        let limiter =
            |quota: Option<Quota>| quota.map(|quota| RateLimiter::direct_with_clock(quota, self.now.clone()));
        Client {
            messages: limiter(self.messages),
            recipients: limiter(self.recipients),
            heard,
        }
    }
}

fn make_room(clients: &mut HashMap<Peer, Client>, now: Instant) {
    clients.retain(|_, client| now < client.heard + MEMORY);
    if clients.len() >= MAX_CLIENTS
        && let Some((&oldest, _)) = clients.iter().min_by_key(|(_, client)| client.heard)
    {
        clients.remove(&oldest);
    }
}

impl Clock for Hand {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::new(self.0.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn rates(messages: u32, recipients: u32, start: Instant) -> Rates {
        let access = Access {
            messages_per_minute: messages,
            recipients_per_minute: recipients,
            ..Access::default()
        };
        Rates::new(&access, start)
    }

    fn peer(n: u32) -> Peer {
        Peer::Address(Ipv4Addr::from_bits(0x0a00_0000 + n).into())
    }

    #[tokio::test]
    async fn a_minutes_worth_at_once_and_then_evenly() {
        let now = Instant::now();
        let rates = rates(30, 2, now);
        let may = |now| rates.may(peer(1), Counted::Message, now);
        assert_eq!((0..100).filter(|_| may(now)).count(), 30);
        assert!(!may(now + Duration::from_millis(1999)));
        assert!(may(now + Duration::from_secs(2)));
        assert!(!may(now + Duration::from_secs(2)));
        assert!(rates.may(peer(2), Counted::Message, now));
        let recipients = (0..9)
            .filter(|_| rates.may(peer(1), Counted::Recipient, now))
            .count();
        assert_eq!(recipients, 2);
        let much_later = now + Duration::from_secs(3600);
        assert_eq!((0..100).filter(|_| may(much_later)).count(), 30);
    }

    #[tokio::test]
    async fn the_addresses_of_one_ipv6_network_share() {
        let now = Instant::now();
        let rates = rates(2, 0, now);
        let may = |client: &str| rates.may(client.parse().unwrap(), Counted::Message, now);
        assert!(may("2001:db8::1") && may("2001:db8::2"));
        assert!(!may("2001:db8::3"));
        assert!(may("2001:db8:0:1::3"));
    }

    #[tokio::test]
    async fn zero_is_no_limit_and_remembers_nobody() {
        let now = Instant::now();
        let rates = rates(0, 0, now);
        assert!((0..100_000).all(|_| rates.may(peer(1), Counted::Message, now)));
        assert!(rates.clients.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn the_table_is_bounded() {
        let now = Instant::now();
        let rates = rates(1, 0, now);
        for n in 0..MAX_CLIENTS as u32 + 50 {
            assert!(rates.may(peer(n), Counted::Message, now + Duration::from_millis(n.into())));
        }
        assert_eq!(rates.clients.lock().unwrap().len(), MAX_CLIENTS);
        let later = now + Duration::from_secs(300);
        assert!(rates.may(peer(1_000_000), Counted::Message, later));
        assert_eq!(rates.clients.lock().unwrap().len(), 1);
    }
}
