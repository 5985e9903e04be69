//! The part of a session that is about one message: MAIL, RCPT, and DATA or BDAT.

use super::command::{Bdat, Mail, Rcpt};
use super::host::{Addressing, Host};
use super::parameters::{Body, Odd, Why};
use super::replies;
use super::session::{Action, Chunk, DataError, Incoming, MAX_RECIPIENTS, Session, Step, answer, refuse};
use crate::mail::BodyType;
use crate::mail::Envelope;
use crate::mail::EnvelopeId;
use crate::mail::Recipient;
use crate::mail::Reply;
use crate::mail::Ret;
use crate::mail::ReversePath;
use crate::spool::Room;
use std::collections::HashSet;

/// What MAIL, RCPT and BDAT said so far.
#[derive(Debug)]
pub(super) struct Transaction {
    reverse_path: ReversePath,
    body_type: BodyType,
    smtputf8: bool,
    ret: Option<Ret>,
    envelope_id: Option<EnvelopeId>,
    recipients: Vec<Recipient>,
    keys: HashSet<String>,
    /// Octets of memory of all recipients, about.
    weight: usize,
    chunks: Chunks,
}

/// How far BDAT has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chunks {
    /// There was none.
    None,
    /// A piece of the message is here, and it is not the last.
    Begun,
    /// A piece was refused: what follows of this message is too (RFC 3030 §2).
    Failed,
}

/// What a recipient takes in memory besides its text, about.
const WEIGHT: usize = 200;
/// So many lines in the log are about parameters of one session.
pub(super) const MAX_ODD_TOLD: u8 = 20;

impl Transaction {
    /// What the recipients weigh in memory, about.
    pub(super) fn weight(&self) -> usize {
        self.weight
    }
}

impl Session {
    /// The answer to a chunk that was read and is not the last, but could not be kept. The rest of the message is
    /// refused by itself.
    pub fn chunk_failed(&mut self, error: DataError) -> Reply {
        if let Some(transaction) = &mut self.transaction {
            transaction.chunks = Chunks::Failed;
        }
        self.data_finished(Err(error))
    }

    /// True between the chunks of a message. Otherwise what came of one before is not wanted any more.
    #[must_use]
    pub fn is_between_chunks(&self) -> bool {
        self.transaction
            .as_ref()
            .is_some_and(|transaction| transaction.chunks == Chunks::Begun)
    }

    /// MAIL. It is served without HELO too, as Postfix does: scripts forget it, and nothing depends on it.
    pub(super) fn mail(&mut self, mail: Mail, host: impl Host) -> Step {
        if self.transaction.is_some() {
            return answer(Reply::new(
                503,
                5,
                1,
                "a message was already begun: send RCPT, or RSET to begin again",
            ));
        }
        if let Some(reply) = self.forbidden(&mail.path) {
            return refuse(reply);
        }
        let parameters = mail.parameters;
        if let Some(reply) = self.odd(&parameters.odd, parameters.more_odd) {
            return refuse(reply);
        }
        let body_type = match parameters.body {
            None => BodyType::SevenBit,
            Some(Body::Type(body_type)) => body_type,
            Some(Body::Binary) => return refuse(replies::binary()),
        };
        if parameters
            .size
            .is_some_and(|size| size > self.settings.max_message_size)
        {
            return refuse(self.too_large());
        }
        if host.room() == Room::Full {
            return refuse(replies::full());
        }
        if !host.may_send() {
            let limit = self.settings.access.messages_per_minute;
            return refuse(replies::too_fast("messages", "messages_per_minute", limit));
        }
        self.transaction = Some(Box::new(Transaction {
            reverse_path: mail.path,
            body_type,
            smtputf8: parameters.smtputf8,
            ret: parameters.ret,
            envelope_id: parameters.envelope_id,
            recipients: Vec::new(),
            keys: HashSet::new(),
            weight: 0,
            chunks: Chunks::None,
        }));
        answer(Reply::new(250, 1, 0, "Ok"))
    }

    /// RCPT. It is no command of its own if it names somebody new, or has to be said again later.
    pub(super) fn rcpt(&mut self, rcpt: Rcpt, host: impl Host) -> Step {
        let Some(mut transaction) = self.transaction.take() else {
            return answer(Reply::new(503, 5, 1, "send MAIL FROM first"));
        };
        let named = transaction.recipients.len();
        let step = self.name(&mut transaction, rcpt, host);
        if transaction.recipients.len() > named || matches!(step.reply.code(), 400..=499) {
            self.commands -= 1;
        }
        self.transaction = Some(transaction);
        step
    }

    /// Adds a recipient to the transaction, or says why not.
    fn name(&mut self, transaction: &mut Transaction, rcpt: Rcpt, host: impl Host) -> Step {
        if transaction.chunks != Chunks::None {
            return answer(Reply::new(
                503,
                5,
                1,
                "the message was begun with BDAT: no recipient can be added, send the rest or RSET",
            ));
        }
        if let Some(reply) = self.odd(&rcpt.parameters.odd, rcpt.parameters.more_odd) {
            return refuse(reply);
        }
        let recipient = rcpt.recipient;
        if recipient.domain().is_empty() {
            let text = format!("<{recipient}> has no domain: write the whole address, like name@example.com");
            return refuse(Reply::new(550, 1, 3, text));
        }
        let named = answer(Reply::new(250, 1, 5, "Ok"));
        let key = recipient.key();
        if transaction.keys.contains(&key) {
            return named;
        }
        // RFC 5321 §4.5.3.1.10: 452, and the client sends the rest in a message of its own.
        if transaction.recipients.len() >= MAX_RECIPIENTS {
            let text =
                format!("more than {MAX_RECIPIENTS} recipients: send to the others in another message");
            return refuse(Reply::new(452, 5, 3, text));
        }
        match host.may_address() {
            Addressing::Yes => {}
            Addressing::TooFast => {
                let limit = self.settings.access.recipients_per_minute;
                return refuse(replies::too_fast("recipients", "recipients_per_minute", limit));
            }
            Addressing::NoMemory => return refuse(replies::no_memory()),
        }
        let original = rcpt.parameters.original.as_ref();
        transaction.weight +=
            WEIGHT + 2 * key.len() + original.map_or(0, |original| original.to_string().len());
        transaction.keys.insert(key);
        transaction.recipients.push(Recipient {
            address: recipient,
            notify: rcpt.parameters.notify,
            original: rcpt.parameters.original,
        });
        named
    }

