//! A client's octets through the pure half of the listener, as `smtp::connection` drives it, but without I/O.

use smtp_oauth_bridge::mail::{Envelope, Peer, QueueId, Reply};
use smtp_oauth_bridge::smtp::{
    Action, Chunk, ChunkReader, DataError, DataReader, Decoded, Incoming, Session, SessionSettings, Step,
};
use smtp_oauth_bridge::spool::Room;
use smtp_oauth_bridge::users::{Doubt, Senders, User, Verdict};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

/// One connection.
pub struct Wire {
    session: Session,
    limit: u64,
    state: State,
    line: Vec<u8>,
    skipping: bool,
    chunked: Option<(ChunkReader, Vec<u8>)>,
    at: usize,
    /// What happened so far.
    pub events: Vec<Event>,
    /// If set, messages end with this error.
    pub trouble: Option<DataError>,
}

/// Something that the outside sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// We said this after so many octets.
    Said(usize, Reply),
    /// A message that was accepted.
    Took(Message),
    /// So many octets belonged to a message, or were thrown away with one.
    NoCommands(std::ops::Range<usize>),
    /// We closed the connection.
    Closed,
}

/// A message that was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub envelope: Envelope,
    pub text: Vec<u8>,
    /// Where its DATA began; `None` if it came by BDAT.
    pub data: Option<usize>,
}

enum State {
    Command,
    Data {
        reader: DataReader,
        text: Vec<u8>,
        incoming: Box<Incoming>,
        start: usize,
    },
    Chunk {
        left: u64,
        incoming: Option<Box<Incoming>>,
        reply: Reply,
        start: usize,
    },
    Discard {
        left: u64,
        reply: Reply,
        start: usize,
    },
    Closed,
}

impl Wire {
    pub fn new(settings: SessionSettings) -> Self {
        let limit = settings.max_message_size;
        let session = Session::new(Arc::new(settings), Peer::Address(Ipv4Addr::LOCALHOST.into()));
        let events = vec![Event::Said(0, session.greeting())];
        Self {
            session,
            limit,
            state: State::Command,
            line: Vec::new(),
            skipping: false,
            chunked: None,
            at: 0,
            events,
            trouble: None,
        }
    }

    /// True if nothing is heard any more.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// True while a message is read.
    pub fn is_in_data(&self) -> bool {
        matches!(self.state, State::Data { .. })
    }

    /// What was said last.
    pub fn last_reply(&self) -> &Reply {
        let mut replies = self.events.iter().rev().filter_map(|event| match event {
            Event::Said(_, reply) => Some(reply),
            _ => None,
        });
        replies.next().expect("there was a greeting")
    }

    /// The client sends this.
    pub fn feed(&mut self, mut octets: &[u8]) {
        loop {
            let (used, done) = self.advance(octets);
            self.at += used;
            octets = &octets[used..];
            if done {
                self.conclude();
            } else if octets.is_empty() || self.is_closed() {
                return;
            }
        }
    }

    /// Uses some octets: how many, and whether what they belong to is complete.
    fn advance(&mut self, octets: &[u8]) -> (usize, bool) {
        match &mut self.state {
            State::Closed => (octets.len(), false),
            State::Command => {
                let end = octets.iter().position(|&octet| octet == b'\n').map(|at| at + 1);
                let here = &octets[..end.unwrap_or(octets.len())];
                if !self.skipping {
                    self.line.extend_from_slice(here);
                    self.skipping = self.line.len() > self.session.longest_line(&self.line);
                    if self.skipping && self.session.may_begin_chunk(&self.line) {
                        let (used, step) = (here.len(), self.session.chunk_lost());
                        // However it came, it is said about the line as a whole.
                        self.at = self.at + used - self.line.len();
                        self.act(step);
                        return (used, false);
                    }
                }
                (here.len(), end.is_some())
            }
            State::Data { reader, text, .. } => {
                let mut rest = octets;
                let done = loop {
                    match reader.next(&mut rest) {
                        Decoded::Text(decoded) => text.extend_from_slice(decoded),
                        Decoded::More => break false,
                        Decoded::End => break true,
                    }
                };
                (octets.len() - rest.len(), done)
            }
            State::Chunk { left, .. } => {
                let used = usize::try_from(*left).unwrap_or(usize::MAX).min(octets.len());
                let (reader, text) = self.chunked.get_or_insert_default();
                let mut chunk = &octets[..used];
                while let Some(decoded) = reader.next(&mut chunk) {
                    text.extend_from_slice(decoded);
                }
                *left -= used as u64;
                (used, *left == 0)
            }
            State::Discard { left, .. } => {
                let used = usize::try_from(*left).unwrap_or(usize::MAX).min(octets.len());
                *left -= used as u64;
                (used, *left == 0)
            }
        }
    }

