//! Why a message that was read to its end, or as far as it made sense, is not taken.

use super::session::DataError;
use crate::mail::Reply;
use crate::spool::AcceptError;

/// Why a message is not taken.
#[derive(Debug)]
pub(super) enum Refusal {
    TooLarge,
    BareNewline,
    Spool(AcceptError),
}

impl Refusal {
    pub(super) fn error(&self) -> DataError {
        match self {
            Self::TooLarge => DataError::TooLarge,
            Self::BareNewline => DataError::BareNewline,
            Self::Spool(AcceptError::Full(_)) => DataError::Full,
            Self::Spool(AcceptError::Header(_)) => DataError::Header,
            Self::Spool(AcceptError::Disk(_)) => DataError::Disk,
        }
    }

    /// The reply as the log has it: the operator learns more than the client.
    pub(super) fn told(&self, reply: &Reply) -> String {
        match self {
            Self::TooLarge | Self::BareNewline => reply.to_string(),
            Self::Spool(error) => format!("{reply} ({error})"),
        }
    }
}
