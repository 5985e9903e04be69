//! Graph's sendMail, in its MIME and its JSON form (Microsoft Graph, user: sendMail).

use super::faults::{Before, Place};
use super::limits::Slot;
use super::message::{Draft, Form, Message};
use super::settings::{Grant, Mailbox, Oversize, Tenant};
use super::state::{Shared, Token};
use super::wire::{self, Played, Received};
use crate::mail::Timestamp;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use uuid::{Builder, Uuid};

/// The names under which tokens for Graph are issued and accepted.
pub(super) const AUDIENCES: [&str; 2] = [
    "https://graph.microsoft.com",
    "00000003-0000-0000-c000-000000000000",
];

/// One request and its answer: what every answer repeats.
pub(super) struct Exchange {
    pub(super) now: Timestamp,
    /// Made up here.
    pub(super) request_id: String,
    /// As the client sent it.
    pub(super) client_request_id: Option<String>,
}

/// Why Graph does not do it: a status, and usually an `error.code`.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    status: u16,
    code: Option<String>,
    message: String,
    retry_after: Option<u32>,
}

/// Who posts: a mailbox by its address, or the signed-in user.
#[derive(Clone, Copy, Debug)]
pub(super) enum Sender<'a> {
    Me,
    User(&'a str),
}

impl Exchange {
    pub(super) fn new(now: Timestamp, headers: &HeaderMap) -> Self {
        Self {
            now,
            request_id: guid(),
            client_request_id: wire::text(headers, "client-request-id").map(str::to_owned),
        }
    }

    /// `2026-11-20T10:00:00`, as Graph writes dates into errors.
    pub(super) fn date(&self) -> String {
        self.now.to_string().chars().take(19).collect()
    }

    /// Gives `response` the headers that every answer of Graph has.
    fn finish(&self, response: &mut Response<Body>) {
        let client = self.client_request_id.as_ref().unwrap_or(&self.request_id);
        for (name, value) in [("request-id", &self.request_id), ("client-request-id", client)] {
            if let Ok(value) = HeaderValue::try_from(value) {
                response
                    .headers_mut()
                    .insert(HeaderName::from_static(name), value);
            }
        }
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private"));
        headers.insert(
            HeaderName::from_static("x-ms-ags-diagnostic"),
            HeaderValue::from_static(r#"{"ServerInfo":{"DataCenter":"Sandbox","Slice":"E","Ring":"0"}}"#),
        );
    }
}

impl Refusal {
    pub(super) fn new(status: u16, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            status,
            code: Some(code.into()),
            message: message.into(),
            retry_after: None,
        }
    }

    pub(super) fn expired_token() -> Self {
        Self::bad_token("Access token has expired or is not yet valid.")
    }

    fn bad_token(message: &str) -> Self {
        Self::new(401, "InvalidAuthenticationToken", message)
    }

    fn throttled(what: &str, tenant: &Tenant) -> Self {
        Self {
            retry_after: Some(tenant.switches.retry_after_seconds),
            ..Self::new(
                429,
                "ApplicationThrottled",
                format!("Application is over its {what} limit."),
            )
        }
    }

    fn oversize(answer: Oversize) -> Self {
        match answer {
            Oversize::EntityTooLarge => Self {
                code: None,
                ..Self::new(
                    413,
                    "",
                    "The page was not displayed because the request entity is too large.",
                )
            },
            Oversize::BadRequest => {
                Self::new(400, "BadRequest", "The maximum request length supported is 4MB.")
            }
            Oversize::SilentlyDropped => Self {
                code: None,
                ..Self::new(200, "", "")
            },
        }
    }

