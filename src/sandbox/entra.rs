//! Entra's token endpoint for client credentials (Microsoft identity platform, client credentials flow).

use super::faults::{Before, Place};
use super::graph::{self, Exchange, guid};
use super::settings::{Grant, Tenant};
use super::state::{Shared, Token};
use super::wire::{self, Played, Received};
use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use std::time::Duration;

/// The largest token request.
const MAX_BODY: u64 = 64 * 1024;
/// Resources that exist in every tenant besides Graph: Exchange Online under its two names.
const EXCHANGE: [&str; 2] = ["https://outlook.office365.com", "https://outlook.office.com"];

/// Why Entra issues no token: an OAuth error with a number (Microsoft Entra, authentication error codes).
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    status: u16,
    error: String,
    number: u32,
    text: String,
}

/// The fields of a token request.
struct Form(Vec<(String, String)>);

impl Refusal {
    pub(super) fn new(status: u16, error: impl Into<String>, number: u32, text: impl Into<String>) -> Self {
        Self {
            status,
            error: error.into(),
            number,
            text: text.into(),
        }
    }

    pub(super) fn wrong_secret(app: &str) -> Self {
        Self::new(
            401,
            "invalid_client",
            7_000_215,
            format!(
                "Invalid client secret provided. Ensure the secret being sent in the request is the client secret \
                 value, not the client secret ID, for a secret added to app '{app}'."
            ),
        )
    }

    fn missing(parameter: &str) -> Self {
        let text = format!("The request body must contain the following parameter: '{parameter}'.");
        Self::new(400, "invalid_request", 900_144, text)
    }

    pub(super) fn response(&self, exchange: &Exchange) -> Response<Body> {
        let timestamp = format!("{}Z", exchange.date().replace('T', " "));
        let correlation = exchange.client_request_id.clone().unwrap_or_else(guid);
        let Self { number, text, .. } = self;
        let mut body = json!({
            "error": self.error,
            "error_description": format!(
                "AADSTS{number}: {text} Trace ID: {} Correlation ID: {correlation} Timestamp: {timestamp}",
                exchange.request_id
            ),
            "error_codes": [number],
            "timestamp": timestamp,
            "trace_id": exchange.request_id,
            "correlation_id": correlation,
            "error_uri": format!("https://login.microsoftonline.com/error?code={number}"),
        });
        if *number == 0 {
            // A fault without a number, as from something in front of Entra.
            body = json!({"error": self.error, "error_description": text});
        }
        answer(exchange, self.status, &body)
    }
}

/// Answers one token request. Cancelling it issues no token, or one that nobody knows.
pub(super) async fn token(shared: &Shared, tenant: &str, headers: &HeaderMap, body: Body) -> Response<Body> {
    let exchange = Exchange::new(shared.clock.now(), headers);
    shared.latency().await;
    let fault = shared.fault(Place::Token, None);
    let played = |mut response: Response<Body>| {
        if let Some(fault) = &fault {
            response.extensions_mut().insert(Played(fault.name()));
        }
        response
    };
    let body = match &fault {
        Some(fault) => match fault.before(&exchange, Place::Token, body).await {
            Before::Proceed(body) => body,
            Before::Answer(response) => return played(response),
        },
        None => body,
    };
    let form = match wire::read(body, MAX_BODY).await {
        Received::Whole(bytes) => Form::read(headers, &bytes),
        Received::TooLarge => Form(Vec::new()),
        Received::Broken => return played(wire::cut()),
    };
    match issue(shared, &exchange, tenant, headers, &form) {
        Ok(body) => {
            let response = answer(&exchange, 200, &body);
            match &fault {
                Some(fault) => played(fault.after(&exchange, Place::Token, response).await),
                None => response,
            }
        }
        Err(refusal) => played(refusal.response(&exchange)),
    }
}

