//! Who is told when mail stops: the keys of `[report]` about alerts.

use super::field::{Complaint, Field};
use super::meaning::{Alerts, Webhook, WebhookFormat, is_loopback};
use super::reader::Section;
use reqwest::Url;
use secrecy::SecretString;
use std::path::{Path, PathBuf};

const URL: &str =
    "copy the whole URL from where the webhook was made, as in \"https://hooks.example/services/…\"";

const COMMAND: &str = "write the program's path and its arguments, as in [\"/usr/local/bin/alert\", \"it\"]";

/// Reads the keys about alerts.
pub(super) fn alerts(section: &mut Section<'_>) -> Option<Alerts> {
    let format = section.defaulted("webhook_format", r#""json""#, |field| {
        let choices = [
            ("json", WebhookFormat::Json),
            ("slack", WebhookFormat::Slack),
            ("teams", WebhookFormat::Teams),
            ("ntfy", WebhookFormat::Ntfy),
        ];
        field.choice(&choices, &[])
    });
    let webhook = section.optional("webhook", |field| webhook(&field, format));
    let command = section.optional("alert_command", command);
    let queue = section.defaulted("queue_alert", r#""1h""#, |field| {
        if field.says("off") {
            return Some(None);
        }
        let limit = field.duration()?;
        if limit.is_zero() {
            return field.refuse(
                "would raise an alert for every message",
                "write a time such as \"1h\", or \"off\"",
            );
        }
        Some(Some(limit))
    });
    Some(Alerts {
        webhook: webhook?,
        command: command?,
        queue: queue?,
    })
}

fn webhook(field: &Field<'_>, format: Option<WebhookFormat>) -> Option<Webhook> {
    let url = field.parsed(|text| {
        let url = Url::parse(text).map_err(|_| Complaint::new("is not a URL", URL))?;
        if url.host_str().unwrap_or_default().is_empty() || !matches!(url.scheme(), "https" | "http") {
            return Err(Complaint::new("is not a URL of a web server", URL));
        }
        if format == Some(WebhookFormat::Ntfy) && topic(&url).is_none() {
            return Err(Complaint::new(
                "has no topic",
                "with webhook_format = \"ntfy\" the URL ends in the name of the topic, as in \"https://ntfy.sh/my-topic\"",
            ));
        }
        Ok(url)
    })?;
    let host = url.host_str().unwrap_or_default().to_owned();
    let local = is_loopback(&host);
    if url.scheme() == "http" && !local {
        field.warn(
            "sends alerts without encryption: whoever is on the way can read them, and can use the URL",
            "begin it with https:// unless that server has nothing else",
        );
    }
    let shown = match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host,
    };
    Some(Webhook {
        url: SecretString::from(String::from(url)),
        host: shown,
        local,
        format: format?,
    })
}

/// The last segment of the path, which names the topic at ntfy.
fn topic(url: &Url) -> Option<&str> {
    url.path_segments()?.next_back().filter(|topic| !topic.is_empty())
}

fn command(field: Field<'_>) -> Option<Vec<String>> {
    let whole = field.clone_place();
    let words = field.list(|item| item.text().map(str::to_owned))?;
    let program = PathBuf::from(words.first()?);
    if !program.is_absolute() {
        return whole.refuse("does not begin with the whole path of a program", COMMAND);
    }
    if !is_program(&program) {
        return whole.refuse(
            "names a program that does not exist, or that may not be run by this user",
            "correct the path, or make it runnable with chmod +x; it is run without a shell",
        );
    }
    Some(words)
}

#[cfg(unix)]
fn is_program(path: &Path) -> bool {
    path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}

#[cfg(not(unix))]
fn is_program(path: &Path) -> bool {
    path.is_file()
}
