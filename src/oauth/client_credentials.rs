//! The client credentials grant with a secret (RFC 6749 §4.4), as Microsoft Entra wants it ("OAuth 2.0 client
//! credentials flow on the Microsoft identity platform").

use super::state::AccessToken;
use crate::explain;
use crate::http;
use crate::mail::Disposition;
use oauth2::basic::{BasicRevocationErrorResponse, BasicTokenIntrospectionResponse, BasicTokenResponse};
use oauth2::{
    AuthType, ClientId, ClientSecret, EndpointNotSet, EndpointSet, ErrorResponse, HttpRequest, HttpResponse,
    RequestTokenError, Scope, StandardRevocableToken, TokenResponse, TokenUrl,
};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// Who asks for a token, where, and for what.
#[derive(Debug)]
pub struct ClientCredentials {
    http: reqwest::Client,
    token_url: TokenUrl,
    client_id: ClientId,
    client_secret: SecretString,
    scope: Scope,
}

/// How long a token request may take in all.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A token without `expires_in` is taken to live so long; providers that omit it mean an hour or more.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(1800);

/// A token answer is a few kilobytes; more than this is not one.
const MAX_ANSWER: usize = 256 * 1024;

impl ClientCredentials {
    /// The grant for `authority` (such as `https://login.microsoftonline.com`, without a slash at the end), asking
    /// for `scope` (`https://graph.microsoft.com/.default`).
    ///
    /// # Errors
    /// A text, if authority and tenant do not make an address.
    pub fn new(
        http: reqwest::Client,
        authority: &str,
        tenant: &str,
        client_id: &str,
        client_secret: SecretString,
        scope: String,
    ) -> Result<Self, String> {
        let token_url = format!("{authority}/{tenant}/oauth2/v2.0/token");
        Ok(Self {
            http,
            token_url: TokenUrl::new(token_url.clone()).map_err(|e| format!("{token_url}: {e}"))?,
            client_id: ClientId::new(client_id.to_owned()),
            client_secret,
            scope: Scope::new(scope),
        })
    }

    /// Asks for a token; answers with it and its lifetime.
    ///
    /// # Errors
    /// Held or Deferred with scope Account.
    pub(super) async fn request(&self) -> Result<(AccessToken, Duration), Disposition> {
        let client: EntraClient = oauth2::Client::new(self.client_id.clone())
            .set_client_secret(ClientSecret::new(self.client_secret.expose_secret().to_owned()))
            .set_token_uri(self.token_url.clone())
            .set_auth_type(AuthType::RequestBody);
        let http = self.http.clone();
        let send = move |request| send(http.clone(), request);
        let answer = client
            .exchange_client_credentials()
            .add_scope(self.scope.clone())
            .request_async(&send)
            .await;
        match answer {
            Ok(token) => {
                let lifetime = token.expires_in().unwrap_or(DEFAULT_LIFETIME);
                Ok((AccessToken::new(token.access_token().secret().clone()), lifetime))
            }
            Err(RequestTokenError::ServerResponse(error)) => {
                Err(explain::entra(&error.error, &error.error_codes).disposition(error.to_string(), None))
            }
            Err(RequestTokenError::Request(trouble)) => Err(trouble.into_disposition()),
            // The answer itself is not shown: if it was a token after all, it would be a secret.
            Err(RequestTokenError::Parse(error, _)) => {
                Err(explain::local::NOT_A_PROVIDER.disposition(error.to_string(), None))
            }
            Err(RequestTokenError::Other(text)) => {
                Err(explain::local::NOT_A_PROVIDER.disposition(text, None))
            }
        }
    }
}

/// Carries a request of the oauth2 crate over our one HTTP client.
async fn send(client: reqwest::Client, request: HttpRequest) -> Result<HttpResponse, Trouble> {
    let mut request = reqwest::Request::try_from(request)?;
    *request.timeout_mut() = Some(TIMEOUT);
    let mut response = client.execute(request).await?;
    let status = response.status();
    if status.as_u16() == 429 || status.is_server_error() {
        return Err(Trouble::Busy {
            status: status.as_u16(),
            retry_after: http::retry_after(response.headers()),
        });
    }
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await? {
        body.extend_from_slice(&piece);
        if body.len() > MAX_ANSWER {
            break;
        }
    }
    let mut answer = HttpResponse::new(body);
    *answer.status_mut() = status;
    *answer.headers_mut() = response.headers().clone();
    Ok(answer)
}

type EntraClient = oauth2::Client<
    EntraError,
    BasicTokenResponse,
    BasicTokenIntrospectionResponse,
    StandardRevocableToken,
    BasicRevocationErrorResponse,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointSet,
>;

/// An error answer of the token endpoint (RFC 6749 §5.2) with what Microsoft adds to it.
#[derive(Debug, Serialize, Deserialize)]
struct EntraError {
    error: String,
    #[serde(default)]
    error_description: String,
    #[serde(default)]
    error_codes: Vec<u32>,
    #[serde(default)]
    suberror: String,
}

impl ErrorResponse for EntraError {}

impl fmt::Display for EntraError {
    /// In one line; Microsoft puts line ends between the trace ids.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.error)?;
        if !self.suberror.is_empty() {
            write!(f, "/{}", self.suberror)?;
        }
        if !self.error_description.is_empty() {
            let words: Vec<&str> = self.error_description.split_whitespace().collect();
            write!(f, ": {}", words.join(" "))?;
        }
        Ok(())
    }
}

/// Why there was no answer of the provider's.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("{}", http::chain(.0))]
    Http(#[from] reqwest::Error),
    #[error("HTTP status {status}")]
    Busy {
        status: u16,
        retry_after: Option<Duration>,
    },
}

impl Trouble {
    fn into_disposition(self) -> Disposition {
        let diagnostic = self.to_string();
        match self {
            Self::Http(error) if http::is_untrusted(&error) => {
                explain::local::UNTRUSTED.disposition(diagnostic, None)
            }
            Self::Http(_) => explain::local::UNREACHABLE.disposition(diagnostic, None),
            Self::Busy { retry_after, .. } => {
                explain::local::PROVIDER_BUSY.disposition(diagnostic, retry_after)
            }
        }
    }
}
