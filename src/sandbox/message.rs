//! A message as Exchange understands it: what a posted body says, and to whom it goes.
//!
//! Recipients are read with the `mail-parser` crate and not with the bridge's own header code, so that both
//! sides cannot share one mistake.

use super::graph::Refusal;
use crate::mail::{Address, Timestamp};
use axum::body::Bytes;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mail_parser::{Addr, HeaderName, MessageParser};
use serde::Serialize;
use serde_json::{Map, Value};

/// One accepted message.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Message {
    pub(super) id: u64,
    /// RFC 3339.
    pub(super) received: String,
    pub(super) mailbox: String,
    pub(super) form: Form,
    /// Of the raw bytes.
    pub(super) size: usize,
    pub(super) subject: Option<String>,
    pub(super) from: Option<String>,
    pub(super) recipients: Vec<Recipient>,
    pub(super) message_id: Option<String>,
    pub(super) client_request_id: Option<String>,
    /// The application whose token it was.
    pub(super) client_id: String,
    pub(super) saved_to_sent_items: bool,
    /// Exactly what was posted: the decoded MIME, or the JSON.
    #[serde(skip)]
    pub(super) raw: Bytes,
}

/// How it was posted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Form {
    Mime,
    Json,
}

/// One recipient and the field that named it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Recipient {
    pub(super) address: String,
    pub(super) field: Field,
}

/// Where a recipient stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Field {
    To,
    Cc,
    Bcc,
}

/// What a body says, before anybody has checked whether it may.
pub(super) struct Draft {
    pub(super) form: Form,
    pub(super) raw: Vec<u8>,
    pub(super) subject: Option<String>,
    /// Every address of From; empty if there is none.
    pub(super) from: Vec<String>,
    pub(super) recipients: Vec<Recipient>,
    pub(super) message_id: Option<String>,
    pub(super) save: bool,
}

impl Draft {
    /// The MIME form: the base64 of a whole message, wrapped or not (Microsoft Graph, user: sendMail).
    pub(super) fn from_base64(posted: &[u8]) -> Result<Self, Refusal> {
        let text: Vec<u8> = posted
            .iter()
            .copied()
            .filter(|b| !matches!(b, b'\r' | b'\n'))
            .collect();
        let raw = match STANDARD.decode(text) {
            Ok(raw) if !raw.is_empty() => raw,
            _ => {
                return Err(Refusal::new(
                    400,
                    "ErrorMimeContentInvalidBase64String",
                    "Invalid base64 string for MIME content.",
                ));
            }
        };
        Self::from_mime(raw)
    }

    fn from_mime(raw: Vec<u8>) -> Result<Self, Refusal> {
        let parser = MessageParser::default();
        let message = parser
            .parse_headers(raw.as_slice())
            .filter(|message| !message.headers().is_empty())
            .ok_or_else(|| Refusal::new(400, "ErrorMimeContentInvalid", "The MIME content is invalid."))?;
        let mut recipients = Vec::new();
        let mut from = Vec::new();
        for header in message.headers() {
            let field = match header.name {
                HeaderName::To => Some(Field::To),
                HeaderName::Cc => Some(Field::Cc),
                HeaderName::Bcc => Some(Field::Bcc),
                HeaderName::From => None,
                _ => continue,
            };
            for person in header.value.as_address().into_iter().flat_map(|list| list.iter()) {
                let address = spelled(person);
                match field {
                    Some(field) => recipients.push(Recipient { address, field }),
                    None => from.push(address),
                }
            }
        }
        Ok(Self {
            subject: message.subject().map(str::to_owned),
            message_id: message.message_id().map(|id| format!("<{id}>")),
            form: Form::Mime,
            from,
            recipients,
            save: true,
            raw,
        })
    }

