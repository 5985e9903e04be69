//! Counting: how many requests are under way, and how much has gone through in a sliding time.
//!
//! Microsoft Graph throttling limits, "Outlook service limits": per application and mailbox 4 concurrent
//! requests, 10,000 requests in 10 minutes, 150 MB of upload in 5 minutes. Exchange Online limits: 10,000
//! recipients of one mailbox in 24 hours.

use crate::mail::Timestamp;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// An application and a mailbox in lower case.
pub(super) type Key = (String, String);

/// Amounts of the last `span`, per key.
#[derive(Debug)]
pub(super) struct Window {
    span: Duration,
    amounts: HashMap<Key, VecDeque<(Timestamp, u64)>>,
}

impl Window {
    pub(super) fn new(span: Duration) -> Self {
        Self {
            span,
            amounts: HashMap::new(),
        }
    }

    /// Counts `amount` unless that makes more than `limit`; says whether it did.
    pub(super) fn take(&mut self, key: &Key, amount: u64, limit: u64, now: Timestamp) -> bool {
        let past = self.amounts.entry(key.clone()).or_default();
        while past
            .front()
            .is_some_and(|(then, _)| now.since(*then) >= self.span)
        {
            past.pop_front();
        }
        let used: u64 = past.iter().map(|(_, amount)| amount).sum();
        let fits = used.saturating_add(amount) <= limit;
        if fits {
            past.push_back((now, amount));
        }
        fits
    }
}

/// The requests under way.
#[derive(Clone, Debug, Default)]
pub(super) struct Slots(Arc<Mutex<HashMap<Key, usize>>>);

/// One request under way; ends when dropped.
#[derive(Debug)]
pub(super) struct Slot {
    slots: Slots,
    key: Key,
}

impl Slots {
    /// A slot for one more request, or `None` if `limit` are under way.
    pub(super) fn enter(&self, key: &Key, limit: usize) -> Option<Slot> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(key.clone()).or_default();
        if *count >= limit {
            return None;
        }
        *count += 1;
        Some(Slot {
            slots: self.clone(),
            key: key.clone(),
        })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut counts = self.slots.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        ("app".to_owned(), "a@b".to_owned())
    }

    #[test]
    fn a_window_slides() {
        let mut window = Window::new(Duration::from_secs(10));
        let at = |seconds: i64| Timestamp::from_millis(seconds * 1000);
        assert!(window.take(&key(), 2, 3, at(0)));
        assert!(!window.take(&key(), 2, 3, at(9)));
        assert!(window.take(&key(), 1, 3, at(9)));
        assert!(window.take(&key(), 2, 3, at(10)));
        assert!(!window.take(&key(), 1, 3, at(18)));
    }

    #[test]
    fn slots_come_back() {
        let slots = Slots::default();
        let first = slots.enter(&key(), 2);
        let second = slots.enter(&key(), 2);
        assert!(first.is_some() && second.is_some());
        assert!(slots.enter(&key(), 2).is_none());
        drop(first);
        assert!(slots.enter(&key(), 2).is_some());
    }
}
