//! Who is told about the fate of a message.

use super::Kind;
use crate::config::FailuresTo;
use crate::mail::Address;
use crate::mail::Notify;
use crate::mail::Recipient;
use crate::mail::ReversePath;

/// What the administrator decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Who hears of failures.
    pub failures_to: FailuresTo,
    /// The administrator's address.
    pub admin: Option<Address>,
}

/// Who is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// Who sent it.
    Sender(Address),
    /// The administrator.
    Admin(Address),
}

impl Told {
    /// The address.
    #[must_use]
    pub fn address(&self) -> &Address {
        match self {
            Self::Sender(address) | Self::Admin(address) => address,
        }
    }
}

/// Why nobody is told. The dead letter, the log and the history know all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Silence {
    /// A report about a report would go round for ever (RFC 3464 §2, RFC 5321 §6.1).
    #[error("it is a report itself")]
    AboutReport,
    /// The configuration says so.
    #[error("failures_to is \"none\"")]
    Off,
    /// The sender cannot be reached and there is no administrator's address.
    #[error("the sender has no address that mail can reach; set report.admin to hear of such messages")]
    NoAddress,
    /// Only who sent it could want to know.
    #[error("the sender has no address that mail can reach")]
    SenderOnly,
    /// The client asked for none with NOTIFY (RFC 3461 §4.1).
    #[error("the client asked for none (NOTIFY)")]
    NotAsked,
    /// There is no account that it could go out by: the only one is what it would be about.
    #[error("the only account is the one that it is about")]
    NoAccount,
}

/// Who is told of `kind` about a message with this reverse-path; `is_report` if it is one of ours.
///
/// Where reports belong is the reverse-path, whatever Auto-Submitted or Precedence say: RFC 3834 §2 is about answers to
/// the author, not about reports of delivery. Success interests nobody but the sender.
///
/// # Errors
/// [`Silence`]: nobody, and why.
pub fn recipient(
    policy: &Policy,
    kind: Kind,
    is_report: bool,
    reverse_path: &ReversePath,
) -> Result<Told, Silence> {
    if is_report {
        return Err(Silence::AboutReport);
    }
    let admin = || policy.admin.clone().map(Told::Admin).ok_or(Silence::NoAddress);
    let told = match (policy.failures_to, reverse_path) {
        (FailuresTo::Nobody, _) => return Err(Silence::Off),
        (FailuresTo::Sender, ReversePath::Address(sender)) if is_public(sender) => {
            Told::Sender(sender.clone())
        }
        (FailuresTo::Sender | FailuresTo::Admin, _) => admin()?,
    };
    match (kind, &told) {
        (Kind::Relayed, Told::Admin(_)) => Err(Silence::SenderOnly),
        _ => Ok(told),
    }
}

/// True if the client wants to be told of `kind` about this recipient (NOTIFY, RFC 3461 §4.1). An administrator
/// who wants to hear of failures hears of all: NOTIFY speaks of the sender.
#[must_use]
pub fn is_wanted(policy: &Policy, kind: Kind, recipient: &Recipient) -> bool {
    if policy.failures_to == FailuresTo::Admin && kind != Kind::Relayed {
        return true;
    }
    match (kind, recipient.notify) {
        // Without NOTIFY: failures, and delays as far as we report them at all.
        (Kind::Relayed, None) => false,
        (_, None) => true,
        (Kind::Failed, Some(notify)) => notify.failure(),
        (Kind::Delayed, Some(notify)) => notify.delay(),
        (Kind::Relayed, Some(notify)) => notify.success(),
        // It has not failed yet and is more than late: told unless nothing is wanted.
        (Kind::Held, Some(notify)) => notify != Notify::NEVER,
    }
}

/// Top-level domains without public mail: RFC 6761, RFC 6762 appendix G, RFC 7686, RFC 8375 (home.arpa), RFC 9476, and
/// others that private networks use and that will not become public. Not `example`, which RFC 6761 §6.5 wants to be
/// treated like any other.
const PRIVATE: [&str; 17] = [
    "alt",
    "arpa",
    "corp",
    "domain",
    "home",
    "intern",
    "internal",
    "intranet",
    "invalid",
    "lan",
    "local",
    "localdomain",
    "localhost",
    "mail",
    "onion",
    "private",
    "workgroup",
];