    /// The JSON form. Parameter names count without case; those inside the message with it.
    pub(super) fn from_json(posted: Vec<u8>, default_message_id: String) -> Result<Self, Refusal> {
        let Ok(Value::Object(parameters)) = serde_json::from_slice(&posted) else {
            return Err(Refusal::new(
                400,
                "BadRequest",
                "Unable to read JSON request payload. Please ensure Content-Type header is set and payload is of valid JSON format.",
            ));
        };
        let parameter = |name: &str| {
            parameters
                .iter()
                .find(|(key, _)| key.eq_ignore_ascii_case(name))
                .map(|(_, value)| value)
        };
        let message = match parameter("message") {
            Some(Value::Object(message)) => message,
            _ => return Err(unreadable()),
        };
        let save = match parameter("saveToSentItems") {
            None | Some(Value::Null) => true,
            Some(Value::Bool(save)) => *save,
            Some(Value::String(text)) if text.eq_ignore_ascii_case("true") => true,
            Some(Value::String(text)) if text.eq_ignore_ascii_case("false") => false,
            Some(_) => return Err(unreadable()),
        };
        check_headers(message)?;
        check_attachments(message)?;
        let mut recipients = Vec::new();
        for (name, field) in [
            ("toRecipients", Field::To),
            ("ccRecipients", Field::Cc),
            ("bccRecipients", Field::Bcc),
        ] {
            for entry in list(message, name)? {
                let address = address(entry)?;
                recipients.push(Recipient { address, field });
            }
        }
        let from = match message.get("from") {
            None | Some(Value::Null) => Vec::new(),
            Some(from) => vec![address(from)?],
        };
        let message_id = string(message, "internetMessageId")?.unwrap_or(default_message_id);
        Ok(Self {
            form: Form::Json,
            subject: string(message, "subject")?,
            message_id: Some(message_id),
            from,
            recipients,
            save,
            raw: posted,
        })
    }

    /// How many different mailboxes it goes to.
    pub(super) fn distinct_recipients(&self) -> usize {
        let mut keys: Vec<String> = self.recipients.iter().map(|r| r.address.to_lowercase()).collect();
        keys.sort_unstable();
        keys.dedup();
        keys.len()
    }
}

impl Message {
    /// What the recipients get to see: MIME without its Bcc fields. `None` for the JSON form.
    pub(super) fn delivered(&self) -> Option<Vec<u8>> {
        if self.form == Form::Json {
            return None;
        }
        let parser = MessageParser::default();
        let message = parser.parse_headers(self.raw.as_ref())?;
        let mut seen = Vec::with_capacity(self.raw.len());
        let mut at = 0;
        for header in message.headers().iter().filter(|h| h.name == HeaderName::Bcc) {
            seen.extend_from_slice(self.raw.get(at..header.offset_field as usize)?);
            at = header.offset_end as usize;
        }
        seen.extend_from_slice(self.raw.get(at..)?);
        Some(seen)
    }
}

impl Default for Message {
    /// An empty message at the beginning of time.
    fn default() -> Self {
        Self {
            id: 0,
            received: Timestamp::from_millis(0).to_string(),
            mailbox: String::new(),
            form: Form::Mime,
            size: 0,
            subject: None,
            from: None,
            recipients: Vec::new(),
            message_id: None,
            client_request_id: None,
            client_id: String::new(),
            saved_to_sent_items: true,
            raw: Bytes::new(),
        }
    }
}

/// The address of one entry of a list, quoted only where it must be.
///
/// `mail-parser` takes a quoted local part outside of angle brackets for the display name, keeps the quotes
/// inside of them, and keeps a source route (RFC 5322 §4.4).
fn spelled(person: &Addr<'_>) -> String {
    let name = person.name.as_deref().unwrap_or_default();
    let text = person.address.as_deref().unwrap_or(name);
    let text = match text.split_once(':') {
        Some((route, rest)) if route.starts_with('@') => rest,
        _ => text,
    };
    let (local, domain) = text.rsplit_once('@').unwrap_or((text, ""));
    let local = match local.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(quoted) => quoted,
        None if local.is_empty() => name,
        None => local,
    };
    Address::new(local, domain.trim()).map_or_else(|_| text.to_owned(), |address| address.to_string())
}

fn unreadable() -> Refusal {
    Refusal::new(400, "UnableToDeserializePostBody", "were unable to deserialize ")
}

fn list<'a>(message: &'a Map<String, Value>, name: &str) -> Result<&'a [Value], Refusal> {
    match message.get(name) {
        None | Some(Value::Null) => Ok(&[]),
        Some(Value::Array(entries)) => Ok(entries),
        Some(_) => Err(unreadable()),
    }
}

fn string(message: &Map<String, Value>, name: &str) -> Result<Option<String>, Refusal> {
    match message.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(unreadable()),
    }
}

fn address(entry: &Value) -> Result<String, Refusal> {
    let address = entry.get("emailAddress").and_then(|email| email.get("address"));
    address
        .and_then(Value::as_str)
        .map(str::to_owned)
        .ok_or_else(unreadable)
}

