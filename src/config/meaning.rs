//! What the configuration means. A value of these types is valid: everything was checked on the way in.

use super::secret::Secret;
use crate::mail::Address;
use ipnet::IpNet;
use secrecy::SecretString;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// The whole configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The name in our greeting and in Received fields.
    pub hostname: String,
    /// Where the spool and everything else that must survive is kept.
    pub state_dir: PathBuf,
    /// Where devices connect. Never empty; names and (but for port 0) addresses are unique.
    pub listeners: Vec<Listener>,
    /// The ways out. Never empty; exactly one until there are routes.
    pub accounts: Vec<Account>,
    /// TLS of outgoing connections.
    pub tls: Tls,
    /// When to try again and when to stop.
    pub delivery: Delivery,
    /// Limits of the spool.
    pub spool: Spool,
    /// Who is told about the fate of messages.
    pub report: Report,
    /// How administrators reach it.
    pub admin: Admin,
    /// What is remembered of messages.
    pub history: History,
    /// Who may log in to a listener.
    pub users: Users,
    /// Limits of all listeners together.
    pub limits: Limits,
    /// What is logged and how.
    pub log: Log,
}

/// What is remembered of messages when they are gone from the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct History {
    /// For how long.
    pub keep: Duration,
    /// Octets at most; then the oldest are forgotten.
    pub max_size: u64,
    /// Whether their subjects are, too.
    pub subjects: bool,
}

/// Who may log in to a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Users {
    /// The users file. It need not exist.
    pub file: PathBuf,
}

/// Limits of all listeners together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many connections may be open at once.
    pub max_connections: usize,
}

/// A place where devices connect.
#[derive(Clone, Debug)]
pub struct Listener {
    /// Its name in logs: lower-case letters, digits and underscores.
    pub name: String,
    /// Where it listens; never empty.
    pub bind: Vec<Bind>,
    /// The mode of its Unix sockets: who on this machine may connect.
    pub unix_mode: u32,
    /// Who may connect; never empty.
    ///
    /// A socket bound to `[::]` sees IPv4 clients as `::ffff:a.b.c.d`: compare the canonical form
    /// ([`std::net::IpAddr::to_canonical`]).
    pub allow: Vec<IpNet>,
    /// Who must announce the real client's address in a PROXY header, and is believed.
    pub proxy_protocol: Vec<IpNet>,
    /// Encryption.
    pub tls: TlsMode,
    /// The certificate for it; without, one of our own making.
    pub certificate: Option<CertificateFiles>,
    /// The largest message in octets, as announced by SIZE (RFC 1870).
    pub max_message_size: u64,
    /// True if parameters of MAIL and RCPT that mean nothing are ignored instead of refused.
    pub lenient: bool,
    /// How many connections may be open at once on all addresses of this listener.
    pub max_connections: usize,
    /// Who may do how much.
    pub access: Access,
}

/// Who may do how much at a listener, and how well they must behave. `Default` is for tests: no login, and no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Whether clients log in (RFC 4954).
    pub auth: AuthMode,
    /// The reply to EHLO also has the line `AUTH=LOGIN PLAIN`, for programs of the last century.
    pub old_auth_line: bool,
    /// How many connections of one client may be open at once; loopback and Unix sockets are exempt.
    pub max_connections_per_client: usize,
    /// How many messages one client may begin in a minute; 0 is no limit.
    pub messages_per_minute: u32,
    /// How many recipients it may name in a minute; 0 is no limit.
    pub recipients_per_minute: u32,
    /// How long the greeting waits for a client that does not, and is refused; zero: it does not wait.
    pub greeting_delay: Duration,
    /// What becomes of line ends other than CRLF.
    pub bare_newline: BareNewline,
}

impl Default for Access {
    fn default() -> Self {
        Self {
            auth: AuthMode::Off,
            old_auth_line: false,
            max_connections_per_client: usize::MAX,
            messages_per_minute: 0,
            recipients_per_minute: 0,
            greeting_delay: Duration::ZERO,
            bare_newline: BareNewline::Normalize,
        }
    }
}

/// What becomes of a message with line ends other than CRLF, which RFC 5321 §2.3.8 forbids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BareNewline {
    /// They become CRLF.
    Normalize,
    /// The message is refused.
    Reject,
}

/// Whether clients log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMode {
    /// Login is not offered.
    Off,
    /// Who logs in must do it right; nobody must.
    Optional,
    /// Without a login no mail is taken.
    Required,
    /// Whatever a client logs in with is taken for right: for devices that insist on logging in.
    Any,
}

