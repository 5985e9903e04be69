//! Everything the sandbox remembers. It is kept in memory and ends with the process.

use super::faults::{Faults, Place, What};
use super::limits::{Key, Slots, Window};
use super::message::Message;
use super::settings::Tenant;
use crate::clock::Clock;
use crate::mail::Timestamp;
use rustls::crypto::SecureRandom;
use serde::Serialize;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The most bytes of messages that are kept; the oldest go first.
const KEPT_BYTES: usize = 256 * 1024 * 1024;
/// What a message takes besides its bytes, roughly.
const OVERHEAD: usize = 1024;
/// The most lines of the request log.
const KEPT_REQUESTS: usize = 2000;
/// The most tokens that are remembered.
const KEPT_TOKENS: usize = 10_000;

/// Shared by all connections. The lock is never held while waiting.
pub(super) struct Shared {
    pub(super) clock: Clock,
    pub(super) slots: Slots,
    pub(super) random: &'static dyn SecureRandom,
    state: Mutex<State>,
}

/// What the lock protects.
pub(super) struct State {
    pub(super) tenant: Tenant,
    pub(super) tokens: HashMap<String, Token>,
    pub(super) faults: Faults,
    pub(super) requests: VecDeque<Request>,
    pub(super) inbox: Inbox,
    pub(super) request_window: Window,
    pub(super) upload_window: Window,
    pub(super) recipient_window: Window,
}

/// What Entra wrote into a token.
#[derive(Clone, Debug)]
pub(super) struct Token {
    pub(super) audience: String,
    pub(super) app: String,
    pub(super) mail_send: bool,
    pub(super) expires: Timestamp,
}

/// One line of the request log.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Request {
    /// When it began, RFC 3339.
    pub(super) time: String,
    pub(super) method: String,
    /// Without the query.
    pub(super) path: String,
    /// Absent if the connection was cut or the client went away.
    pub(super) status: Option<u16>,
    /// The fault that was played, if one was.
    pub(super) fault: Option<&'static str>,
    pub(super) client_request_id: Option<String>,
}

/// The messages that arrived, oldest first.
#[derive(Debug)]
pub(super) struct Inbox {
    messages: VecDeque<Arc<Message>>,
    bytes: usize,
    limit: usize,
    /// How many were dropped to make room.
    pub(super) dropped: u64,
    next: u64,
}

impl Shared {
    pub(super) fn new(tenant: Tenant, clock: Clock, random: &'static dyn SecureRandom) -> Self {
        Self {
            clock,
            slots: Slots::default(),
            random,
            state: Mutex::new(State {
                tenant,
                tokens: HashMap::new(),
                faults: Faults::default(),
                requests: VecDeque::new(),
                inbox: Inbox::new(KEPT_BYTES),
                request_window: Window::new(Duration::from_secs(10 * 60)),
                upload_window: Window::new(Duration::from_secs(5 * 60)),
                recipient_window: Window::new(Duration::from_secs(24 * 60 * 60)),
            }),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next fault for this request, used up by asking.
    pub(super) fn fault(&self, place: Place, mailbox: Option<&str>) -> Option<What> {
        self.lock().faults.take(place, mailbox)
    }

    /// Waits for as long as every answer takes.
    pub(super) async fn latency(&self) {
        let latency = self.lock().tenant.switches.latency_ms;
        if latency > 0 {
            tokio::time::sleep(Duration::from_millis(latency)).await;
        }
    }
}

impl State {
    pub(super) fn remember_token(&mut self, text: String, token: Token, now: Timestamp) {
        // An expired token is kept for a day, so that Graph can tell it from one that never was.
        let day = Duration::from_secs(24 * 60 * 60);
        self.tokens.retain(|_, token| now.since(token.expires) < day);
        if self.tokens.len() >= KEPT_TOKENS {
            self.tokens.clear();
        }
        self.tokens.insert(text, token);
    }

    pub(super) fn log(&mut self, request: Request) {
        if self.requests.len() == KEPT_REQUESTS {
            self.requests.pop_front();
        }
        self.requests.push_back(request);
    }

    /// Counts a request; false if there were too many.
    pub(super) fn count_request(&mut self, key: &Key, now: Timestamp) -> bool {
        let limit = self.tenant.switches.requests_per_10_minutes;
        self.request_window.take(key, 1, limit, now)
    }

    /// Counts an upload; false if it is too much.
    pub(super) fn count_upload(&mut self, key: &Key, bytes: u64, now: Timestamp) -> bool {
        let limit = self.tenant.switches.upload_per_5_minutes;
        self.upload_window.take(key, bytes, limit, now)
    }

    /// Counts recipients of a mailbox, whoever the application is; false if it is too many.
    pub(super) fn count_recipients(&mut self, mailbox: &str, recipients: u64, now: Timestamp) -> bool {
        let limit = self.tenant.switches.recipients_per_day;
        let key = (String::new(), mailbox.to_owned());
        self.recipient_window.take(&key, recipients, limit, now)
    }
}

impl Inbox {
    fn new(limit: usize) -> Self {
        Self {
            messages: VecDeque::new(),
            bytes: 0,
            limit,
            dropped: 0,
            next: 1,
        }
    }

    /// Keeps `message` under a number of its own and makes room; returns the number.
    pub(super) fn push(&mut self, mut message: Message) -> u64 {
        message.id = self.next;
        self.next += 1;
        self.bytes += message.raw.len() + OVERHEAD;
        self.messages.push_back(Arc::new(message));
        while self.bytes > self.limit && self.messages.len() > 1 {
            if let Some(oldest) = self.messages.pop_front() {
                self.bytes -= oldest.raw.len() + OVERHEAD;
                self.dropped += 1;
            }
        }
        self.next - 1
    }

    pub(super) fn all(&self) -> Vec<Arc<Message>> {
        self.messages.iter().cloned().collect()
    }

    pub(super) fn get(&self, id: u64) -> Option<Arc<Message>> {
        let at = self.messages.binary_search_by_key(&id, |m| m.id).ok()?;
        self.messages.get(at).cloned()
    }

    /// Forgets all messages; numbers go on.
    pub(super) fn clear(&mut self) {
        self.messages.clear();
        self.bytes = 0;
        self.dropped = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_messages_make_room() {
        let mut inbox = Inbox::new(3 * OVERHEAD);
        for _ in 0..5 {
            inbox.push(Message::default());
        }
        assert_eq!(inbox.dropped, 2);
        let ids: Vec<u64> = inbox.all().iter().map(|m| m.id).collect();
        assert_eq!(ids, [3, 4, 5]);
        assert!(inbox.get(2).is_none());
        assert_eq!(inbox.get(4).map(|m| m.id), Some(4));
        inbox.clear();
        assert_eq!(inbox.push(Message::default()), 6);
    }
}
