//! The office behind HTTP with JSON.

use super::office::{Office, OfficeError};
use super::stream::streamed;
use super::view::{Ids, Query, Refusal, Which};
use crate::mail::QueueId;
use crate::spool::write_envelope;
use crate::telemetry::event::Action;
use axum::body::Body;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Extension, Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use http_body::Body as _;
use serde::{Deserialize, Serialize};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;

/// Who asks, as the history calls them: every request must carry one as an extension.
#[derive(Clone, Debug)]
pub struct Caller(pub String);

/// Octets of an envelope at most: with thousands of recipients it is far from that.
const MAX_ENVELOPE: usize = 16 * 1024 * 1024;

/// Octets of a backup that are sent together.
const PIECE: usize = 64 * 1024;

/// Messages that one request may change.
const MAX_CHANGES: usize = 1000;

/// All requests that the office knows.
pub fn router(office: Office) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/pause", post(pause))
        .route("/v1/resume", post(resume))
        .route("/v1/queue", get(list))
        .route("/v1/queue/ids", get(ids))
        .route("/v1/queue/message/{id}", get(details))
        .route("/v1/queue/message/{id}/envelope", get(envelope))
        .route("/v1/queue/message/{id}/body", get(body))
        .route("/v1/queue/import", post(import))
        .route("/v1/queue/{action}", post(act))
        .route("/v1/backup", get(backup))
        .fallback(nothing_here)
        .with_state(office)
}

type Answer<T> = Result<Json<T>, OfficeError>;

async fn status(State(office): State<Office>) -> Answer<super::view::Status> {
    Ok(Json(office.status().await?))
}

async fn pause(office: State<Office>, which: Result<Json<Which>, JsonRejection>) -> Answer<Nothing> {
    office.pause(which?.0.account, true).await?;
    Ok(Json(Nothing {}))
}

async fn resume(office: State<Office>, which: Result<Json<Which>, JsonRejection>) -> Answer<Nothing> {
    office.pause(which?.0.account, false).await?;
    Ok(Json(Nothing {}))
}

async fn list(office: State<Office>, query: AskedFor) -> Answer<super::view::List> {
    Ok(Json(office.list(query?.0).await?))
}

async fn ids(office: State<Office>, query: AskedFor) -> Answer<Ids> {
    Ok(Json(office.ids(query?.0).await?))
}

async fn details(office: State<Office>, id: Path<String>) -> Answer<super::view::Details> {
    let id = office.resolve(&id).await?;
    Ok(Json(office.details(id).await?))
}

async fn envelope(office: State<Office>, id: Path<String>) -> Result<Response, OfficeError> {
    let id = office.resolve(&id).await?;
    let message = office.still_owed(id).await?;
    Ok(octets(
        id,
        "text/plain; charset=utf-8",
        Body::from(write_envelope(&message)),
    ))
}

async fn body(office: State<Office>, id: Path<String>) -> Result<Response, OfficeError> {
    let id = office.resolve(&id).await?;
    let (_, body) = office.message(id).await?;
    let body = streamed(move |sink| {
        let mut pieces = body.pieces(0).map_err(io::Error::other)?;
        while let Some(piece) = pieces.next_piece().map_err(io::Error::other)? {
            sink.send(piece)?;
        }
        Ok(())
    });
    Ok(octets(id, "message/rfc822", body))
}

async fn act(
    office: State<Office>,
    action: Path<String>,
    caller: Extension<Caller>,
    ids: Result<Json<Ids>, JsonRejection>,
) -> Answer<super::view::Results> {
    let known = [
        ("retry", Action::Retry),
        ("hold", Action::Hold),
        ("release", Action::Release),
        ("bounce", Action::Bounce),
        ("delete", Action::Delete),
    ];
    let Some((_, action)) = known.into_iter().find(|(name, _)| *name == action.as_str()) else {
        return Err(OfficeError::NotFound(format!(
            "there is no action {:?}",
            action.as_str()
        )));
    };
    let ids = ids?.0.ids;
    if ids.len() > MAX_CHANGES {
        return Err(OfficeError::Nonsense(format!(
            "{} messages at once are too many: at most {MAX_CHANGES} in one request",
            ids.len()
        )));
    }
    Ok(Json(office.act(action, ids, &caller.0.0).await?))
}

