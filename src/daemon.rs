//! Floor 7: the only file that knows everybody. Build, run, drain.

use crate::admin::{ControlSocket, Facts, Office, Running, Side, SocketError};
use crate::alert::{self, Alerts, Carriers, Expiring, Topic, Trouble, Way};
use crate::clock::Clock;
use crate::config::{self, AuthMode, Config, Grant, OnUncertain};
use crate::delivery::{Account, Limits, Paces, Planner, Runner, Schedule, Terms, Upstreams};
use crate::history::{self, Feed, Keeper, KeeperSettings};
use crate::http;
use crate::mail::Timestamp;
use crate::oauth::{ClientCredentials, Tokens};
use crate::report::Policy;
use crate::smtp;
use crate::spool::{
    Operator, Recovered, Spool, SpoolError, SpoolSettings, Store, Swept, network_file_system,
};
use crate::telemetry::event::{Acted, Action, What};
use crate::telemetry::{Event, Maillog};
use crate::upstream::{Graph, Upstream};
use crate::users::Logins;
use secrecy::SecretString;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A daemon that is ready to run: its spool is open and swept, its sockets are bound.
pub struct Daemon {
    spool: Spool,
    listeners: Vec<smtp::Bound>,
    runner: Runner,
    feed: Feed<Store>,
    logins: Logins,
    capacity: smtp::Capacity,
    hostname: String,
    control: Option<ControlSocket>,
    office: Office,
    dead_letters: DeadLetters,
    alerts: Alerts,
}

/// How a running daemon is told to end.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    /// Take no new mail, finish what is under way, leave the rest on disk.
    pub soon: CancellationToken,
    /// Do not wait for what is under way.
    pub now: CancellationToken,
}

