//! What is known about one token, and what follows from it. Pure: time and chance are arguments.
//!
//! ```text
//!          granted                    granted
//! Empty ────────────▶ Active ─────────────────▶ Active
//!   │                   │ refused by the API
//!   │ refused           ▼
//!   └────────▶ Failing ◀── Empty
//! ```

use crate::mail::Disposition;
use crate::mail::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use std::sync::Arc;
use std::time::Duration;

/// A bearer token (RFC 6750). Its `Debug` shows nothing, and it is zeroed when the last copy is dropped.
#[derive(Clone, Debug)]
pub struct AccessToken(Arc<SecretString>);

impl AccessToken {
    /// Wraps what the provider issued.
    #[must_use]
    pub fn new(secret: String) -> Self {
        Self(Arc::new(SecretString::from(secret)))
    }

    /// The token itself, for the Authorization header and nothing else.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// True if both are copies of one token.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// What is known about one token.
#[derive(Clone, Debug, Default)]
pub(super) enum TokenState {
    /// Nothing: none was asked for, or the API refused the last one.
    #[default]
    Empty,
    /// A token, until it expires; from `refresh_at` on a new one is asked for.
    Active {
        token: AccessToken,
        refresh_at: Timestamp,
        expires: Timestamp,
    },
    /// The provider refused, and is not asked again before `until`.
    Failing { failure: Disposition, until: Timestamp },
}

/// What to do when a token is wanted.
#[derive(Clone, Debug)]
pub(super) enum Decision {
    /// Use this one.
    Use(AccessToken),
    /// Ask for a new one; this one still works meanwhile.
    RefreshAhead(AccessToken),
    /// Ask for one.
    Fetch,
    /// Do not ask: the answer is known.
    Fail(Disposition),
}

/// A token that ends so soon is as good as none: the request that carries it takes time.
const MARGIN: Duration = Duration::from_secs(30);

/// Tokens are renewed at least so long before they end, if they live long enough.
const AHEAD: Duration = Duration::from_secs(600);

/// After a failed renewal ahead of time, the next try comes after so long.
const RETRY_AHEAD: Duration = Duration::from_secs(30);

/// For so long a refusal without Retry-After is remembered.
const REMEMBER_REFUSAL: Duration = Duration::from_millis(900);

impl TokenState {
    pub(super) fn decide(&self, now: Timestamp) -> Decision {
        match self {
            Self::Active { token, .. } if now < self.refresh_at() => Decision::Use(token.clone()),
            Self::Active { token, expires, .. } if now.plus(MARGIN) < *expires => {
                Decision::RefreshAhead(token.clone())
            }
            Self::Failing { failure, until } if now < *until => Decision::Fail(failure.clone()),
            _ => Decision::Fetch,
        }
    }

    /// The state after the provider issued `token` for `lifetime`. `jitter` in 0..1 spreads renewals.
    pub(super) fn granted(token: AccessToken, lifetime: Duration, now: Timestamp, jitter: f64) -> Self {
        let spread = (lifetime / 12).mul_f64(jitter.clamp(0.0, 1.0));
        let ahead = if lifetime > AHEAD * 2 {
            AHEAD + spread
        } else {
            lifetime / 2
        };
        Self::Active {
            token,
            refresh_at: now.plus(lifetime.saturating_sub(ahead)),
            expires: now.plus(lifetime),
        }
    }

    /// The state after the provider refused or could not be reached. A token that still works stays.
    pub(super) fn refused(self, failure: Disposition, now: Timestamp) -> Self {
        match self {
            Self::Active { token, expires, .. } if now.plus(MARGIN) < expires => Self::Active {
                token,
                refresh_at: now.plus(RETRY_AHEAD),
                expires,
            },
            _ => {
                let wait = failure
                    .cause()
                    .and_then(|cause| cause.retry_after)
                    .unwrap_or(REMEMBER_REFUSAL);
                Self::Failing {
                    failure,
                    until: now.plus(wait),
                }
            }
        }
    }

    /// The state after the API refused `token`: it is never handed out again.
    pub(super) fn rejected(self, rejected: &AccessToken) -> Self {
        match self {
            Self::Active { token, .. } if token.is(rejected) => Self::Empty,
            state => state,
        }
    }

    fn refresh_at(&self) -> Timestamp {
        match self {
            Self::Active {
                refresh_at, expires, ..
            } => (*refresh_at).min(*expires),
            _ => Timestamp::from_millis(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::local;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000_000);

    fn hour() -> (AccessToken, TokenState) {
        let token = AccessToken::new("secret".to_owned());
        (
            token.clone(),
            TokenState::granted(token, Duration::from_secs(3600), NOW, 0.0),
        )
    }

    fn after(minutes: u64) -> Timestamp {
        NOW.plus(Duration::from_secs(minutes * 60))
    }

    #[test]
    fn a_token_is_used_then_renewed_ahead_then_useless() {
        let (_, state) = hour();
        assert!(matches!(state.decide(after(49)), Decision::Use(_)));
        assert!(matches!(state.decide(after(50)), Decision::RefreshAhead(_)));
        assert!(matches!(state.decide(after(60)), Decision::Fetch));
        assert!(matches!(TokenState::Empty.decide(NOW), Decision::Fetch));
    }

    #[test]
    fn jitter_only_ever_renews_earlier_and_short_lives_are_halved() {
        let token = AccessToken::new("secret".to_owned());
        let early = TokenState::granted(token.clone(), Duration::from_secs(3600), NOW, 1.0);
        assert_eq!(early.refresh_at(), after(45));
        let short = TokenState::granted(token, Duration::from_secs(300), NOW, 0.5);
        assert_eq!(short.refresh_at(), NOW.plus(Duration::from_secs(150)));
    }

    #[test]
    fn a_failed_renewal_keeps_a_working_token() {
        let (_, state) = hour();
        let state = state.refused(local::UNREACHABLE.disposition("", None), after(52));
        assert!(matches!(state.decide(after(52)), Decision::Use(_)));
        assert!(matches!(state.decide(after(53)), Decision::RefreshAhead(_)));
        assert!(matches!(state.decide(after(60)), Decision::Fetch));
    }

    #[test]
    fn a_refusal_is_remembered_for_a_moment_or_as_long_as_asked() {
        let state = TokenState::Empty.refused(local::UNREACHABLE.disposition("", None), NOW);
        assert!(matches!(state.decide(NOW), Decision::Fail(_)));
        assert!(matches!(
            state.decide(NOW.plus(Duration::from_secs(1))),
            Decision::Fetch
        ));
        let asked = local::UNREACHABLE.disposition("", Some(Duration::from_secs(60)));
        let state = TokenState::Empty.refused(asked, NOW);
        assert!(matches!(
            state.decide(NOW.plus(Duration::from_secs(59))),
            Decision::Fail(_)
        ));
    }

    #[test]
    fn a_token_that_the_api_refused_is_never_handed_out_again() {
        let (token, state) = hour();
        let other = AccessToken::new("secret".to_owned());
        assert!(matches!(
            state.clone().rejected(&other).decide(NOW),
            Decision::Use(_)
        ));
        assert!(matches!(state.rejected(&token).decide(NOW), Decision::Fetch));
    }

    #[test]
    fn debug_shows_no_token() {
        let (_, state) = hour();
        assert!(!format!("{state:?}").contains("secret\""), "{state:?}");
    }
}
