//! Rows of `queue.db`, and what they mean.

use super::DbError;
use super::record::{Deferral, Message, Origin, Part, PartId, Progress, Turn};
use crate::mail::Address;
use crate::mail::BodyType;
use crate::mail::Envelope;
use crate::mail::EnvelopeId;
use crate::mail::QueueId;
use crate::mail::Recipient;
use crate::mail::Ret;
use crate::mail::ReversePath;
use crate::mail::Timestamp;
use rusqlite::Row;
use rusqlite::types::Type;
use std::time::Duration;

pub(super) struct MessageRow {
    arrived: i64,
    size: u64,
    checksum: u32,
    reverse_path: Option<String>,
    eight_bit: bool,
    client: String,
    greeting: String,
    esmtp: bool,
    listener: String,
    tls: bool,
    user: Option<String>,
    smtputf8: bool,
    envelope_id: Option<String>,
    ret: Option<u8>,
    report: bool,
    pub(super) sealed: Option<u32>,
}

impl MessageRow {
    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            arrived: row.get("arrived")?,
            size: row.get("size")?,
            checksum: row.get("checksum")?,
            reverse_path: row.get("reverse_path")?,
            eight_bit: row.get("body_type")?,
            client: row.get("client")?,
            greeting: row.get("greeting")?,
            esmtp: row.get("esmtp")?,
            listener: row.get("listener")?,
            tls: row.get("tls")?,
            user: row.get("auth_user")?,
            smtputf8: row.get("smtputf8")?,
            envelope_id: row.get("envid")?,
            ret: row.get("ret")?,
            report: row.get("report")?,
            sealed: row.get("sealed")?,
        })
    }

    pub(super) fn message(self, id: QueueId, recipients: Vec<Recipient>) -> Result<Message, DbError> {
        let damaged = |what: String| DbError::Row {
            id: id.to_string(),
            what,
        };
        let reverse_path = match self.reverse_path {
            None => ReversePath::Null,
            Some(text) => ReversePath::Address(address(&text, &id)?),
        };
        let body_type = if self.eight_bit {
            BodyType::EightBitMime
        } else {
            BodyType::SevenBit
        };
        let ret = match self.ret {
            Some(0) => Some(Ret::Full),
            Some(1) => Some(Ret::Headers),
            _ => None,
        };
        Ok(Message {
            id,
            arrived: Timestamp::from_millis(self.arrived),
            envelope: Envelope::new(reverse_path, recipients, body_type)
                .map_err(|e| damaged(e.to_string()))?
                .with_smtputf8(self.smtputf8)
                .with_reports(ret, self.envelope_id.and_then(|text| EnvelopeId::new(text).ok())),
            origin: Origin {
                client: self
                    .client
                    .parse()
                    .map_err(|_| damaged(format!("client {:?}", self.client)))?,
                greeting: self.greeting,
                esmtp: self.esmtp,
                listener: self.listener,
                tls: self.tls,
                user: self.user,
            },
            size: self.size,
            checksum: self.checksum,
            report: self.report,
        })
    }
}

pub(super) struct PartRow {
    id: PartId,
    account: String,
    mailbox: String,
    changes: String,
    due: i64,
    attempts: u32,
    deferred: i64,
    deferral: Option<(i64, i64, i64)>,
    uncertain: u32,
    turn: Turn,
}

impl PartRow {
    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: part_id(row)?,
            account: row.get("account")?,
            mailbox: row.get("mailbox")?,
            changes: row.get("changes")?,
            due: row.get("due")?,
            attempts: row.get("attempts")?,
            deferred: row.get("deferred")?,
            deferral: match (
                row.get("deferral_run")?,
                row.get("deferral_from")?,
                row.get("deferral_wait")?,
            ) {
                (Some(run), Some(from), Some(wait)) => Some((run, from, wait)),
                _ => None,
            },
            uncertain: row.get("uncertain")?,
            turn: Turn {
                device: row.get("device")?,
                sender: row.get("sender")?,
            },
        })
    }

    pub(super) fn part(self, recipients: Vec<(usize, String)>, size: u64) -> Result<Part, DbError> {
        let id = self.id;
        Ok(Part {
            id,
            mailbox: address(&self.mailbox, &id.message)?,
            account: self.account,
            changes: self.changes,
            due: Timestamp::from_millis(self.due),
            progress: Progress {
                attempts: self.attempts,
                deferred: Duration::from_millis(self.deferred.unsigned_abs()),
                deferral: self.deferral.map(|(run, from, wait)| Deferral {
                    run: Timestamp::from_millis(run),
                    from: Duration::from_millis(from.unsigned_abs()),
                    wait: Duration::from_millis(wait.unsigned_abs()),
                }),
                uncertain: self.uncertain,
            },
            turn: self.turn,
            size,
            waiting: recipients
                .into_iter()
                .map(|(number, text)| Ok((number, address(&text, &id.message)?)))
                .collect::<Result<_, DbError>>()?,
        })
    }
}

pub(super) fn address(text: &str, of: &impl std::fmt::Display) -> Result<Address, DbError> {
    text.parse().map_err(|e| DbError::Row {
        id: of.to_string(),
        what: format!("address {text:?}: {e}"),
    })
}

/// A row that holds something else than it should is damaged; reading it again will not help.
pub(super) fn unreadable(id: QueueId, error: rusqlite::Error) -> DbError {
    use rusqlite::Error::{FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType, Utf8Error};
    match error {
        FromSqlConversionFailure(..)
        | IntegralValueOutOfRange(..)
        | InvalidColumnType(..)
        | Utf8Error(..) => DbError::Row {
            id: id.to_string(),
            what: error.to_string(),
        },
        error => DbError::Sqlite(error),
    }
}

pub(super) fn part_id(row: &Row<'_>) -> rusqlite::Result<PartId> {
    Ok(PartId {
        message: queue_id(row, "message")?,
        number: row.get("number")?,
    })
}

pub(super) fn queue_id(row: &Row<'_>, column: &str) -> rusqlite::Result<QueueId> {
    let bytes: Vec<u8> = row.get(column)?;
    let bytes: [u8; 16] = bytes.try_into().map_err(|_| {
        rusqlite::Error::FromSqlConversionFailure(0, Type::Blob, "a queue id has 16 bytes".into())
    })?;
    Ok(QueueId::from_bytes(bytes))
}
