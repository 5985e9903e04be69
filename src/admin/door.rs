//! How the command line comes to the office: by the control socket of a running bridge, or without any way at all.

use super::routes::Caller;
use super::stream::streamed;
use super::view::Refusal;
use axum::Router;
use axum::body::Body;
use axum::extract::Extension;
use axum::http::{Method, Request, Response, header};
use bytes::Bytes;
use http_body::Body as _;
use hyper_util::service::TowerToHyperService;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::future::poll_fn;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;

/// A way to the office, for one request after the other.
#[derive(Clone, Debug)]
pub struct Door(Way);

#[derive(Clone, Debug)]
enum Way {
    Socket(PathBuf),
    Inside(Router),
}

/// Why there is no answer, or not the one that was wanted.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// Nobody listens there: no bridge runs, as far as the socket tells.
    #[error("no bridge answers on {}", .0.display())]
    NotRunning(PathBuf),
    /// The socket may not be opened.
    #[error(
        "this user may not use the bridge's control socket {}: run this as the user that runs the bridge \
         (sudo -u USER smtp-oauth-bridge …), or as administrator", .0.display()
    )]
    Forbidden(PathBuf),
    /// The connection broke, or what came is no answer.
    #[error("the bridge does not answer as it should: {0}")]
    Broken(String),
    /// It does not want to. This is what it says.
    #[error("{0}")]
    Refused(String),
}

/// An answer in JSON is never larger.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

impl Door {
    /// By the control socket at this path.
    #[must_use]
    pub fn by_socket(path: &Path) -> Self {
        Self(Way::Socket(path.to_owned()))
    }

    /// Within this process.
    #[must_use]
    pub fn inside(router: Router) -> Self {
        Self(Way::Inside(router.layer(Extension(Caller::this_process()))))
    }

    /// Finds out whether anybody is there.
    ///
    /// # Errors
    /// [`DoorError`]
    pub async fn knock(&self) -> Result<(), DoorError> {
        match &self.0 {
            Way::Inside(_) => Ok(()),
            #[cfg(unix)]
            Way::Socket(path) => connect(path).await.map(drop),
            #[cfg(not(unix))]
            Way::Socket(path) => Err(DoorError::NotRunning(path.clone())),
        }
    }

    /// Asks for `path`, with its query.
    ///
    /// # Errors
    /// [`DoorError`]
    ///
    /// # Cancellation
    /// As for all methods: a request that was sent may be carried out.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, DoorError> {
        let request = request(Method::GET, path, Body::empty())?;
        read(self.send(request).await?).await
    }

    /// Sends an order with a value in JSON.
    ///
    /// # Errors
    /// [`DoorError`]
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        value: &impl Serialize,
    ) -> Result<T, DoorError> {
        let json = serde_json::to_vec(value).map_err(|error| DoorError::Broken(error.to_string()))?;
        read(self.send(request(Method::POST, path, Body::from(json))?).await?).await
    }

    /// Sends an order with other octets, which `write` makes on a thread where it may block.
    ///
    /// # Errors
    /// [`DoorError`]
    pub async fn post_stream<T: DeserializeOwned>(
        &self,
        path: &str,
        write: impl FnOnce(&mut dyn io::Write) -> io::Result<()> + Send + 'static,
    ) -> Result<T, DoorError> {
        let octets = streamed(move |sink| write(&mut { sink }));
        read(self.send(request(Method::POST, path, octets)?).await?).await
    }

    /// Asks for octets, and writes them as they come.
    ///
    /// # Errors
    /// [`DoorError`]; what was written until then is not whole.
    pub async fn fetch(
        &self,
        path: &str,
        mut write: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), DoorError> {
        let response = self.send(request(Method::GET, path, Body::empty())?).await?;
        let mut body = accepted(response).await?.into_body();
        while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
            let frame = frame.map_err(broken)?;
            if let Ok(piece) = frame.into_data() {
                write(&piece).map_err(|error| DoorError::Broken(error.to_string()))?;
            }
        }
        Ok(())
    }

    async fn send(&self, request: Request<Body>) -> Result<Response<Body>, DoorError> {
        match &self.0 {
            Way::Inside(router) => {
                let service = TowerToHyperService::new(router.clone());
                let answer = hyper::service::Service::call(&service, request).await;
                answer.map_err(|never| match never {})
            }
            Way::Socket(path) => by_socket(path, request).await,
        }
    }
}

#[cfg(unix)]
async fn connect(path: &Path) -> Result<tokio::net::UnixStream, DoorError> {
    use std::io::ErrorKind::{ConnectionRefused, InvalidInput, NotFound, PermissionDenied};
    let connected = tokio::net::UnixStream::connect(path).await;
    connected.map_err(|error| match error.kind() {
        // No bridge can listen at a path that is too long, either.
        NotFound | ConnectionRefused | InvalidInput => DoorError::NotRunning(path.to_owned()),
        PermissionDenied => DoorError::Forbidden(path.to_owned()),
        _ => broken(format!("{}: {error}", path.display())),
    })
}

#[cfg(unix)]
async fn by_socket(path: &Path, request: Request<Body>) -> Result<Response<Body>, DoorError> {
    let stream = connect(path).await?;
    let stream = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream)
        .await
        .map_err(broken)?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "the control connection ended badly");
        }
    });
    let response = sender.send_request(request).await.map_err(broken)?;
    Ok(response.map(Body::new))
}

/// On this system there is no control socket yet: as if no bridge ran.
#[cfg(not(unix))]
async fn by_socket(path: &Path, _: Request<Body>) -> Result<Response<Body>, DoorError> {
    Err(DoorError::NotRunning(path.to_owned()))
}

fn request(method: Method, path: &str, body: Body) -> Result<Request<Body>, DoorError> {
    Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "bridge")
        .header(header::CONTENT_TYPE, "application/json")
        .body(body)
        .map_err(broken)
}

async fn read<T: DeserializeOwned>(response: Response<Body>) -> Result<T, DoorError> {
    let octets = whole(accepted(response).await?.into_body()).await?;
    serde_json::from_slice(&octets).map_err(|error| {
        broken(format!(
            "{error}; are the running bridge and this program of the same version?"
        ))
    })
}

async fn accepted(response: Response<Body>) -> Result<Response<Body>, DoorError> {
    if response.status().is_success() {
        return Ok(response);
    }
    let status = response.status();
    let octets = whole(response.into_body()).await?;
    Err(match serde_json::from_slice::<Refusal>(&octets) {
        Ok(refusal) => DoorError::Refused(refusal.error),
        Err(_) => broken(format!("it answered {status}")),
    })
}

async fn whole(body: Body) -> Result<Bytes, DoorError> {
    axum::body::to_bytes(body, MAX_ANSWER).await.map_err(broken)
}

fn broken(error: impl std::fmt::Display) -> DoorError {
    DoorError::Broken(error.to_string())
}
