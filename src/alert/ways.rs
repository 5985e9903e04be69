//! The ways an alert goes: each sends one, within a time limit, and says whether it went.

use super::decide::Tell;
use super::message::Message;
use crate::config::{Webhook, WebhookFormat};
use crate::delivery::{Account, Health, Planner, Status};
use crate::http;
use crate::mail::Address;
use crate::mail::QueueId;
use crate::mail::Timestamp;
use crate::report::{Letter, letter};
use crate::spool::Reports;
use reqwest::{Client, Url};
use secrecy::ExposeSecret;
use std::fmt;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

/// A way that alerts go.
#[derive(Clone, Debug)]
pub enum Way {
    /// An HTTP POST.
    Webhook(Client, Webhook),
    /// A program.
    Command(Vec<String>),
    /// Mail through the queue, by an account that is well.
    Mail(Box<Carriers>),
}

/// What mail to the administrator needs.
#[derive(Clone, Debug)]
pub struct Carriers {
    /// Who gets it.
    pub to: Address,
    /// The accounts that it may go out by, the preferred ones first.
    pub accounts: Vec<Account>,
    /// Plans it.
    pub planner: Planner,
}

/// An alert could not go this way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unsent {
    /// It is tried again later.
    Later(String),
    /// There is no way for this alert at the moment, and trying changes nothing.
    NoWay(String),
}

/// How long a webhook may take, with name look-up and TLS.
const WEBHOOK_LIMIT: Duration = Duration::from_secs(15);

/// How long a command may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(30);

/// The command's environment besides the alert. Ours may hold secrets.
const ENVIRONMENT: [(&str, &str); 2] = [
    (
        "PATH",
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    ),
    ("LANG", "C.UTF-8"),
];

impl Way {
    /// Its name in the table of what was told.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Webhook(..) => "webhook",
            Self::Command(_) => "command",
            Self::Mail(_) => "mail",
        }
    }

    /// Sends an alert; answers the mail that is to be queued, if that is the way.
    ///
    /// # Cancellation
    /// A command is killed with all that it has started; whether a webhook got the alert is not known then.
    pub(super) async fn send(
        &self,
        tell: &Tell,
        status: Option<&Status>,
        host: &str,
        now: Timestamp,
    ) -> Result<Reports, Unsent> {
        let message = Message::new(tell, host, now);
        match self {
            Self::Webhook(client, webhook) => post(client, webhook, &message).await.map_err(Unsent::Later)?,
            Self::Command(words) => run(words, &message, COMMAND_LIMIT).await.map_err(Unsent::Later)?,
            Self::Mail(carriers) => return carriers.mail(tell, status, &message, now),
        }
        Ok(Reports::default())
    }
}

impl fmt::Display for Way {
    /// For the log; of a webhook only the host, because its URL is a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Webhook(_, webhook) => write!(f, "webhook {}", webhook.host),
            Self::Command(words) => write!(f, "command {}", words.first().map_or("", String::as_str)),
            Self::Mail(carriers) => write!(f, "mail to {}", carriers.to),
        }
    }
}

async fn post(client: &Client, webhook: &Webhook, message: &Message) -> Result<(), String> {
    let mut url = Url::parse(webhook.url.expose_secret()).map_err(|_| "its URL cannot be read".to_owned())?;
    let body = match webhook.format {
        WebhookFormat::Json => message.json(),
        WebhookFormat::Slack => message.slack(),
        WebhookFormat::Teams => message.teams(),
        WebhookFormat::Ntfy => {
            // A topic is published to as JSON at the root of its server.
            let topic = url
                .path_segments()
                .and_then(|mut segments| segments.next_back())
                .unwrap_or_default()
                .to_owned();
            if let Ok(mut segments) = url.path_segments_mut() {
                segments.pop().push("");
            }
            message.ntfy(&topic)
        }
    };
    let request = client.post(url).json(&body).timeout(WEBHOOK_LIMIT).send();
    // The URL is a secret, and an error of reqwest's has it.
    let answer = request.await.map_err(|error| http::chain(&error.without_url()))?;
    let status = answer.status();
    if status.is_success() {
        return Ok(());
    }
    let hint = match status.as_u16() {
        300..=399 => "redirects are not followed: set the address that it leads to",
        401 | 403 | 404 | 410 => "the URL is wrong, or is not valid any more: make a new one",
        400 | 413 | 415 | 422 => "it does not understand the alert: is webhook_format right?",
        _ => "it is tried again",
    };
    Err(format!("it answers {}: {hint}", status.as_u16()))
}

