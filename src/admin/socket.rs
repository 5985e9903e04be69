//! The Unix socket by which the command line reaches a running bridge.
//!
//! Who may open it is the file system's matter: it has mode 0600, in a directory of the bridge's. Whoever may open it may
//! do everything.

use super::office::Office;
use super::routes::{Caller, router};
use axum::extract::Extension;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Why the socket cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Its path has more octets than a Unix socket's path may have.
    #[error(
        "the path of the control socket, {}, is too long for a Unix socket: set `control` in the section [admin] to a \
         shorter one, for example \"/run/smtp-oauth-bridge/control.sock\"", .0.display()
    )]
    TooLong(PathBuf),
    /// There is something else.
    #[error(
        "{} exists and is not a socket: set `control` in the section [admin] to another path, or remove it if nobody \
         needs it", .0.display()
    )]
    NoSocket(PathBuf),
    /// Somebody answers there.
    #[error(
        "another program answers on the control socket {}, perhaps another bridge: stop that one, or set `control` in \
         the section [admin] to another path", .0.display()
    )]
    InUse(PathBuf),
    /// Something else.
    #[error(
        "the control socket {} cannot be opened: {error}. Its directory must exist and belong to the user that runs \
         the bridge; `control` in the section [admin] is its path", path.display()
    )]
    Other {
        /// Its path.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
}

/// A control socket that is open. Its file is removed when this is dropped.
#[derive(Debug)]
pub struct ControlSocket {
    #[cfg(unix)]
    listener: tokio::net::UnixListener,
    #[cfg(unix)]
    _file: OwnFile,
}

#[cfg(unix)]
#[derive(Debug)]
struct OwnFile(PathBuf);

#[cfg(unix)]
impl Drop for OwnFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Connections at most; each command takes one.
const MAX_CONNECTIONS: usize = 64;

/// How long a client may take for the header of a request.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long requests under way may go on after the stop.
const DRAIN: Duration = Duration::from_secs(2);

impl ControlSocket {
    /// Opens the socket; one that is left over from a bridge that was killed is replaced. On systems without Unix
    /// sockets there is none.
    ///
    /// # Errors
    /// [`SocketError`]
    #[cfg(unix)]
    pub fn open(path: &Path) -> Result<Option<Self>, SocketError> {
        use std::os::unix::fs::{FileTypeExt, PermissionsExt};
        let other = |error| SocketError::Other {
            path: path.to_owned(),
            error,
        };
        let address = socket2::SockAddr::unix(path).map_err(|_| SocketError::TooLong(path.to_owned()))?;
        match std::fs::symlink_metadata(path) {
            Ok(metadata) if !metadata.file_type().is_socket() => {
                return Err(SocketError::NoSocket(path.to_owned()));
            }
            Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                    std::fs::remove_file(path).map_err(other)?;
                }
                Ok(_) => return Err(SocketError::InUse(path.to_owned())),
                Err(error) => return Err(other(error)),
            },
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(other(error)),
        }
        let open = || {
            let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
            socket.bind(&address)?;
            let file = OwnFile(path.to_owned());
            // Before listen, so that nobody can come in before the mode is right.
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
            socket.listen(64)?;
            socket.set_nonblocking(true)?;
            Ok(Self {
                listener: tokio::net::UnixListener::from_std(socket.into())?,
                _file: file,
            })
        };
        open().map(Some).map_err(other)
    }

    /// Opens the socket; on this system there is none.
    ///
    /// # Errors
    /// None.
    #[cfg(not(unix))]
    pub fn open(_: &Path) -> Result<Option<Self>, SocketError> {
        tracing::warn!(
            "there is no control socket on this system yet: the commands queue and status work while no bridge runs"
        );
        Ok(None)
    }

    /// Serves until `stop`; requests under way have two seconds more.
    ///
    /// # Cancellation
    /// Safe; requests under way break off.
    #[cfg(unix)]
    pub async fn serve(self, office: Office, stop: CancellationToken) {
        let router = router(office);
        let room = Arc::new(tokio::sync::Semaphore::new(MAX_CONNECTIONS));
        let mut connections = tokio::task::JoinSet::new();
        while let Some(Ok(place)) = stop.run_until_cancelled(room.clone().acquire_owned()).await {
            let stream = match stop.run_until_cancelled(self.listener.accept()).await {
                None => break,
                Some(Ok((stream, _))) => stream,
                Some(Err(error)) => {
                    tracing::warn!(%error, "the control socket cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            while connections.try_join_next().is_some() {}
            let user = stream.peer_cred().ok().map(|peer| peer.uid());
            let router = router.clone().layer(Extension(Caller(named(user))));
            let stop = stop.clone();
            connections.spawn(async move {
                connection(stream, router, stop).await;
                drop(place);
            });
        }
        let _ = tokio::time::timeout(DRAIN, async { while connections.join_next().await.is_some() {} }).await;
        connections.shutdown().await;
    }

    /// There is none on this system.
    #[cfg(not(unix))]
    pub async fn serve(self, _: Office, _: CancellationToken) {}
}

#[cfg(unix)]
async fn connection(stream: tokio::net::UnixStream, router: axum::Router, stop: CancellationToken) {
    let serving = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut serving = std::pin::pin!(serving);
    let served = tokio::select! {
        served = serving.as_mut() => served,
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "a control connection ended badly");
    }
}

/// A user as the history and the log call them: by name where the machine's list of users has it.
fn named(user: Option<u32>) -> String {
    let Some(user) = user else {
        return "somebody on this machine".to_owned();
    };
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    name_in(&users, user).map_or_else(|| format!("uid {user}"), |name| format!("{name} (uid {user})"))
}

/// passwd(5): name, password, number, separated by colons.
fn name_in(users: &str, user: u32) -> Option<&str> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, number) = (fields.next()?, fields.nth(1)?);
        (number.parse() == Ok(user)).then_some(name)
    })
}

impl Caller {
    /// Whoever runs this process.
    #[must_use]
    pub fn this_process() -> Self {
        #[cfg(unix)]
        let user = Some(rustix::process::geteuid().as_raw());
        #[cfg(not(unix))]
        let user = None;
        Self(named(user))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_have_names() {
        let users = "root:x:0:0:root:/root:/bin/bash\nbad line\nbridge:x:998:998::/:/bin/false\n";
        assert_eq!(name_in(users, 0), Some("root"));
        assert_eq!(name_in(users, 998), Some("bridge"));
        assert_eq!(name_in(users, 1), None);
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn the_socket_takes_its_place_and_says_what_is_in_the_way() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        let first = ControlSocket::open(&path).unwrap().unwrap();
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert!(matches!(ControlSocket::open(&path), Err(SocketError::InUse(_))));
        drop(first);
        assert!(!path.exists());
        // As a kill leaves it: the file without anybody behind it.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        drop(ControlSocket::open(&path).unwrap());
        std::fs::write(&path, "x").unwrap();
        assert!(matches!(
            ControlSocket::open(&path),
            Err(SocketError::NoSocket(_))
        ));
        let long = directory.path().join("x".repeat(120));
        assert!(matches!(ControlSocket::open(&long), Err(SocketError::TooLong(_))));
        let nowhere = directory.path().join("missing").join("control.sock");
        let error = ControlSocket::open(&nowhere).unwrap_err().to_string();
        assert!(error.contains("directory must exist"), "{error}");
    }
}
