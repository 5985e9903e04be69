//! Stopping is a path, not an exit: the signals that begin it.

use tokio_util::sync::CancellationToken;

/// Cancels `stop` when the process is asked to end: SIGTERM or ctrl-c (SIGINT). A second signal cancels `now`: an
/// impatient operator does not wait for attempts under way.
///
/// # Errors
/// The system does not let us listen for signals.
pub fn on_signal(stop: CancellationToken, now: CancellationToken) -> std::io::Result<()> {
    let mut signals = Signals::listen()?;
    tokio::spawn(async move {
        signals.next().await;
        tracing::info!("stopping: no new mail is taken, attempts under way may finish");
        stop.cancel();
        signals.next().await;
        tracing::warn!("stopping at once");
        now.cancel();
    });
    Ok(())
}

#[cfg(unix)]
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn listen() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) {
        let _ = tokio::signal::ctrl_c().await;
    }
}
