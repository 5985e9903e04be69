//! One token, for all who need it.

use super::client_credentials::ClientCredentials;
use super::state::{AccessToken, Decision, TokenState};
use crate::mail::Disposition;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::time::Instant;

/// The tokens of one account for one resource. Cheap to clone; all clones share one token.
#[derive(Clone, Debug)]
pub struct Tokens(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    grant: ClientCredentials,
    state: Mutex<TokenState>,
    /// Held by whoever is asking the provider.
    flight: tokio::sync::Mutex<()>,
}

impl Tokens {
    /// Tokens from this grant. Nothing is asked for yet.
    #[must_use]
    pub fn new(grant: ClientCredentials) -> Self {
        let state = Mutex::new(TokenState::default());
        Self(Arc::new(Shared {
            grant,
            state,
            flight: tokio::sync::Mutex::new(()),
        }))
    }

    /// A token that works, as far as we know.
    ///
    /// # Errors
    /// [`Disposition::Held`] or [`Disposition::Deferred`] with scope Account, ready to be reported.
    ///
    /// # Cancellation
    /// Safe: a request under way is dropped, and the next caller asks again.
    pub async fn token(&self) -> Result<AccessToken, Disposition> {
        let _flight = match self.decide() {
            Decision::Use(token) => return Ok(token),
            Decision::Fail(failure) => return Err(failure),
            Decision::RefreshAhead(token) => match self.0.flight.try_lock() {
                Ok(flight) => flight,
                Err(_) => return Ok(token),
            },
            Decision::Fetch => self.0.flight.lock().await,
        };
        // Somebody else may have been faster.
        match self.decide() {
            Decision::Use(token) => return Ok(token),
            Decision::Fail(failure) => return Err(failure),
            Decision::RefreshAhead(_) | Decision::Fetch => {}
        }
        let answer = self.0.grant.request().await;
        let now = Instant::now();
        let mut state = self.state();
        match answer {
            Ok((token, lifetime)) => {
                *state = TokenState::granted(token.clone(), lifetime, now, fastrand::f64());
                Ok(token)
            }
            Err(failure) => {
                *state = std::mem::take(&mut *state).refused(failure.clone(), now);
                match state.decide(now) {
                    Decision::Use(token) => Ok(token),
                    _ => Err(failure),
                }
            }
        }
    }

    /// Says that the API refused `token` (401): it is not handed out again, and the next caller gets a fresh one.
    pub fn rejected(&self, token: &AccessToken) {
        let mut state = self.state();
        *state = std::mem::take(&mut *state).rejected(token);
    }

    fn decide(&self) -> Decision {
        let now = Instant::now();
        self.state().decide(now)
    }

    fn state(&self) -> MutexGuard<'_, TokenState> {
        // Every change is one assignment, so a panic leaves a whole state behind.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