/// Where a listener listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bind {
    /// A TCP address and port.
    Address(SocketAddr),
    /// The sockets that systemd opened for us under this name.
    Systemd(String),
    /// A Unix socket.
    Unix(PathBuf),
}

/// Encryption between clients and a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsMode {
    /// None.
    Off,
    /// After the command STARTTLS (RFC 3207).
    StartTls,
    /// From the first octet (RFC 8314 §3.3).
    Implicit,
}

/// A certificate and its key, in PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate, followed by those of its authorities.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// A mailbox with the credentials and the transport that reach it.
#[derive(Clone, Debug)]
pub struct Account {
    /// Its name: lower-case letters, digits and underscores.
    pub name: String,
    /// Who runs the mailbox.
    pub provider: Provider,
    /// The organization at the provider.
    pub tenant: Tenant,
    /// Which registered application we are.
    pub client_id: ClientId,
    /// How tokens are obtained.
    pub grant: Grant,
    /// Which protocol the mail goes out by.
    pub transport: Transport,
    /// The mailbox that mail without a better sender goes out from. It always has a domain.
    pub mailbox: Address,
    /// Senders that have a mailbox of their own in reach of these credentials.
    pub send_as: Vec<SenderPattern>,
    /// Which of Microsoft's clouds.
    pub cloud: Cloud,
    /// Where the cloud's servers are.
    pub endpoints: Endpoints,
    /// How fast its mailboxes may send.
    pub pace: Pace,
}

/// How fast each mailbox of an account may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Requests to Graph at once; at least 1.
    pub graph_requests: usize,
    /// Octets uploaded to Graph in five minutes; 0 for no limit.
    pub graph_upload: u64,
    /// Recipients in 24 hours; 0 for no limit.
    pub recipients_per_day: u64,
    /// Requests at once for all mailboxes of the application together; 0 for no limit.
    pub max_in_flight: usize,
}

/// Some senders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SenderPattern {
    /// This one. It always has a domain.
    Address(Address),
    /// All of a domain, in lower case: `*@domain`.
    Domain(String),
}

/// Who runs the mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provider {
    /// Microsoft 365.
    Microsoft,
}

/// How tokens are obtained. What only one grant needs is a field of that variant.
#[derive(Clone, Debug)]
pub enum Grant {
    /// The application signs in as itself (RFC 6749 §4.4).
    ClientCredentials {
        /// The client secret.
        secret: Secret,
    },
}

/// Which protocol the mail goes out by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Whatever fits the message best; in this version always Graph.
    Auto,
    /// Microsoft Graph.
    Graph,
}

/// One of Microsoft's clouds. Tokens of one are worth nothing in another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cloud {
    /// The worldwide cloud, and GCC.
    Global,
    /// GCC High, for the US government.
    GccHigh,
    /// The US Department of Defense.
    Dod,
    /// Run by 21Vianet.
    China,
}

impl Cloud {
    /// The word for it in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Global => "global",
            Self::GccHigh => "gcc_high",
            Self::Dod => "dod",
            Self::China => "china",
        }
    }

    /// Where tokens are obtained in this cloud.
    #[must_use]
    pub const fn authority(self) -> &'static str {
        match self {
            Self::Global => "https://login.microsoftonline.com",
            Self::GccHigh | Self::Dod => "https://login.microsoftonline.us",
            Self::China => "https://login.chinacloudapi.cn",
        }
    }

    /// The resource that a token for Graph is for, and where Graph is unless configured otherwise.
    #[must_use]
    pub const fn graph(self) -> &'static str {
        match self {
            Self::Global => "https://graph.microsoft.com",
            Self::GccHigh => "https://graph.microsoft.us",
            Self::Dod => "https://dod-graph.microsoft.us",
            Self::China => "https://microsoftgraph.chinacloudapi.cn",
        }
    }
}

/// Where the servers of an account are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// Tokens come from `{authority}/{tenant}/oauth2/v2.0/token`.
    pub authority: Endpoint,
    /// Graph is called at `{graph}/v1.0/…`.
    pub graph: Endpoint,
    /// What a Graph token is asked for: the scope is `{graph_resource}/.default`.
    ///
    /// It belongs to the cloud and stays what it is when `graph` is set by hand to a proxy or a test server.
    pub graph_resource: String,
}

/// The validated start of a URL: `https://host[:port][/path]` without a slash at the end, without query and
/// user. `http` only if the host is loopback.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint(pub(super) String);

/// The organization: its GUID or one of its verified domains.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tenant(pub(super) String);

