//! What can be typed.

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
