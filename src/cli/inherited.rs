//! Sockets that systemd has opened for us, with the names that it gave them (sd_listen_fds(3)).

use crate::smtp::Inherited;
use std::io;

/// All of them; none if we were started in any other way.
#[cfg(unix)]
#[expect(clippy::disallowed_methods, reason = "the command line reads the environment")]
pub(super) fn sockets() -> io::Result<Vec<(String, Inherited)>> {
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    // Checks LISTEN_PID, and that each descriptor is a socket.
    let mut handed_over = listenfd::ListenFd::from_env();
    let mut sockets = Vec::new();
    for index in 0..handed_over.len() {
        let name = names.next().unwrap_or("unknown").to_owned();
        let socket = match handed_over.take_tcp_listener(index) {
            Ok(Some(socket)) => Inherited::Tcp(socket),
            Ok(None) => continue,
            Err(_) => match handed_over.take_unix_listener(index) {
                Ok(Some(socket)) => Inherited::Unix(socket),
                _ => {
                    return Err(io::Error::other(format!(
                        "the socket {name:?} that systemd opened cannot be used: the .socket unit must have \
                         ListenStream= and Accept=no"
                    )));
                }
            },
        };
        sockets.push((name, socket));
    }
    Ok(sockets)
}

/// Only systemd does so.
#[cfg(not(unix))]
pub(super) fn sockets() -> io::Result<Vec<(String, Inherited)>> {
    Ok(Vec::new())
}