/// The application (client) ID: a GUID in lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClientId(pub(super) String);

/// TLS of outgoing connections.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// Certificates (PEM) that are trusted in addition to the system's. The file was there at load.
    pub extra_ca_file: Option<PathBuf>,
}

/// When to try again and when to stop.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The waits between attempts; never empty, the last repeats.
    pub retry: Vec<Duration>,
    /// How long a message may be deferred before it counts as failed.
    pub give_up_after: Duration,
    /// How long mail may be held for something that a person must do, before somebody is told. It stays.
    pub hold_for: Duration,
    /// What to do when it is not known whether the upstream took the message.
    pub on_uncertain: OnUncertain,
    /// How long to wait before an uncertain message is looked up or tried again.
    pub uncertain_wait: Duration,
}

/// What to do when it is not known whether the upstream took the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnUncertain {
    /// Try again, at the risk of a duplicate.
    Retry,
    /// Wait for a person.
    Hold,
}

/// Limits of the spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spool {
    /// How many octets of mail may wait.
    pub max_size: u64,
    /// How much of the disk is left free.
    pub min_free: u64,
    /// How long dead letters are kept.
    pub failed_retention: Duration,
}

/// How administrators reach a running bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// The path of the control socket.
    pub control: PathBuf,
}

/// Where a bridge is, and nothing else: what the tools need to find it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Premises {
    /// As in [`Config`].
    pub hostname: String,
    /// As in [`Config`].
    pub state_dir: PathBuf,
    /// As in [`Config`].
    pub spool: Spool,
    /// As in [`Config`].
    pub admin: Admin,
}

/// Who is told about the fate of messages.
#[derive(Clone, Debug)]
pub struct Report {
    /// Who hears of failures.
    pub failures_to: FailuresTo,
    /// The administrator's address; there is one if `failures_to` is [`FailuresTo::Admin`]. It always has a domain.
    pub admin: Option<Address>,
    /// After how long somebody is told that a message is late; `None` for never.
    pub delay_warning: Option<Duration>,
    /// Who is told when mail stops, besides the administrator by mail.
    pub alerts: Alerts,
}

/// How administrators are told when mail stops.
#[derive(Clone, Debug)]
pub struct Alerts {
    /// Where alerts are posted to.
    pub webhook: Option<Webhook>,
    /// A program that is run for each alert, with its arguments; it exists, and its path is absolute.
    pub command: Option<Vec<String>>,
    /// How old the oldest waiting message may be; `None` for any age.
    pub queue: Option<Duration>,
}

/// Where alerts are posted to. Who knows the URL can post there, too: it is a secret, and `Debug` shows the host only.
#[derive(Clone)]
pub struct Webhook {
    /// The URL; http or https, with a host.
    pub url: SecretString,
    /// Its host and port, for messages.
    pub host: String,
    /// True if it is on this machine.
    pub local: bool,
    /// What is posted.
    pub format: WebhookFormat,
}

/// What is posted to a webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebhookFormat {
    /// JSON of our own, for programs.
    Json,
    /// A message for Slack, or what understands the same: Mattermost, Rocket.Chat, Discord's /slack.
    Slack,
    /// An Adaptive Card for a workflow of Microsoft Teams.
    Teams,
    /// A notification of ntfy.
    Ntfy,
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Webhook({}, {:?})", self.host, self.format)
    }
}

/// Who hears of failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailuresTo {
    /// Who sent the message; the administrator if that one cannot be reached.
    Sender,
    /// The administrator.
    Admin,
    /// Nobody.
    Nobody,
}

/// What is logged and how.
#[derive(Clone, Debug)]
pub struct Log {
    /// How a line looks.
    pub format: LogFormat,
    /// The least important thing that is logged.
    pub level: LogLevel,
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs: one JSON object a line.
    Json,
}

/// How important a line of the log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Something failed that we should have done.
    Error,
    /// Somebody should look at it.
    Warn,
    /// What happened to every message.
    Info,
    /// What we decided and why.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// The word for it, as tracing's filters know it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

impl Endpoints {
    /// True if all of them are on this machine.
    #[must_use]
    pub fn are_loopback(&self) -> bool {
        [&self.authority, &self.graph].into_iter().all(|endpoint| {
            reqwest::Url::parse(endpoint.as_str()).is_ok_and(|url| url.host_str().is_some_and(is_loopback))
        })
    }
}

/// True for the host of a URL that is this machine.
pub(super) fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

macro_rules! text_type {
    ($name:ident) => {
        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_type!(Endpoint);
text_type!(Tenant);
text_type!(ClientId);
