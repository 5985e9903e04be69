//! The door: accepting clients within the limits, and sending others away.

use super::certificate::Current;
use super::connection::{Surroundings, serve_client};
use super::crowd::{Crowd, Full};
use super::proxy::{self, Announced, HeaderError};
use super::rates::Rates;
use super::seldom::Seldom;
use super::socket::Socket;
use super::stream::Stream;
use crate::config::Access;
use crate::config::TlsMode;
use crate::mail::Peer;
use crate::mail::Reply;
use crate::telemetry::Maillog;
use crate::telemetry::maillog::Client;
use ipnet::IpNet;
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep, timeout};

/// How long to wait after an error of accept that passes only with time, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// How long a load balancer may take for its PROXY header: it sends it with the connection, but a packet may be lost
/// (the specification wants 3 seconds at least).
pub(super) const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// What all sockets of a listener have in common.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) name: String,
    pub(super) allow: Vec<IpNet>,
    pub(super) proxies: Vec<IpNet>,
    pub(super) tls: TlsMode,
    pub(super) certificate: Option<Current>,
    pub(super) max_message_size: u64,
    pub(super) lenient: bool,
    pub(super) access: Access,
    pub(super) crowd: Arc<Crowd>,
    pub(super) rates: Arc<Rates>,
    /// For lines about clients that are sent away: whoever may not come in must not fill the disk with them.
    pub(super) told: Mutex<Seldom>,
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

/// Serves all clients of a socket until the stop, and returns when the last one is gone.
pub(super) async fn accept_all(socket: Socket, door: Arc<Door>, surroundings: Arc<Surroundings>) {
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

/// Tells of a task that panicked.
pub(super) fn note_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a connection ended in a bug of this program; what it had not got a 250 for was not accepted");
    }
}
