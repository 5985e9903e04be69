//! Scripted trouble: a queue of rules, each played by the requests that it matches.

use super::{entra, graph, wire};
use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Response, StatusCode, header};
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// The most rules that wait at a time.
const MAX_RULES: usize = 1000;

/// The rules, in the order in which they are tried.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<Rule>);

/// When a fault is played, and which.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rule {
    #[serde(rename = "where")]
    place: Place,
    /// Only requests of this mailbox (sendMail only).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mailbox: Option<String>,
    /// How often. Once, or for ever if there is a probability.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    times: Option<Times>,
    /// Between 0 and 1: each matching request throws the dice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    probability: Option<f64>,
    what: What,
}

/// Which requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Place {
    #[serde(rename = "token")]
    Token,
    #[serde(rename = "sendMail")]
    SendMail,
}

/// What goes wrong.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum What {
    /// The body is read, nothing is done, and this is answered.
    Status(Answer),
    /// As a proxy does: a page of its own with this status.
    Html {
        status: u16,
        #[serde(default)]
        body: Option<String>,
    },
    /// Somewhere else, please.
    Redirect { status: u16, location: String },
    /// Everything as usual, later.
    Delay { ms: u64 },
    /// The connection ends before the body is read.
    CloseBeforeBody,
    /// The connection ends when the whole body is read; nothing is done.
    CloseAfterBody,
    /// The thing is done, and the connection ends without an answer.
    AcceptThenClose {
        #[serde(default)]
        after_ms: u64,
    },
    /// The thing is done, and this is answered.
    AcceptThenAnswer(Answer),
    /// 401, whatever the token or secret is.
    RefuseToken,
    /// The usual answer, and the connection ends in the middle of its body.
    Truncated,
}

/// An answer of one's own.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Answer {
    status: u16,
    /// Graph's `error.code` or OAuth's `error`; without it there is no JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    /// The number of an error of Entra.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    aadsts: Option<u32>,
    /// Seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry_after: Option<u32>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    headers: BTreeMap<String, String>,
    /// Waits before answering.
    #[serde(default)]
    after_ms: u64,
}

/// A number of times, or `"forever"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Times {
    Count(u64),
    Forever,
}

/// What the first half of a fault leaves to do.
pub(super) enum Before {
    Proceed(Body),
    Answer(Response<Body>),
}

impl Faults {
    /// Adds rules behind those that wait.
    ///
    /// # Errors
    /// A sentence about the first rule that makes no sense; then none is added.
    pub(super) fn add(&mut self, rules: Vec<Rule>) -> Result<(), String> {
        rules.iter().try_for_each(Rule::check)?;
        if self.0.len() + rules.len() > MAX_RULES {
            return Err(format!("more than {MAX_RULES} rules; DELETE /faults first"));
        }
        self.0.extend(rules);
        Ok(())
    }

