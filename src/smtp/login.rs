//! The part of a session that is about logging in (RFC 4954): a line in, a step out.

use super::auth::{self, Exchange, Failure, Progress};
use super::session::{Action, Session, Step, answer, close, refuse};
use crate::config::AuthMode;
use crate::mail::Reply;
use crate::mail::ReversePath;
use crate::users::Login;
use crate::users::Senders;
use crate::users::User;
use crate::users::Verdict;
use crate::users::check_name;

/// The longest line of AUTH (RFC 4954 §4: 12288 octets).
const MAX_LOGIN_LINE: usize = 12 * 1024;
/// The longest of other commands. RFC 5321 §4.5.3.1.4 asks for 512 octets and more for extensions.
const MAX_LINE: usize = 4 * 1024;

/// How far a client has come with logging in.
#[derive(Debug, Default)]
pub(super) enum Standing {
    /// Nowhere.
    #[default]
    Unknown,
    /// Its next line is not a command but belongs to this exchange.
    Asked(Exchange),
    /// It is this user.
    User(Box<User>),
}

impl Session {
    /// True for a line that may hold a password, or its beginning: it may be longer, and is not left in memory.
    #[must_use]
    pub fn is_login(&self, line: &[u8]) -> bool {
        matches!(self.standing, Standing::Asked(_)) || arguments(line).is_some()
    }

    /// How long the line that begins like this may be.
    #[must_use]
    pub fn longest_line(&self, beginning: &[u8]) -> usize {
        match self.is_login(beginning) {
            true => MAX_LOGIN_LINE,
            false => MAX_LINE,
        }
    }

    /// Who has logged in.
    #[must_use]
    pub fn user(&self) -> Option<&User> {
        match &self.standing {
            Standing::User(user) => Some(user),
            _ => None,
        }
    }

    /// The answer to a login that was checked, after [`Action::CheckLogin`]. Whatever is wrong with it, the client
    /// learns only that it is not right.
    pub fn login_checked(&mut self, verdict: Verdict) -> Step {
        let step = match verdict {
            Verdict::Welcome(user) => {
                self.standing = Standing::User(Box::new(user));
                answer(Reply::new(235, 7, 0, "Authentication successful"))
            }
            Verdict::Wrong { .. } => refuse(Reply::new(
                535,
                7,
                8,
                "user name or password is wrong: correct them in the device, or set them anew on the bridge with \
                 `smtp-oauth-bridge user add`",
            )),
            Verdict::TooMany => Step {
                refused: true,
                ..close(Reply::new(
                    421,
                    7,
                    0,
                    "too many failed logins from your address: correct the password in the device and try again \
                     in a few minutes",
                ))
            },
            Verdict::Unavailable => refuse(unavailable()),
        };
        self.judge(step)
    }

    /// What to do about a line that belongs to a login; `None` if it does not, or if login is not offered.
    pub(super) fn login_line(&mut self, line: &[u8]) -> Option<Step> {
        if self.settings.access.auth == AuthMode::Off {
            return None;
        }
        let progress = match std::mem::take(&mut self.standing) {
            Standing::Asked(exchange) => exchange.answer(line),
            standing => {
                self.standing = standing;
                let arguments = arguments(line)?;
                if let Some(reply) = self.not_now() {
                    return Some(answer(reply));
                }
                auth::begin(arguments)
            }
        };
        Some(match progress {
            Progress::Ask(challenge, exchange) => {
                self.standing = Standing::Asked(exchange);
                answer(Reply::plain(334, challenge))
            }
            Progress::Done(login) => self.check(login),
            Progress::Failed(failure) => answer(failed(failure)),
        })
    }

    /// A line too long ends the exchange that it belongs to.
    pub(super) fn login_ended(&mut self) -> bool {
        let ended = matches!(self.standing, Standing::Asked(_));
        if ended {
            self.standing = Standing::Unknown;
        }
        ended
    }

    /// Why this client may not send a message with this sender, if it may not.
    pub(super) fn forbidden(&self, path: &ReversePath) -> Option<Reply> {
        match &self.standing {
            Standing::User(user) if user.senders.allow(path) => None,
            // RFC 5321 §4.2.3: 553; RFC 3463 §3.8: 7.1.
            Standing::User(user) => Some(Reply::new(
                553,
                7,
                1,
                format!(
                    "user {} may not send as {path}: use a sender that it may use, or let it on the bridge with \
                     `smtp-oauth-bridge user add {} --sender {}`, and --sender with each that it had before",
                    user.name,
                    quoted(&user.name),
                    quoted(path.to_string().trim_matches(['<', '>'])),
                ),
            )),
            // RFC 4954 §6.
            _ if self.settings.access.auth == AuthMode::Required && self.is_overheard() => Some(Reply::new(
                530,
                7,
                0,
                "a login is required here, and TLS before it: switch STARTTLS and SMTP authentication on in the \
                 device, with a user name and password of this bridge",
            )),
            // RFC 4954 §6.
            _ if self.settings.access.auth == AuthMode::Required => Some(Reply::new(
                530,
                7,
                0,
                "a login is required here: switch SMTP authentication on in the device, with a user name and \
                 password of this bridge",
            )),
            _ => None,
        }
    }

