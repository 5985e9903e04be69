//! Floor 2: the catalogue of failures. What every code of the upstream means, how bad it is, and what to do.
//!
//! The tables here are the only place where a failure is classified. They are data: an entry is found by the
//! upstream's own code, and says class, scope, enhanced status code, meaning and remedy.

mod entra;
mod graph;

pub use entra::entra;
pub use graph::{GraphAnswer, MAILBOX_CONCURRENCY, graph, is_unknown};

use crate::mail::Cause;
use crate::mail::Disposition;
use crate::mail::EnhancedCode;
use crate::mail::Scope;
use std::time::Duration;

/// How a failure is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Passes by itself.
    Deferred,
    /// A person must change something; mail waits.
    Held,
    /// This message or recipient can never go.
    Failed,
    /// The message may have been taken.
    Uncertain,
}

/// One kind of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The upstream's name for it.
    pub code: &'static str,
    /// How it is treated.
    pub class: Class,
    /// How much else it stops.
    pub scope: Scope,
    /// Enhanced status code without its class.
    pub status: EnhancedCode,
    /// What it means, in plain language: a sentence without a full stop.
    pub meaning: &'static str,
    /// What to do about it: a sentence without a full stop, or nothing if nothing is to be done.
    pub remedy: &'static str,
}

impl Entry {
    /// The disposition for a recipient, with the upstream's own words and the pause that it asked for.
    #[must_use]
    pub fn disposition(&self, diagnostic: impl Into<String>, retry_after: Option<Duration>) -> Disposition {
        let cause = Cause {
            code: self.code,
            scope: self.scope,
            status: self.status,
            public: self.text(),
            remedy: self.remedy,
            diagnostic: diagnostic.into(),
            unknown: None,
            retry_after,
        };
        match self.class {
            Class::Deferred => Disposition::Deferred(cause),
            Class::Held => Disposition::Held(cause),
            Class::Failed => Disposition::Failed(cause),
            Class::Uncertain => Disposition::Uncertain(cause),
        }
    }

    /// As [`Entry::disposition`], with a meaning that only the place knows.
    #[must_use]
    pub fn saying(&self, meaning: String, diagnostic: String) -> Disposition {
        let mut disposition = self.disposition(diagnostic, None);
        if let Some(cause) = disposition.cause_mut() {
            cause.public = meaning;
            cause.remedy = "";
        }
        disposition
    }

    /// Meaning and remedy in one line.
    #[must_use]
    pub fn text(&self) -> String {
        if self.remedy.is_empty() {
            self.meaning.to_owned()
        } else {
            format!("{}: {}", self.meaning, self.remedy)
        }
    }
}

/// Failures that no upstream names, because it was not reached or did not answer.
pub mod local {
    use super::{Class, EnhancedCode, Entry, Scope};

    /// No connection: name, address, port, TLS.
    pub const UNREACHABLE: Entry = Entry {
        code: "unreachable",
        class: Class::Deferred,
        scope: Scope::Account,
        status: EnhancedCode::new(4, 1),
        meaning: "the server cannot be reached",
        remedy: "check the network, the DNS, the firewall and the proxy of this machine; delivery goes on by itself",
    };

    /// The server's certificate is not trusted.
    pub const UNTRUSTED: Entry = Entry {
        code: "untrusted certificate",
        class: Class::Held,
        scope: Scope::Account,
        status: EnhancedCode::new(7, 5),
        meaning: "the certificate of the server is not trusted",
        remedy: "if a firewall or proxy inspects TLS here, put its CA certificate in `tls.extra_ca_file`; \
                 check the clock of this machine",
    };

    /// The connection broke before the whole message had left us.
    pub const CUT: Entry = Entry {
        code: "cut",
        class: Class::Deferred,
        scope: Scope::Message,
        status: EnhancedCode::new(4, 2),
        meaning: "the connection broke before the message was sent",
        remedy: "",
    };

    /// The whole message left us and no answer came.
    pub const UNHEARD: Entry = Entry {
        code: "unheard",
        class: Class::Uncertain,
        scope: Scope::Message,
        status: EnhancedCode::new(4, 2),
        meaning: "the message was sent and no answer came, so it may have been delivered or not",
        remedy: "it is sent again after a while, at most twice; then it waits for a person",
    };

    /// Something answered a token request that is no identity provider.
    pub const NOT_A_PROVIDER: Entry = Entry {
        code: "not a token endpoint",
        class: Class::Held,
        scope: Scope::Account,
        status: EnhancedCode::new(7, 8),
        meaning: "somebody else than the identity provider answered the token request: a proxy, a firewall, or a \
                  wrong address",
        remedy: "check `endpoints.authority` and whatever inspects the network traffic of this machine",
    };

    /// The identity provider answered 429 or 5xx.
    pub const PROVIDER_BUSY: Entry = Entry {
        code: "provider busy",
        class: Class::Deferred,
        scope: Scope::Account,
        status: EnhancedCode::new(4, 5),
        meaning: "the identity provider is busy",
        remedy: "nothing is to be done: delivery goes on by itself",
    };

