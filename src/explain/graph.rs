//! Microsoft Graph's error codes ("Microsoft Graph error responses and resource types", "Outlook mail API" and
//! what is seen in the field).

use super::{Class, Entry};
use crate::mail::EnhancedCode;
use crate::mail::Scope;

/// What Graph answered instead of 202, as far as it decides the class.
#[derive(Clone, Copy, Debug, Default)]
pub struct GraphAnswer<'a> {
    /// The HTTP status.
    pub status: u16,
    /// `error.code` of Graph's JSON body; `None` without such a body.
    pub code: Option<&'a str>,
    /// `error.message`, read only where one code has several meanings.
    pub message: &'a str,
    /// True if the message's From is the mailbox that sends it.
    pub own_sender: bool,
}

/// The name of the complaint about too many requests at once.
pub const MAILBOX_CONCURRENCY: &str = "MailboxConcurrency";

/// Classifies an answer other than 202: by `error.code` first, by the HTTP status where the code says nothing.
///
/// An answer that is not Graph's own is never [`Class::Failed`]: a 4xx may be a proxy's or firewall's page, after a
/// 2xx or 5xx the message may have been taken. Neither is an unknown code, unless the status says that the request
/// itself is bad: what concerns an account must not cost its mail.
#[must_use]
pub fn graph(answer: GraphAnswer<'_>) -> &'static Entry {
    let GraphAnswer {
        status,
        code,
        message,
        own_sender,
    } = answer;
    let Some(code) = code else {
        return by_status(status);
    };
    if code == "ErrorAccessDenied" && message.contains("RAOP") {
        return &ACCESS_POLICY;
    }
    if code == "BadRequest" && message.contains("maximum request length") {
        return &TOO_LARGE_FOR_REQUEST;
    }
    if status == 429 && message.contains("MailboxConcurrency") {
        return &OVER_CONCURRENCY;
    }
    if code == "ErrorSendAsDenied" && own_sender {
        return &SEND_AS_SELF;
    }
    let known = TABLE.iter().find(|entry| entry.code.eq_ignore_ascii_case(code));
    let telling = known.filter(|entry| !GENERIC.contains(&entry.code));
    match (telling, status) {
        (Some(entry), _) => entry,
        (None, 200..=299 | 408 | 502 | 504) => &NO_ANSWER,
        (None, 429) => &THROTTLED,
        (None, 401) => &TOKEN_REFUSED,
        (None, 500..=599) => known.unwrap_or(&UNKNOWN_TROUBLE),
        (None, 400 | 413 | 422) => &UNKNOWN_REFUSAL,
        (None, _) => &UNKNOWN_HINDRANCE,
    }
}

/// True for what stands for codes that the table does not know, and that end a message all the same.
#[must_use]
pub fn is_unknown(entry: &Entry) -> bool {
    entry.code == UNKNOWN_REFUSAL.code
}

/// Codes that say no more than the HTTP status does.
const GENERIC: [&str; 3] = ["generalException", "serviceNotAvailable", "UnknownError"];

fn by_status(status: u16) -> &'static Entry {
    match status {
        401 => &TOKEN_REFUSED,
        413 => &TOO_LARGE_FOR_SOMEBODY,
        429 => &THROTTLED,
        408 => &NO_ANSWER,
        300..=399 => &REDIRECTED,
        400..=499 => &NOT_GRAPH,
        _ => &NO_ANSWER,
    }
}

const fn entry(
    code: &'static str,
    class: Class,
    scope: Scope,
    status: (u16, u16),
    meaning: &'static str,
    remedy: &'static str,
) -> Entry {
    Entry {
        code,
        class,
        scope,
        status: EnhancedCode::new(status.0, status.1),
        meaning,
        remedy,
    }
}

use Class::{Deferred, Failed, Held, Uncertain};
use Scope::{Account, Mailbox, Message};

