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

/// How long one request may take from its first octet to the answer's last.
const TIMEOUT: Duration = Duration::from_secs(300);

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
        let mut fresh = false;
        loop {
            let token = match self.tokens.token().await {
                Ok(token) => token,
                Err(failure) => return failure,
            };
            let answer = match self.request(parcel, &token).await {
                Ok(response) => response,
                Err(disposition) => return disposition,
            };
            if answer.status() == StatusCode::UNAUTHORIZED {
                self.tokens.rejected(&token);
                // A 401 means that nothing was taken: one fresh token, then it is configuration.
                if !fresh {
                    fresh = true;
                    continue;
                }
            }
            return answer::disposition(answer).await;
        }
    }

    /// One request. `Err` is what became of the message if no answer was heard.
    async fn request(&self, parcel: &Parcel, token: &AccessToken) -> Result<reqwest::Response, Disposition> {
        let departure = Departure::default();
        let body = MimeBody::new(parcel, departure.clone());
        let sent = self
            .http
            .post(format!(
                "{}/v1.0/users/{}/sendMail",
                self.base,
                path_segment(&parcel.mailbox)
            ))
            .bearer_auth(token.expose())
            .header(reqwest::header::CONTENT_TYPE, "text/plain")
            .header("client-request-id", uuid::Uuid::now_v7().to_string())
            .timeout(TIMEOUT)
            .body(reqwest::Body::wrap(body))
            .send()
            .await;
        sent.map_err(|error| unanswered(&error, &departure))
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
    let diagnostic = http::chain(error);
    if let Some(damage) = departure.damage() {
        return local::UNREADABLE.disposition(damage, None);
    }
    let entry = if http::is_untrusted(error) {
        &local::UNTRUSTED
    } else if error.is_connect() || error.is_builder() {
        &local::UNREACHABLE
    } else if departure.complete() && !refused_stream(error) {
        &local::UNHEARD
    } else {
        &local::CUT
    };
    entry.disposition(diagnostic, None)
}

/// True if the server says that it did not process the request (RFC 9113 §8.7).
fn refused_stream(error: &reqwest::Error) -> bool {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(inner) = next {
        if let Some(h2) = inner.downcast_ref::<h2::Error>() {
            return h2.reason() == Some(h2::Reason::REFUSED_STREAM);
        }
        next = inner.source();
    }
    false
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
