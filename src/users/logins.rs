//! Is this login right? One question at a time, and none that costs without bound.

use super::cache::Cache;
use super::disk::Live;
use super::file::User;
use super::password::{self, Workspace};
use super::throttle::Throttle;
use crate::mail::Peer;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use zeroize::Zeroizing;

/// What a client logs in with. It has no `Debug` that shows anything, and is overwritten when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    name: Zeroizing<String>,
    password: Zeroizing<Vec<u8>>,
}

/// The answer.
#[derive(Debug)]
pub enum Verdict {
    /// It is right, and this is who it is.
    Welcome(User),
    /// It is not. Say so after this time, and to nobody but the operator why.
    Wrong {
        /// How long the answer waits.
        wait: Duration,
        /// For the log.
        why: Doubt,
    },
    /// This address failed too often, and was not heard.
    TooMany,
    /// The users file cannot be read, or this machine is out of order.
    Unavailable,
}

/// Why a login is wrong. For the log only: a client that knew could find out who exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// Nobody has this name. It is not told: devices are given the password in its place.
    NoSuchUser,
    /// The user exists, and this is not the password.
    WrongPassword(String),
}

/// Judges logins. Cheap to clone; all clones share what they know.
#[derive(Clone)]
pub struct Logins(Arc<Inner>);

struct Inner {
    users: Live,
    cache: Option<Mutex<Cache>>,
    throttle: Mutex<Throttle>,
    workspace: Mutex<Workspace>,
    /// One hash at a time: memory and CPU of all logins together are those of one.
    turn: Semaphore,
    /// How many were computed.
    #[cfg(test)]
    hashes: std::sync::atomic::AtomicUsize,
}

impl Login {
    /// A login with this name and password.
    #[must_use]
    pub fn new(name: String, password: Vec<u8>) -> Self {
        Self {
            name: Zeroizing::new(name),
            password: Zeroizing::new(password),
        }
    }

    /// Who the client says it is. May hold a password by mistake: not for the log.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Logins {
    /// Judges by this users file, which need not exist yet.
    #[must_use]
    pub fn new(file: PathBuf) -> Self {
        Self(Arc::new(Inner {
            users: Live::new(file),
            cache: Cache::new().map(Mutex::new),
            throttle: Mutex::default(),
            workspace: Mutex::default(),
            turn: Semaphore::new(1),
            #[cfg(test)]
            hashes: std::sync::atomic::AtomicUsize::new(0),
        }))
    }

    /// Reads the users file now, so that what is wrong with it is logged at the start and not at the first login.
    pub fn look(&self) {
        self.0.users.users();
    }

    /// Is this login right? May take its time, and waits for its turn.
    ///
    /// # Cancellation
    /// Safe; the question counts only if it was answered.
    pub async fn judge(&self, client: Peer, login: Login) -> Verdict {
        if !locked(&self.0.throttle).may_try(client, Instant::now()) {
            return Verdict::TooMany;
        }
        if let Some(user) = self.0.remembered(&login) {
            return Verdict::Welcome(user);
        }
        let Ok(_turn) = self.0.turn.acquire().await else {
            return Verdict::Unavailable;
        };
        // While this one waited, others of the same address were judged, and perhaps the same login.
        if !locked(&self.0.throttle).may_try(client, Instant::now()) {
            return Verdict::TooMany;
        }
        if let Some(user) = self.0.remembered(&login) {
            return Verdict::Welcome(user);
        }
        let inner = self.0.clone();
        let judged = tokio::task::spawn_blocking(move || inner.judge(&login)).await;
        let why = match judged {
            Ok(Some(Ok(user))) => return Verdict::Welcome(user),
            Ok(Some(Err(why))) => why,
            Ok(None) | Err(_) => return Verdict::Unavailable,
        };
        let wait = locked(&self.0.throttle).failed(client, Instant::now());
        Verdict::Wrong { wait, why }
    }
}

impl Inner {
    fn remembered(&self, login: &Login) -> Option<User> {
        let users = self.users.users()?;
        let user = users.get(login.name())?;
        let cache = locked(self.cache.as_ref()?);
        cache
            .knows(&user.name, &user.hash, &login.password, Instant::now())
            .then(|| user.clone())
    }

    /// Blocks for the time of one hash, whether the user exists or not.
    fn judge(&self, login: &Login) -> Option<Result<User, Doubt>> {
        let users = self.users.users()?;
        let user = users.get(login.name());
        let hash = user.map_or(users.nobody(), |user| &user.hash);
        #[cfg(test)]
        self.hashes.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let right = password::matches_in(hash, &login.password, &mut locked(&self.workspace));
        let Some(user) = user else {
            return Some(Err(Doubt::NoSuchUser));
        };
        if !right {
            return Some(Err(Doubt::WrongPassword(user.name.clone())));
        }
        if let Some(cache) = &self.cache {
            locked(cache).remember(&user.name, &user.hash, &login.password, Instant::now());
        }
        Some(Ok(user.clone()))
    }
}