/// The rules of `internetMessageHeaders`: names begin with x-, at most five, never an empty list.
fn check_headers(message: &Map<String, Value>) -> Result<(), Refusal> {
    let Some(headers) = message.get("internetMessageHeaders") else {
        return Ok(());
    };
    let headers = headers.as_array().ok_or_else(unreadable)?;
    if headers.is_empty() || headers.len() > 5 {
        return Err(Refusal::new(
            400,
            "InvalidInternetMessageHeaderCollection",
            "Maximum number of headers in one message should be less than or equal to 5.",
        ));
    }
    for header in headers {
        let name = header
            .get("name")
            .and_then(Value::as_str)
            .ok_or_else(unreadable)?;
        header
            .get("value")
            .and_then(Value::as_str)
            .ok_or_else(unreadable)?;
        if !name.to_ascii_lowercase().starts_with("x-") {
            return Err(Refusal::new(
                400,
                "InvalidInternetMessageHeader",
                format!("The internet message header name '{name}' should start with 'x-' or 'X-'."),
            ));
        }
    }
    Ok(())
}

fn check_attachments(message: &Map<String, Value>) -> Result<(), Refusal> {
    for attachment in list(message, "attachments")? {
        let kind = attachment.get("@odata.type").and_then(Value::as_str);
        match kind.and_then(|kind| kind.strip_prefix("#microsoft.graph.")) {
            Some("fileAttachment") => {}
            Some("itemAttachment" | "referenceAttachment") => continue,
            _ => return Err(unreadable()),
        }
        let content = attachment
            .get("contentBytes")
            .and_then(Value::as_str)
            .ok_or_else(unreadable)?;
        if STANDARD.decode(content).is_err() {
            return Err(Refusal::new(
                400,
                "RequestBodyRead",
                "Cannot convert a value to the expected type 'Edm.Binary'.",
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipients(header: &str) -> Vec<(String, Field)> {
        let raw = format!("{header}Subject: s\r\n\r\nTo: not@header.example\r\n");
        let draft = Draft::from_mime(raw.into_bytes()).ok().unwrap();
        draft
            .recipients
            .into_iter()
            .map(|r| (r.address, r.field))
            .collect()
    }

    #[test]
    fn recipients_of_every_field_and_shape() {
        assert_eq!(
            recipients(
                "To: Bob <bob@x.example>, \"A, B\" <ab@x.example>\r\nto: g: c@x.example, d@x.example;\r\n\
                 Cc: (note) =?utf-8?q?E?= <e@x.example>\r\nBCC: f@x.example,\r\n g@x.example\r\n\
                 Resent-To: no@x.example\r\n"
            ),
            [
                ("bob@x.example", Field::To),
                ("ab@x.example", Field::To),
                ("c@x.example", Field::To),
                ("d@x.example", Field::To),
                ("e@x.example", Field::Cc),
                ("f@x.example", Field::Bcc),
                ("g@x.example", Field::Bcc),
            ]
            .map(|(address, field)| (address.to_owned(), field))
        );
        assert!(recipients("To: undisclosed-recipients:;\r\n").is_empty());
        assert!(recipients("To: \r\n").is_empty());
    }

    #[test]
    fn quoted_local_parts_and_routes() {
        for (list, address) in [
            ("\"x y\"@c.example", "\"x y\"@c.example"),
            ("Bob <\"q.r\"@d.example>", "q.r@d.example"),
            ("<\"q r\"@d.example>", "\"q r\"@d.example"),
            ("\"a@b\"@c.example", "\"a@b\"@c.example"),
            ("\"a\\\"b\"@c.example", "\"a\\\"b\"@c.example"),
            ("<@route.example:a@b.example>", "a@b.example"),
            ("bob@[192.0.2.1]", "bob@[192.0.2.1]"),
            ("jörg@müller.example", "jörg@müller.example"),
            ("root", "root"),
        ] {
            let found = recipients(&format!("To: {list}\r\n"));
            assert_eq!(found, [(address.to_owned(), Field::To)], "{list}");
        }
    }

    #[test]
    fn recipients_do_not_see_bcc() {
        let raw = "Bcc: a@x.example\r\nTo: b@x.example\r\nbcc: c@x.example,\r\n d@x.example\r\nSubject: s\r\n\r\nBcc: text\r\n";
        let message = Message {
            raw: Bytes::from(raw),
            ..Message::default()
        };
        assert_eq!(
            String::from_utf8(message.delivered().unwrap()).unwrap(),
            "To: b@x.example\r\nSubject: s\r\n\r\nBcc: text\r\n"
        );
    }
}
