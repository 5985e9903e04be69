//! What is said between a client and us, without I/O: a line in, a reply and an action out.

use super::command::{self, Command, CommandError, PathError};
use super::host::Host;
use super::login::Standing;
use super::replies;
use super::transaction::Transaction;
use crate::config::Access;
use crate::mail::Envelope;
use crate::mail::Peer;
use crate::mail::QueueId;
use crate::mail::Reply;
use crate::spool::Origin;
use crate::users::Login;
use std::sync::Arc;

/// Recipients of one message; the 100 of RFC 5321 §4.5.3.1.10 are the least that a server must take.
pub const MAX_RECIPIENTS: usize = 1000;

/// So many commands without an accepted message between them end a session. What brings a message on does not count: a
/// RCPT that names somebody new, a piece that is taken.
pub const MAX_COMMANDS: u32 = 1000;

/// So many bad commands in a row end a session.
pub const MAX_BAD_IN_A_ROW: u32 = 20;

/// So many bad commands without an accepted message between them end a session.
pub const MAX_BAD: u32 = 100;

/// What all sessions of a listener have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionSettings {
    /// Our name, for the greeting.
    pub hostname: String,
    /// The listener's name.
    pub listener: String,
    /// The largest message in octets (RFC 1870).
    pub max_message_size: u64,
    /// True if parameters of MAIL and RCPT that mean nothing are ignored; else they are refused.
    pub lenient: bool,
    /// Who may do how much.
    pub access: Access,
    /// True if STARTTLS is offered (RFC 3207).
    pub starttls: bool,
}

/// One client's session.
#[derive(Debug)]
pub struct Session {
    pub(super) settings: Arc<SessionSettings>,
    pub(super) client: Peer,
    greeting: String,
    esmtp: bool,
    pub(super) standing: Standing,
    tls: bool,
    pub(super) transaction: Option<Box<Transaction>>,
    bad_in_a_row: u32,
    bad: u32,
    pub(super) commands: u32,
    /// Lines in the log about parameters without effect.
    pub(super) odd_told: u8,
}

/// What is to be done about a line.
#[derive(Debug, PartialEq, Eq)]
pub struct Step {
    /// The answer; after [`Action::ReadChunk`] only if that went well, and after [`Action::Discard`] in any case.
    pub reply: Reply,
    /// What comes after the answer.
    pub action: Action,
    /// True if a sender, recipient or message was turned away, which belongs in the log.
    pub refused: bool,
}

/// What comes after an answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// The next command.
    Continue,
    /// The message follows, up to its final dot; then [`Session::data_finished`].
    ReadData(Box<Incoming>),
    /// TLS begins; then [`Session::tls_started`].
    StartTls,
    /// A piece of the message follows. If it is the last, [`Session::data_finished`] has the answer; else it is the
    /// reply of this step, or that of [`Session::chunk_failed`].
    ReadChunk(Chunk),
    /// So many octets follow that are no commands and not wanted either. Answer when they are read.
    Discard(u64),
    /// This login is to be checked; then [`Session::login_checked`] has the answer, and the reply of this step is not
    /// said.
    CheckLogin(Login),
    /// Nothing: the connection ends.
    Close,
}

/// A piece of a message (RFC 3030 §2).
#[derive(Debug, PartialEq, Eq)]
pub struct Chunk {
    /// How long it is.
    pub octets: u64,
    /// The envelope, with the last piece.
    pub incoming: Option<Box<Incoming>>,
}

/// The envelope of a message whose text follows, and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// What MAIL and RCPT said.
    pub envelope: Envelope,
    /// Who said it.
    pub origin: Origin,
}

/// Why a message that was read to its end is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataError {
    /// Larger than the limit.
    TooLarge,
    /// Line ends that this listener does not take.
    BareNewline,
    /// No room in the spool.
    Full,
    /// A header that could never be sent.
    Header,
    /// The spool cannot be written.
    Disk,
}

impl Session {
    /// A session with `client`, before the greeting.
    #[must_use]
    pub fn new(settings: Arc<SessionSettings>, client: Peer) -> Self {
        let greeting = String::new();
        Self {
            settings,
            client,
            greeting,
            esmtp: false,
            standing: Standing::Unknown,
            tls: false,
            transaction: None,
            bad_in_a_row: 0,
            bad: 0,
            commands: 0,
            odd_told: 0,
        }
    }

    /// What we say first (RFC 5321 §4.2, 220).
    #[must_use]
    pub fn greeting(&self) -> Reply {
        Reply::plain(220, format!("{} ESMTP smtp-oauth-bridge", self.settings.hostname))
    }

    /// What to do about a command line, with or without its line end.
    pub fn command(&mut self, line: &[u8], host: impl Host) -> Step {
        if self.commands >= MAX_COMMANDS {
            return Step {
                refused: true,
                ..close(Reply::new(
                    421,
                    7,
                    0,
                    "too many commands without a message, closing the connection: connect again to send one",
                ))
            };
        }
        self.commands += 1;
        let step = match self.login_line(line) {
            Some(step) => step,
            None => match command::parse(line) {
                Ok(command) => self.perform(command, host),
                Err(error) => refuse_line(&error),
            },
        };
        self.judge(step)
    }