const TOKEN_REFUSED: Entry = entry(
    "InvalidAuthenticationToken",
    Held,
    Account,
    (7, 8),
    "Microsoft Graph refuses the access token, also a fresh one",
    "check that `tenant`, `client_id` and `cloud` belong together, and the clock of this machine",
);
const ACCESS_POLICY: Entry = entry(
    "ErrorAccessDenied",
    Held,
    Mailbox,
    (7, 1),
    "an application access policy or RBAC scope of Exchange does not let this application use the mailbox",
    "add the mailbox to the policy's group or to the management scope; changes take 30 minutes to 2 hours to work",
);
const TOO_LARGE_FOR_REQUEST: Entry = entry(
    "RequestEntityTooLarge",
    Failed,
    Message,
    (3, 4),
    "the message is larger than one request to Microsoft Graph may be",
    "send it in smaller parts, or by a link",
);
const TOO_LARGE_FOR_SOMEBODY: Entry = entry(
    "413",
    Held,
    Message,
    (3, 4),
    "somebody between here and Microsoft Graph refuses the message as too large",
    "raise the limit of the proxy or firewall that inspects the traffic of this machine",
);
const THROTTLED: Entry = entry(
    "ApplicationThrottled",
    Deferred,
    Mailbox,
    (4, 5),
    "Microsoft 365 asks for a pause (throttling)",
    "nothing is to be done: delivery goes on by itself",
);
const OVER_CONCURRENCY: Entry = entry(
    MAILBOX_CONCURRENCY,
    Deferred,
    Mailbox,
    (4, 5),
    "Microsoft 365 asks for fewer requests at once (throttling)",
    "nothing is to be done: delivery goes on by itself",
);
const REDIRECTED: Entry = entry(
    "redirect",
    Held,
    Account,
    (3, 5),
    "the server redirects to another address, which is never followed with mail and tokens",
    "check `endpoints.graph`; a proxy or captive portal may be in the way",
);
const NOT_GRAPH: Entry = entry(
    "not Graph",
    Held,
    Account,
    (3, 5),
    "somebody else than Microsoft Graph answered: a proxy, a firewall, or a wrong address",
    "check `endpoints.graph` and whatever inspects the network traffic of this machine",
);
const NO_ANSWER: Entry = entry(
    "no answer of Graph's",
    Uncertain,
    Message,
    (4, 2),
    "the message was sent and Microsoft Graph's own answer did not come, so it may have been delivered or not",
    "it is sent again after a while, at most twice; then it waits for a person",
);
const UNKNOWN_TROUBLE: Entry = entry(
    "unknown 5xx",
    Deferred,
    Message,
    (4, 0),
    "Microsoft Graph has trouble of its own",
    "nothing is to be done: delivery goes on by itself",
);
const UNKNOWN_REFUSAL: Entry = entry(
    "unknown 400",
    Failed,
    Message,
    (5, 0),
    "Microsoft Graph refuses the message",
    "the diagnostic text is Microsoft's own",
);

const UNKNOWN_HINDRANCE: Entry = entry(
    "unknown 4xx but 400",
    Held,
    Mailbox,
    (7, 0),
    "Microsoft Graph does not let this application use the mailbox, for a reason that is not known here",
    "the diagnostic text is Microsoft's own; check the permissions of the application and the mailbox",
);
const SEND_AS_SELF: Entry = entry(
    "ErrorSendAsDenied",
    Held,
    Mailbox,
    (7, 60),
    "Microsoft 365 does not let the mailbox send with its own address",
    "check that `mailbox` is the mailbox's primary address; new permissions take up to two hours to work",
);