    /// We know it ourselves: the provider would refuse the next recipient.
    pub const DAY_USED_UP: Entry = Entry {
        code: "daily limit",
        class: Class::Deferred,
        scope: Scope::Mailbox,
        status: EnhancedCode::new(4, 5),
        meaning: "the mailbox has sent to as many recipients as it may in 24 hours",
        remedy: "look for a device or program that sends more than it should; mail waits and goes on by itself",
    };

    /// The message was taken, and a pause was asked for.
    pub const PAUSE: Entry = Entry {
        code: "pause",
        class: Class::Deferred,
        scope: Scope::Mailbox,
        status: EnhancedCode::new(4, 5),
        meaning: "the message was taken, and a pause was asked for before the next",
        remedy: "",
    };

    /// Several different messages in a row had trouble that each could have had alone.
    pub const TROUBLE: Entry = Entry {
        code: "trouble",
        class: Class::Deferred,
        scope: Scope::Mailbox,
        status: EnhancedCode::new(4, 0),
        meaning: "several different messages in a row could not be delivered, so it is not the messages: the rest waits \
                  while one at a time is tried",
        remedy: "nothing is to be done unless it lasts: delivery goes on by itself",
    };

    /// Many different messages in a row were refused for one reason that the catalogue does not know.
    pub const UNKNOWN_TOO_OFTEN: Entry = Entry {
        code: "unknown too often",
        class: Class::Held,
        scope: Scope::Mailbox,
        status: EnhancedCode::new(7, 0),
        meaning: "many different messages in a row were refused for one reason that is not known here, so it is \
                  probably not the messages, and the rest waits",
        remedy: "the diagnostic text is the provider's own; check the mailbox and the permissions of the application. \
                 The messages that failed before are kept and can be sent again",
    };

    /// Mail was held for as long as the configuration allows.
    pub const HELD_TOO_LONG: Entry = Entry {
        code: "held too long",
        class: Class::Held,
        scope: Scope::Message,
        status: EnhancedCode::new(4, 7),
        meaning: "the message waited for as long as `hold_for` allows for something that a person must put right",
        remedy: "it is kept: put the cause right, then release the message",
    };

    /// The program ended in the middle of an attempt.
    pub const INTERRUPTED: Entry = Entry {
        code: "interrupted",
        class: Class::Uncertain,
        scope: Scope::Message,
        status: EnhancedCode::new(4, 2),
        meaning: "the bridge was stopped in the middle of an attempt, so the message may have been delivered or not",
        remedy: "it is sent again after a while, at most twice; then it waits for a person",
    };

    /// The spooled message cannot be read.
    pub const UNREADABLE: Entry = Entry {
        code: "unreadable",
        class: Class::Held,
        scope: Scope::Message,
        status: EnhancedCode::new(3, 0),
        meaning: "the stored message cannot be read",
        remedy: "look at the disk of this machine; the message stays in the queue",
    };

    /// The header cannot be made to fit the envelope.
    pub const MISFIT: Entry = Entry {
        code: "misfit",
        class: Class::Failed,
        scope: Scope::Message,
        status: EnhancedCode::new(6, 0),
        meaning: "the header of the message cannot be made to name exactly the recipients that were given",
        remedy: "",
    };

    /// Too long deferred.
    pub const GIVEN_UP: Entry = Entry {
        code: "given up",
        class: Class::Failed,
        scope: Scope::Message,
        status: EnhancedCode::new(4, 7),
        meaning: "the message could not be delivered within the time that is set for it",
        remedy: "",
    };

    /// An administrator does not want it to be tried any more.
    pub const BOUNCED: Entry = Entry {
        code: "bounced",
        class: Class::Failed,
        scope: Scope::Message,
        status: EnhancedCode::new(0, 0),
        meaning: "the administrator of this mail bridge has given the message up",
        remedy: "",
    };

    /// An outcome stayed unknown too often.
    pub const UNCERTAIN_TOO_OFTEN: Entry = Entry {
        code: "uncertain",
        class: Class::Held,
        scope: Scope::Message,
        status: EnhancedCode::new(4, 2),
        meaning: "no attempt was ever answered, so the message may have been delivered",
        remedy: "ask a recipient whether it arrived before it is sent again",
    };

    /// No account of the configuration is called so any more.
    pub const NO_ACCOUNT: Entry = Entry {
        code: "no account",
        class: Class::Held,
        scope: Scope::Account,
        status: EnhancedCode::new(3, 5),
        meaning: "the configuration has no account of the name with which this message was planned",
        remedy: "configure an account of that name again",
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_becomes_a_disposition_with_both_texts() {
        let Disposition::Held(cause) = local::UNTRUSTED.disposition("self-signed", None) else {
            panic!()
        };
        assert!(cause.public.contains("extra_ca_file"));
        assert_eq!(cause.diagnostic, "self-signed");
    }
}