    pub(super) fn all(&self) -> &[Rule] {
        &self.0
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// The fault that this request plays, used up by one.
    pub(super) fn take(&mut self, place: Place, mailbox: Option<&str>) -> Option<What> {
        let at = self.0.iter().position(|rule| {
            rule.place == place
                && rule
                    .mailbox
                    .as_ref()
                    .is_none_or(|wanted| mailbox.is_some_and(|m| m.eq_ignore_ascii_case(wanted)))
                && rule.probability.is_none_or(|p| fastrand::f64() < p)
        })?;
        let rule = &mut self.0[at];
        let default = match rule.probability {
            Some(_) => Times::Forever,
            None => Times::Count(1),
        };
        match rule.times.unwrap_or(default) {
            Times::Forever => Some(rule.what.clone()),
            Times::Count(0 | 1) => Some(self.0.remove(at).what),
            Times::Count(count) => {
                rule.times = Some(Times::Count(count - 1));
                Some(rule.what.clone())
            }
        }
    }
}

impl Rule {
    fn check(&self) -> Result<(), String> {
        if self.probability.is_some_and(|p| !(0.0..=1.0).contains(&p)) {
            return Err("probability is between 0 and 1".to_owned());
        }
        if self.place == Place::Token && self.mailbox.is_some() {
            return Err("a token is not asked for a mailbox: leave out `mailbox`".to_owned());
        }
        match &self.what {
            What::Status(answer) | What::AcceptThenAnswer(answer) => {
                check_status(answer.status, 200..600)?;
                for (name, value) in &answer.headers {
                    HeaderName::try_from(name).map_err(|_| format!("{name:?} is not a header name"))?;
                    HeaderValue::try_from(value).map_err(|_| format!("{value:?} is not a header value"))?;
                }
                Ok(())
            }
            What::Html { status, .. } => check_status(*status, 200..600),
            What::Redirect { status, location } => {
                HeaderValue::try_from(location).map_err(|_| format!("{location:?} is not a location"))?;
                check_status(*status, 300..400)
            }
            _ => Ok(()),
        }
    }
}

impl What {
    /// The name it has in JSON.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Status(_) => "status",
            Self::Html { .. } => "html",
            Self::Redirect { .. } => "redirect",
            Self::Delay { .. } => "delay",
            Self::CloseBeforeBody => "close_before_body",
            Self::CloseAfterBody => "close_after_body",
            Self::AcceptThenClose { .. } => "accept_then_close",
            Self::AcceptThenAnswer(_) => "accept_then_answer",
            Self::RefuseToken => "refuse_token",
            Self::Truncated => "truncated",
        }
    }

    /// The part that comes before anything is done.
    pub(super) async fn before(&self, exchange: &graph::Exchange, place: Place, body: Body) -> Before {
        let response = match self {
            Self::Delay { ms } => {
                wait(*ms).await;
                return Before::Proceed(body);
            }
            Self::AcceptThenClose { .. } | Self::AcceptThenAnswer(_) | Self::Truncated => {
                return Before::Proceed(body);
            }
            Self::CloseBeforeBody => wire::cut(),
            Self::CloseAfterBody => {
                wire::drain(body).await;
                wire::cut()
            }
            Self::Status(answer) => {
                wire::drain(body).await;
                answer.response(exchange, place).await
            }
            Self::Html { status, body: page } => {
                wire::drain(body).await;
                let page = page.clone().unwrap_or_else(|| proxy_page(*status));
                let mut response = with_status(*status, Body::from(page));
                let html = HeaderValue::from_static("text/html; charset=utf-8");
                response.headers_mut().insert(header::CONTENT_TYPE, html);
                response
            }
            Self::Redirect { status, location } => {
                wire::drain(body).await;
                let mut response = with_status(*status, Body::empty());
                if let Ok(location) = HeaderValue::try_from(location) {
                    response.headers_mut().insert(header::LOCATION, location);
                }
                response
            }
            Self::RefuseToken => {
                wire::drain(body).await;
                match place {
                    Place::Token => entra::Refusal::wrong_secret("the application").response(exchange),
                    Place::SendMail => graph::Refusal::expired_token().response(exchange),
                }
            }
        };
        Before::Answer(response)
    }

    /// The part that comes after a thing was done well.
    pub(super) async fn after(
        &self,
        exchange: &graph::Exchange,
        place: Place,
        done: Response<Body>,
    ) -> Response<Body> {
        match self {
            Self::AcceptThenClose { after_ms } => {
                wait(*after_ms).await;
                wire::cut()
            }
            Self::AcceptThenAnswer(answer) => answer.response(exchange, place).await,
            Self::Truncated => wire::truncate(done).await,
            _ => done,
        }
    }
}

impl Answer {
    async fn response(&self, exchange: &graph::Exchange, place: Place) -> Response<Body> {
        wait(self.after_ms).await;
        let message = self.message.as_deref().unwrap_or("A fault that was asked for.");
        let mut response = match (&self.code, place) {
            (None, _) => with_status(self.status, Body::from(self.message.clone().unwrap_or_default())),
            (Some(code), Place::SendMail) => {
                graph::Refusal::new(self.status, code.clone(), message).response(exchange)
            }
            (Some(code), Place::Token) => {
                let number = self.aadsts.unwrap_or(0);
                entra::Refusal::new(self.status, code.clone(), number, message).response(exchange)
            }
        };
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        for (name, value) in &self.headers {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }
}

fn with_status(status: u16, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
}

fn proxy_page(status: u16) -> String {
    format!(
        "<html><head><title>{status}</title></head><body><h1>{status}</h1>\
         <p>This page was made by a proxy on the way (sandbox fault).</p></body></html>\n"
    )
}

fn check_status(status: u16, range: std::ops::Range<u16>) -> Result<(), String> {
    if range.contains(&status) {
        return Ok(());
    }
    Err(format!(
        "status {status} is not between {} and {}",
        range.start,
        range.end - 1
    ))
}

async fn wait(ms: u64) {
    if ms > 0 {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
}

impl Serialize for Times {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Count(count) => serializer.serialize_u64(*count),
            Self::Forever => serializer.serialize_str("forever"),
        }
    }
}

