//! What can be typed.

use crate::spool::State;
use clap::{Args, Parser, Subcommand};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Takes mail by plain SMTP and forwards it to Microsoft 365 with OAuth 2.0.
#[derive(Debug, Parser)]
#[command(version, about, arg_required_else_help = true)]
pub(super) struct Cli {
    /// The configuration file [default: /etc/smtp-oauth-bridge/bridge.toml, then ./bridge.toml]
    #[arg(long, global = true, value_name = "FILE", env = "SMTP_OAUTH_BRIDGE_CONFIG")]
    pub(super) config: Option<PathBuf>,

    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the bridge
    Run(Run),
    /// Check the configuration, and say everything that is wrong with it
    Check,
    /// Run the Microsoft 365 look-alike alone, for tests
    Sandbox(Places),
    /// How the bridge stands; ends with 1 if somebody has to do something, for monitoring
    Status {
        /// Print JSON, for programs
        #[arg(long)]
        json: bool,
    },
    /// Look at the messages that wait, are held or have failed, and do something with them
    Queue {
        #[command(subcommand)]
        command: Queue,
    },
    /// Accept mail, but do not send it; survives a restart
    Pause {
        /// Only the mail of this account
        account: Option<String>,
    },
    /// Send again after `pause`
    Resume {
        /// Only the mail of this account [default: all, also those that were paused one by one]
        account: Option<String>,
    },
    /// Tell what became of a message: when it came, who took it over, why not; the bridge may run or not
    Trace(Trace),
    /// Who may log in to a listener with a login; a running bridge sees every change by itself
    User {
        /// The users file [default: that of the configuration]
        #[arg(long, global = true, value_name = "FILE")]
        file: Option<PathBuf>,

        #[command(subcommand)]
        command: User,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum User {
    /// Add a user, or change one: without --sender its password, with --sender whom it may send as
    Add {
        /// What it logs in as: any name
        name: String,

        /// An address that it may send as, or *@domain; may be repeated [default: any; an old user's stay as they are]
        #[arg(long = "sender", value_name = "ADDRESS")]
        senders: Vec<String>,

        #[command(flatten)]
        password: PasswordFrom,
    },
    /// Remove a user
    Remove {
        /// Its name
        name: String,
    },
    /// List the users, and the lines of the file that are not understood
    List,
    /// Find out whether a password is right
    Verify {
        /// The user's name
        name: String,

        #[command(flatten)]
        password: PasswordFrom,
    },
}

/// Where a password comes from. There is no option with the password itself: others would see it in `ps`.
#[derive(Debug, Args)]
pub(super) struct PasswordFrom {
    /// Read the password from the first line of standard input instead of asking for it
    #[arg(long)]
    pub(super) password_stdin: bool,
}

#[derive(Debug, Args)]
pub(super) struct Trace {
    /// A queue id or its beginning, an address of a sender or recipient, @domain, a Message-ID, or a client's IP address
    #[arg(value_name = "ID|ADDRESS|MESSAGE-ID")]
    pub(super) target: String,

    /// Only messages that arrived since then: "2h", "7d", "2026-11-21", "2026-11-21T08:47:00Z"
    #[arg(long, value_name = "TIME")]
    pub(super) since: Option<String>,

    /// How many messages at most, the newest first
    #[arg(long, value_name = "NUMBER", default_value_t = 10)]
    pub(super) limit: usize,

    /// For programs: one JSON object in a line for each message
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Run {
    /// Try it out: run with a Microsoft 365 look-alike on this machine; needs no configuration
    #[arg(long)]
    pub(super) sandbox: bool,

    /// Where the bridge listens, with --sandbox
    #[arg(
        long,
        value_name = "ADDRESS",
        default_value = "127.0.0.1:2525",
        requires = "sandbox"
    )]
    pub(super) smtp: SocketAddr,

    #[command(flatten)]
    pub(super) places: Places,
}

/// Where the sandbox is.
#[derive(Debug, Args)]
pub(super) struct Places {
    /// Where the sandbox keeps its certificates and, with `run`, the bridge's spool
    #[arg(long, value_name = "DIR")]
    pub(super) directory: Option<PathBuf>,

