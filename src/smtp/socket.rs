//! Opening the sockets of a listener, and saying what is in the way if that fails.

use super::holder;
use super::stream::Stream;
use crate::mail::Peer;
use socket2::{Domain, Protocol, SockAddr, Socket as RawSocket, Type};
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use tokio::net::TcpListener;
#[cfg(unix)]
use tokio::net::UnixListener;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;

/// Where a socket listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// An address and port.
    Tcp(SocketAddr),
    /// The path of a Unix socket; of one that was handed to us, perhaps nothing.
    Unix(PathBuf),
}

/// Why a place cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else does.
    #[error("listener {listener}: {place} is already in use by {}", in_use(place, program.as_deref()))]
    InUse {
        /// The listener's name.
        listener: String,
        /// Where.
        place: Place,
        /// Who, if that may be seen.
        program: Option<String>,
    },
    /// We may not.
    #[error(
        "listener {listener}: {place} may not be used by this user: {}",
        forbidden(place)
    )]
    Forbidden {
        /// The listener's name.
        listener: String,
        /// Where.
        place: Place,
    },
    /// The machine does not have it.
    #[error("listener {listener}: {}", no_such(place))]
    NoSuchPlace {
        /// The listener's name.
        listener: String,
        /// Where.
        place: Place,
    },
    /// systemd has not opened it.
    #[error(
        "listener {listener}: systemd has opened no socket {name:?} for this service; it opened {}. Enable and start the \
         .socket unit with FileDescriptorName={name}, and start the service through systemd",
        names(opened)
    )]
    NotHandedOver {
        /// The listener's name.
        listener: String,
        /// The socket's name.
        name: String,
        /// What there is.
        opened: Vec<String>,
    },
    /// There is something else at the path of a Unix socket.
    #[error(
        "listener {listener}: {path} exists and is not a socket: choose another path in `bind`, or remove it if \
         nobody needs it"
    )]
    NoSocket {
        /// The listener's name.
        listener: String,
        /// What is there.
        path: PathBuf,
    },
    /// The certificate.
    #[error("listener {listener}: {error}")]
    Certificate {
        /// The listener's name.
        listener: String,
        /// What is wrong with it.
        error: Box<super::CertificateError>,
    },
    /// Something else.
    #[error("listener {listener}: {place} cannot be listened on: {error}")]
    Other {
        /// The listener's name.
        listener: String,
        /// Where.
        place: Place,
        /// What the system says.
        error: io::Error,
    },
}

/// A socket that listens.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix(UnixListener, Option<OwnFile>),
}

/// The file of a Unix socket that we made. It is removed when nobody is accepted any more, but before the socket is
/// closed: while it is open nobody else can take its place.
#[derive(Debug)]
pub(super) struct OwnFile(PathBuf);

/// A socket that was opened for us by whoever started us (sd_listen_fds(3)).
#[derive(Debug)]
pub enum Inherited {
    /// TCP.
    Tcp(std::net::TcpListener),
    /// A Unix socket.
    #[cfg(unix)]
    Unix(std::os::unix::net::UnixListener),
}

/// Opens a TCP socket.
///
/// An IPv6 socket is for IPv6 only (IPV6_V6ONLY), on every system: `[::]` does not include IPv4, and `0.0.0.0` can
/// stand beside it. Without that, whether the two go together would depend on a system setting.
pub(super) fn tcp(listener: &str, address: SocketAddr) -> Result<(Socket, Place), BindError> {
    let open = || {
        let socket = RawSocket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // On Unix this allows an address whose old connections still linger; on Windows it would allow it to be stolen.
        #[cfg(unix)]
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        let socket = TcpListener::from_std(socket.into())?;
        let address = socket.local_addr()?;
        Ok((Socket::Tcp(socket), Place::Tcp(address)))
    };
    open().map_err(|error| BindError::new(listener, Place::Tcp(address), error))
}

