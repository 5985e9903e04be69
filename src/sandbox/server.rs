//! Listening: TCP, TLS, HTTP/1.1 and HTTP/2, and stopping in time.

use super::graph::{self, Sender};
use super::state::{Request as Line, Shared};
use super::wire::{self, Cut, Played};
use super::{SandboxError, entra};
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use axum::{Router, serve::Listener};
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The most connections of one listener.
const MAX_CONNECTIONS: usize = 256;
/// How long a peer may take for the TLS handshake, or for the header of a request.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long requests under way may go on after the shutdown.
const DRAIN: Duration = Duration::from_secs(2);

/// A listening socket and who answers on it.
pub(super) struct Server {
    listener: TcpListener,
    local: SocketAddr,
    tls: Option<TlsAcceptor>,
    router: Router,
}

impl Server {
    /// Listens on `address`, which must be of the loopback.
    pub(super) fn bind(
        address: SocketAddr,
        tls: Option<TlsAcceptor>,
        router: Router,
    ) -> Result<Self, SandboxError> {
        if !address.ip().is_loopback() {
            return Err(SandboxError::NotLoopback(address));
        }
        let listen = || {
            let socket = match address {
                SocketAddr::V4(_) => TcpSocket::new_v4()?,
                SocketAddr::V6(_) => TcpSocket::new_v6()?,
            };
            #[cfg(unix)]
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            let listener = socket.listen(1024)?;
            let local = Listener::local_addr(&listener)?;
            Ok((listener, local))
        };
        let (listener, local) = listen().map_err(|error: io::Error| SandboxError::Listen(address, error))?;
        Ok(Self {
            listener,
            local,
            tls,
            router,
        })
    }

    pub(super) fn local(&self) -> SocketAddr {
        self.local
    }