fn issue(
    shared: &Shared,
    exchange: &Exchange,
    tenant_name: &str,
    headers: &HeaderMap,
    form: &Form,
) -> Result<Value, Refusal> {
    let mut state = shared.lock();
    let tenant = &state.tenant;
    check_tenant(tenant, tenant_name)?;
    let grant = form
        .get("grant_type")
        .ok_or_else(|| Refusal::missing("grant_type"))?;
    if grant != "client_credentials" {
        let text = format!("The app requested an unsupported grant type '{grant}'.");
        return Err(Refusal::new(400, "unsupported_grant_type", 70_003, text));
    }
    check_client(tenant, headers, form)?;
    let audience = audience(
        tenant,
        form.get("scope").ok_or_else(|| Refusal::missing("scope"))?,
    )?;
    let lifetime = tenant.switches.token_lifetime_seconds;
    let mail_send = tenant.switches.grant == Grant::Role && graph::AUDIENCES.contains(&audience.as_str());
    let expires = exchange.now.plus(Duration::from_secs(lifetime.into()));
    let token = Token {
        app: tenant.client_id.clone(),
        audience,
        mail_send,
        expires,
    };
    let text = jwt(shared, tenant, &token, exchange)?;
    state.remember_token(text.clone(), token, exchange.now);
    Ok(json!({
        "token_type": "Bearer",
        "expires_in": lifetime,
        "ext_expires_in": lifetime,
        "access_token": text,
    }))
}

fn check_tenant(tenant: &Tenant, name: &str) -> Result<(), Refusal> {
    if tenant.is_named(name) {
        return Ok(());
    }
    let (number, text) = match name.to_ascii_lowercase().as_str() {
        "common" | "organizations" | "consumers" => (
            50_059,
            "No tenant-identifying information found in either the request or implied by any provided credentials."
                .to_owned(),
        ),
        lower if is_guid(lower) || lower.contains('.') => (
            90_002,
            format!(
                "Tenant '{name}' not found. Check to make sure you have the correct tenant ID and are signing into \
                 the correct cloud. Check with your subscription administrator, this may happen if there are no \
                 active subscriptions for the tenant."
            ),
        ),
        _ => (
            900_023,
            format!("Specified tenant identifier '{name}' is neither a valid DNS name, nor a valid external domain."),
        ),
    };
    Err(Refusal::new(400, "invalid_request", number, text))
}

fn check_client(tenant: &Tenant, headers: &HeaderMap, form: &Form) -> Result<(), Refusal> {
    let basic = basic(headers);
    let (basic_id, basic_secret) = basic.unzip();
    let id = form.get("client_id").or(basic_id.as_deref());
    let id = id.ok_or_else(|| Refusal::missing("client_id"))?;
    if !id.eq_ignore_ascii_case(&tenant.client_id) {
        return Err(Refusal::new(
            400,
            "unauthorized_client",
            700_016,
            format!(
                "Application with identifier '{id}' was not found in the directory '{}'. This can happen if the \
                 application has not been installed by the administrator of the tenant or consented to by any user \
                 in the tenant. You may have sent your authentication request to the wrong tenant.",
                tenant.domain
            ),
        ));
    }
    if form.get("client_assertion").is_some() {
        // The sandbox's application has a secret and no certificate.
        let text = "Client assertion contains an invalid signature. [Reason - The key was not found.]";
        return Err(Refusal::new(401, "invalid_client", 700_027, text));
    }
    match form.get("client_secret").or(basic_secret.as_deref()) {
        Some(secret) if tenant.has_secret(secret) => Ok(()),
        Some(_) => Err(Refusal::wrong_secret(&tenant.client_id)),
        None => Err(Refusal::new(
            401,
            "invalid_client",
            7_000_218,
            "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.",
        )),
    }
}