/// Why a daemon cannot start. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The spool.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// A socket.
    #[error(transparent)]
    Bind(#[from] smtp::BindError),
    /// TLS or the HTTP client.
    #[error(transparent)]
    Http(#[from] http::HttpError),
    /// The control socket.
    #[error(transparent)]
    Control(#[from] SocketError),
    /// An account.
    #[error("account {account}: {reason}")]
    Account {
        /// Its name.
        account: String,
        /// What is wrong.
        reason: String,
    },
}

/// How long messages being received and attempts under way may take to finish after a stop.
const GRACE: Duration = Duration::from_secs(20);

impl Daemon {
    /// Opens the spool, binds the sockets, prepares the accounts; `inherited` are sockets that systemd has opened for
    /// us, with their names. Nothing is accepted or sent yet. Blocks on the
    /// disk.
    ///
    /// # Errors
    /// [`StartError`]
    pub fn build(
        config: &Config,
        clock: Clock,
        inherited: Vec<(String, smtp::Inherited)>,
    ) -> Result<Self, StartError> {
        let mut premises = smtp::Premises::new(
            config.hostname.clone(),
            config.state_dir.clone(),
            clock,
            inherited,
        );
        let mut listeners = Vec::new();
        for listener in &config.listeners {
            listeners.extend(smtp::bind(listener, &mut premises)?);
        }
        for name in premises.unused() {
            tracing::warn!(
                name,
                "systemd opened this socket, but no listener has it in `bind` (\"systemd:NAME\")"
            );
        }
        // A proxy cannot reach what is on this machine: the sandbox, or a test server.
        let local = config
            .accounts
            .iter()
            .all(|account| account.endpoints.are_loopback());
        let proxy = if local {
            http::Proxy::None
        } else {
            http::Proxy::Environment
        };
        let client = http::client(config.tls.extra_ca_file.as_deref(), proxy)?;
        let mut upstreams = Upstreams::new();
        for account in &config.accounts {
            upstreams.insert(account.name.clone(), upstream(account, &client)?);
        }
        let planner = planner(config)?;
        if let Some(kind) = network_file_system(&config.state_dir) {
            tracing::error!(
                kind,
                "state_dir is on a network file system, where mail is not safe: choose a directory on a local disk"
            );
        }
        let ways = ways(config, &planner)?;
        let settings = SpoolSettings {
            directory: config.state_dir.join("spool"),
            max_size: config.spool.max_size,
            min_free: config.spool.min_free,
        };
        let spool = Spool::open(&settings, clock)?;
        report(spool.swept());
        let hostname = config.hostname.clone();
        let runner = Runner::new(
            spool.store(),
            planner,
            upstreams,
            schedule(config),
            clock,
            hostname.clone(),
        )
        .with_paces(paces(config))
        .reporting(report_policy(&config.report), accounts(config));
        // The lock of the spool is ours: whatever is there is left over, or somebody else's.
        let control = ControlSocket::open(&config.admin.control)?;
        let facts = Facts {
            clock,
            hostname: hostname.clone(),
            started: Some(clock.now()),
        };
        let running = Running {
            control: runner.control(),
            undertaker: runner.undertaker(),
        };
        let office = Office::new(
            Side::Open(Box::new(spool.operator()), Some(Box::new(running))),
            facts,
        );
        let dead_letters = DeadLetters {
            operator: spool.operator(),
            retention: config.spool.failed_retention,
            clock,
        };
        let keeper = Keeper::new(KeeperSettings {
            path: history::database(&config.state_dir),
            keep: config.history.keep,
            max_size: config.history.max_size,
        });
        let settings = alert::Settings {
            ways,
            limits: alert::Limits {
                queue: config.report.alerts.queue,
                hold_for: config.delivery.hold_for,
            },
            hostname: hostname.clone(),
            found: damages(spool.swept(), clock.now()),
            ends: ends(config.listeners.clone()),
        };
        let alerts = Alerts::new(spool.store(), spool.operator(), runner.control(), clock, settings);
        Ok(Self {
            feed: Feed::new(spool.store(), keeper, clock),
            alerts,
            control,
            office,
            dead_letters,
            spool,
            listeners,
            runner,
            logins: logins(config),
            capacity: smtp::Capacity::new(config.limits.max_connections),
            hostname,
        })
    }

    /// Where clients can connect: the listener's name and the real address.
    #[must_use]
    pub fn addresses(&self) -> Vec<(String, smtp::Place)> {
        self.listeners
            .iter()
            .map(|bound| (bound.listener().to_owned(), bound.place().clone()))
            .collect()
    }

    /// Accepts and delivers until `stop`, then drains.
    pub async fn run(self, stop: Stop) {
        for (listener, address) in self.addresses() {
            tracing::info!(listener, %address, "listening");
        }
        let services = smtp::Services {
            hostname: self.hostname,
            intake: self.spool.intake(),
            logins: self.logins,
            capacity: self.capacity,
            maillog: Maillog,
        };
        let accepting = within_grace(
            smtp::serve(self.listeners, services, stop.soon.clone()),
            &stop.soon,
        );
        let delivering = self.runner.run(stop.soon.clone(), GRACE);
        let (control, office) = (self.control, self.office);
        let administering = async {
            if let Some(control) = control {
                control.serve(office, stop.soon.clone()).await;
            }
        };
        let tidying = self.dead_letters.remove_old_ones(stop.soon.clone());
        // What the last attempts came to is to be in the history, too.
        let told = CancellationToken::new();
        let remembering = self.feed.run(told.clone());
        let alerting = self.alerts.run(stop.soon.clone());
        tracing::info!("ready");
        let working = async {
            tokio::join!(accepting, delivering);
            told.cancel();
        };
        tokio::select! {
            _ = async { tokio::join!(working, administering, tidying, remembering, alerting) } => {}
            () = stop.now.cancelled() => {}
        }
        // Every other holder of the spool is gone: their futures were finished or dropped above.
        let closed = tokio::task::spawn_blocking(|| self.spool.close());
        if tokio::time::timeout(GRACE, closed).await.is_err() {
            tracing::error!(
                "the spool did not close in time; what was acknowledged is on the disk all the same"
            );
        }
        tracing::info!("stopped");
    }
}

/// Dead letters, and for how long they are kept.
struct DeadLetters {
    operator: Operator,
    retention: Duration,
    clock: Clock,
}

/// How often dead letters are looked at.
const TIDY: Duration = Duration::from_secs(3600);

/// Between two steps of removing, so that many of them hold nobody up.
const BREATH: Duration = Duration::from_millis(100);

impl DeadLetters {
    /// Now and then removes those that failed too long ago, until `stop`.
    async fn remove_old_ones(self, stop: CancellationToken) {
        let by = "failed_retention";
        loop {
            let now = self.clock.now();
            let event = |id| {
                let acted = Acted {
                    action: Action::Delete,
                    by: by.to_owned(),
                };
                vec![Event::new(now, Some(id), What::Acted(acted)).to_json()]
            };
            let removed = self.operator.expire(now.minus(self.retention), now, event).await;
            let wait = match removed {
                Ok(removed) if removed.is_empty() => TIDY,
                Ok(removed) => {
                    for id in removed {
                        Maillog.acted(id, Action::Delete, by);
                    }
                    BREATH
                }
                Err(error) => {
                    tracing::error!(%error, "old failed messages could not be removed; the next try is in an hour");
                    TIDY
                }
            };
            if stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
                return;
            }
        }
    }
}

/// Runs `work` until it ends by itself, or until [`GRACE`] after `stop`.
async fn within_grace(work: impl Future<Output = ()>, stop: &CancellationToken) {
    tokio::select! {
        () = work => {}
        () = async { stop.cancelled().await; tokio::time::sleep(GRACE).await } => {
            tracing::warn!("clients that were still sending were cut off; they will send again");
        }
    }
}

/// Those of the users file, which is read now if a listener asks for logins.
fn logins(config: &Config) -> Logins {
    let logins = Logins::new(config.users.file.clone());
    let asked =
        |listener: &config::Listener| matches!(listener.access.auth, AuthMode::Optional | AuthMode::Required);
    if config.listeners.iter().any(asked) {
        logins.look();
    }
    logins
}

fn upstream(account: &config::Account, client: &reqwest::Client) -> Result<Arc<dyn Upstream>, StartError> {
    let Grant::ClientCredentials { secret } = &account.grant;
    let endpoints = &account.endpoints;
    let grant = ClientCredentials::new(
        client.clone(),
        endpoints.authority.as_str(),
        account.tenant.as_str(),
        account.client_id.as_str(),
        SecretString::from(secret.expose().to_owned()),
        format!("{}/.default", endpoints.graph_resource),
    )
    .map_err(|reason| StartError::Account {
        account: account.name.clone(),
        reason,
    })?;
    let graph = Graph::new(client.clone(), endpoints.graph.as_str(), Tokens::new(grant));
    Ok(Arc::new(graph))
}

fn planner(config: &Config) -> Result<Planner, StartError> {
    let account = config.accounts.first().ok_or_else(|| StartError::Account {
        account: "(none)".to_owned(),
        reason: "the configuration has no account".to_owned(),
    })?;
    Ok(Planner::new(Account {
        name: account.name.clone(),
        mailbox: account.mailbox.clone(),
        send_as: account.send_as.clone(),
    })
    .telling_subjects(config.history.subjects))
}

/// How fast the mailboxes of each account may send.
fn paces(config: &Config) -> Paces {
    let terms = |account: &config::Account| Terms {
        cloud: account.cloud.as_str().to_owned(),
        application: account.client_id.to_string(),
        graph: Limits {
            at_once: account.pace.graph_requests,
            upload: account.pace.graph_upload,
            ..Limits::GRAPH
        },
        smtp: Limits::SMTP,
        recipients_per_day: account.pace.recipients_per_day,
        max_in_flight: account.pace.max_in_flight,
    };
    let accounts = config.accounts.iter();
    accounts
        .map(|account| (account.name.clone(), terms(account)))
        .collect()
}

fn accounts(config: &Config) -> Vec<Account> {
    let account = |account: &config::Account| Account {
        name: account.name.clone(),
        mailbox: account.mailbox.clone(),
        send_as: account.send_as.clone(),
    };
    config.accounts.iter().map(account).collect()
}

fn report_policy(report: &config::Report) -> Policy {
    Policy {
        failures_to: report.failures_to,
        admin: report.admin.clone(),
    }
}

/// How administrators are told when mail stops.
fn ways(config: &Config, planner: &Planner) -> Result<Vec<Way>, StartError> {
    let alerts = &config.report.alerts;
    let mut ways = Vec::new();
    if let Some(webhook) = &alerts.webhook {
        // As for the accounts: a proxy cannot reach what is on this machine.
        let proxy = if webhook.local {
            http::Proxy::None
        } else {
            http::Proxy::Environment
        };
        let client = http::client(config.tls.extra_ca_file.as_deref(), proxy)?;
        ways.push(Way::Webhook(client, webhook.clone()));
    }
    ways.extend(alerts.command.clone().map(Way::Command));
    if let Some(to) = &config.report.admin {
        ways.push(Way::Mail(Box::new(Carriers {
            to: to.clone(),
            accounts: accounts(config),
            planner: planner.clone(),
        })));
    }
    Ok(ways)
}

/// What administrators are told of what was found at the start.
fn damages(swept: &Swept, now: Timestamp) -> Vec<Trouble> {
    let found = |what: String, text: &str| Trouble {
        topic: Topic::Damaged(what),
        since: now,
        text: text.to_owned(),
        detail: String::new(),
        repeat: None,
    };
    let mut troubles = Vec::new();
    if let Some(Recovered { moved_to, failed, .. }) = &swept.recovered {
        let text = match failed {
            None => {
                "The queue's database was damaged; what could be read of it was recovered. Look at the held messages, \
                 which may have been sent already: `smtp-oauth-bridge queue list --state held`."
            }
            Some(_) => {
                "The queue's database was damaged and nothing could be recovered of it: mail that waited in it is not \
                 sent. The log of the start says why."
            }
        };
        let what = format!("the queue's database, moved to {}", moved_to.display());
        troubles.push(found(what, text));
    }
    if swept.replaced {
        troubles.push(found(
            format!("the queue's database was replaced ({now})"),
            "The queue's database is not the one that this spool had before. Mail that waited in that one is not sent.",
        ));
    }
    if swept.set_aside > 0 {
        troubles.push(found(
            format!("{} stored messages were set aside ({now})", swept.set_aside),
            "Stored messages without a record were set aside in the directory corrupt/ of the spool. They may have been \
             sent already or not: look at them, and send what is missing with `smtp-oauth-bridge queue import`.",
        ));
    }
    troubles
}

/// What has an end that administrators should know of: the certificates of the listeners.
fn ends(listeners: Vec<config::Listener>) -> alert::Ends {
    Arc::new(move |now| {
        let ending = smtp::ending_certificates(&listeners, now).ok()?;
        let expiring = |(file, at): (std::path::PathBuf, Timestamp)| Expiring {
            what: format!("the certificate {}", file.display()),
            at,
            remedy:
                "Put a new one in its place, it is read again by itself; devices that verify certificates \
                     send nothing after its end"
                    .to_owned(),
        };
        Some(ending.into_iter().map(expiring).collect())
    })
}

fn schedule(config: &Config) -> Schedule {
    let delivery = &config.delivery;
    Schedule {
        waits: delivery.retry.clone(),
        give_up_after: delivery.give_up_after,
        delay_warning: config.report.delay_warning,
        hold_for: delivery.hold_for,
        uncertain_wait: delivery.uncertain_wait,
        uncertain_retries: match delivery.on_uncertain {
            OnUncertain::Retry => 2,
            OnUncertain::Hold => 0,
        },
    }
}

fn report(swept: &Swept) {
    let Swept {
        messages,
        removed,
        set_aside,
        recovered,
        replaced,
    } = swept;
    tracing::info!(messages, unfinished_removed = removed, "spool open");
    if let Some(recovered) = recovered {
        tell_recovered(recovered);
    }
    if *replaced {
        tracing::error!(
            "the queue's database is not the one that this spool had before: mail that waited in that one is not sent"
        );
    }
    if *set_aside > 0 {
        tracing::error!(
            files = set_aside,
            "stored messages without a record were set aside in corrupt/"
        );
    }
}

/// A person has to look at this, so it says what there is to look at.
fn tell_recovered(recovered: &Recovered) {
    let Recovered {
        moved_to,
        salvaged,
        from_files,
        failed,
    } = recovered;
    if let Some(reason) = failed {
        tracing::error!(
            moved_to = %moved_to.display(),
            reason,
            "the queue's database was damaged and nothing could be recovered of it: the bridge starts with an empty queue. \
             Keep the file; stop the bridge, remove the cause, put the file back as queue.db, and start it again"
        );
        return;
    }
    tracing::error!(
        moved_to = %moved_to.display(),
        going_on = salvaged.whole,
        held = salvaged.held + from_files,
        lost = salvaged.lost.len(),
        unreadable_pages = salvaged.bad_pages,
        "the queue's database was damaged: what could be read of it was recovered. Look at the held messages, which may have \
         been sent already, and release or delete them; the damaged file is kept, the disk should be checked"
    );
}
