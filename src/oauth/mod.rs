//! Floor 3: access tokens (RFC 6749), kept fresh.
//!
//! [`Tokens`] is asked for a token before every delivery and nearly always has one. It asks the provider ahead of
//! time, once however many ask at the same moment, and remembers a refusal for a moment so that a full queue does
//! not become a storm.

mod client_credentials;
mod manager;
mod state;

pub use client_credentials::ClientCredentials;
pub use manager::Tokens;
pub use state::AccessToken;