/// The resource that `scope` names: exactly one, known, and with `/.default`.
fn audience(tenant: &Tenant, scope: &str) -> Result<String, Refusal> {
    let mut audience: Option<String> = None;
    for part in scope.split_ascii_whitespace() {
        let Some(resource) = part.strip_suffix("/.default") else {
            return Err(Refusal::new(
                400,
                "invalid_scope",
                1_002_012,
                format!(
                    "The provided value for scope {scope} is not valid. Client credential flows must have a scope \
                     value with /.default suffixed to the resource identifier (application ID URI)."
                ),
            ));
        };
        if audience.as_deref().is_some_and(|other| other != resource) {
            return Err(Refusal::new(
                400,
                "invalid_scope",
                28_000,
                format!(
                    "Provided value for the input parameter scope is not valid because it contains more than one \
                     resource. Scope {scope} is not valid."
                ),
            ));
        }
        audience = Some(resource.to_owned());
    }
    let audience = audience.ok_or_else(|| Refusal::missing("scope"))?;
    if graph::AUDIENCES.contains(&audience.as_str()) || EXCHANGE.contains(&audience.as_str()) {
        return Ok(audience);
    }
    Err(Refusal::new(
        400,
        "invalid_resource",
        500_011,
        format!(
            "The resource principal named {audience} was not found in the tenant named {}. This can happen if the \
             application has not been installed by the administrator of the tenant or consented to by any user in \
             the tenant. You might have sent your authentication request to the wrong tenant.",
            tenant.domain
        ),
    ))
}

/// A token in the shape of a JWT (Microsoft identity platform, access token claims). Its signature is random:
/// Graph knows its tokens by heart.
fn jwt(shared: &Shared, tenant: &Tenant, token: &Token, exchange: &Exchange) -> Result<String, Refusal> {
    let seconds = exchange.now.millis() / 1000;
    let mut claims = json!({
        "aud": token.audience,
        "iss": format!("https://sts.windows.net/{}/", tenant.id),
        "iat": seconds,
        "nbf": seconds,
        "exp": token.expires.millis() / 1000,
        "appid": token.app,
        "appidacr": "1",
        "idtyp": "app",
        "tid": tenant.id,
        "uti": guid(),
        "ver": "1.0",
    });
    if token.mail_send {
        claims["roles"] = json!(["Mail.Send"]);
    }
    let header = json!({"typ": "JWT", "alg": "RS256", "kid": "sandbox"});
    let mut signature = [0; 256];
    shared.random.fill(&mut signature).map_err(|_| {
        Refusal::new(
            503,
            "temporarily_unavailable",
            90_033,
            "A transient error has occurred. Please try again.",
        )
    })?;
    Ok(format!(
        "{}.{}.{}",
        URL_SAFE_NO_PAD.encode(header.to_string()),
        URL_SAFE_NO_PAD.encode(claims.to_string()),
        URL_SAFE_NO_PAD.encode(signature)
    ))
}

/// The client id and secret of HTTP Basic, each form-encoded before (RFC 6749 §2.3.1).
fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let (scheme, value) = wire::text(headers, "authorization")?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = String::from_utf8(STANDARD.decode(value.trim()).ok()?).ok()?;
    let (id, secret) = pair.split_once(':')?;
    Some((
        wire::percent_decoded(id, true),
        wire::percent_decoded(secret, true),
    ))
}

fn answer(exchange: &Exchange, status: u16, body: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    let json = HeaderValue::from_static("application/json; charset=utf-8");
    headers.insert(header::CONTENT_TYPE, json);
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("no-store, no-cache"),
    );
    for (name, value) in [
        ("x-ms-request-id", Some(&exchange.request_id)),
        ("client-request-id", exchange.client_request_id.as_ref()),
    ] {
        if let Some(Ok(value)) = value.map(HeaderValue::try_from) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    response
}

fn is_guid(text: &str) -> bool {
    uuid::Uuid::parse_str(text).is_ok()
}

impl Form {
    /// The fields of an `application/x-www-form-urlencoded` body; none if it is something else.
    fn read(headers: &HeaderMap, body: &[u8]) -> Self {
        let kind = wire::text(headers, "content-type").unwrap_or_default();
        if !kind
            .to_ascii_lowercase()
            .starts_with("application/x-www-form-urlencoded")
        {
            return Self(Vec::new());
        }
        let text = String::from_utf8_lossy(body);
        let fields = text.split('&').filter_map(|pair| pair.split_once('='));
        let decoded = |text: &str| wire::percent_decoded(text, true);
        Self(
            fields
                .map(|(name, value)| (decoded(name), decoded(value)))
                .collect(),
        )
    }

    /// The value of a field that is there and not empty.
    fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self
            .0
            .iter()
            .find(|(key, value)| key == name && !value.is_empty())?;
        Some(value)
    }
}