    /// The answer, in the documented JSON (Microsoft Graph, error responses).
    pub(super) fn response(&self, exchange: &Exchange) -> Response<Body> {
        let (body, content_type) = match &self.code {
            Some(code) => {
                let client = exchange
                    .client_request_id
                    .as_ref()
                    .unwrap_or(&exchange.request_id);
                let json = serde_json::json!({"error": {
                    "code": code,
                    "message": self.message,
                    "innerError": {
                        "date": exchange.date(),
                        "request-id": exchange.request_id,
                        "client-request-id": client,
                    },
                }});
                (json.to_string(), "application/json")
            }
            None => (self.message.clone(), "text/html"),
        };
        let mut response = Response::new(Body::from(body));
        *response.status_mut() =
            StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        exchange.finish(&mut response);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        if self.status == 401 {
            let challenge = HeaderValue::from_static("Bearer realm=\"\", error=\"invalid_token\"");
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

/// Answers one sendMail. Cancelling before the message is accepted leaves nothing behind; cancelling after
/// it (the client goes away) leaves the message accepted.
pub(super) async fn send_mail(
    shared: &Shared,
    sender: Sender<'_>,
    headers: &HeaderMap,
    body: Body,
) -> Response<Body> {
    let exchange = Exchange::new(shared.clock.now(), headers);
    let named = match sender {
        Sender::User(name) => Some(name),
        Sender::Me => None,
    };
    // The gateway first: who it is and whether it is too many. Then whatever trouble was asked for.
    let ticket = authenticate(shared, headers, exchange.now).and_then(|token| {
        let slot = enter(shared, &token, named.unwrap_or("me"), exchange.now)?;
        Ok((token, slot))
    });
    if let Err(refusal @ Refusal { status: 429, .. }) = &ticket {
        wire::drain(body).await;
        return refusal.response(&exchange);
    }
    shared.latency().await;
    let fault = shared.fault(Place::SendMail, named);
    let played = |mut response: Response<Body>| {
        if let Some(fault) = &fault {
            response.extensions_mut().insert(Played(fault.name()));
        }
        response
    };
    let body = match &fault {
        Some(fault) => match fault.before(&exchange, Place::SendMail, body).await {
            Before::Proceed(body) => body,
            Before::Answer(response) => return played(response),
        },
        None => body,
    };
    let permitted = ticket.and_then(|(token, slot)| {
        let mailbox = permit(&shared.lock().tenant, &token, sender)?;
        Ok((token, slot, mailbox, form(headers)?))
    });
    let outcome = match permitted {
        Ok((token, slot, mailbox, form)) => {
            let (limit, oversize) = {
                let switches = &shared.lock().tenant.switches;
                (switches.request_limit, switches.oversize)
            };
            let outcome = match wire::read(body, limit).await {
                Received::Whole(posted) => accept(shared, &exchange, &token, &mailbox, form, posted),
                Received::TooLarge => Err(Refusal::oversize(oversize)),
                Received::Broken => return played(wire::cut()),
            };
            outcome.map(|()| slot)
        }
        Err(refusal) => {
            wire::drain(body).await;
            Err(refusal)
        }
    };
    match outcome {
        Ok(_slot) => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::ACCEPTED;
            exchange.finish(&mut response);
            match &fault {
                Some(fault) => played(fault.after(&exchange, Place::SendMail, response).await),
                None => response,
            }
        }
        Err(refusal) => played(refusal.response(&exchange)),
    }
}

/// Answers what Graph answers to a path that it does not know.
pub(super) async fn not_found(
    shared: &Shared,
    headers: &HeaderMap,
    path: &str,
    body: Body,
) -> Response<Body> {
    wire::drain(body).await;
    let exchange = Exchange::new(shared.clock.now(), headers);
    let segment = path.rsplit('/').next().unwrap_or_default();
    let message =
        format!("Resource not found for the segment '{segment}'. (The sandbox knows sendMail only.)");
    Refusal::new(400, "BadRequest", message).response(&exchange)
}

/// Answers a method that the path does not have.
pub(super) async fn wrong_method(shared: &Shared, headers: &HeaderMap, body: Body) -> Response<Body> {
    wire::drain(body).await;
    let exchange = Exchange::new(shared.clock.now(), headers);
    Refusal::new(
        405,
        "Request_BadRequest",
        "Specified HTTP method is not allowed for the request target.",
    )
    .response(&exchange)
}

/// A random GUID.
pub(super) fn guid() -> String {
    let guid: Uuid = Builder::from_random_bytes(fastrand::u128(..).to_ne_bytes()).into_uuid();
    guid.to_string()
}

fn authenticate(shared: &Shared, headers: &HeaderMap, now: Timestamp) -> Result<Token, Refusal> {
    let token = wire::text(headers, "authorization")
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim())
        .filter(|token| !token.is_empty())
        .ok_or_else(|| Refusal::bad_token("Access token is empty."))?;
    if token.split('.').count() != 3 {
        return Err(Refusal::bad_token("IDX14100: JWT is not well formed."));
    }
    let state = shared.lock();
    let known = state
        .tokens
        .get(token)
        .ok_or_else(|| Refusal::bad_token("Access token validation failure. Invalid signature."))?;
    if !AUDIENCES.contains(&known.audience.as_str()) {
        return Err(Refusal::bad_token(
            "Access token validation failure. Invalid audience.",
        ));
    }
    if now >= known.expires {
        return Err(Refusal::expired_token());
    }
    Ok(known.clone())
}

fn enter(shared: &Shared, token: &Token, mailbox: &str, now: Timestamp) -> Result<Slot, Refusal> {
    let key = (token.app.clone(), mailbox.to_lowercase());
    let mut state = shared.lock();
    let limit = state.tenant.switches.concurrency;
    let slot = shared
        .slots
        .enter(&key, limit)
        .ok_or_else(|| Refusal::throttled("MailboxConcurrency", &state.tenant))?;
    if !state.count_request(&key, now) {
        return Err(Refusal::throttled("MailboxRequests", &state.tenant));
    }
    Ok(slot)
}

/// The mailbox, if there is one and the application may use it.
fn permit(tenant: &Tenant, token: &Token, sender: Sender<'_>) -> Result<Mailbox, Refusal> {
    let Sender::User(name) = sender else {
        return Err(Refusal::new(
            400,
            "BadRequest",
            "/me request is only valid with delegated authentication flow.",
        ));
    };
    let mailbox = tenant.mailbox(name).ok_or_else(|| {
        Refusal::new(
            404,
            "ErrorInvalidUser",
            format!("The requested user '{name}' is invalid."),
        )
    })?;
    if !mailbox.licensed {
        return Err(Refusal::new(
            404,
            "MailboxNotEnabledForRESTAPI",
            "The mailbox is either inactive, soft-deleted, or is hosted on-premise.",
        ));
    }
    if !token.mail_send && tenant.switches.grant != Grant::Rbac {
        return Err(Refusal::new(
            403,
            "ErrorAccessDenied",
            "Access is denied. Check credentials and try again.",
        ));
    }
    if mailbox.blocked_by_policy {
        return Err(Refusal::new(
            403,
            "ErrorAccessDenied",
            "Access to OData is disabled: [RAOP] : Blocked by tenant configured AppOnly AccessPolicy settings.",
        ));
    }
    Ok(mailbox.clone())
}

fn form(headers: &HeaderMap) -> Result<Form, Refusal> {
    let Some(value) = wire::text(headers, "content-type") else {
        return Err(Refusal::new(
            400,
            "BadRequest",
            "Write requests (excluding DELETE) must contain the Content-Type header declaration.",
        ));
    };
    let essence = value
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    match essence.as_str() {
        "text/plain" => Ok(Form::Mime),
        "application/json" => Ok(Form::Json),
        _ => Err(Refusal::new(
            415,
            "UnsupportedMediaType",
            format!(
                "A supported MIME type could not be found that matches the content type of the request: '{essence}'."
            ),
        )),
    }
}

/// Checks what was posted and puts it into the inbox.
fn accept(
    shared: &Shared,
    exchange: &Exchange,
    token: &Token,
    mailbox: &Mailbox,
    form: Form,
    posted: Vec<u8>,
) -> Result<(), Refusal> {
    let key = mailbox.address.key();
    let uploaded = posted.len() as u64;
    let draft = match form {
        Form::Mime => Draft::from_base64(&posted),
        Form::Json => {
            let domain = mailbox.address.domain();
            Draft::from_json(posted, format!("<{}@{domain}>", guid()))
        }
    };
    let mut state = shared.lock();
    if !state.count_upload(&(token.app.clone(), key.clone()), uploaded, exchange.now) {
        return Err(Refusal::throttled("MailboxUpload", &state.tenant));
    }
    let draft = draft?;
    check(&state.tenant, mailbox, &draft)?;
    if !state.count_recipients(&key, draft.distinct_recipients() as u64, exchange.now) {
        return Err(Refusal::new(
            500,
            "ErrorSubmissionQuotaExceeded",
            "The message can't be submitted because the sender's submission quota was exceeded. Please try again later.",
        ));
    }
    let from = draft.from.into_iter().next();
    let recipients = draft.recipients.len();
    let id = state.inbox.push(Message {
        id: 0,
        received: exchange.now.to_string(),
        mailbox: mailbox.address.to_string(),
        form: draft.form,
        size: draft.raw.len(),
        subject: draft.subject,
        from: Some(from.unwrap_or_else(|| mailbox.address.to_string())),
        recipients: draft.recipients,
        message_id: draft.message_id,
        client_request_id: exchange.client_request_id.clone(),
        client_id: token.app.clone(),
        saved_to_sent_items: draft.save,
        raw: Bytes::from(draft.raw),
    });
    drop(state);
    tracing::info!(target: "sandbox", id, mailbox = %mailbox.address, recipients, "a message arrived");
    Ok(())
}

fn check(tenant: &Tenant, mailbox: &Mailbox, draft: &Draft) -> Result<(), Refusal> {
    let switches = &tenant.switches;
    if draft.raw.len() as u64 > switches.message_limit {
        return Err(Refusal::new(
            400,
            "ErrorMessageSizeExceeded",
            "The message exceeds the maximum supported size.",
        ));
    }
    if draft.distinct_recipients() > switches.max_recipients {
        return Err(Refusal::new(
            400,
            "ErrorExceededMaxRecipientLimit",
            format!(
                "The message has more than {} recipients.",
                switches.max_recipients
            ),
        ));
    }
    if !draft.from.iter().all(|from| tenant.may_send_as(mailbox, from)) {
        return Err(Refusal::new(
            403,
            "ErrorSendAsDenied",
            "The user account which was used to submit this request does not have the right to send mail on \
             behalf of the specified sending account. Cannot submit message.",
        ));
    }
    if draft.recipients.is_empty() {
        return Err(Refusal::new(
            400,
            "ErrorInvalidRecipients",
            "At least one recipient is not valid., A message can't be sent because it contains no recipients.",
        ));
    }
    // Whether an address exists shows only later, as a report; that it is none at all shows at once.
    let whole = |address: &str| {
        matches!(address.rsplit_once('@'), Some((local, domain))
            if !local.is_empty() && !domain.is_empty() && !domain.contains(char::is_whitespace))
    };
    if let Some(bad) = draft.recipients.iter().find(|r| !whole(&r.address)) {
        return Err(Refusal::new(
            400,
            "ErrorInvalidRecipients",
            format!(
                "At least one recipient is not valid., Recipient '{}' is not resolved. All recipients must be \
                 resolved before a message can be submitted.",
                bad.address
            ),
        ));
    }
    Ok(())
}
