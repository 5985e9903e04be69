//! Listeners: opening their sockets, and serving all clients of them until the end.

use super::certificate::Keeper;
use super::connection::Surroundings;
use super::crowd::{Capacity, Crowd};
use super::entrance::{Door, accept_all, note_panic};
use super::premises::Premises;
use super::rates::Rates;
use super::session::SessionSettings;
use super::socket::{self, BindError, Place, Socket};
use crate::config::Bind;
use crate::config::Listener;
use crate::config::TlsMode;
use crate::spool::Intake;
use crate::telemetry::Maillog;
use crate::users::Logins;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A socket that listens. Connections wait in it until [`serve`] takes it.
#[derive(Debug)]
pub struct Bound {
    socket: Socket,
    place: Place,
    door: Arc<Door>,
    /// Of a certificate that was first needed here.
    keeper: Option<Keeper>,
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
        loops.spawn(accept_all(bound.socket, bound.door, Arc::new(surroundings)));
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

#[cfg(test)]
#[path = "listener_tests.rs"]
mod tests;
