//! What the stand-in tenant is like: who exists, who may send as whom, and the limits that can be switched.

use crate::mail::Address;
use secrecy::{ExposeSecret, SecretString};
use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Where the sandbox listens, where it keeps its certificates, and which tenant it plays.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where Entra and Graph answer, over TLS. Loopback only; port 0 takes a free one.
    pub cloud: SocketAddr,
    /// Where the inbox is shown and faults are scripted, over plain HTTP. Loopback only; port 0 takes a free one.
    pub inbox: SocketAddr,
    /// Where the certificate authority, the certificate and its key are kept. Made if absent, mode 0700.
    pub directory: PathBuf,
    /// The organization that is played.
    pub tenant: Tenant,
    /// Where the bridge listens for SMTP, named on the page that tells how to send a first message.
    pub smtp: Option<SocketAddr>,
}

/// An invented Microsoft 365 organization with one registered application.
#[derive(Clone, Debug)]
pub struct Tenant {
    /// The directory id, a GUID.
    pub id: String,
    /// The verified domain, which works in place of the id.
    pub domain: String,
    /// The application (client) id, a GUID.
    pub client_id: String,
    /// The secret that the application must show.
    pub client_secret: SecretString,
    /// Everybody who has (or had) a mailbox.
    pub mailboxes: Vec<Mailbox>,
    /// Limits and behaviours that can be changed while the sandbox runs.
    pub switches: Switches,
}

/// One mailbox of the tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mailbox {
    /// Its address, which is also the user principal name.
    #[serde(with = "address")]
    pub address: Address,
    /// Whom it may name in From besides itself.
    #[serde(default)]
    pub send_as: SendAs,
    /// False: the user exists and has no Exchange Online mailbox (`MailboxNotEnabledForRESTAPI`).
    #[serde(default = "yes")]
    pub licensed: bool,
    /// True: an application access policy keeps the application out (`[RAOP]`).
    #[serde(default)]
    pub blocked_by_policy: bool,
}

/// Whom a mailbox may name in From besides itself: Exchange's "Send As" permission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SendAs {
    /// Everybody. Exchange has no such grant; it lets a newcomer's first mail through.
    Anyone,
    /// These addresses and no others.
    Only(Vec<Address>),
}

/// How the application was allowed to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Grant {
    /// Mail.Send consented in Entra: it stands in the `roles` of every token issued from now on.
    Role,
    /// RBAC for Applications in Exchange: the token has no role, and Exchange lets the application in.
    Rbac,
    /// Nothing: tokens are issued all the same, and sending answers 403.
    None,
}

/// What Graph answers to a request above its size limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Oversize {
    /// `413 Request Entity Too Large` without Graph's JSON, as documented.
    #[serde(rename = "413")]
    EntityTooLarge,
    /// `400 BadRequest` "The maximum request length supported is 4MB.", as seen in 2021.
    #[serde(rename = "400")]
    BadRequest,
    /// `200` with nothing sent, as reported in 2021: only 202 is success.
    #[serde(rename = "200")]
    SilentlyDropped,
}

/// Limits and behaviours of the tenant; `PATCH /tenant` changes them by these names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Switches {
    /// How the application was allowed to send.
    pub grant: Grant,
    /// True: a mailbox that may send as "anyone" may send as itself only.
    pub send_as_strict: bool,
    /// The largest request, in bytes as they are on the wire (base64 or JSON).
    pub request_limit: u64,
    /// The answer to a request above it.
    pub oversize: Oversize,
    /// The largest message, in bytes of decoded MIME (`ErrorMessageSizeExceeded`).
    pub message_limit: u64,
    /// The most recipients of one message.
    pub max_recipients: usize,
    /// The most recipients of one mailbox in 24 hours, sliding.
    pub recipients_per_day: u64,
    /// The most requests under way of one application and mailbox.
    pub concurrency: usize,
    /// The most requests of one application and mailbox in 10 minutes, sliding.
    pub requests_per_10_minutes: u64,
    /// The most bytes uploaded by one application and mailbox in 5 minutes, sliding.
    pub upload_per_5_minutes: u64,
    /// The Retry-After of every 429, in seconds.
    pub retry_after_seconds: u32,
    /// How long a token issued from now on is good, in seconds.
    pub token_lifetime_seconds: u32,
    /// How long every answer of the cloud side takes at least, in milliseconds.
    pub latency_ms: u64,
}