    /// What to do about a line that was too long to be kept (RFC 5321 §4.5.3.1.9).
    pub fn line_too_long(&mut self) -> Step {
        // RFC 4954 §6 has a code of its own.
        let reply = match self.login_ended() {
            true => Reply::new(500, 5, 6, "the line is too long for a login"),
            false => Reply::new(500, 5, 2, "the line is too long"),
        };
        self.judge(answer(reply))
    }

    /// True if this beginning of a line that is too long may be that of BDAT.
    #[must_use]
    pub fn may_begin_chunk(&self, beginning: &[u8]) -> bool {
        !self.is_login(beginning) && command::may_be_chunk(beginning)
    }

    /// What to do about such a line: how long the chunk behind it is stands in what was not kept.
    pub fn chunk_lost(&mut self) -> Step {
        self.judge(close(Reply::new(
            500,
            5,
            2,
            "the line is too long, and if it is BDAT nobody knows where the next command is, closing the connection",
        )))
    }

    /// TLS has begun. Everything that was said before it is forgotten (RFC 3207 §4.2): it may have been said by
    /// somebody on the way.
    pub fn tls_started(&mut self) {
        self.tls = true;
        self.greeting = String::new();
        self.esmtp = false;
        self.standing = Standing::Unknown;
        self.transaction = None;
    }

    /// True if a client that begins TLS without a word may.
    #[must_use]
    pub fn may_start_tls(&self) -> bool {
        self.settings.starttls && !self.tls
    }

    /// What to do instead of [`Action::StartTls`] if more commands came with STARTTLS. Somebody on the way may have
    /// added them, so that they seem to come through TLS (RFC 3207 §6, CVE-2011-0411).
    #[must_use]
    pub fn commands_behind_starttls(&self) -> Step {
        Step {
            refused: true,
            ..close(Reply::new(
                554,
                7,
                0,
                "commands came together with STARTTLS, before its answer: nothing of it is trusted, closing the connection",
            ))
        }
    }

    /// The answer after the final dot: the message is on the disk under this id, or it is not ours.
    pub fn data_finished(&mut self, result: Result<QueueId, DataError>) -> Reply {
        match result {
            Ok(id) => {
                (self.bad, self.bad_in_a_row, self.commands) = (0, 0, 0);
                Reply::new(250, 0, 0, format!("Ok: queued as {id}"))
            }
            Err(DataError::TooLarge) => self.too_large(),
            Err(DataError::BareNewline) => replies::bare_newline(),
            Err(DataError::Full) => replies::full(),
            Err(DataError::Header) => replies::header(),
            Err(DataError::Disk) => Reply::new(
                451,
                3,
                0,
                "the message could not be stored, try again later; the log of the bridge says why",
            ),
        }
    }

