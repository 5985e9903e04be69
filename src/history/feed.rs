//! From the queue's outbox into the history, in a task of its own.

use super::keeper::{Keeper, KeeperError};
use crate::clock::Clock;
use crate::spool::{Store, StoreError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Where the events come from: the spool's [`Store`], and in tests one that fails.
pub trait Outbox: Send + Sync {
    /// Waits until there may be something new.
    fn news(&self) -> impl Future<Output = ()> + Send;
    /// The oldest events by their ids, at most `limit`.
    fn oldest(&self, limit: usize) -> impl Future<Output = Result<Vec<(i64, String)>, StoreError>> + Send;
    /// Deletes everything up to and with the event `last`.
    fn forget(&self, last: i64) -> impl Future<Output = Result<(), StoreError>> + Send;
}

impl Outbox for Store {
    async fn news(&self) {
        self.news().await;
    }

    async fn oldest(&self, limit: usize) -> Result<Vec<(i64, String)>, StoreError> {
        self.outbox(limit).await
    }

    async fn forget(&self, last: i64) -> Result<(), StoreError> {
        self.forget(last).await
    }
}

/// Feeds the history until it is stopped.
#[derive(Debug)]
pub struct Feed<O> {
    outbox: O,
    keeper: Arc<Mutex<Keeper>>,
    clock: Clock,
    /// The last event that was deleted from the outbox in this run.
    last: Option<i64>,
    /// When old messages are looked for next.
    next_purge: Instant,
    trouble: Option<Duration>,
}

/// Why a pass could not be finished.
#[derive(Debug, thiserror::Error)]
pub(super) enum FeedError {
    #[error("{0}")]
    Queue(#[from] StoreError),
    #[error(transparent)]
    Keeper(#[from] KeeperError),
    #[error("the thread of the history ended in a bug of this program; please report it")]
    Panic,
}

/// Events in one transaction at most.
const BATCH: usize = 1000;

/// How long events gather before they are taken: each pass costs two syncs of the disk.
const GATHER: Duration = Duration::from_millis(500);

/// How often the outbox is looked at if nobody says that there is something new.
const LOOK: Duration = Duration::from_secs(60);

/// How often old messages are looked for.
const PURGE: Duration = Duration::from_secs(600);

/// The longest wait after an error.
const LONGEST_TROUBLE: Duration = Duration::from_secs(60);

/// How long the last events may take after a stop; what is left stands in the outbox.
const GRACE: Duration = Duration::from_secs(5);

impl<O: Outbox> Feed<O> {
    /// From `outbox` to `keeper`.
    #[must_use]
    pub fn new(outbox: O, keeper: Keeper, clock: Clock) -> Self {
        Self {
            outbox,
            keeper: Arc::new(Mutex::new(keeper)),
            clock,
            last: None,
            next_purge: Instant::now() + GATHER,
            trouble: None,
        }
    }

    /// Feeds until `stop`, then takes what is there, and ends.
    pub async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let wait = self.look().await;
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.quiet(wait) => {}
            }
        }
        let rest = async { while matches!(self.pass().await, Ok(taken) if taken == BATCH) {} };
        if tokio::time::timeout(GRACE, rest).await.is_err() {
            tracing::warn!("the history is slow; what it has not been told waits in the queue's outbox");
        }
    }

    /// Waits for something new, or for `wait`; then a moment longer, so that events gather.
    async fn quiet(&self, wait: Wait) {
        match wait {
            Wait::More => {}
            Wait::News(at_most) => {
                let _ = tokio::time::timeout(at_most, self.outbox.news()).await;
                tokio::time::sleep(GATHER).await;
            }
            Wait::Trouble(trouble) => tokio::time::sleep(trouble).await,
        }
    }

    /// One pass, and what is to be waited for then.
    async fn look(&mut self) -> Wait {
        let done = match self.pass().await {
            Ok(taken) if taken == BATCH => Ok(Wait::More),
            Ok(_) => self.purge_if_due().await,
            Err(error) => Err(error),
        };
        match done {
            Ok(wait) => {
                if self.trouble.take().is_some() {
                    tracing::info!("the history is written again");
                }
                wait
            }
            Err(error) => {
                let wait = match self.trouble {
                    Some(last) => (last * 2).min(LONGEST_TROUBLE),
                    None => {
                        tracing::error!(
                            %error,
                            "the history cannot be written; mail goes on, and what happens to it is kept in the queue \
                             for later, up to a limit: is the disk full, does the file belong to the bridge's user?"
                        );
                        Duration::from_secs(1)
                    }
                };
                self.trouble = Some(wait);
                Wait::Trouble(wait)
            }
        }
    }

    /// Takes the oldest events; answers how many. Deletes them from the outbox only once the history has them for
    /// good: what is killed in between is told twice, and the history knows it by its id.
    pub(super) async fn pass(&mut self) -> Result<usize, FeedError> {
        let outbox = self.outbox.oldest(BATCH).await?;
        let (Some((first, _)), Some((last, _))) = (outbox.first(), outbox.last()) else {
            return Ok(0);
        };
        let (first, last, taken) = (*first, *last, outbox.len());
        if self.last.is_some_and(|last| first > last + 1) {
            tracing::warn!(
                events = first - self.last.unwrap_or(first) - 1,
                "the history could not be written for so long that events were dropped; they are missing in it"
            );
        }
        self.with_keeper(move |keeper| keeper.take(&outbox)).await?;
        self.outbox.forget(last).await?;
        self.last = Some(last);
        Ok(taken)
    }

    async fn purge_if_due(&mut self) -> Result<Wait, FeedError> {
        let now = Instant::now();
        if now >= self.next_purge {
            let time = self.clock.now();
            if self.with_keeper(move |keeper| keeper.purge(time)).await? {
                return Ok(Wait::More);
            }
            self.next_purge = now + PURGE;
        }
        Ok(Wait::News(LOOK.min(self.next_purge - now)))
    }

    async fn with_keeper<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Keeper) -> Result<T, KeeperError> + Send + 'static,
    ) -> Result<T, FeedError> {
        let keeper = self.keeper.clone();
        let done = tokio::task::spawn_blocking(move || {
            // A panic left no transaction open: the keeper gives its connection back only after success.
            work(&mut keeper.lock().unwrap_or_else(PoisonError::into_inner))
        });
        match done.await {
            Ok(done) => Ok(done?),
            Err(_) => Err(FeedError::Panic),
        }
    }
}

/// What is waited for.
enum Wait {
    /// Nothing: there is more.
    More,
    /// Something new, at most so long.
    News(Duration),
    /// So long, after an error.
    Trouble(Duration),
}