/// What `PATCH /tenant` may contain: any of the switches, and what else of a tenant can change.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct TenantPatch {
    client_secret: Option<String>,
    mailboxes: Option<Vec<Mailbox>>,
    grant: Option<Grant>,
    send_as_strict: Option<bool>,
    request_limit: Option<u64>,
    oversize: Option<Oversize>,
    message_limit: Option<u64>,
    max_recipients: Option<usize>,
    recipients_per_day: Option<u64>,
    concurrency: Option<usize>,
    requests_per_10_minutes: Option<u64>,
    upload_per_5_minutes: Option<u64>,
    retry_after_seconds: Option<u32>,
    token_lifetime_seconds: Option<u32>,
    latency_ms: Option<u64>,
}

impl Tenant {
    /// The demo organization: Fabrikam, whose scanner may send as anyone. Every value is invented.
    #[must_use]
    pub fn demo() -> Self {
        Self {
            id: "3b6f1d62-90b1-4a5e-8f0c-6d2f5a1e7c44".to_owned(),
            domain: "fabrikam.example".to_owned(),
            client_id: "8f2a7c15-4d3e-4b60-9a71-0c5e2b9d6f38".to_owned(),
            client_secret: SecretString::from("sandbox-secret-not-a-real-one"),
            mailboxes: Address::new("scanner", "fabrikam.example")
                .map(|address| Mailbox::new(address, SendAs::Anyone))
                .into_iter()
                .collect(),
            switches: Switches::default(),
        }
    }

    pub(super) fn mailbox(&self, name: &str) -> Option<&Mailbox> {
        let name = name.to_lowercase();
        self.mailboxes.iter().find(|m| m.address.key() == name)
    }

    pub(super) fn is_named(&self, tenant: &str) -> bool {
        tenant.eq_ignore_ascii_case(&self.id) || tenant.eq_ignore_ascii_case(&self.domain)
    }

    pub(super) fn has_secret(&self, secret: &str) -> bool {
        self.client_secret.expose_secret() == secret
    }

    pub(super) fn may_send_as(&self, mailbox: &Mailbox, from: &str) -> bool {
        let from = from
            .parse()
            .map_or_else(|_| from.to_lowercase(), |from: Address| from.key());
        from == mailbox.address.key()
            || match &mailbox.send_as {
                SendAs::Anyone => !self.switches.send_as_strict,
                SendAs::Only(others) => others.iter().any(|other| other.key() == from),
            }
    }

    pub(super) fn apply(&mut self, patch: TenantPatch) {
        fn set<T>(target: &mut T, value: Option<T>) {
            if let Some(value) = value {
                *target = value;
            }
        }
        let switches = &mut self.switches;
        set(
            &mut self.client_secret,
            patch.client_secret.map(SecretString::from),
        );
        set(&mut self.mailboxes, patch.mailboxes);
        set(&mut switches.grant, patch.grant);
        set(&mut switches.send_as_strict, patch.send_as_strict);
        set(&mut switches.request_limit, patch.request_limit);
        set(&mut switches.oversize, patch.oversize);
        set(&mut switches.message_limit, patch.message_limit);
        set(&mut switches.max_recipients, patch.max_recipients);
        set(&mut switches.recipients_per_day, patch.recipients_per_day);
        set(&mut switches.concurrency, patch.concurrency);
        set(
            &mut switches.requests_per_10_minutes,
            patch.requests_per_10_minutes,
        );
        set(&mut switches.upload_per_5_minutes, patch.upload_per_5_minutes);
        set(&mut switches.retry_after_seconds, patch.retry_after_seconds);
        set(&mut switches.token_lifetime_seconds, patch.token_lifetime_seconds);
        set(&mut switches.latency_ms, patch.latency_ms);
    }

    /// What `GET /tenant` shows: everything but the secret.
    pub(super) fn shown(&self) -> serde_json::Value {
        let mut shown = serde_json::json!({
            "id": self.id,
            "domain": self.domain,
            "client_id": self.client_id,
            "mailboxes": self.mailboxes,
        });
        if let (Some(shown), Ok(serde_json::Value::Object(switches))) =
            (shown.as_object_mut(), serde_json::to_value(&self.switches))
        {
            shown.extend(switches);
        }
        shown
    }
}

