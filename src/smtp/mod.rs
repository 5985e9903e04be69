//! stub
#![allow(missing_docs)]
use crate::clock::Clock;
use crate::config::Listener;
use crate::spool::Intake;
use crate::telemetry::Maillog;
pub struct Bound;
impl Bound { pub fn name(&self) -> &str { "x" } pub fn address(&self) -> std::net::SocketAddr { "127.0.0.1:1".parse().unwrap() } }
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub struct BindError;
pub fn bind(_: &Listener) -> Result<Vec<Bound>, BindError> { Ok(vec![Bound]) }
pub struct Server { pub intake: Intake, pub maillog: Maillog, pub clock: Clock, pub hostname: String }
pub async fn serve(_: Vec<Bound>, _s: Server, stop: tokio_util::sync::CancellationToken, _g: std::time::Duration) { stop.cancelled().await; }