/// Runs a program, with the alert as JSON on its standard input, for `limit` at most.
async fn run(words: &[String], message: &Message, limit: Duration) -> Result<(), String> {
    let (program, arguments) = words.split_first().ok_or("it is empty")?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .envs(ENVIRONMENT)
        .envs(message.variables())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .current_dir("/")
        .kill_on_drop(true);
    #[cfg(unix)]
    command.process_group(0);
    let child = command
        .spawn()
        .map_err(|error| format!("it cannot be started: {error}"))?;
    let mut running = Running(child);
    let mut input = running.0.stdin.take();
    let text = format!("{}\n", message.json());
    let work = async {
        if let Some(input) = &mut input {
            // A program that does not read is none the worse.
            let _ = input.write_all(text.as_bytes()).await;
        }
        drop(input.take());
        running.0.wait().await
    };
    match tokio::time::timeout(limit, work).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(format!("it ended with {status}")),
        Ok(Err(error)) => Err(format!("it cannot be waited for: {error}")),
        Err(_) => Err(format!("it was killed after {} seconds", limit.as_secs())),
    }
}

/// A program with all that it has started: killed when it is dropped before it has ended.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // No id: it has ended and was waited for, and the number may be somebody else's.
        #[cfg(unix)]
        if let Some(id) = self.0.id().and_then(|id| i32::try_from(id).ok())
            && let Some(group) = rustix::process::Pid::from_raw(id)
        {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }
}

impl Carriers {
    /// The mail, by the first account that the alert is not about and that is well.
    fn mail(
        &self,
        tell: &Tell,
        status: Option<&Status>,
        message: &Message,
        now: Timestamp,
    ) -> Result<Reports, Unsent> {
        let Some(status) = status else {
            return Err(Unsent::Later(
                "it is not known which accounts are well".to_owned(),
            ));
        };
        let about = match tell {
            Tell::Trouble { trouble, .. } => trouble.topic.account(),
            Tell::Over(_) => None,
        };
        let mut accounts = self.accounts.iter();
        let Some(carrier) = accounts.find(|a| Some(a.name.as_str()) != about && is_well(status, a)) else {
            return Err(Unsent::NoWay(
                "there is no other account that is well: set report.webhook or report.alert_command"
                    .to_owned(),
            ));
        };
        let id = QueueId::new(now);
        let (subject, text) = message.mail();
        let octets = letter(&Letter {
            id,
            at: now,
            hostname: &message.host,
            from: &carrier.mailbox,
            to: &self.to,
            subject: &subject,
            text: &text,
        });
        let mail = self
            .planner
            .mail_of_ours(carrier.clone(), id, octets, &self.to, now);
        let mail = mail.ok_or_else(|| Unsent::NoWay("its envelope cannot be made".to_owned()))?;
        Ok(Reports {
            new: vec![mail],
            ..Reports::default()
        })
    }
}

/// Whether mail goes out by that account from its own mailbox, as far as is known.
fn is_well(status: &Status, account: &Account) -> bool {
    let Some(found) = status.accounts.iter().find(|found| found.name == account.name) else {
        return false;
    };
    let address = account.mailbox.to_string();
    let mailbox = found
        .mailboxes
        .iter()
        .find(|m| m.mailbox.eq_ignore_ascii_case(&address));
    let well = |health: &Health| !matches!(health, Health::Broken(_));
    let paused = status.paused.is_some() || found.paused.is_some();
    !paused && well(&found.health) && mailbox.is_none_or(|mailbox| well(&mailbox.health))
}

#[cfg(test)]
#[path = "ways_tests.rs"]
mod tests;