impl Mailbox {
    /// A licensed mailbox that no policy blocks.
    #[must_use]
    pub fn new(address: Address, send_as: SendAs) -> Self {
        Self {
            address,
            send_as,
            licensed: true,
            blocked_by_policy: false,
        }
    }
}

impl Default for SendAs {
    /// Only itself.
    fn default() -> Self {
        Self::Only(Vec::new())
    }
}

impl Default for Switches {
    /// The documented limits of Microsoft Graph and Exchange Online.
    fn default() -> Self {
        Self {
            grant: Grant::Role,
            send_as_strict: false,
            request_limit: 4 * 1024 * 1024,
            oversize: Oversize::EntityTooLarge,
            message_limit: 35 * 1024 * 1024,
            max_recipients: 500,
            recipients_per_day: 10_000,
            concurrency: 4,
            requests_per_10_minutes: 10_000,
            upload_per_5_minutes: 150 * 1024 * 1024,
            retry_after_seconds: 2,
            token_lifetime_seconds: 3599,
            latency_ms: 0,
        }
    }
}

fn yes() -> bool {
    true
}

impl Serialize for SendAs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Anyone => serializer.serialize_str("anyone"),
            Self::Only(others) => serializer.collect_seq(others.iter().map(ToString::to_string)),
        }
    }
}

impl<'de> Deserialize<'de> for SendAs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyoneOrList;
        impl<'de> Visitor<'de> for AnyoneOrList {
            type Value = SendAs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"anyone\" or a list of addresses")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<SendAs, E> {
                match text {
                    "anyone" => Ok(SendAs::Anyone),
                    _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<SendAs, A::Error> {
                let mut others = Vec::new();
                while let Some(text) = list.next_element::<String>()? {
                    others.push(text.parse().map_err(de::Error::custom)?);
                }
                Ok(SendAs::Only(others))
            }
        }
        deserializer.deserialize_any(AnyoneOrList)
    }
}

/// An address as a JSON string.
mod address {
    use super::{Address, Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(address: &Address, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(address)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Address, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demo_tenant_has_a_mailbox_and_hides_its_secret() {
        let tenant = Tenant::demo();
        assert!(tenant.mailbox("Scanner@Fabrikam.example").is_some());
        assert!(tenant.has_secret("sandbox-secret-not-a-real-one"));
        for text in [format!("{tenant:?}"), tenant.shown().to_string()] {
            assert!(!text.contains("sandbox-secret"), "{text}");
        }
    }

    #[test]
    fn strictness_takes_anyone_back_but_not_a_listed_sender() {
        let mut tenant = Tenant::demo();
        let boss: Address = "boss@fabrikam.example".parse().unwrap();
        tenant.mailboxes.push(Mailbox::new(
            "desk@fabrikam.example".parse().unwrap(),
            SendAs::Only(vec![boss]),
        ));
        let scanner = tenant.mailboxes[0].clone();
        let desk = tenant.mailboxes[1].clone();
        assert!(tenant.may_send_as(&scanner, "x@y.example"));
        tenant.apply(serde_json::from_str(r#"{"send_as_strict":true}"#).unwrap());
        assert!(!tenant.may_send_as(&scanner, "x@y.example"));
        assert!(tenant.may_send_as(&scanner, "SCANNER@fabrikam.example"));
        assert!(tenant.may_send_as(&desk, "boss@fabrikam.example"));
        assert!(!tenant.may_send_as(&desk, "x@y.example"));
    }

    #[test]
    fn everything_that_is_shown_can_be_patched() {
        let mut tenant = Tenant::demo();
        let mut shown = tenant.shown();
        let fields = shown.as_object_mut().unwrap();
        for fixed in ["id", "domain", "client_id"] {
            assert!(fields.remove(fixed).is_some());
        }
        let before = tenant.shown();
        tenant.apply(serde_json::from_value(shown).unwrap());
        assert_eq!(tenant.shown(), before);
    }

    #[test]
    fn an_unknown_switch_is_refused_with_the_list() {
        let error = serde_json::from_str::<TenantPatch>(r#"{"latency":1}"#)
            .err()
            .unwrap();
        assert!(error.to_string().contains("latency_ms"), "{error}");
    }
}