/// Opens a Unix socket with this mode. One that is left over from a bridge that was killed is replaced.
#[cfg(unix)]
pub(super) fn unix(listener: &str, path: &Path, mode: u32) -> Result<(Socket, Place), BindError> {
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};
    let place = Place::Unix(path.to_owned());
    let failed = |error| BindError::new(listener, place.clone(), error);
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(BindError::NoSocket {
                listener: listener.to_owned(),
                path: path.to_owned(),
            });
        }
        Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path).map_err(failed)?;
            }
            Ok(_) => return Err(failed(ErrorKind::AddrInUse.into())),
            Err(error) => return Err(failed(error)),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let open = || {
        let socket = RawSocket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.bind(&SockAddr::unix(path)?)?;
        let file = OwnFile(path.to_owned());
        // Before listen, so that nobody can come in before the mode is right.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok(Socket::Unix(UnixListener::from_std(socket.into())?, Some(file)))
    };
    Ok((open().map_err(failed)?, place.clone()))
}

/// Takes all sockets of this name that systemd opened. Without FileDescriptorName= the name is that of the unit.
pub(super) fn inherited(
    listener: &str,
    name: &str,
    handed_over: &mut Vec<(String, Inherited)>,
) -> Result<Vec<(Socket, Place)>, BindError> {
    let is_it =
        |(found, _): &mut (String, Inherited)| *found == name || found.strip_suffix(".socket") == Some(name);
    let mine: Vec<_> = handed_over.extract_if(.., is_it).collect();
    if mine.is_empty() {
        return Err(BindError::NotHandedOver {
            listener: listener.to_owned(),
            name: name.to_owned(),
            opened: handed_over.iter().map(|(name, _)| name.clone()).collect(),
        });
    }
    let adopt = |(_, socket)| match socket {
        Inherited::Tcp(socket) => {
            socket.set_nonblocking(true)?;
            let address = socket.local_addr()?;
            Ok((Socket::Tcp(TcpListener::from_std(socket)?), Place::Tcp(address)))
        }
        #[cfg(unix)]
        Inherited::Unix(socket) => {
            socket.set_nonblocking(true)?;
            let path = socket.local_addr()?.as_pathname().map(Path::to_owned);
            let place = Place::Unix(path.unwrap_or_default());
            Ok((Socket::Unix(UnixListener::from_std(socket)?, None), place))
        }
    };
    mine.into_iter()
        .map(adopt)
        .collect::<io::Result<_>>()
        .map_err(|error| BindError::new(listener, Place::Unix(PathBuf::from(name)), error))
}

impl Socket {
    /// The next client.
    pub(super) async fn accept(&self) -> io::Result<(Stream, Peer)> {
        match self {
            Self::Tcp(socket) => {
                let (stream, address) = socket.accept().await?;
                Ok((Stream::Tcp(stream), address.ip().into()))
            }
            #[cfg(unix)]
            Self::Unix(socket, _) => {
                let (stream, _) = socket.accept().await?;
                Ok((Stream::Unix(stream), Peer::Local))
            }
        }
    }

    /// Nobody is accepted any more.
    pub(super) fn close(self) {
        #[cfg(unix)]
        if let Self::Unix(socket, file) = self {
            drop(file);
            drop(socket);
        }
    }
}

impl Drop for OwnFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl BindError {
    fn new(listener: &str, place: Place, error: io::Error) -> Self {
        let listener = listener.to_owned();
        match error.kind() {
            ErrorKind::AddrInUse => {
                let program = match &place {
                    Place::Tcp(address) => holder::holder(*address),
                    Place::Unix(path) => holder::holder_of_unix(path),
                };
                Self::InUse {
                    listener,
                    place,
                    program,
                }
            }
            ErrorKind::PermissionDenied => Self::Forbidden { listener, place },
            ErrorKind::AddrNotAvailable | ErrorKind::NotFound => Self::NoSuchPlace { listener, place },
            _ => Self::Other {
                listener,
                place,
                error,
            },
        }
    }
}

fn in_use(place: &Place, program: Option<&str>) -> String {
    match (place, program) {
        (_, Some(program)) => format!("{program}: stop that one, or choose another port or path in `bind`"),
        (Place::Tcp(address), None) => format!(
            "another program, perhaps another mail server or another bridge. `ss -ltnp 'sport = :{}'` (as root) shows \
             which: stop that one, or choose another port in `bind`",
            address.port()
        ),
        (Place::Unix(_), None) => {
            "another program, perhaps another bridge: stop that one, or choose another path in `bind`"
                .to_owned()
        }
    }
}

