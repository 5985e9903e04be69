//! The sockets: binding them, accepting from them within the limits, and the end.

use super::connection::{Surroundings, serve_client};
use super::session::SessionSettings;
use crate::config::Access;
use crate::config::Bind;
use crate::config::Listener;
use crate::mail::Peer;
use crate::mail::Reply;
use crate::spool::Intake;
use crate::telemetry::Maillog;
use crate::telemetry::maillog::Client;
use crate::users::Logins;
use ipnet::IpNet;
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, ErrorKind, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;
/// How long to wait after an error of accept that passes only with time, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// At most one line in this time tells of connections beyond the limit, or of accept failing.
const LOG_PAUSE: Duration = Duration::from_secs(10);

/// A socket that listens. Connections wait in it until [`serve`] takes it.
#[derive(Debug)]
pub struct Bound {
    socket: TcpListener,
    address: SocketAddr,
    door: Arc<Door>,
}

/// What all sockets of a listener have in common.
#[derive(Debug)]
struct Door {
    name: String,
    allow: Vec<IpNet>,
    max_message_size: u64,
    max_connections: usize,
    access: Access,
    places: Arc<Semaphore>,
}

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else does.
    #[error(
        "listener {listener}: {address} is already in use, perhaps by another mail server or another bridge. \
         `ss -ltnp 'sport = :{}'` (as root) shows which program it is: stop that one, or choose another port in `bind`",
        address.port()
    )]
    InUse {
        /// The listener's name.
        listener: String,
        /// The address.
        address: SocketAddr,
    },
    /// We may not.
    #[error(
        "listener {listener}: {address} may not be used by this user: ports below 1024 need root or \
         CAP_NET_BIND_SERVICE (in a systemd unit: AmbientCapabilities=CAP_NET_BIND_SERVICE). Or choose a port above 1023"
    )]
    Forbidden {
        /// The listener's name.
        listener: String,
        /// The address.
        address: SocketAddr,
    },
    /// The machine does not have it.
    #[error(
        "listener {listener}: this machine has no address {}: `ip address` shows those that it has; \
         0.0.0.0 and [::] stand for all of them", address.ip()
    )]
    NoSuchAddress {
        /// The listener's name.
        listener: String,
        /// The address.
        address: SocketAddr,
    },
    /// Something else.
    #[error("listener {listener}: {address} cannot be listened on: {error}")]
    Other {
        /// The listener's name.
        listener: String,
        /// The address.
        address: SocketAddr,
        /// What the system says.
        error: io::Error,
    },
}

/// What a listener needs to do its work.
#[derive(Clone, Debug)]
pub struct Services {
    /// Our name, for the greeting.
    pub hostname: String,
    /// Where messages go.
    pub intake: Intake,
    /// Who may log in.
    pub logins: Logins,
    /// Where it is told.
    pub maillog: Maillog,
}

/// Opens all sockets of a listener. Must be called within a Tokio runtime.
///
/// An IPv6 socket is for IPv6 only (IPV6_V6ONLY), on every system: `[::]` does not include IPv4, and `0.0.0.0` can
/// stand beside it. Without that, whether the two go together would depend on a system setting.
///
/// # Errors
/// [`BindError`] for the first address that fails; no socket stays open then.
pub fn bind(listener: &Listener) -> Result<Vec<Bound>, BindError> {
    let door = Arc::new(Door {
        name: listener.name.clone(),
        allow: listener.allow.clone(),
        max_message_size: listener.max_message_size,
        max_connections: listener.max_connections,
        access: listener.access,
        places: Arc::new(Semaphore::new(
            listener.max_connections.min(Semaphore::MAX_PERMITS),
        )),
    });
    let bound = |&address: &SocketAddr| {
        let socket = open(address).map_err(|error| BindError::new(&door.name, address, error))?;
        let address = socket
            .local_addr()
            .map_err(|error| BindError::new(&door.name, address, error))?;
        Ok(Bound {
            socket,
            address,
            door: door.clone(),
        })
    };
    listener
        .bind
        .iter()
        .filter_map(|place| match place {
            Bind::Address(address) => Some(bound(address)),
            Bind::Systemd(_) | Bind::Unix(_) => None,
        })
        .collect()
}

