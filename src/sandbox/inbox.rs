//! The plain HTTP side: what arrived, what went wrong on purpose, and what the tenant is like.

use super::faults::Rule;
use super::message::Form;
use super::server::plain;
use super::settings::TenantPatch;
use super::state::Shared;
use super::{page, wire};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use axum::middleware::{self, Next};
use axum::routing::{delete, get};
use serde::Serialize;
use serde_json::{Value, json};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// The largest body of a request here.
const MAX_BODY: usize = 256 * 1024;

/// Everything under the inbox address. `smtp` is where the page tells people to send mail to.
pub(super) fn router(shared: Arc<Shared>, smtp: Option<SocketAddr>) -> Router {
    let front = get(move |State(shared): State<Arc<Shared>>| async move {
        let (messages, dropped) = {
            let state = shared.lock();
            (state.inbox.all(), state.inbox.dropped)
        };
        with_type("text/html; charset=utf-8", page::render(&messages, dropped, smtp))
    });
    Router::new()
        .route("/", front)
        .route(
            "/style.css",
            get(async || with_type("text/css; charset=utf-8", page::STYLE)),
        )
        .route("/inbox", get(list).delete(clear))
        .route("/inbox/{id}", get(one))
        .route("/inbox/{id}/raw", get(raw))
        .route("/inbox/{id}/delivered", get(delivered))
        .route("/requests", get(requests).delete(clear_requests))
        .route("/faults", get(faults).post(add_faults).delete(clear_faults))
        .route("/tenant", get(tenant).patch(patch_tenant))
        .route("/tokens", delete(clear_tokens))
        .fallback(async || {
            plain(
                StatusCode::NOT_FOUND,
                "There is nothing here. See / for what there is.\n",
            )
        })
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn(guard))
        .with_state(shared)
}

type Answer = Response<Body>;
type Handle = State<Arc<Shared>>;

async fn list(State(shared): Handle) -> Answer {
    let (messages, dropped) = {
        let state = shared.lock();
        (state.inbox.all(), state.inbox.dropped)
    };
    let messages: Vec<_> = messages.iter().map(Arc::as_ref).collect();
    let mut response = json_of(StatusCode::OK, &messages);
    response
        .headers_mut()
        .insert(HeaderName::from_static("x-dropped"), HeaderValue::from(dropped));
    response
}

async fn clear(State(shared): Handle) -> Answer {
    shared.lock().inbox.clear();
    plain(StatusCode::NO_CONTENT, "")
}

async fn one(State(shared): Handle, Path(id): Path<String>) -> Answer {
    match find(&shared, &id) {
        Some(message) => json_of(StatusCode::OK, message.as_ref()),
        None => no_message(&id),
    }
}

async fn raw(State(shared): Handle, Path(id): Path<String>) -> Answer {
    match find(&shared, &id) {
        Some(message) => {
            let kind = match message.form {
                Form::Mime => "message/rfc822",
                Form::Json => "application/json",
            };
            with_type(kind, message.raw.clone())
        }
        None => no_message(&id),
    }
}

async fn delivered(State(shared): Handle, Path(id): Path<String>) -> Answer {
    match find(&shared, &id) {
        Some(message) => match message.delivered() {
            Some(seen) => with_type("message/rfc822", seen),
            None => refuse(
                StatusCode::NOT_FOUND,
                "a message posted as JSON has no MIME here; see its raw form",
            ),
        },
        None => no_message(&id),
    }
}

async fn requests(State(shared): Handle) -> Answer {
    let requests = shared.lock().requests.clone();
    json_of(StatusCode::OK, &requests)
}

async fn clear_requests(State(shared): Handle) -> Answer {
    shared.lock().requests.clear();
    plain(StatusCode::NO_CONTENT, "")
}

async fn faults(State(shared): Handle) -> Answer {
    let rules = shared.lock().faults.all().to_vec();
    json_of(StatusCode::OK, &rules)
}