    /// The lines of the reply to EHLO.
    pub(super) fn offer_login(&self, reply: Reply) -> Reply {
        let access = &self.settings.access;
        if access.auth == AuthMode::Off || self.is_overheard() {
            return reply;
        }
        let reply = reply.line("AUTH PLAIN LOGIN");
        match access.old_auth_line {
            // As the draft before RFC 2554 had it.
            true => reply.line("AUTH=LOGIN PLAIN"),
            false => reply,
        }
    }

    /// True as long as a password would cross the network in the clear although TLS is there to be had: login is then
    /// neither offered nor taken (RFC 4954 §4, RFC 8314 §3).
    fn is_overheard(&self) -> bool {
        self.may_start_tls() && !self.client.is_this_machine()
    }

    /// RFC 4954 §4: once in a session, and not within a message.
    fn not_now(&self) -> Option<Reply> {
        if self.is_overheard() {
            Some(Reply::new(
                538,
                7,
                11,
                "start TLS first: set the device to STARTTLS, so that the password is not sent in the clear",
            ))
        } else if self.user().is_some() {
            Some(Reply::new(
                503,
                5,
                1,
                "you are logged in already: go on with MAIL FROM",
            ))
        } else if self.transaction.is_some() {
            Some(Reply::new(
                503,
                5,
                1,
                "a message was already begun: log in before MAIL FROM, or send RSET first",
            ))
        } else {
            None
        }
    }

    fn check(&mut self, login: Login) -> Step {
        if self.settings.access.auth != AuthMode::Any {
            return Step {
                action: Action::CheckLogin(login),
                ..answer(unavailable())
            };
        }
        let name = match check_name(login.name()) {
            Ok(()) => login.name().to_owned(),
            Err(_) => "nameless".to_owned(),
        };
        self.login_checked(Verdict::Welcome(User {
            name,
            hash: String::new(),
            senders: Senders::default(),
            line: 0,
        }))
    }
}

/// What follows the verb AUTH, if that is the verb.
fn arguments(line: &[u8]) -> Option<&[u8]> {
    let (verb, rest) = line.trim_ascii_start().split_at_checked(4)?;
    let is_auth = verb.eq_ignore_ascii_case(b"AUTH") && rest.first().is_none_or(u8::is_ascii_whitespace);
    is_auth.then_some(rest)
}

/// A word for the shell: whoever copies a command from the log must get no other one than it looks like.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "@%+=:,./-_*".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

fn unavailable() -> Reply {
    Reply::new(
        454,
        7,
        0,
        "logins cannot be checked at the moment, try again later; the log of the bridge says why",
    )
}