/// Serves all clients of these sockets until `stop`, and returns when the last one is gone.
///
/// After `stop` nobody is accepted, and clients get `421` and are closed at once, except that one within DATA may
/// finish its message and hear what became of it. There is no deadline for that here: dropping this future closes
/// everything at once.
pub async fn serve(sockets: Vec<Bound>, services: Services, stop: CancellationToken) {
    let mut loops = JoinSet::new();
    for bound in sockets {
        let settings = SessionSettings {
            hostname: services.hostname.clone(),
            listener: bound.door.name.clone(),
            max_message_size: bound.door.max_message_size,
            access: bound.door.access,
        };
        let surroundings = Surroundings {
            settings: Arc::new(settings),
            intake: services.intake.clone(),
            logins: services.logins.clone(),
            maillog: services.maillog,
            stop: stop.clone(),
        };
        loops.spawn(accept_all(bound, Arc::new(surroundings)));
    }
    drop(services);
    while let Some(ended) = loops.join_next().await {
        note_panic(ended);
    }
}

impl Bound {
    /// Where it listens; the real port if the configuration said 0.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The name of its listener.
    #[must_use]
    pub fn listener(&self) -> &str {
        &self.door.name
    }
}

impl Door {
    /// True for those who may connect. Whoever may use a Unix socket is its mode's business.
    fn allows(&self, client: Peer) -> bool {
        client
            .address()
            .is_none_or(|address| self.allow.iter().any(|network| network.contains(&address)))
    }
}

impl BindError {
    fn new(listener: &str, address: SocketAddr, error: io::Error) -> Self {
        let listener = listener.to_owned();
        match error.kind() {
            ErrorKind::AddrInUse => Self::InUse { listener, address },
            ErrorKind::PermissionDenied => Self::Forbidden { listener, address },
            ErrorKind::AddrNotAvailable => Self::NoSuchAddress { listener, address },
            _ => Self::Other {
                listener,
                address,
                error,
            },
        }
    }
}

fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // On Unix this allows an address whose old connections still linger; on Windows it would allow it to be stolen.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket.into())
}

async fn accept_all(bound: Bound, surroundings: Arc<Surroundings>) {
    let Bound { socket, door, .. } = bound;
    let stop = surroundings.stop.clone();
    let mut clients = JoinSet::new();
    let mut log = Seldom::default();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(ended) = clients.join_next() => {
                note_panic(ended);
                continue;
            }
            accepted = socket.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => {
                let client = Peer::from(address.ip());
                if let Some(stream) = admit(stream, client, &door, &surroundings, &mut log) {
                    clients.spawn(stream);
                }
            }
            Err(error) if is_about_one_client(&error) => {}
            Err(error) => {
                if log.may() {
                    tracing::error!(listener = door.name, %error, "no connection can be accepted at the moment");
                }
                tokio::select! {
                    () = stop.cancelled() => break,
                    () = sleep(ACCEPT_PAUSE) => {}
                }
            }
        }
    }
    drop(socket);
    while let Some(ended) = clients.join_next().await {
        note_panic(ended);
    }
}

/// The task that serves `client`, or nothing if it was sent away.
fn admit(
    stream: TcpStream,
    client: Peer,
    door: &Door,
    surroundings: &Arc<Surroundings>,
    log: &mut Seldom,
) -> Option<impl Future<Output = ()> + use<>> {
    let who = Client {
        address: client,
        listener: &door.name,
    };
    if !door.allows(client) {
        let text = format!(
            "{client} may not send mail through this bridge: add it to `allow` of listener {} in the bridge's configuration",
            door.name
        );
        let reply = Reply::new(554, 7, 1, text);
        surroundings.maillog.refused(who, &reply.to_string());
        send_away(stream, &reply);
        return None;
    }
    let Ok(place) = door.places.clone().try_acquire_owned() else {
        let reply = Reply::new(421, 3, 2, "too many connections, try again later");
        if log.may() {
            let limit = door.max_connections;
            surroundings.maillog.refused(
                who,
                &format!("{reply} (max_connections = {limit} of this listener is reached)"),
            );
        }
        send_away(stream, &reply);
        return None;
    };
    // Replies are small and each one is waited for.
    let _ = stream.set_nodelay(true);
    let surroundings = surroundings.clone();
    Some(async move {
        serve_client(stream, client, surroundings).await;
        drop(place);
    })
}

/// Says one reply and closes, without waiting for anything: the reply fits into the empty buffer of a new socket.
fn send_away(stream: TcpStream, reply: &Reply) {
    let mut text = Vec::new();
    reply.write_to(&mut text);
    if let Ok(mut stream) = stream.into_std() {
        let _ = stream.write(&text);
        let _ = stream.shutdown(Shutdown::Write);
    }
}

/// True for errors of accept that only mean that a client has left again.
fn is_about_one_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionRefused
            | ErrorKind::Interrupted
    )
}

fn note_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a connection ended in a bug of this program; what it had not got a 250 for was not accepted");
    }
}

