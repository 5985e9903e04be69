//! What an answer of Graph's means.

use crate::explain;
use crate::explain::GraphAnswer;
use crate::http;
use crate::mail::Disposition;
use crate::mail::Receipt;
use reqwest::StatusCode;
use serde::Deserialize;

/// Reads an answer and classifies it. Only 202 is success.
pub(super) async fn disposition(mut response: reqwest::Response, own_sender: bool) -> Disposition {
    let status = response.status();
    let retry_after = http::retry_after(response.headers());
    let request_id = header(&response, "request-id");
    if status == StatusCode::ACCEPTED {
        return Disposition::Relayed(Receipt {
            diagnostic: format!("request-id={request_id}"),
            pause: retry_after,
        });
    }
    let mut body = Vec::new();
    // A body that breaks off is as good as none: the status decides.
    while let Ok(Some(piece)) = response.chunk().await {
        body.extend_from_slice(&piece);
        if body.len() > MAX_ERROR {
            break;
        }
    }
    classify(status.as_u16(), &request_id, &body, own_sender).disposition(retry_after)
}

/// Graph's errors are short; of anything longer the beginning says enough.
const MAX_ERROR: usize = 64 * 1024;

struct Classified {
    entry: &'static explain::Entry,
    diagnostic: String,
    unknown: Option<Box<str>>,
}

impl Classified {
    fn disposition(self, retry_after: Option<std::time::Duration>) -> Disposition {
        let mut disposition = self.entry.disposition(self.diagnostic, retry_after);
        if let Some(cause) = disposition.cause_mut() {
            cause.unknown = self.unknown;
        }
        disposition
    }
}

fn classify(status: u16, request_id: &str, body: &[u8], own_sender: bool) -> Classified {
    let error = serde_json::from_slice::<ErrorBody>(body)
        .map(|body| body.error)
        .ok();
    let (code, message) = match &error {
        Some(error) => (Some(error.code.as_str()), error.message.as_str()),
        None => (None, ""),
    };
    let entry = explain::graph(GraphAnswer {
        status,
        code,
        message,
        own_sender,
    });
    let diagnostic = match code {
        Some(code) => format!("{status} {code}: {} (request-id={request_id})", one_line(message)),
        None => format!(
            "{status}, not an answer of Graph's: {}",
            one_line(&String::from_utf8_lossy(body))
        ),
    };
    let unknown = code
        .filter(|_| explain::is_unknown(entry))
        .map(|code| one_line(&format!("{status} {code}")).into_boxed_str());
    Classified {
        entry,
        diagnostic,
        unknown,
    }
}

#[derive(Deserialize)]
struct ErrorBody {
    error: ErrorObject,
}

#[derive(Deserialize)]
struct ErrorObject {
    code: String,
    #[serde(default)]
    message: String,
}

/// At most 300 characters without line ends: a proxy's page is long.
fn one_line(text: &str) -> String {
    text.split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .chars()
        .take(300)
        .collect()
}

fn header(response: &reqwest::Response, name: &str) -> String {
    let value = response.headers().get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or("none").to_owned()
}