    pub(super) fn data(&mut self) -> Step {
        let Some(transaction) = &mut self.transaction else {
            return answer(Reply::new(503, 5, 1, "send MAIL FROM and RCPT TO first"));
        };
        // RFC 3030 §2: one message comes by DATA or by BDAT.
        if transaction.chunks != Chunks::None {
            transaction.chunks = Chunks::Failed;
            return answer(Reply::new(
                503,
                5,
                1,
                "the message was begun with BDAT, DATA cannot go on with it: send RSET and begin again",
            ));
        }
        match self.incoming() {
            None => answer(replies::no_recipient()),
            Some(incoming) => Step {
                action: Action::ReadData(incoming),
                ..answer(Reply::plain(354, "End data with <CR><LF>.<CR><LF>"))
            },
        }
    }

    /// BDAT (RFC 3030 §2). Its octets follow whatever we answer: taken for commands, they could do harm.
    pub(super) fn bdat(&mut self, bdat: Bdat) -> Step {
        let Bdat { octets, last } = bdat;
        let discard = |reply| Step {
            action: Action::Discard(octets),
            ..answer(reply)
        };
        let Some(transaction) = &mut self.transaction else {
            return discard(Reply::new(503, 5, 1, "send MAIL FROM and RCPT TO first"));
        };
        let refusal = match (transaction.chunks, last) {
            (Chunks::Failed, _) => Some(Reply::new(
                503,
                5,
                1,
                "an earlier piece of this message was refused: send RSET and begin again",
            )),
            (_, None) => Some(Reply::new(
                501,
                5,
                4,
                "write BDAT and the number of octets, and LAST after the last",
            )),
            _ if transaction.recipients.is_empty() => Some(replies::no_recipient()),
            _ => None,
        };
        if let Some(reply) = refusal {
            transaction.chunks = Chunks::Failed;
            if last == Some(true) {
                self.transaction = None;
            }
            return discard(reply);
        }
        transaction.chunks = Chunks::Begun;
        let incoming = if last == Some(true) { self.incoming() } else { None };
        Step {
            action: Action::ReadChunk(Chunk { octets, incoming }),
            ..answer(Reply::new(250, 0, 0, format!("Ok: {octets} octets")))
        }
    }

    /// Ends the transaction with its envelope; `None` if that has no recipient, and the transaction goes on.
    fn incoming(&mut self) -> Option<Box<Incoming>> {
        let transaction = self.transaction.as_mut()?;
        let recipients = std::mem::take(&mut transaction.recipients);
        let reverse_path = transaction.reverse_path.clone();
        let envelope = Envelope::new(reverse_path, recipients, transaction.body_type)
            .ok()?
            .with_smtputf8(transaction.smtputf8)
            .with_reports(transaction.ret, transaction.envelope_id.take());
        self.transaction = None;
        let origin = self.origin();
        Some(Box::new(Incoming { envelope, origin }))
    }

    /// What to say to parameters without effect: nothing, but a line in the log, if the listener is lenient.
    fn odd(&mut self, odd: &[Odd], more: usize) -> Option<Reply> {
        if odd.is_empty() {
            return None;
        }
        if !self.settings.lenient {
            let worst = odd.iter().find(|odd| odd.why != Why::Harmless)?;
            return Some(replies::parameter(&worst.parameter, &worst.why));
        }
        let settings = self.settings.clone();
        let (client, listener) = (self.client(), settings.listener.as_str());
        // The parser keeps one of these at most.
        for Odd { parameter, .. } in odd.iter().filter(|odd| odd.why == Why::Harmless) {
            tracing::debug!(%client, listener, parameter, "a parameter without effect here was ignored");
        }
        if let Some(parameters) = self.ignored(odd, more) {
            tracing::info!(%client, listener, parameters, "unknown or malformed parameters were ignored");
        }
        None
    }

    /// The parameters that are worth a line in the log, until there were so many lines that they only fill the disk.
    pub(super) fn ignored(&mut self, odd: &[Odd], more: usize) -> Option<String> {
        if self.odd_told >= MAX_ODD_TOLD || odd.iter().all(|odd| odd.why == Why::Harmless) {
            return None;
        }
        self.odd_told += 1;
        let mut told: Vec<String> = odd
            .iter()
            .filter_map(|Odd { parameter, why }| match why {
                Why::Harmless => None,
                Why::Unknown => Some(format!("{parameter} (unknown)")),
                Why::Malformed(what) => Some(format!("{parameter} ({what})")),
            })
            .collect();
        if more > 0 {
            told.push(format!("and {more} more"));
        }
        if self.odd_told == MAX_ODD_TOLD {
            told.push("no more of them are logged for this connection".to_owned());
        }
        Some(told.join(", "))
    }
}