async fn add_faults(State(shared): Handle, headers: HeaderMap, body: Bytes) -> Answer {
    let added = read_json(&headers, &body)
        .and_then(|value| match value {
            Value::Array(rules) => rules.into_iter().map(read::<Rule>).collect(),
            value => read(value).map(|rule| vec![rule]),
        })
        .and_then(|rules| shared.lock().faults.add(rules));
    match added {
        Ok(()) => faults(State(shared)).await,
        Err(error) => refuse(StatusCode::BAD_REQUEST, &error),
    }
}

async fn clear_faults(State(shared): Handle) -> Answer {
    shared.lock().faults.clear();
    plain(StatusCode::NO_CONTENT, "")
}

async fn tenant(State(shared): Handle) -> Answer {
    let shown = shared.lock().tenant.shown();
    json_of(StatusCode::OK, &shown)
}

async fn patch_tenant(State(shared): Handle, headers: HeaderMap, body: Bytes) -> Answer {
    match read_json(&headers, &body).and_then(read::<TenantPatch>) {
        Ok(patch) => {
            shared.lock().tenant.apply(patch);
            tenant(State(shared)).await
        }
        Err(error) => refuse(StatusCode::BAD_REQUEST, &error),
    }
}

async fn clear_tokens(State(shared): Handle) -> Answer {
    shared.lock().tokens.clear();
    plain(StatusCode::NO_CONTENT, "")
}

/// Keeps other people's web pages out. A page under a name that its owner points to 127.0.0.1 (DNS rebinding)
/// shows in Host, a page that posts across origins in Origin; and what changes something is JSON, which a
/// browser does not post across origins without asking first.
async fn guard(request: Request, next: Next) -> Answer {
    let uri_host = request.uri().authority().map(|authority| authority.as_str());
    let host = wire::text(request.headers(), "host").or(uri_host);
    let origin = request.headers().get(header::ORIGIN).map(|origin| {
        let text = origin.to_str().unwrap_or_default();
        text.split_once("://").map_or("", |(_, host)| host)
    });
    if !host.is_some_and(is_loopback) || !origin.is_none_or(is_loopback) {
        let text = "This page is for this machine only: open it as http://localhost or http://127.0.0.1.\n";
        return plain(StatusCode::FORBIDDEN, text);
    }
    let head = request.method() == Method::HEAD;
    let mut response = next.run(request).await;
    for (name, value) in [
        ("content-security-policy", page::POLICY),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cache-control", "no-store"),
    ] {
        response
            .headers_mut()
            .insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    if head {
        *response.body_mut() = Body::empty();
    }
    response
}

/// Whether a Host (with or without a port) names this machine's loopback.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((v6, _)) => v6,
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn find(shared: &Shared, id: &str) -> Option<Arc<super::message::Message>> {
    shared.lock().inbox.get(id.parse().ok()?)
}

fn no_message(id: &str) -> Answer {
    refuse(StatusCode::NOT_FOUND, &format!("there is no message {id:?}"))
}

fn read_json(headers: &HeaderMap, body: &[u8]) -> Result<Value, String> {
    let kind = wire::text(headers, "content-type").unwrap_or_default();
    if !kind.to_ascii_lowercase().starts_with("application/json") {
        return Err("say `Content-Type: application/json`".to_owned());
    }
    serde_json::from_slice(body).map_err(|error| format!("not JSON: {error}"))
}

fn read<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, String> {
    serde_json::from_value(value).map_err(|error| error.to_string())
}

fn refuse(status: StatusCode, error: &str) -> Answer {
    json_of(status, &json!({"error": error}))
}

fn json_of<T: Serialize + ?Sized>(status: StatusCode, value: &T) -> Answer {
    // Our own types have string keys and no failing Serialize; an empty body would say otherwise.
    let mut body = serde_json::to_vec_pretty(value).unwrap_or_default();
    body.push(b'\n');
    let mut response = with_type("application/json", body);
    *response.status_mut() = status;
    response
}

fn with_type(kind: &'static str, body: impl Into<Body>) -> Answer {
    let mut response = Response::new(body.into());
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_names_are_ours() {
        for host in [
            "localhost",
            "LOCALHOST:80",
            "127.0.0.1:1",
            "127.1.2.3",
            "[::1]:8026",
            "[::1]",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example:80",
            "192.0.2.1",
            "127.0.0.1.evil.example",
            "[::2]",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