impl<'de> Deserialize<'de> for Times {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct CountOrForever;
        impl Visitor<'_> for CountOrForever {
            type Value = Times;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of at least 1, or \"forever\"")
            }

            fn visit_u64<E: de::Error>(self, count: u64) -> Result<Times, E> {
                match count {
                    0 => Err(E::invalid_value(de::Unexpected::Unsigned(0), &self)),
                    count => Ok(Times::Count(count)),
                }
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Times, E> {
                match text {
                    "forever" => Ok(Times::Forever),
                    _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }
        }
        deserializer.deserialize_any(CountOrForever)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(json: &str) -> Result<Faults, String> {
        let rule: Rule = serde_json::from_str(json).map_err(|error| error.to_string())?;
        let mut faults = Faults::default();
        faults.add(vec![rule])?;
        Ok(faults)
    }

    #[test]
    fn a_rule_is_used_up() {
        let mut faults =
            faults(r#"{"where":"sendMail","mailbox":"A@b","times":2,"what":{"kind":"truncated"}}"#).unwrap();
        assert!(faults.take(Place::Token, None).is_none());
        assert!(faults.take(Place::SendMail, Some("c@b")).is_none());
        assert!(faults.take(Place::SendMail, Some("a@b")).is_some());
        assert!(faults.take(Place::SendMail, Some("a@b")).is_some());
        assert!(faults.take(Place::SendMail, Some("a@b")).is_none());
        assert!(faults.all().is_empty());
    }

    #[test]
    fn dice_and_forever() {
        let mut always =
            faults(r#"{"where":"token","probability":1,"what":{"kind":"delay","ms":1}}"#).unwrap();
        let mut never =
            faults(r#"{"where":"token","probability":0.0,"what":{"kind":"delay","ms":1}}"#).unwrap();
        for _ in 0..100 {
            assert!(always.take(Place::Token, None).is_some());
            assert!(never.take(Place::Token, None).is_none());
        }
    }

    #[test]
    fn a_bad_rule_is_refused_with_what_is_allowed() {
        for (json, hint) in [
            (
                r#"{"where":"mars","what":{"kind":"truncated"}}"#,
                "`token` or `sendMail`",
            ),
            (
                r#"{"where":"token","what":{"kind":"explode"}}"#,
                "`close_after_body`",
            ),
            (
                r#"{"where":"token","what":{"kind":"delay"}}"#,
                "missing field `ms`",
            ),
            (
                r#"{"where":"token","what":{"kind":"delay","ms":1,"s":1}}"#,
                "unknown field `s`",
            ),
            (
                r#"{"where":"token","what":{"kind":"status","status":500,"x":1}}"#,
                "unknown field `x`",
            ),
            (
                r#"{"where":"token","when":1,"what":{"kind":"truncated"}}"#,
                "expected one of `where`",
            ),
            (
                r#"{"where":"token","times":0,"what":{"kind":"truncated"}}"#,
                "at least 1",
            ),
            (
                r#"{"where":"token","probability":2,"what":{"kind":"truncated"}}"#,
                "between 0 and 1",
            ),
            (
                r#"{"where":"token","what":{"kind":"status","status":99}}"#,
                "between 200 and 599",
            ),
            (
                r#"{"where":"token","what":{"kind":"redirect","status":200,"location":"/"}}"#,
                "300 and 399",
            ),
            (
                r#"{"where":"token","mailbox":"a@b","what":{"kind":"truncated"}}"#,
                "leave out",
            ),
        ] {
            let error = faults(json).unwrap_err();
            assert!(error.contains(hint), "{json}: {error}");
        }
    }
}