/// Lets a line through once in a while.
#[derive(Default)]
struct Seldom(Option<Instant>);

impl Seldom {
    fn may(&mut self) -> bool {
        let now = Instant::now();
        if self.0.is_some_and(|last| now < last + LOG_PAUSE) {
            return false;
        }
        self.0 = Some(now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::config::TlsMode;
    use crate::spool::{Spool, SpoolSettings};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::timeout;

    fn listener(bind: &[&str]) -> Listener {
        Listener {
            name: "test".into(),
            bind: bind
                .iter()
                .map(|address| Bind::Address(address.parse().unwrap()))
                .collect(),
            unix_mode: 0o666,
            allow: vec!["127.0.0.0/8".parse().unwrap()],
            proxy_protocol: Vec::new(),
            tls: TlsMode::Off,
            certificate: None,
            max_message_size: 1000,
            max_connections: 1,
            access: Access::default(),
        }
    }

    #[tokio::test]
    async fn port_0_becomes_a_real_port_and_nobody_else_gets_it() {
        let bound = bind(&listener(&["127.0.0.1:0", "127.0.0.1:0"])).unwrap();
        let address = bound[0].address();
        assert_ne!(address.port(), 0);
        assert_ne!(address, bound[1].address());
        let error = bind(&listener(&[&address.to_string()])).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("listener test: {address} is already in use")),
            "{error}"
        );
        assert!(
            error.contains(&format!("`ss -ltnp 'sport = :{}'`", address.port())),
            "{error}"
        );
    }

    #[tokio::test]
    async fn errors_say_what_to_do() {
        let error = bind(&listener(&["192.0.2.1:2525"])).unwrap_err().to_string();
        assert!(error.contains("this machine has no address 192.0.2.1"), "{error}");
        let address = "127.0.0.1:25".parse().unwrap();
        let error = BindError::new("test", address, ErrorKind::PermissionDenied.into()).to_string();
        assert!(
            error.contains("127.0.0.1:25 may not be used") && error.contains("CAP_NET_BIND_SERVICE"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn ipv4_and_ipv6_stand_side_by_side() {
        let first = match bind(&listener(&["[::]:0"])) {
            Ok(bound) => bound,
            // A machine without IPv6.
            Err(BindError::Other { .. } | BindError::NoSuchAddress { .. }) => return,
            Err(error) => panic!("{error}"),
        };
        let port = first[0].address().port();
        bind(&listener(&[&format!("0.0.0.0:{port}")])).unwrap();
    }

    #[tokio::test]
    async fn a_connection_beyond_the_limit_is_told_and_the_place_is_given_again() {
        let directory = tempfile::tempdir().unwrap();
        let settings = SpoolSettings {
            directory: directory.path().into(),
            max_size: 1 << 30,
            min_free: 0,
        };
        let spool = Spool::open(&settings, Clock::machine()).unwrap();
        let bound = bind(&listener(&["127.0.0.1:0", "127.0.0.1:0"])).unwrap();
        let (one, other) = (bound[0].address(), bound[1].address());
        let services = Services {
            hostname: "bridge.test".into(),
            intake: spool.intake(),
            logins: Logins::new("no-such-file".into()),
            maillog: Maillog,
        };
        let stop = CancellationToken::new();
        let server = tokio::spawn(serve(bound, services, stop.clone()));

        let mut first = TcpStream::connect(one).await.unwrap();
        assert_eq!(code(&mut first).await, "220");
        let mut second = TcpStream::connect(other).await.unwrap();
        assert_eq!(code(&mut second).await, "421");
        first.write_all(b"QUIT\r\n").await.unwrap();
        assert_eq!(code(&mut first).await, "221");
        drop(first);
        let again = async {
            while code(&mut TcpStream::connect(other).await.unwrap()).await != "220" {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(30), again).await.unwrap();

        stop.cancel();
        timeout(Duration::from_secs(30), server).await.unwrap().unwrap();
        assert!(TcpStream::connect(one).await.is_err());
        // All halves of the spool were given back.
        spool.close();
    }

    async fn code(stream: &mut TcpStream) -> String {
        let mut line = Vec::new();
        while !line.ends_with(b"\n") {
            line.push(stream.read_u8().await.unwrap());
        }
        String::from_utf8_lossy(&line[..3]).into_owned()
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_of_log_once_in_a_while() {
        let mut seldom = Seldom::default();
        assert!(seldom.may());
        assert!(!seldom.may());
        tokio::time::advance(LOG_PAUSE).await;
        assert!(seldom.may());
    }
}