/// True if mail from anywhere could reach the address: its domain is no address literal, has a dot, and ends in
/// what may be a public top-level domain.
fn is_public(address: &Address) -> bool {
    let domain = address.domain().trim_end_matches('.');
    let Some((rest, top)) = domain.rsplit_once('.') else {
        return false;
    };
    let is_private = PRIVATE.iter().any(|private| top.eq_ignore_ascii_case(private));
    let is_numeric = top.bytes().all(|b| b.is_ascii_digit());
    let is_whole = !rest.is_empty() && !top.is_empty() && !domain.contains("..");
    is_whole && !domain.starts_with(['[', '.']) && !is_private && !is_numeric
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        text.parse().unwrap()
    }

    fn path(text: &str) -> ReversePath {
        match text {
            "" => ReversePath::Null,
            text => ReversePath::Address(address(text)),
        }
    }

    #[test]
    fn who_is_told() {
        use FailuresTo::{Admin, Nobody, Sender};
        use Kind::{Delayed, Failed, Held, Relayed};
        let it = "it@x.example";
        for (failures_to, admin, kind, sender, expected) in [
            (Sender, it, Failed, "a@x.example", Ok("a@x.example")),
            (Sender, "", Failed, "a@x.example", Ok("a@x.example")),
            (Sender, it, Delayed, "a@x.example", Ok("a@x.example")),
            (Sender, it, Held, "a@x.example", Ok("a@x.example")),
            (Sender, it, Relayed, "a@x.example", Ok("a@x.example")),
            (
                Sender,
                it,
                Failed,
                "jörg@müller.example",
                Ok("jörg@müller.example"),
            ),
            (Sender, it, Failed, "", Ok(it)),
            (Sender, it, Failed, "root", Ok(it)),
            (Sender, it, Failed, "root@localhost", Ok(it)),
            (Sender, it, Failed, "scan@printer", Ok(it)),
            (Sender, it, Failed, "scan@printer.", Ok(it)),
            (Sender, it, Failed, "scan@printer.LOCAL", Ok(it)),
            (Sender, it, Failed, "scan@printer.fritz.home.arpa", Ok(it)),
            (Sender, it, Failed, "scan@[192.0.2.1]", Ok(it)),
            (Sender, it, Failed, "scan@[IPv6:2001:db8::1]", Ok(it)),
            (Sender, it, Failed, "scan@192.0.2.1", Ok(it)),
            (Sender, it, Failed, "scan@.example", Ok(it)),
            (Sender, "", Failed, "", Err(Silence::NoAddress)),
            (Sender, "", Failed, "scan@printer", Err(Silence::NoAddress)),
            (Sender, it, Relayed, "", Err(Silence::SenderOnly)),
            (Sender, it, Relayed, "scan@printer", Err(Silence::SenderOnly)),
            (Admin, it, Failed, "a@x.example", Ok(it)),
            (Admin, it, Failed, "", Ok(it)),
            (Admin, it, Delayed, "a@x.example", Ok(it)),
            (Admin, it, Held, "a@x.example", Ok(it)),
            (Admin, it, Relayed, "a@x.example", Err(Silence::SenderOnly)),
            (Admin, "", Failed, "a@x.example", Err(Silence::NoAddress)),
            (Nobody, it, Failed, "a@x.example", Err(Silence::Off)),
            (Nobody, it, Relayed, "a@x.example", Err(Silence::Off)),
        ] {
            let policy = Policy {
                failures_to,
                admin: (!admin.is_empty()).then(|| address(admin)),
            };
            let told = recipient(&policy, kind, false, &path(sender));
            let told = told.map(|told| told.address().to_string());
            assert_eq!(
                told,
                expected.map(str::to_owned),
                "{failures_to:?} {kind:?} {sender}"
            );
            let about_report = recipient(&policy, kind, true, &path(sender));
            assert_eq!(about_report, Err(Silence::AboutReport));
        }
    }

    #[test]
    fn the_sender_is_told_what_the_client_asked_for_and_the_administrator_all() {
        use Kind::{Delayed, Failed, Held, Relayed};
        let kinds = [Failed, Delayed, Relayed, Held];
        let policy = |failures_to| Policy {
            failures_to,
            admin: None,
        };
        for (notify, expected) in [
            (None, [true, true, false, true]),
            (Some("NEVER"), [false, false, false, false]),
            (Some("SUCCESS"), [false, false, true, true]),
            (Some("FAILURE"), [true, false, false, true]),
            (Some("DELAY"), [false, true, false, true]),
            (Some("SUCCESS,FAILURE,DELAY"), [true, true, true, true]),
        ] {
            let mut recipient = Recipient::from(address("b@y.example"));
            recipient.notify = notify.map(|text| text.parse().unwrap());
            let wanted = kinds.map(|kind| is_wanted(&policy(FailuresTo::Sender), kind, &recipient));
            assert_eq!(wanted, expected, "{notify:?}");
            for kind in [Failed, Delayed, Held] {
                assert!(is_wanted(&policy(FailuresTo::Admin), kind, &recipient));
            }
        }
    }
}