    /// Serves until `shutdown`; then open connections have two seconds to finish.
    pub(super) async fn run(self, shutdown: CancellationToken) {
        let connections = TaskTracker::new();
        let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        while let Some(Ok(permit)) = shutdown
            .run_until_cancelled(Arc::clone(&room).acquire_owned())
            .await
        {
            let stream = match shutdown.run_until_cancelled(self.listener.accept()).await {
                None => break,
                Some(Ok((stream, _))) => stream,
                Some(Err(error)) => {
                    tracing::warn!(target: "sandbox", %error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let _ = stream.set_nodelay(true);
            let (tls, router, shutdown) = (self.tls.clone(), self.router.clone(), shutdown.clone());
            connections.spawn(async move {
                match tls {
                    None => connection(stream, router, shutdown).await,
                    Some(tls) => {
                        let handshake = tokio::time::timeout(HANDSHAKE, tls.accept(stream));
                        match shutdown.run_until_cancelled(handshake).await {
                            None => {}
                            Some(Ok(Ok(stream))) => connection(stream, router, shutdown).await,
                            Some(Ok(Err(error))) => {
                                tracing::debug!(target: "sandbox", %error, "TLS handshake failed");
                            }
                            Some(Err(_)) => tracing::debug!(target: "sandbox", "TLS handshake took too long"),
                        }
                    }
                }
                drop(permit);
            });
        }
        connections.close();
        let _ = tokio::time::timeout(DRAIN + Duration::from_secs(1), connections.wait()).await;
    }
}

/// Entra and Graph behind one door: the path tells them apart, as the host name does at Microsoft.
pub(super) fn cloud(shared: Arc<Shared>) -> Router {
    Router::new().fallback(cloud_request).with_state(shared)
}

async fn cloud_request(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Response<Body> {
    let line = LogLine::begin(&shared, &method, &uri, &headers);
    let path: Vec<String> = uri
        .path()
        .trim_matches('/')
        .split('/')
        .map(|segment| wire::percent_decoded(segment, false))
        .collect();
    let lower: Vec<String> = path.iter().map(|segment| segment.to_ascii_lowercase()).collect();
    let lower: Vec<&str> = lower.iter().map(String::as_str).collect();
    let response = match lower.as_slice() {
        [_, "oauth2", "v2.0", "token"] if method == Method::POST => {
            entra::token(&shared, &path[0], &headers, body).await
        }
        ["v1.0", "me", "sendmail" | "microsoft.graph.sendmail"] if method == Method::POST => {
            graph::send_mail(&shared, Sender::Me, &headers, body).await
        }
        ["v1.0", "users", _, "sendmail" | "microsoft.graph.sendmail"] if method == Method::POST => {
            graph::send_mail(&shared, Sender::User(&path[2]), &headers, body).await
        }
        [_, "oauth2", "v2.0", "token"] | ["v1.0", "me", "sendmail"] | ["v1.0", "users", _, "sendmail"] => {
            graph::wrong_method(&shared, &headers, body).await
        }
        _ => graph::not_found(&shared, &headers, uri.path(), body).await,
    };
    line.end(&response);
    response
}

/// A line of the request log that is written even if the client goes away.
struct LogLine<'a> {
    shared: &'a Shared,
    line: Option<Line>,
}

impl<'a> LogLine<'a> {
    fn begin(shared: &'a Shared, method: &Method, uri: &Uri, headers: &HeaderMap) -> Self {
        let line = Line {
            time: shared.clock.now().to_string(),
            method: method.to_string(),
            path: uri.path().chars().take(500).collect(),
            status: None,
            fault: None,
            client_request_id: wire::text(headers, "client-request-id").map(str::to_owned),
        };
        Self {
            shared,
            line: Some(line),
        }
    }

    fn end(mut self, response: &Response<Body>) {
        if let Some(line) = &mut self.line {
            let extensions = response.extensions();
            line.fault = extensions.get::<Played>().map(|played| played.0);
            line.status = match extensions.get::<Cut>() {
                Some(Cut) => None,
                None => Some(response.status().as_u16()),
            };
        }
    }
}

impl Drop for LogLine<'_> {
    fn drop(&mut self) {
        if let Some(line) = self.line.take() {
            self.shared.lock().log(line);
        }
    }
}

/// Serves one connection until it ends, is cut, or has had its time after the shutdown.
async fn connection<S>(stream: S, router: Router, shutdown: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let cut = CancellationToken::new();
    let service = TowerToHyperService::new(router);
    let service = service_fn(|request: Request<Incoming>| {
        let (answer, cut) = (service.call(request), cut.clone());
        async move {
            let response: Result<Response<Body>, Infallible> = answer.await;
            let response = response.unwrap_or_else(|never| match never {});
            if response.extensions().get::<Cut>().is_none() {
                return Ok(response);
            }
            cut.cancel();
            Err(io::Error::from(io::ErrorKind::ConnectionAborted))
        }
    });
    let mut server = auto::Builder::new(TokioExecutor::new());
    server
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HANDSHAKE);
    server.http2().timer(TokioTimer::new()).max_concurrent_streams(64);
    let mut serving = pin!(server.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        // Whatever else is ready: a cut connection answers nothing.
        biased;
        () = cut.cancelled() => {}
        result = serving.as_mut() => ended(result),
        () = shutdown.cancelled() => {
            serving.as_mut().graceful_shutdown();
            tokio::select! {
                biased;
                () = cut.cancelled() => {}
                result = tokio::time::timeout(DRAIN, serving) => ended(result.unwrap_or(Ok(()))),
            }
        }
    }
}

fn ended(result: Result<(), Box<dyn std::error::Error + Send + Sync>>) {
    if let Err(error) = result {
        tracing::debug!(target: "sandbox", %error, "a connection ended badly");
    }
}

/// An answer in plain text.
pub(super) fn plain(status: StatusCode, text: impl Into<String>) -> Response<Body> {
    let mut response = Response::new(Body::from(text.into()));
    *response.status_mut() = status;
    response
}
