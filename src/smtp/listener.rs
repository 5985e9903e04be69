//! The door: accepting clients within the limits, and the end.

use super::certificate::{Current, Keeper, Source};
use super::connection::{Surroundings, serve_client};
use super::crowd::{Capacity, Crowd, Full};
use super::own_certificate::OwnCertificate;
use super::proxy::{self, Announced, HeaderError};
use super::rates::Rates;
use super::seldom::Seldom;
use super::session::SessionSettings;
use super::socket::{self, BindError, Inherited, Place, Socket};
use super::stream::Stream;
use crate::clock::Clock;
use crate::config::Access;
use crate::config::Bind;
use crate::config::CertificateFiles;
use crate::config::Listener;
use crate::config::TlsMode;
use crate::mail::Peer;
use crate::mail::Reply;
use crate::spool::Intake;
use crate::telemetry::Maillog;
use crate::telemetry::maillog::Client;
use crate::users::Logins;
use ipnet::IpNet;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// How long to wait after an error of accept that passes only with time, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// How long a load balancer may take for its PROXY header: it sends it with the connection, but a packet may be lost
/// (the specification wants 3 seconds at least).
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// A socket that listens. Connections wait in it until [`serve`] takes it.
#[derive(Debug)]
pub struct Bound {
    socket: Socket,
    place: Place,
    door: Arc<Door>,
    /// Of a certificate that was first needed here.
    keeper: Option<Keeper>,
}

/// What all sockets of a listener have in common.
#[derive(Debug)]
struct Door {
    name: String,
    allow: Vec<IpNet>,
    proxies: Vec<IpNet>,
    tls: TlsMode,
    certificate: Option<Current>,
    max_message_size: u64,
    lenient: bool,
    access: Access,
    crowd: Arc<Crowd>,
    rates: Arc<Rates>,
    /// For lines about clients that are sent away: whoever may not come in must not fill the disk with them.
    told: Mutex<Seldom>,
}

/// What opening listeners takes besides their configuration.
#[derive(Debug)]
pub struct Premises {
    hostname: String,
    tls_directory: PathBuf,
    clock: Clock,
    inherited: Vec<(String, Inherited)>,
    /// Certificates that were needed so far; `None` stands for our own.
    certificates: Vec<(Option<CertificateFiles>, Current)>,
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
    /// What all listeners share.
    pub capacity: Capacity,
    /// Where it is told.
    pub maillog: Maillog,
}

impl Premises {
    /// `state_dir` is where a certificate of our own is kept, `inherited` what systemd has opened for us.
    #[must_use]
    pub fn new(
        hostname: String,
        state_dir: PathBuf,
        clock: Clock,
        inherited: Vec<(String, Inherited)>,
    ) -> Self {
        Self {
            hostname,
            tls_directory: state_dir.join("tls"),
            clock,
            inherited,
            certificates: Vec::new(),
        }
    }

    /// Sockets that were opened for us and that no listener has asked for.
    pub fn unused(&self) -> impl Iterator<Item = &str> {
        self.inherited.iter().map(|(name, _)| name.as_str())
    }

    /// The certificate for a listener, and its keeper if it is the first to need it.
    fn certificate(
        &mut self,
        listener: &Listener,
    ) -> Result<(Option<Current>, Option<Keeper>), super::CertificateError> {
        if listener.tls == TlsMode::Off {
            return Ok((None, None));
        }
        let same = |(files, _): &&(Option<CertificateFiles>, Current)| *files == listener.certificate;
        if let Some((_, current)) = self.certificates.iter().find(same) {
            return Ok((Some(current.clone()), None));
        }
        let source = match &listener.certificate {
            Some(files) => Source::Files(files.clone()),
            None => {
                let address = |bind: &Bind| match bind {
                    Bind::Address(address) => Some(address.ip()),
                    Bind::Systemd(_) | Bind::Unix(_) => None,
                };
                let addresses = listener.bind.iter().filter_map(address);
                let addresses = addresses.filter(|address: &IpAddr| !address.is_unspecified());
                Source::Own(OwnCertificate::new(
                    self.tls_directory.clone(),
                    &self.hostname,
                    addresses.collect(),
                ))
            }
        };
        let keeper = Keeper::open(source, self.clock)?;
        let current = keeper.current();
        self.certificates
            .push((listener.certificate.clone(), current.clone()));
        Ok((Some(current), Some(keeper)))
    }
}