fn forbidden(place: &Place) -> &'static str {
    match place {
        Place::Tcp(_) => {
            "ports below 1024 need root or CAP_NET_BIND_SERVICE (in a systemd unit: \
             AmbientCapabilities=CAP_NET_BIND_SERVICE), or let systemd open the port (bind = \"systemd:NAME\"). Or \
             choose a port above 1023"
        }
        Place::Unix(_) => {
            "make the directory, and a socket that is left there, belong to the user of the bridge"
        }
    }
}

fn no_such(place: &Place) -> String {
    match place {
        Place::Tcp(address) => format!(
            "this machine has no address {}: `ip address` shows those that it has; 0.0.0.0 and [::] stand for all of \
             them",
            address.ip()
        ),
        Place::Unix(path) => format!(
            "the directory of {} does not exist: create it, or let systemd do so (RuntimeDirectory=)",
            path.display()
        ),
    }
}

fn names(names: &[String]) -> String {
    match names {
        [] => "none".to_owned(),
        names => names.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(address: &str) -> Result<(Socket, Place), BindError> {
        tcp("test", address.parse().unwrap())
    }

    #[tokio::test]
    async fn port_0_becomes_a_real_port_and_nobody_else_gets_it() {
        let (_first, place) = open("127.0.0.1:0").unwrap();
        let Place::Tcp(address) = place else {
            panic!("{place}")
        };
        assert_ne!(address.port(), 0);
        let error = open(&address.to_string()).unwrap_err().to_string();
        let start = format!("listener test: {address} is already in use by ");
        assert!(error.starts_with(&start), "{error}");
        #[cfg(target_os = "linux")]
        assert!(
            error.contains(&format!("(process {}): stop", std::process::id())),
            "{error}"
        );
        let unseen = in_use(&Place::Tcp(address), None);
        assert!(
            unseen.contains(&format!("`ss -ltnp 'sport = :{}'`", address.port())),
            "{unseen}"
        );
    }

    #[tokio::test]
    async fn errors_say_what_to_do() {
        let error = open("192.0.2.1:2525").unwrap_err().to_string();
        assert!(error.contains("this machine has no address 192.0.2.1"), "{error}");
        let place = Place::Tcp("127.0.0.1:25".parse().unwrap());
        let error = BindError::new("test", place, ErrorKind::PermissionDenied.into()).to_string();
        assert!(
            error.contains("127.0.0.1:25 may not be used") && error.contains("CAP_NET_BIND_SERVICE"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn ipv4_and_ipv6_stand_side_by_side() {
        let (_first, place) = match open("[::]:0") {
            Ok(opened) => opened,
            // A machine without IPv6.
            Err(BindError::Other { .. } | BindError::NoSuchPlace { .. }) => return,
            Err(error) => panic!("{error}"),
        };
        let Place::Tcp(address) = place else {
            panic!("{place}")
        };
        open(&format!("0.0.0.0:{}", address.port())).unwrap();
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_unix_socket_replaces_one_that_is_left_over_and_nothing_else() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("smtp");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let (socket, place) = unix("test", &path, 0o660).unwrap();
        assert_eq!(place.to_string(), format!("unix:{}", path.display()));
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o660
        );
        let error = unix("test", &path, 0o660).unwrap_err().to_string();
        assert!(error.contains("is already in use by"), "{error}");
        socket.close();
        assert!(!path.exists());

        std::fs::write(&path, "precious").unwrap();
        let error = unix("test", &path, 0o660).unwrap_err().to_string();
        assert!(error.contains("is not a socket"), "{error}");
        assert!(path.exists());
        let error = unix("test", &directory.path().join("a/b"), 0o660)
            .unwrap_err()
            .to_string();
        assert!(error.contains("does not exist"), "{error}");
    }

    #[tokio::test]
    async fn sockets_of_systemd_are_found_by_name() {
        let socket = || Inherited::Tcp(std::net::TcpListener::bind("127.0.0.1:0").unwrap());
        let mut handed_over = vec![
            ("smtp".to_owned(), socket()),
            ("other".to_owned(), socket()),
            ("smtp".to_owned(), socket()),
            ("bridge.socket".to_owned(), socket()),
        ];
        assert_eq!(inherited("test", "smtp", &mut handed_over).unwrap().len(), 2);
        assert_eq!(inherited("test", "bridge", &mut handed_over).unwrap().len(), 1);
        let error = inherited("test", "smtp", &mut handed_over)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("no socket \"smtp\"") && error.contains("it opened other"),
            "{error}"
        );
    }
}