/// What these locks guard is whole at every moment, so that a panic elsewhere does it no harm.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Login(…)")
    }
}

impl std::fmt::Debug for Logins {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Logins").field(&self.0.users).finish()
    }
}

impl std::fmt::Display for Doubt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoSuchUser => f.write_str("the users file has no user of the name that was sent"),
            Self::WrongPassword(name) => write!(f, "wrong password for user {name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::file::{self, Senders};
    use super::super::throttle::MAX_FAILURES;
    use super::*;

    fn world() -> (Logins, PathBuf, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("users");
        set(&path, "anna", b"secret");
        (Logins::new(path.clone()), path, directory)
    }

    fn set(path: &std::path::Path, name: &str, password: &[u8]) {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let hash = password::cheap(password);
        std::fs::write(path, file::add(&text, name, &hash, &Senders::default())).unwrap();
    }

    fn login(name: &str, password: &str) -> Login {
        Login::new(name.into(), password.into())
    }

    fn hashes(logins: &Logins) -> usize {
        logins.0.hashes.load(std::sync::atomic::Ordering::Relaxed)
    }

    fn client(n: u8) -> Peer {
        format!("192.0.2.{n}").parse().unwrap()
    }

    #[tokio::test]
    async fn right_wrong_and_unknown() {
        let (logins, path, _directory) = world();
        let right = logins.judge(client(1), login("anna", "secret")).await;
        assert!(matches!(right, Verdict::Welcome(user) if user.name == "anna"));
        let wrong = logins.judge(client(1), login("anna", "Secret")).await;
        let unknown = logins.judge(client(2), login("eve", "secret")).await;
        let (
            Verdict::Wrong {
                wait: one,
                why: first,
            },
            Verdict::Wrong {
                wait: two,
                why: second,
            },
        ) = (wrong, unknown)
        else {
            panic!("both are wrong");
        };
        assert_eq!(one, two);
        assert_eq!(
            (first, second),
            (Doubt::WrongPassword("anna".into()), Doubt::NoSuchUser)
        );
        assert!(!format!("{:?} {logins:?}", login("eve", "secret")).contains("e\""));
        // A new password holds at once, the old one no more.
        set(&path, "anna", b"new");
        assert!(matches!(
            logins.judge(client(1), login("anna", "secret")).await,
            Verdict::Wrong { .. }
        ));
        assert!(matches!(
            logins.judge(client(1), login("anna", "new")).await,
            Verdict::Welcome(_)
        ));
        std::fs::write(&path, "").unwrap();
        assert!(matches!(
            logins.judge(client(1), login("anna", "new")).await,
            Verdict::Wrong { .. }
        ));
    }

    #[tokio::test(start_paused = true)]
    async fn who_guesses_is_not_heard_and_nobody_else_suffers() {
        let (logins, _path, _directory) = world();
        // All at once, so that most have to wait for their turn.
        let guess = |n: u32| {
            let logins = logins.clone();
            tokio::spawn(async move { logins.judge(client(1), login("anna", &n.to_string())).await })
        };
        let tasks: Vec<_> = (0..MAX_FAILURES + 10).map(guess).collect();
        let (mut wrong, mut too_many) = (0, 0);
        for task in tasks {
            match task.await.unwrap() {
                Verdict::Wrong { .. } => wrong += 1,
                Verdict::TooMany => too_many += 1,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((wrong, too_many), (MAX_FAILURES, 10));
        assert_eq!(hashes(&logins), MAX_FAILURES as usize);
        assert!(matches!(
            logins.judge(client(1), login("anna", "secret")).await,
            Verdict::TooMany
        ));
        assert!(matches!(
            logins.judge(client(2), login("anna", "secret")).await,
            Verdict::Welcome(_)
        ));
    }

    #[tokio::test]
    async fn a_crowd_with_one_login_costs_one_hash() {
        let (logins, _path, _directory) = world();
        let crowd: Vec<_> = (0..200)
            .map(|_| {
                let logins = logins.clone();
                tokio::spawn(async move { logins.judge(client(1), login("anna", "secret")).await })
            })
            .collect();
        for one in crowd {
            assert!(matches!(one.await.unwrap(), Verdict::Welcome(_)));
        }
        assert_eq!(hashes(&logins), 1);
    }

    #[tokio::test]
    async fn without_a_readable_file_nobody_is_called_wrong() {
        let directory = tempfile::tempdir().unwrap();
        let logins = Logins::new(directory.path().into());
        assert!(matches!(
            logins.judge(client(1), login("a", "b")).await,
            Verdict::Unavailable
        ));
    }
}