/// Opens all sockets of a listener, and its certificate. Must be called within a Tokio runtime; blocks on the disk.
///
/// # Errors
/// [`BindError`] for the first thing that fails; no socket stays open then.
pub fn bind(listener: &Listener, premises: &mut Premises) -> Result<Vec<Bound>, BindError> {
    let (certificate, mut keeper) =
        premises
            .certificate(listener)
            .map_err(|error| BindError::Certificate {
                listener: listener.name.clone(),
                error: Box::new(error),
            })?;
    let door = Arc::new(Door {
        name: listener.name.clone(),
        allow: listener.allow.clone(),
        proxies: listener.proxy_protocol.clone(),
        tls: listener.tls,
        certificate,
        max_message_size: listener.max_message_size,
        lenient: listener.lenient,
        access: listener.access,
        crowd: Arc::new(Crowd::new(
            listener.max_connections,
            listener.access.max_connections_per_client,
        )),
        rates: Arc::new(Rates::new(&listener.access, Instant::now())),
        told: Mutex::default(),
    });
    let mut sockets = Vec::new();
    for bind in &listener.bind {
        match bind {
            Bind::Address(address) => sockets.push(socket::tcp(&listener.name, *address)?),
            Bind::Systemd(name) => {
                sockets.extend(socket::inherited(&listener.name, name, &mut premises.inherited)?);
            }
            Bind::Unix(path) => sockets.push(socket::unix(&listener.name, path, listener.unix_mode)?),
        }
    }
    let bound = |(socket, place)| Bound {
        socket,
        place,
        door: door.clone(),
        keeper: keeper.take(),
    };
    Ok(sockets.into_iter().map(bound).collect())
}

/// Serves all clients of these sockets until `stop`, and returns when the last one is gone.
///
/// After `stop` nobody is accepted, and clients get `421` and are closed at once, except that one within DATA may
/// finish its message and hear what became of it. There is no deadline for that here: dropping this future closes
/// everything at once.
pub async fn serve(sockets: Vec<Bound>, services: Services, stop: CancellationToken) {
    let mut loops = JoinSet::new();
    for mut bound in sockets {
        if let Some(keeper) = bound.keeper.take() {
            loops.spawn(keeper.keep(stop.clone()));
        }
        let settings = SessionSettings {
            hostname: services.hostname.clone(),
            listener: bound.door.name.clone(),
            max_message_size: bound.door.max_message_size,
            lenient: bound.door.lenient,
            access: bound.door.access,
            starttls: bound.door.tls == TlsMode::StartTls,
        };
        let surroundings = Surroundings {
            settings: Arc::new(settings),
            intake: services.intake.clone(),
            logins: services.logins.clone(),
            capacity: services.capacity.clone(),
            rates: bound.door.rates.clone(),
            maillog: services.maillog,
            stop: stop.clone(),
            tls: bound.door.tls,
            certificate: bound.door.certificate.clone(),
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
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The address it listens on, if it has one.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        match self.place {
            Place::Tcp(address) => Some(address),
            Place::Unix(_) => None,
        }
    }

    /// The name of its listener.
    #[must_use]
    pub fn listener(&self) -> &str {
        &self.door.name
    }
}

impl Door {
    /// What a client hears that may not come in. Whoever may use a Unix socket is its mode's business.
    fn refusal(&self, client: Peer) -> Option<Reply> {
        let address = client.address()?;
        if self.allow.iter().any(|network| network.contains(&address)) {
            return None;
        }
        let text = format!(
            "{client} may not send mail through this bridge: add it to `allow` of listener {} in the bridge's configuration",
            self.name
        );
        Some(Reply::new(554, 7, 1, text))
    }

    /// True if this client must send a PROXY header, and is believed.
    fn is_proxy(&self, client: Peer) -> bool {
        client
            .address()
            .is_some_and(|address| self.proxies.iter().any(|network| network.contains(&address)))
    }

    /// Notes in the log that a client was sent away, once in a while; `why` is not said to the client.
    fn tell(&self, maillog: Maillog, client: Peer, reply: &Reply, why: &str) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(untold) = told.may() else {
            return;
        };
        drop(told);
        let more = match untold {
            0 => String::new(),
            n => format!(" (and {n} more clients were sent away since the last such line)"),
        };
        let who = Client {
            address: client,
            listener: &self.name,
        };
        maillog.refused(who, &format!("{reply}{why}{more}"));
    }

    /// Says one reply, if words without TLS mean anything here, and closes.
    fn send_away(&self, stream: Stream, reply: &Reply) {
        let mut text = Vec::new();
        if self.tls != TlsMode::Implicit {
            reply.write_to(&mut text);
        }
        stream.send_away(&text);
    }
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
            Ok((stream, client)) => {
                if let Some(stream) = admit(stream, client, &door, &surroundings) {
                    clients.spawn(stream);
                }
            }
            Err(error) if is_about_one_client(&error) => {}
            Err(error) => {
                if log.may().is_some() {
                    tracing::error!(listener = door.name, %error, "no connection can be accepted at the moment");
                }
                tokio::select! {
                    () = stop.cancelled() => break,
                    () = sleep(ACCEPT_PAUSE) => {}
                }
            }
        }
    }
    socket.close();
    while let Some(ended) = clients.join_next().await {
        note_panic(ended);
    }
}