    /// Where the sandbox's Entra and Graph listen, by HTTPS; loopback only
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    pub(super) cloud: SocketAddr,

    /// Where the sandbox shows what arrived, by HTTP; loopback only
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8026")]
    pub(super) inbox: SocketAddr,
}

#[derive(Debug, Subcommand)]
pub(super) enum Queue {
    /// List messages, the oldest first
    List {
        #[command(flatten)]
        filters: Filters,

        /// Only those behind this one
        #[arg(long, value_name = "ID")]
        after: Option<String>,

        /// At most so many
        #[arg(long, value_name = "N", default_value = "50", value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1_000_000))]
        limit: usize,

        /// Print JSON, for programs
        #[arg(long)]
        json: bool,
    },
    /// Show all that is known of a message
    Show {
        /// Its id, or the beginning of it
        id: String,

        /// Print JSON, for programs
        #[arg(long)]
        json: bool,
    },
    /// Try messages now: those that wait, those that are held, and those that failed, to whoever does not have them
    Retry(Act),
    /// Do not try messages until they are released
    Hold(Act),
    /// Let held messages go on
    Release(Act),
    /// Give messages up: they count as failed
    Bounce(Act),
    /// Remove messages; nobody is told
    Delete(Act),
    /// Write messages as files: ID.eml, as it was received, and ID.env, the envelope
    Export(Export),
    /// Put messages that are files into the queue; one that is there already is left alone
    Import(Import),
    /// Write a backup of the whole queue, also while the bridge runs: a tar archive
    Backup {
        /// The archive
        file: PathBuf,
    },
}

/// Which messages become files.
#[derive(Debug, Args)]
pub(super) struct Export {
    /// Their ids, or the beginnings of them
    pub(super) ids: Vec<String>,

    /// All messages that the filters let through
    #[arg(long)]
    pub(super) all: bool,

    #[command(flatten)]
    pub(super) filters: Filters,

    /// The directory for the files; made if it is missing
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(super) to: PathBuf,
}

/// Which files become messages.
#[derive(Debug, Args)]
pub(super) struct Import {
    /// Files that end in .env or .eml, or directories of them
    #[arg(required = true)]
    pub(super) paths: Vec<PathBuf>,

    /// For messages without an envelope file: where reports go; <> is nowhere
    #[arg(long, value_name = "ADDRESS")]
    pub(super) from: Option<String>,

    /// For messages without an envelope file: who gets them; may be repeated
    #[arg(long, value_name = "ADDRESS")]
    pub(super) to: Vec<String>,
}

/// Which messages are meant.
#[derive(Clone, Debug, Args)]
pub(super) struct Filters {
    /// How they stand: waiting, sending, held, failed or uncertain (an earlier attempt may have gone through)
    #[arg(long, value_name = "STATE")]
    pub(super) state: Option<State>,

    /// They go out by this account
    #[arg(long, value_name = "NAME")]
    pub(super) account: Option<String>,

    /// Their sender: an address, @domain, or a text in it; * stands for anything, <> for no sender
    #[arg(long, value_name = "PATTERN")]
    pub(super) sender: Option<String>,

    /// One of their recipients, in the same way
    #[arg(long, value_name = "PATTERN")]
    pub(super) recipient: Option<String>,

    /// They arrived before: 30m, 2h, 5d
    #[arg(long, value_name = "DURATION")]
    pub(super) older_than: Option<String>,

    /// They arrived within: 30m, 2h, 5d
    #[arg(long, value_name = "DURATION")]
    pub(super) younger_than: Option<String>,
}

/// Something that is done to messages.
#[derive(Debug, Args)]
pub(super) struct Act {
    /// Their ids, or the beginnings of them
    pub(super) ids: Vec<String>,

    /// All messages that the filters let through; asks first
    #[arg(long)]
    pub(super) all: bool,

    #[command(flatten)]
    pub(super) filters: Filters,

    /// With --all: do not ask
    #[arg(long)]
    pub(super) yes: bool,

    /// Print JSON, for programs
    #[arg(long)]
    pub(super) json: bool,
}