fn failed(failure: Failure) -> Reply {
    match failure {
        // RFC 4954 §4.
        Failure::Cancelled => Reply::new(501, 0, 0, "the login was cancelled"),
        Failure::Base64 => Reply::new(501, 5, 2, "this is not Base64, which AUTH asks for"),
        Failure::Malformed => Reply::new(
            501,
            5,
            2,
            "AUTH PLAIN needs NUL, the name, NUL and the password, as Base64",
        ),
        Failure::NoMechanism => Reply::new(501, 5, 4, "AUTH needs a mechanism: AUTH LOGIN or AUTH PLAIN"),
        Failure::UnknownMechanism => Reply::new(
            504,
            5,
            4,
            "this mechanism is not offered: choose LOGIN or PLAIN in the device",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::session::SessionSettings;
    use super::*;
    use crate::config::Access;
    use crate::spool::Room;
    use crate::users::Doubt;
    use std::sync::Arc;
    use std::time::Duration;

    fn session(auth: AuthMode) -> Session {
        let access = Access {
            auth,
            ..Access::default()
        };
        let settings = SessionSettings {
            access,
            ..SessionSettings::sample()
        };
        Session::new(Arc::new(settings), "192.0.2.1".parse().unwrap())
    }

    fn user(senders: &[&str]) -> User {
        let senders: Vec<String> = senders.iter().map(|&sender| sender.to_owned()).collect();
        User {
            name: "anna".into(),
            hash: String::new(),
            senders: Senders::new(&senders).unwrap(),
            line: 1,
        }
    }

    fn step(session: &mut Session, line: &str) -> Step {
        session.command(line.as_bytes(), || Room::Enough)
    }

    fn code(session: &mut Session, line: &str) -> u16 {
        step(session, line).reply.code()
    }

    #[test]
    fn required_means_that_mail_needs_a_login() {
        let mut session = session(AuthMode::Required);
        let refusal = step(&mut session, "MAIL FROM:<a@x.example>");
        assert_eq!((refusal.reply.code(), refusal.refused), (530, true));
        let asked = step(&mut session, "AUTH PLAIN AGFubmEAc2VjcmV0");
        let Action::CheckLogin(login) = asked.action else {
            panic!("{asked:?}")
        };
        assert_eq!(login.name(), "anna");
        let why = Doubt::NoSuchUser;
        let wrong = session.login_checked(Verdict::Wrong {
            wait: Duration::ZERO,
            why,
        });
        assert_eq!((wrong.reply.code(), wrong.refused), (535, true));
        assert_eq!(code(&mut session, "MAIL FROM:<a@x.example>"), 530);
        assert_eq!(
            session.login_checked(Verdict::Welcome(user(&[]))).reply.code(),
            235
        );
        assert_eq!(code(&mut session, "AUTH PLAIN AGFubmEAc2VjcmV0"), 503);
        assert_eq!(code(&mut session, "EHLO again"), 250);
        assert_eq!(code(&mut session, "MAIL FROM:<a@x.example>"), 250);
        assert_eq!(code(&mut session, "RCPT TO:<b@x.example>"), 250);
        let Action::ReadData(incoming) = step(&mut session, "DATA").action else {
            panic!()
        };
        assert_eq!(incoming.origin.user.as_deref(), Some("anna"));
    }

    #[test]
    fn optional_and_any() {
        let mut optional = session(AuthMode::Optional);
        assert_eq!(code(&mut optional, "MAIL FROM:<a@x.example>"), 250);
        assert_eq!(code(&mut optional, "AUTH LOGIN"), 503);
        assert_eq!(code(&mut optional, "RSET"), 250);
        assert_eq!(code(&mut optional, "AUTH LOGIN"), 334);
        assert_eq!(code(&mut optional, "*"), 501);
        assert_eq!(code(&mut optional, "NOOP"), 250);
        assert_eq!(optional.login_checked(Verdict::Unavailable).reply.code(), 454);
        let closing = optional.login_checked(Verdict::TooMany);
        assert_eq!((closing.reply.code(), closing.action), (421, Action::Close));

        let mut any = session(AuthMode::Any);
        assert_eq!(code(&mut any, "AUTH PLAIN AGFubmEAc2VjcmV0"), 235);
        assert_eq!(any.user().map(|user| user.name.as_str()), Some("anna"));
        let mut off = session(AuthMode::Off);
        assert_eq!(code(&mut off, "AUTH PLAIN AGFubmEAc2VjcmV0"), 502);
    }

    #[test]
    fn a_user_sends_as_whom_it_may() {
        let mut session = session(AuthMode::Optional);
        session.login_checked(Verdict::Welcome(user(&["a@x.example", "*@lab.example"])));
        for (sender, expected) in [
            ("a@X.example", 250),
            ("any@lab.example", 250),
            ("", 250),
            ("b@x.example", 553),
        ] {
            assert_eq!(
                code(&mut session, &format!("MAIL FROM:<{sender}>")),
                expected,
                "{sender}"
            );
            code(&mut session, "RSET");
        }
    }

    #[test]
    fn what_a_user_may_not_send_as_says_how_to_let_it() {
        let mut session = session(AuthMode::Optional);
        session.login_checked(Verdict::Welcome(user(&["a@x.example"])));
        for (sender, word) in [
            ("b@x.example", "--sender b@x.example`"),
            ("o'b`id`@x.example", r"--sender 'o'\''b`id`@x.example'`"),
        ] {
            let text = step(&mut session, &format!("MAIL FROM:<{sender}>"))
                .reply
                .to_string();
            assert!(text.contains("`smtp-oauth-bridge user add anna "), "{text}");
            assert!(text.contains(word), "{text}");
        }
        assert_eq!(quoted("front desk"), "'front desk'");
        assert_eq!(quoted(""), "''");
    }

    #[test]
    fn lines_of_a_login_may_be_long_and_are_secret() {
        let mut session = session(AuthMode::Optional);
        for (line, login) in [
            ("AUTH LOGIN", true),
            (" auth\tx", true),
            ("AUTHOR", false),
            ("AUT", false),
        ] {
            assert_eq!(session.is_login(line.as_bytes()), login, "{line}");
            assert_eq!(
                session.longest_line(line.as_bytes()),
                if login { 12288 } else { 4096 }
            );
        }
        code(&mut session, "AUTH LOGIN");
        assert!(session.is_login(b"YW5uYQ=="));
        assert_eq!(
            session.line_too_long().reply.to_string(),
            "500 5.5.6 the line is too long for a login"
        );
        assert!(!session.is_login(b"YW5uYQ=="));
        assert_eq!(
            session.line_too_long().reply.to_string(),
            "500 5.5.2 the line is too long"
        );
    }

    #[test]
    fn guessing_ends_a_session() {
        let mut session = session(AuthMode::Optional);
        let why = || Verdict::Wrong {
            wait: Duration::ZERO,
            why: Doubt::NoSuchUser,
        };
        let codes: Vec<u16> = (0..20)
            .map(|_| session.login_checked(why()).reply.code())
            .collect();
        assert_eq!((codes[18], codes[19]), (535, 421));
    }
}