/// The task that serves `client`, or nothing if it was sent away.
fn admit(
    stream: Stream,
    client: Peer,
    door: &Arc<Door>,
    surroundings: &Arc<Surroundings>,
) -> Option<impl Future<Output = ()> + use<>> {
    let is_proxy = door.is_proxy(client);
    if let Some(reply) = door.refusal(client).filter(|_| !is_proxy) {
        door.tell(surroundings.maillog, client, &reply, "");
        door.send_away(stream, &reply);
        return None;
    }
    let entered = door.crowd.enter(&surroundings.capacity).and_then(|mut guest| {
        // Behind a load balancer is somebody else.
        if !is_proxy {
            guest.is(client)?;
        }
        Ok(guest)
    });
    let mut guest = match entered {
        Ok(guest) => guest,
        Err(full) => {
            let reply = no_place(full);
            door.tell(surroundings.maillog, client, &reply, &format!(" ({full})"));
            door.send_away(stream, &reply);
            return None;
        }
    };
    stream.set_nodelay();
    let (surroundings, door) = (surroundings.clone(), door.clone());
    Some(async move {
        if !is_proxy {
            return serve_client(stream, client, Vec::new(), guest, surroundings).await;
        }
        // Boxed, so that an idle connection does not carry the room for a header.
        let relayed = Box::pin(behind_proxy(stream, client, &door, &surroundings));
        let Some((stream, client, early)) = relayed.await else {
            return;
        };
        if let Err(full) = guest.is(client) {
            let reply = no_place(full);
            door.tell(surroundings.maillog, client, &reply, &format!(" ({full})"));
            door.send_away(stream, &reply);
            return;
        }
        serve_client(stream, client, early, guest, surroundings).await;
    })
}

fn no_place(full: Full) -> Reply {
    match full {
        Full::All(_) | Full::Listener(_) => Reply::new(421, 3, 2, "too many connections, try again later"),
        Full::Client(_) => Reply::new(
            421,
            7,
            0,
            "too many connections from your address, close some or try again later",
        ),
    }
}

/// Reads the PROXY header of a load balancer: the client behind it, if that may come in, and what it has said already.
async fn behind_proxy(
    mut stream: Stream,
    proxy: Peer,
    door: &Door,
    surroundings: &Surroundings,
) -> Option<(Stream, Peer, Vec<u8>)> {
    let mut octets = Vec::new();
    let read = tokio::select! {
        () = surroundings.stop.cancelled() => return None,
        read = timeout(HEADER_TIMEOUT, read_header(&mut stream, &mut octets)) => read,
    };
    let turn_away = |client, reply: &Reply, why: &str| door.tell(surroundings.maillog, client, reply, why);
    let announced = match read {
        Ok(Ok(Some(announced))) => announced,
        // It went away.
        Ok(Ok(None)) => return None,
        failed => {
            let why = match failed {
                Ok(Err(error)) => error.to_string(),
                _ => format!("no PROXY header came within {} seconds", HEADER_TIMEOUT.as_secs()),
            };
            let reply = Reply::new(500, 5, 2, "a PROXY header must come first");
            let hint = format!(" ({why}; `proxy_protocol` of this listener requires one from this address)");
            turn_away(proxy, &reply, &hint);
            door.send_away(stream, &reply);
            return None;
        }
    };
    let client = match announced {
        Announced::Client(address) => Peer::from(address),
        // Whoever may announce anybody may as well come in itself: it asks whether we are well.
        Announced::Itself => return Some((stream, proxy, octets)),
        Announced::Unknown => proxy,
    };
    if let Some(reply) = door.refusal(client) {
        turn_away(client, &reply, &format!(" (announced by {proxy})"));
        door.send_away(stream, &reply);
        return None;
    }
    Some((stream, client, octets))
}

/// Reads until the header is whole, and leaves in `octets` what came behind it. `None` if the stream ended.
async fn read_header(stream: &mut Stream, octets: &mut Vec<u8>) -> Result<Option<Announced>, HeaderError> {
    loop {
        if let Some((announced, length)) = proxy::parse(octets)? {
            octets.drain(..length);
            return Ok(Some(announced));
        }
        // A header that is not whole is shorter than the longest one, so this stays small.
        let mut space = [0; proxy::MAX_HEADER];
        match stream.read(&mut space).await {
            Ok(0) | Err(_) => return Ok(None),
            Ok(read) => octets.extend(space.iter().take(read)),
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::{Spool, SpoolSettings};
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpStream;

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
            lenient: true,
            max_connections: 1,
            access: Access::default(),
        }
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
        let mut premises = Premises::new(
            "bridge.test".into(),
            directory.path().into(),
            Clock::machine(),
            Vec::new(),
        );
        let bound = bind(&listener(&["127.0.0.1:0", "127.0.0.1:0"]), &mut premises).unwrap();
        let (one, other) = (bound[0].address().unwrap(), bound[1].address().unwrap());
        let services = Services {
            hostname: "bridge.test".into(),
            intake: spool.intake(),
            logins: Logins::new("no-such-file".into()),
            capacity: Capacity::new(100),
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
}