    /// What the recipients that were named so far weigh in memory, about.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.transaction
            .as_ref()
            .map_or(0, |transaction| transaction.weight())
    }

    fn perform(&mut self, command: Command, host: impl Host) -> Step {
        match command {
            Command::Helo(name) => self.greet(name, false),
            Command::Ehlo(name) => self.greet(name, true),
            Command::Mail(mail) => self.mail(mail, host),
            Command::Rcpt(rcpt) => self.rcpt(rcpt, host),
            Command::Data => self.data(),
            Command::Rset => {
                self.transaction = None;
                answer(Reply::new(250, 0, 0, "Ok"))
            }
            Command::Noop => answer(Reply::new(250, 0, 0, "Ok")),
            // RFC 5321 §3.5.3: 252 where it is not disclosed who exists.
            Command::Vrfy => answer(Reply::new(
                252,
                5,
                0,
                "who exists is not told here: send the message, and the log of the bridge says what became of it",
            )),
            Command::Expn => answer(Reply::new(502, 5, 1, "there are no lists here")),
            Command::Help => answer(replies::help(self.settings.max_message_size)),
            Command::Quit => close(Reply::new(221, 0, 0, "Bye")),
            Command::StartTls => self.starttls(),
            Command::Auth => answer(Reply::new(
                502,
                5,
                1,
                "login is not offered here and not needed: switch SMTP authentication off in the device",
            )),
            Command::Bdat(bdat) => {
                let is_empty = bdat.octets == 0;
                let step = self.bdat(bdat);
                // A piece of a message is no command without one.
                if !is_empty && matches!(step.action, Action::ReadChunk(_)) {
                    self.commands -= 1;
                }
                step
            }
            // Relayed mail would seem to come from the load balancer, which may be allowed more than the client.
            Command::Proxy => Step {
                refused: true,
                ..close(Reply::new(
                    500,
                    5,
                    2,
                    "a PROXY header is not taken from this address: it is not in `proxy_protocol` of this listener",
                ))
            },
            Command::Foreign => close(Reply::new(500, 5, 2, "this is an SMTP server")),
        }
    }

    /// RFC 3207 §4.
    fn starttls(&self) -> Step {
        if self.tls {
            return answer(Reply::new(503, 5, 1, "the connection is encrypted already"));
        }
        if !self.settings.starttls {
            return answer(Reply::new(
                502,
                5,
                1,
                "STARTTLS is not offered here: switch encryption off for this server in the device",
            ));
        }
        Step {
            action: Action::StartTls,
            ..answer(Reply::new(220, 0, 0, "Ready to start TLS"))
        }
    }

    /// RFC 5321 §4.1.4: EHLO or HELO in the middle of a session resets it.
    fn greet(&mut self, name: String, esmtp: bool) -> Step {
        self.transaction = None;
        (self.greeting, self.esmtp) = (name, esmtp);
        let reply = Reply::plain(250, self.settings.hostname.clone());
        if !esmtp {
            return answer(reply);
        }
        let reply = self.offer_login(reply);
        let mut reply = reply
            .line("PIPELINING")
            .line(format!("SIZE {}", self.settings.max_message_size))
            .line("8BITMIME")
            .line("SMTPUTF8")
            .line("CHUNKING")
            .line("DSN")
            // RFC 9422. There is no limit of messages in a session (MAILMAX).
            .line(format!("LIMITS RCPTMAX={MAX_RECIPIENTS}"))
            .line("HELP")
            .line("ENHANCEDSTATUSCODES");
        // RFC 3207 §4.2: not offered again.
        if self.may_start_tls() {
            reply = reply.line("STARTTLS");
        }
        answer(reply)
    }

    /// Who the client is.
    pub(super) fn client(&self) -> Peer {
        self.client
    }

    /// Where a message comes from that begins now.
    pub(super) fn origin(&self) -> Origin {
        Origin {
            client: self.client,
            greeting: self.greeting.clone(),
            esmtp: self.esmtp,
            listener: self.settings.listener.clone(),
            tls: self.tls,
            user: self.user().map(|user| user.name.clone()),
        }
    }

    /// Counts bad commands and ends a session that has too many of them: it is not mail.
    pub(super) fn judge(&mut self, step: Step) -> Step {
        // Chunks that were under way when one before them was refused are no mistakes of their own.
        let is_excused = matches!(step.action, Action::Discard(_)) && self.transaction.is_some();
        if is_excused || !matches!(step.reply.code(), 500..=504 | 535) {
            if step.reply.is_positive() {
                self.bad_in_a_row = 0;
            }
            return step;
        }
        self.bad += 1;
        self.bad_in_a_row += 1;
        if step.action == Action::Close || (self.bad_in_a_row < MAX_BAD_IN_A_ROW && self.bad < MAX_BAD) {
            return step;
        }
        Step {
            refused: true,
            ..close(Reply::new(
                421,
                7,
                0,
                "too many bad commands, closing the connection",
            ))
        }
    }

    pub(super) fn too_large(&self) -> Reply {
        let limit = self.settings.max_message_size;
        let text = format!(
            "the message is larger than the {limit} octets that listener {} takes",
            self.settings.listener
        );
        Reply::new(552, 3, 4, text)
    }
}

fn refuse_line(error: &CommandError) -> Step {
    match error {
        CommandError::Unknown => answer(Reply::new(500, 5, 2, "this is not a command that is known here")),
        CommandError::NoArguments => answer(Reply::new(501, 5, 4, "this command takes no argument")),
        // The octets of that chunk would be taken for commands.
        CommandError::ChunkSize => close(Reply::new(
            501,
            5,
            4,
            "BDAT without its number of octets: nobody knows where the next command is, closing the connection",
        )),
        CommandError::Sender(PathError::Missing) => answer(Reply::new(
            501,
            5,
            4,
            "the sender is missing: MAIL FROM:<name@example.com>",
        )),
        CommandError::Recipient(PathError::Missing) => answer(Reply::new(
            501,
            5,
            4,
            "the recipient is missing: RCPT TO:<name@example.com>",
        )),
        // RFC 3463 §3.2: 1.7 for the sender's address, 1.3 for a recipient's.
        CommandError::Sender(error) => refuse(Reply::new(501, 1, 7, format!("bad sender: {error}"))),
        CommandError::Recipient(error) => refuse(Reply::new(501, 1, 3, format!("bad recipient: {error}"))),
    }
}

pub(super) fn answer(reply: Reply) -> Step {
    Step {
        reply,
        action: Action::Continue,
        refused: false,
    }
}

pub(super) fn refuse(reply: Reply) -> Step {
    Step {
        refused: true,
        ..answer(reply)
    }
}

pub(super) fn close(reply: Reply) -> Step {
    Step {
        action: Action::Close,
        ..answer(reply)
    }
}

#[cfg(test)]
impl SessionSettings {
    /// Settings for tests.
    pub(super) fn sample() -> Self {
        Self {
            hostname: "bridge.test".into(),
            listener: "test".into(),
            max_message_size: 1000,
            lenient: true,
            access: Access::default(),
            starttls: false,
        }
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