const TABLE: &[Entry] = &[
    TOKEN_REFUSED,
    THROTTLED,
    entry(
        "ErrorAccessDenied",
        Held,
        Mailbox,
        (7, 1),
        "the application has no permission to send as this mailbox",
        "give it the application permission Mail.Send with admin consent in Microsoft Entra (API permissions, \
         Application permissions, not Delegated), or the role \"Application Mail.Send\" in Exchange for this mailbox; \
         changes take up to 2 hours to work",
    ),
    entry(
        "ErrorSendAsDenied",
        Failed,
        Message,
        (7, 60),
        "the mailbox is not allowed to send with the From address of this message",
        "let the device send with the address of the mailbox, or give the mailbox Send As on that address in Exchange",
    ),
    entry(
        "ErrorMimeContentInvalidBase64String",
        Failed,
        Message,
        (6, 0),
        "Microsoft Graph could not read the message",
        "",
    ),
    entry(
        "ErrorMimeContentInvalid",
        Failed,
        Message,
        (6, 0),
        "Microsoft 365 cannot read the MIME of the message",
        "",
    ),
    entry(
        "ErrorMimeContentConversionFailed",
        Failed,
        Message,
        (6, 0),
        "Microsoft 365 cannot read the MIME of the message",
        "",
    ),
    entry(
        "ErrorInvalidRecipients",
        Failed,
        Message,
        (1, 3),
        "Microsoft 365 refuses a recipient address",
        "check the address that the device sends to",
    ),
    entry(
        "ErrorMissingRecipients",
        Failed,
        Message,
        (1, 3),
        "Microsoft 365 found no recipient in the message",
        "",
    ),
    entry(
        "ErrorInvalidSmtpAddress",
        Failed,
        Message,
        (1, 3),
        "Microsoft 365 refuses an address of the message",
        "check the addresses that the device sends to",
    ),
    entry(
        "ErrorMessageSizeExceeded",
        Failed,
        Message,
        (3, 4),
        "the message is larger than the mailbox or the organisation allows",
        "send it in smaller parts, or raise the limit of the mailbox (Set-Mailbox -MaxSendSize)",
    ),
    entry(
        "ErrorRequestStreamTooBig",
        Failed,
        Message,
        (3, 4),
        "the message is larger than one request to Microsoft Graph may be",
        "send it in smaller parts, or by a link",
    ),
    TOO_LARGE_FOR_REQUEST,
    entry(
        "MailboxNotEnabledForRESTAPI",
        Held,
        Mailbox,
        (2, 1),
        "the mailbox has no Exchange Online licence, is not in the cloud, or was made within the last 15 minutes",
        "give it a licence or a shared mailbox in Exchange Online; a group, list, room or contact cannot send",
    ),
    entry(
        "MailboxNotHostedInExchangeOnline",
        Held,
        Mailbox,
        (2, 1),
        "the mailbox is not in Exchange Online",
        "use a mailbox that is in the cloud",
    ),
    entry(
        "ErrorInvalidUser",
        Held,
        Mailbox,
        (1, 8),
        "there is no such mailbox in the tenant",
        "check `mailbox` in the configuration",
    ),
    entry(
        "Request_ResourceNotFound",
        Held,
        Mailbox,
        (1, 8),
        "there is no such mailbox in the tenant",
        "check `mailbox` in the configuration",
    ),
    entry(
        "ResourceNotFound",
        Held,
        Mailbox,
        (1, 8),
        "there is no such mailbox in the tenant",
        "check `mailbox` in the configuration",
    ),
    entry(
        "ErrorNonExistentMailbox",
        Held,
        Mailbox,
        (1, 8),
        "there is no such mailbox in the tenant",
        "check `mailbox` in the configuration",
    ),
    entry(
        "ErrorItemNotFound",
        Deferred,
        Message,
        (4, 0),
        "Microsoft 365 lost the message before it was sent",
        "",
    ),
    entry(
        "ErrorQuotaExceeded",
        Held,
        Mailbox,
        (2, 2),
        "the sending mailbox is full, because sent messages are kept in it",
        "empty its Sent Items, or set a retention policy on them",
    ),
    entry(
        "ErrorExceededMessageLimit",
        Held,
        Mailbox,
        (7, 0),
        "the mailbox has sent as much as it may for today",
        "nothing is to be done until tomorrow; Microsoft may ask in the mailbox to verify the account",
    ),
    entry(
        "ErrorExceededHourlyMessageLimit",
        Deferred,
        Mailbox,
        (7, 0),
        "the mailbox has sent as much as it may for this hour",
        "",
    ),
    entry(
        "ErrorSubmissionQuotaExceeded",
        Held,
        Mailbox,
        (7, 0),
        "the mailbox has reached its limit of recipients a day",
        "nothing is to be done: delivery goes on by itself; send less, or use several mailboxes",
    ),
    entry(
        "ErrorExceededMaxRecipientLimit",
        Held,
        Mailbox,
        (5, 3),
        "the mailbox has reached its limit of recipients",
        "send less, or use several mailboxes",
    ),
    entry(
        "ErrorMessageSubmissionBlocked",
        Held,
        Mailbox,
        (7, 0),
        "Microsoft 365 has blocked the mailbox from sending",
        "look at \"Restricted entities\" in the Microsoft Defender portal",
    ),
    entry(
        "ErrorAccountSuspend",
        Held,
        Mailbox,
        (7, 0),
        "Microsoft 365 has suspended the mailbox",
        "sign in to the mailbox and follow the instructions there",
    ),
    entry(
        "ErrorServerBusy",
        Deferred,
        Mailbox,
        (4, 5),
        "Microsoft 365 is busy",
        "",
    ),
    entry(
        "ErrorMailboxStoreUnavailable",
        Deferred,
        Mailbox,
        (4, 0),
        "the mailbox is out of reach for the moment",
        "",
    ),
    entry(
        "ErrorMailboxMoveInProgress",
        Deferred,
        Mailbox,
        (4, 0),
        "Microsoft is moving the mailbox",
        "",
    ),
    entry(
        "ErrorMailboxFailover",
        Deferred,
        Mailbox,
        (4, 0),
        "Microsoft is moving the mailbox",
        "",
    ),
    entry(
        "ErrorTooManyObjectsOpened",
        Deferred,
        Mailbox,
        (4, 5),
        "Microsoft 365 is busy with this mailbox",
        "",
    ),
    entry(
        "ErrorInternalServerError",
        Deferred,
        Message,
        (4, 0),
        "Microsoft 365 has trouble of its own",
        "",
    ),
    entry(
        "ErrorTimeoutExpired",
        Uncertain,
        Message,
        (4, 2),
        "Microsoft 365 ran out of time with the message, so it may have been delivered or not",
        "it is sent again after a while, at most twice; then it waits for a person",
    ),
    entry(
        "ErrorVirusDetected",
        Failed,
        Message,
        (7, 0),
        "Microsoft 365 found a virus in the message",
        "",
    ),
    entry(
        "generalException",
        Deferred,
        Message,
        (4, 0),
        "Microsoft Graph has trouble of its own",
        "",
    ),
    entry(
        "serviceNotAvailable",
        Deferred,
        Mailbox,
        (4, 0),
        "Microsoft Graph is not available for the moment",
        "",
    ),
    entry(
        "UnknownError",
        Deferred,
        Message,
        (4, 0),
        "Microsoft Graph has trouble of its own",
        "",
    ),
];

#[cfg(test)]
#[path = "graph_tests.rs"]
mod tests;