    fn conclude(&mut self) {
        match std::mem::replace(&mut self.state, State::Command) {
            State::Closed => self.state = State::Closed,
            State::Command => {
                let line = std::mem::take(&mut self.line);
                let step = match std::mem::take(&mut self.skipping) {
                    true => self.session.line_too_long(),
                    false => self.session.command(&line, || Room::Enough),
                };
                self.act(step);
            }
            State::Data {
                text,
                incoming,
                start,
                ..
            } => {
                self.events.push(Event::NoCommands(start..self.at));
                self.message_ended(text, *incoming, Some(start));
            }
            State::Chunk {
                incoming,
                reply,
                start,
                ..
            } => {
                self.events.push(Event::NoCommands(start..self.at));
                let (reader, mut text) = self.chunked.take().unwrap_or_default();
                match incoming {
                    Some(incoming) => {
                        text.extend_from_slice(reader.finish());
                        self.message_ended(text, *incoming, None);
                    }
                    None => match self.verdict(&text) {
                        Some(error) => {
                            let reply = self.session.chunk_failed(error);
                            self.say(reply);
                        }
                        None => {
                            self.chunked = Some((reader, text));
                            self.say(reply);
                        }
                    },
                }
            }
            State::Discard { reply, start, .. } => {
                self.events.push(Event::NoCommands(start..self.at));
                self.say(reply);
            }
        }
        if !self.session.is_between_chunks() && !matches!(self.state, State::Chunk { .. }) {
            self.chunked = None;
        }
    }

    fn act(&mut self, step: Step) {
        let Step { reply, action, .. } = step;
        let start = self.at;
        match action {
            Action::Continue => self.say(reply),
            Action::ReadData(incoming) => {
                self.say(reply);
                let (reader, text) = (DataReader::new(), Vec::new());
                self.state = State::Data {
                    reader,
                    text,
                    incoming,
                    start,
                };
            }
            Action::ReadChunk(Chunk { octets, incoming }) => {
                self.state = State::Chunk {
                    left: octets,
                    incoming,
                    reply,
                    start,
                };
                self.nothing_left(octets);
            }
            Action::Discard(octets) => {
                self.state = State::Discard {
                    left: octets,
                    reply,
                    start,
                };
                self.nothing_left(octets);
            }
            Action::StartTls => {
                self.say(reply);
                self.session.tls_started();
            }
            // Whose name begins with u is a user; it may send as anybody.
            Action::CheckLogin(login) => {
                let name = login.name().to_owned();
                let verdict = match name.starts_with('u') {
                    true => Verdict::Welcome(User {
                        name,
                        hash: String::new(),
                        senders: Senders::default(),
                        line: 1,
                    }),
                    false => Verdict::Wrong {
                        wait: Duration::ZERO,
                        why: Doubt::NoSuchUser,
                    },
                };
                let step = self.session.login_checked(verdict);
                self.act(step);
            }
            Action::Close => {
                self.say(reply);
                self.events.push(Event::Closed);
                self.state = State::Closed;
            }
        }
    }

    fn nothing_left(&mut self, octets: u64) {
        if octets == 0 {
            self.conclude();
        }
    }

    fn message_ended(&mut self, text: Vec<u8>, incoming: Incoming, data: Option<usize>) {
        let result = match self.verdict(&text) {
            Some(error) => Err(error),
            None => Ok(QueueId::from_bytes([0; 16])),
        };
        let accepted = result.is_ok();
        let reply = self.session.data_finished(result);
        if accepted {
            let Incoming { envelope, .. } = incoming;
            self.events.push(Event::Took(Message { envelope, text, data }));
        }
        self.say(reply);
    }

    fn verdict(&self, text: &[u8]) -> Option<DataError> {
        (text.len() as u64 > self.limit)
            .then_some(DataError::TooLarge)
            .or(self.trouble)
    }

    fn say(&mut self, reply: Reply) {
        self.events.push(Event::Said(self.at, reply));
    }
}
