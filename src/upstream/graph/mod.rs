//! Microsoft Graph ("user: sendMail", the MIME form): the whole message as base64 in one request.

mod answer;
mod mime;

use super::{Answer, Parcel, Upstream};
use crate::explain::local;
use crate::http;
use crate::mail::Address;
use crate::mail::Disposition;
use crate::mail::Report;
use crate::oauth::AccessToken;
use crate::oauth::Tokens;
use mime::{Departure, MimeBody};
use reqwest::StatusCode;
use std::time::Duration;

/// Sends as one application through Microsoft Graph.
#[derive(Clone, Debug)]
pub struct Graph {
    http: reqwest::Client,
    base: String,
    tokens: Tokens,
}

/// The largest message that one sendMail request carries, in octets before base64.
///
/// Graph limits a request to 4 MB ("outlook-send-mime-message"); base64 makes three octets four, and whether a MB has
/// 1,000,000 or 1,048,576 octets is not said. The rest is room for our Received field and a Bcc.
pub const MAX_MIME_SIZE: u64 = 2_900_000;

/// How long Graph may take for its answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(300);

/// Octets a second that the slowest line must carry; base64 and four messages at once included.
const SLOWEST: u64 = 2_000;

impl Graph {
    /// Graph at `base` (such as `https://graph.microsoft.com`, without a slash at the end), with these tokens.
    #[must_use]
    pub fn new(http: reqwest::Client, base: &str, tokens: Tokens) -> Self {
        Self {
            http,
            base: base.to_owned(),
            tokens,
        }
    }

    async fn send_mail(&self, parcel: &Parcel) -> Disposition {
        let mut second = false;
        loop {
            let token = match self.tokens.token().await {
                Ok(token) => token,
                Err(failure) => return failure,
            };
            let departure = Departure::default();
            let response = match self.request(parcel, &token, &departure).await {
                Ok(response) => response,
                Err(error) => return unanswered(&error, &departure),
            };
            // A 401 means that nothing was taken: one fresh token, then it is configuration.
            if response.status() == StatusCode::UNAUTHORIZED && !second {
                self.tokens.rejected(&token);
                second = true;
                continue;
            }
            let own_sender =
                parcel.listed && parcel.from.iter().all(|from| from.key() == parcel.mailbox.key());
            let disposition = answer::disposition(response, own_sender).await;
            return match disposition {
                // Answered before the whole message had left: nothing can have been taken.
                Disposition::Uncertain(cause) if !departure.complete() => {
                    local::CUT.disposition(cause.diagnostic, cause.retry_after)
                }
                disposition => disposition,
            };
        }
    }

    async fn request(
        &self,
        parcel: &Parcel,
        token: &AccessToken,
        departure: &Departure,
    ) -> Result<reqwest::Response, reqwest::Error> {
        self.http
            .post(format!(
                "{}/v1.0/users/{}/sendMail",
                self.base,
                path_segment(&parcel.mailbox)
            ))
            .bearer_auth(token.expose())
            .header(reqwest::header::CONTENT_TYPE, "text/plain")
            .header("client-request-id", uuid::Uuid::now_v7().to_string())
            .timeout(ANSWER_TIMEOUT + Duration::from_secs(parcel.size() / SLOWEST))
            .body(reqwest::Body::wrap(MimeBody::new(parcel, departure.clone())))
            .send()
            .await
    }
}

impl Upstream for Graph {
    fn prepare(&self) -> Answer<'_, Result<(), Disposition>> {
        Box::pin(async { self.tokens.token().await.map(|_| ()) })
    }

    fn deliver<'a>(&'a self, parcel: &'a Parcel) -> Answer<'a, Report> {
        Box::pin(async { parcel.report(self.send_mail(parcel).await) })
    }
}

/// What became of a message whose request was not answered.
fn unanswered(error: &reqwest::Error, departure: &Departure) -> Disposition {
    if let Some(damage) = departure.damage() {
        return damage;
    }
    let entry = if http::is_untrusted(error) {
        &local::UNTRUSTED
    } else if error.is_connect() || error.is_builder() {
        &local::UNREACHABLE
    } else if departure.complete() {
        &local::UNHEARD
    } else {
        &local::CUT
    };
    entry.disposition(http::chain(error), None)
}

/// An address as one segment of a path: everything but RFC 3986's unreserved characters and `@` is escaped.
fn path_segment(address: &Address) -> String {
    let mut out = String::new();
    for byte in address.to_string().bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~@".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mailbox_cannot_leave_its_path_segment() {
        for (address, segment) in [
            ("scanner@fabrikam.example", "scanner@fabrikam.example"),
            ("a/b?c#d@x.example", "a%2Fb%3Fc%23d@x.example"),
            ("\"..\"@x.example", "..@x.example"),
            ("müller@x.example", "m%C3%BCller@x.example"),
        ] {
            assert_eq!(path_segment(&address.parse().unwrap()), segment);
        }
    }
}
