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
use secrecy::{ExposeSecret, SecretString};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

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
        refresh_at: Instant,
        expires: Instant,
    },
    /// The provider refused, and is not asked again before `until`.
    Failing { failure: Disposition, until: Instant },
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

/// No token is believed to live longer.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

/// For so long a refusal without Retry-After is remembered.
const REMEMBER_REFUSAL: Duration = Duration::from_millis(900);

impl TokenState {
    pub(super) fn decide(&self, now: Instant) -> Decision {
        match self {
            Self::Active {
                token,
                refresh_at,
                expires,
            } if now < (*refresh_at).min(*expires) => Decision::Use(token.clone()),
            Self::Active { token, expires, .. } if now + MARGIN < *expires => {
                Decision::RefreshAhead(token.clone())
            }
            Self::Failing { failure, until } if now < *until => Decision::Fail(failure.clone()),
            _ => Decision::Fetch,
        }
    }

    /// The state after the provider issued `token` for `lifetime`. `jitter` in 0..1 spreads renewals.
    pub(super) fn granted(token: AccessToken, lifetime: Duration, now: Instant, jitter: f64) -> Self {
        let lifetime = lifetime.min(LONGEST);
        let spread = (lifetime / 12).mul_f64(jitter.clamp(0.0, 1.0));
        let ahead = if lifetime > AHEAD * 2 {
            AHEAD + spread
        } else {
            lifetime / 2
        };
        Self::Active {
            token,
            refresh_at: now + lifetime.saturating_sub(ahead),
            expires: now + lifetime,
        }
    }

    /// The state after the provider refused or could not be reached. A token that still works stays.
    pub(super) fn refused(self, failure: Disposition, now: Instant) -> Self {
        match self {
            Self::Active { token, expires, .. } if now + MARGIN < expires => Self::Active {
                token,
                refresh_at: now + RETRY_AHEAD,
                expires,
            },
            _ => {
                let wait = failure
                    .cause()
                    .and_then(|cause| cause.retry_after)
                    .map_or(REMEMBER_REFUSAL, |asked| asked.max(REMEMBER_REFUSAL));
                Self::Failing {
                    failure,
                    until: now + wait,
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::local;

    fn token() -> AccessToken {
        AccessToken::new("s3cr3t".to_owned())
    }

    fn hour(now: Instant) -> TokenState {
        TokenState::granted(token(), Duration::from_secs(3600), now, 0.0)
    }

    /// A moment, and what is so many seconds after it.
    fn time() -> (Instant, impl Fn(u64) -> Instant) {
        let now = Instant::now();
        (now, move |seconds| now + Duration::from_secs(seconds))
    }

    fn unreachable(retry_after: Option<u64>) -> Disposition {
        local::UNREACHABLE.disposition("", retry_after.map(Duration::from_secs))
    }

    #[test]
    fn a_token_is_used_then_renewed_ahead_then_useless() {
        let (now, after) = time();
        let state = hour(now);
        assert!(matches!(state.decide(after(2999)), Decision::Use(_)));
        assert!(matches!(state.decide(after(3000)), Decision::RefreshAhead(_)));
        assert!(matches!(state.decide(after(3600)), Decision::Fetch));
        assert!(matches!(TokenState::Empty.decide(now), Decision::Fetch));
    }

    #[test]
    fn jitter_only_ever_renews_earlier_and_short_lives_are_halved() {
        let (now, after) = time();
        let early = TokenState::granted(token(), Duration::from_secs(3600), now, 1.0);
        assert!(matches!(early.decide(after(2699)), Decision::Use(_)));
        assert!(matches!(early.decide(after(2700)), Decision::RefreshAhead(_)));
        let short = TokenState::granted(token(), Duration::from_secs(300), now, 0.5);
        assert!(matches!(short.decide(after(149)), Decision::Use(_)));
        assert!(matches!(short.decide(after(150)), Decision::RefreshAhead(_)));
        assert!(matches!(
            TokenState::granted(token(), Duration::MAX, now, 0.5),
            TokenState::Active { .. }
        ));
    }

    #[test]
    fn a_failed_renewal_keeps_a_working_token() {
        let (now, after) = time();
        let state = hour(now).refused(unreachable(None), after(3100));
        assert!(matches!(state.decide(after(3100)), Decision::Use(_)));
        assert!(matches!(state.decide(after(3130)), Decision::RefreshAhead(_)));
        assert!(matches!(state.decide(after(3600)), Decision::Fetch));
    }

    #[test]
    fn a_refusal_is_remembered_for_a_moment_or_as_long_as_asked() {
        let (now, after) = time();
        for (asked, remembered, forgotten) in [(None, 0, 1), (Some(0), 0, 1), (Some(60), 59, 60)] {
            let state = TokenState::Empty.refused(unreachable(asked), now);
            assert!(
                matches!(state.decide(after(remembered)), Decision::Fail(_)),
                "{asked:?}"
            );
            assert!(
                matches!(state.decide(after(forgotten)), Decision::Fetch),
                "{asked:?}"
            );
        }
    }

    #[test]
    fn a_token_that_the_api_refused_is_never_handed_out_again() {
        let now = Instant::now();
        let issued = token();
        let state = TokenState::granted(issued.clone(), Duration::from_secs(3600), now, 0.0);
        assert!(matches!(
            state.clone().rejected(&token()).decide(now),
            Decision::Use(_)
        ));
        assert!(matches!(state.rejected(&issued).decide(now), Decision::Fetch));
    }

    #[test]
    fn debug_shows_no_token() {
        let state = hour(Instant::now());
        assert!(!format!("{state:?}").contains("s3cr3t"), "{state:?}");
    }
}
