//! Which logins were right a moment ago, so that a device that logs in for each page does not cost a hash each time.
//!
//! Neither name nor password is kept: only an HMAC of them (and of the stored hash, so that a changed password is a
//! new question) under a key that this process made up and never tells.

use aws_lc_rs::hmac;
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;

/// How long a right login is remembered.
pub(super) const REMEMBERED: Duration = Duration::from_secs(10 * 60);
/// How many of them.
const MAX_ENTRIES: usize = 1024;

/// The logins that are remembered.
pub(super) struct Cache {
    key: hmac::Key,
    until: HashMap<[u8; 32], Instant>,
}

impl Cache {
    /// An empty one, with a key of its own. `None` if there are no random numbers.
    pub(super) fn new() -> Option<Self> {
        let mut key = zeroize::Zeroizing::new([0; 32]);
        aws_lc_rs::rand::fill(&mut *key).ok()?;
        Some(Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, &*key),
            until: HashMap::new(),
        })
    }

    /// True if this login was right a moment ago.
    pub(super) fn knows(&self, name: &str, hash: &str, password: &[u8], now: Instant) -> bool {
        let tag = self.tag(name, hash, password);
        self.until.get(&tag).is_some_and(|until| now < *until)
    }

    /// Remembers that this login is right.
    pub(super) fn remember(&mut self, name: &str, hash: &str, password: &[u8], now: Instant) {
        let tag = self.tag(name, hash, password);
        if self.until.len() >= MAX_ENTRIES && !self.until.contains_key(&tag) {
            self.until.retain(|_, until| now < *until);
        }
        if self.until.len() >= MAX_ENTRIES
            && let Some(oldest) = self.until.iter().min_by_key(|(_, until)| **until)
        {
            let oldest = *oldest.0;
            self.until.remove(&oldest);
        }
        self.until.insert(tag, now + REMEMBERED);
    }

    fn tag(&self, name: &str, hash: &str, password: &[u8]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.key);
        for part in [name.as_bytes(), hash.as_bytes(), password] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut tag = [0; 32];
        // An HMAC-SHA256 tag has 32 octets.
        for (to, from) in tag.iter_mut().zip(context.sign().as_ref()) {
            *to = *from;
        }
        tag
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn exactly_what_was_right_is_known_for_ten_minutes() {
        let (mut cache, now) = (Cache::new().unwrap(), Instant::now());
        cache.remember("anna", "hash", b"secret", now);
        assert!(cache.knows("anna", "hash", b"secret", now));
        assert!(cache.knows(
            "anna",
            "hash",
            b"secret",
            now + REMEMBERED - Duration::from_nanos(1)
        ));
        assert!(!cache.knows("anna", "hash", b"secret", now + REMEMBERED));
        for (name, hash, password) in [
            ("anna", "hash", &b"secre"[..]),
            ("ann", "ahash", b"secret"),
            ("anna", "new", b"secret"),
            ("anna", "hashs", b"ecret"),
        ] {
            assert!(!cache.knows(name, hash, password, now));
        }
        assert!(!Cache::new().unwrap().knows("anna", "hash", b"secret", now));
    }

    #[tokio::test]
    async fn it_does_not_grow_without_end() {
        let (mut cache, now) = (Cache::new().unwrap(), Instant::now());
        for n in 0..3 * MAX_ENTRIES {
            let later = now + Duration::from_millis(n as u64);
            cache.remember(&n.to_string(), "hash", b"secret", later);
            assert!(cache.knows(&n.to_string(), "hash", b"secret", later));
        }
        assert_eq!(cache.until.len(), MAX_ENTRIES);
        assert!(!cache.knows("0", "hash", b"secret", now));
        cache.remember("x", "hash", b"secret", now + 2 * REMEMBERED);
        assert_eq!(cache.until.len(), 1);
    }
}