/// How the octets of an import are divided.
#[derive(Deserialize)]
struct Division {
    /// So many octets of envelope come first.
    envelope: usize,
}

async fn import(
    office: State<Office>,
    division: Result<axum::extract::Query<Division>, QueryRejection>,
    caller: Extension<Caller>,
    body: Body,
) -> Answer<super::view::Imported> {
    let length = division?.0.envelope;
    if length > MAX_ENVELOPE {
        return Err(OfficeError::Nonsense("the envelope is too long".to_owned()));
    }
    let mut pieces = Pieces(body);
    let mut envelope = Vec::new();
    while envelope.len() < length {
        match pieces.next().await? {
            Some(piece) => envelope.extend_from_slice(&piece),
            None => return Err(OfficeError::Nonsense("the envelope is not whole".to_owned())),
        }
    }
    let first = Bytes::from(envelope.split_off(length));
    let imported = office.import(&envelope, first, &mut pieces, &caller.0.0).await;
    // Who still sends does not read the answer.
    while let Ok(Some(_)) = pieces.next().await {}
    Ok(Json(imported?))
}

/// The octets of a request as they come.
pub(super) struct Pieces(Body);

impl Pieces {
    /// The next ones, or `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, OfficeError> {
        loop {
            let frame = poll_fn(|context| Pin::new(&mut self.0).poll_frame(context)).await;
            match frame {
                None => return Ok(None),
                Some(Err(error)) => {
                    return Err(OfficeError::Nonsense(format!("the request broke off: {error}")));
                }
                Some(Ok(frame)) => {
                    if let Ok(piece) = frame.into_data() {
                        return Ok(Some(piece));
                    }
                }
            }
        }
    }
}

async fn backup(office: State<Office>) -> Response {
    let (inspector, now) = (office.inspector().clone(), office.facts.clock.now());
    let archive = streamed(move |sink| {
        // Pieces of a size that is worth a message between threads.
        let mut out = io::BufWriter::with_capacity(PIECE, sink);
        let done = inspector.backup(&mut out, now)?;
        io::Write::flush(&mut out)?;
        tracing::info!(messages = done.messages, "the queue was backed up");
        if done.without_body > 0 {
            tracing::error!(
                messages = done.without_body,
                "the texts of some messages are missing on the disk, and so in the backup"
            );
        }
        Ok(())
    });
    ([(header::CONTENT_TYPE, "application/x-tar")], archive).into_response()
}

async fn nothing_here() -> OfficeError {
    OfficeError::NotFound(
        "there is no such request; this bridge may be older than the program that asks".to_owned(),
    )
}

#[derive(Serialize)]
struct Nothing {}

type AskedFor = Result<axum::extract::Query<Query>, QueryRejection>;

/// The whole id goes along: what was asked for may be its beginning.
fn octets(id: QueueId, kind: &'static str, body: Body) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind.to_owned()),
        (header::ETAG, format!("\"{id}\"")),
    ];
    (headers, body).into_response()
}

impl From<JsonRejection> for OfficeError {
    fn from(error: JsonRejection) -> Self {
        Self::Nonsense(error.body_text())
    }
}

impl From<QueryRejection> for OfficeError {
    fn from(error: QueryRejection) -> Self {
        Self::Nonsense(error.body_text())
    }
}

impl IntoResponse for OfficeError {
    fn into_response(self) -> Response {
        let status = match self {
            Self::Nonsense(_) => StatusCode::BAD_REQUEST,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Trouble(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        let error = self.to_string();
        (status, Json(Refusal { error })).into_response()
    }
}
