//! TLS towards clients: a stream that can begin it, and what went wrong in plain words.

use super::certificate::Current;
use rustls::{AlertDescription, Error, InvalidMessage, PeerIncompatible};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// The first octets of a TLS record of type handshake (RFC 8446 §5.1). No SMTP command begins like that.
pub(super) const RECORD: [u8; 2] = [0x16, 0x03];
/// Encrypted octets that may wait for a client to take them.
const MAX_WAITING: usize = 32 * 1024;

/// A client's stream, with or without TLS.
pub(super) enum Wire<S> {
    /// As it is.
    Plain(S),
    /// Encrypted. Boxed: a connection without TLS does not carry the room for it.
    Tls(Box<TlsStream<Prefixed<S>>>),
    /// Lost in a handshake that was given up.
    Gone,
}

/// A stream of which some octets were read already.
pub(super) struct Prefixed<S> {
    prefix: Vec<u8>,
    stream: S,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// Takes the server's part in a handshake, of which `prefix` was read already. After an error the stream is
    /// plain again, for nothing but to be closed.
    pub(super) async fn start_tls(&mut self, current: &Current, prefix: Vec<u8>) -> io::Result<()> {
        let Self::Plain(stream) = std::mem::replace(self, Self::Gone) else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let acceptor = TlsAcceptor::from(current.borrow().clone());
        let accept = acceptor.accept_with(Prefixed { prefix, stream }, |session| {
            session.set_buffer_limit(Some(MAX_WAITING));
        });
        match accept.into_fallible().await {
            Ok(stream) => {
                *self = Self::Tls(Box::new(stream));
                Ok(())
            }
            Err((error, Prefixed { stream, .. })) => {
                *self = Self::Plain(stream);
                Err(error)
            }
        }
    }
}

/// Why a handshake failed, and what to do, for people who run devices.
pub(super) fn reason(error: &io::Error) -> String {
    let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else {
        return match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                "the device closed the connection without saying why: most often it does not trust the certificate \
                 (tell it to, or switch verification off), or knows only TLS 1.0 or 1.1 (use a listener with \
                 tls = \"off\" on a trusted network)"
                    .to_owned()
            }
            _ => format!("the connection broke: {error}"),
        };
    };
    let words = match error {
        Error::AlertReceived(alert) => match alert {
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked => {
                "the device does not trust the certificate: import this listener's certificate there, or switch \
                 verification off in the device, or give the listener a certificate that the device knows the \
                 authority of"
            }
            AlertDescription::CertificateExpired => {
                "the device finds the certificate to be out of date: check the date and time of the device, and \
                 the end of the certificate"
            }
            AlertDescription::ProtocolVersion => TOO_OLD,
            AlertDescription::HandshakeFailure | AlertDescription::InsufficientSecurity => NOTHING_IN_COMMON,
            AlertDescription::UserCanceled | AlertDescription::CloseNotify => "the device gave up",
            _ => return format!("the device ended it with the alert {alert:?}"),
        },
        Error::PeerIncompatible(
            PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::SupportedVersionsExtensionRequired
            // TLS 1.2 brought it (RFC 5246 §7.4.1.4.1).
            | PeerIncompatible::SignatureAlgorithmsExtensionRequired
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
        )
        | Error::InvalidMessage(InvalidMessage::UnknownProtocolVersion) => TOO_OLD,
        Error::PeerIncompatible(_) => NOTHING_IN_COMMON,
        Error::InvalidMessage(_) | Error::InappropriateMessage { .. } => {
            "what the device sent is not TLS: check that the kind of encryption set in the device is the listener's"
        }
        _ => "",
    };
    if words.is_empty() {
        return error.to_string();
    }
    format!("{words} ({error})")
}

const TOO_OLD: &str = "the device knows only TLS 1.0 or 1.1, which are broken and not spoken here: update its \
                       firmware, or let it use a listener with tls = \"off\" on a trusted network";
const NOTHING_IN_COMMON: &str = "the device and the bridge know no encryption method in common: update its firmware, \
                                 try a certificate with an RSA key, or let it use a listener with tls = \"off\" on a \
                                 trusted network";

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Wire<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Gone => Poll::Ready(Ok(())),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, octets),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, octets),
            Self::Gone => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Self::Gone => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Gone => Poll::Ready(Ok(())),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Prefixed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.prefix.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        let octets = self.prefix.len().min(buffer.remaining());
        buffer.put_slice(self.prefix.get(..octets).unwrap_or_default());
        if octets == self.prefix.len() {
            self.prefix = Vec::new();
        } else {
            self.prefix.drain(..octets);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Prefixed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, octets)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_says_what_to_do() {
        for (error, words) in [
            (
                Error::AlertReceived(AlertDescription::UnknownCA),
                "does not trust the certificate: import",
            ),
            (
                Error::AlertReceived(AlertDescription::CertificateExpired),
                "date and time",
            ),
            (
                Error::AlertReceived(AlertDescription::ProtocolVersion),
                "TLS 1.0 or 1.1",
            ),
            (
                Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered),
                "tls = \"off\"",
            ),
            (
                Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon),
                "in common",
            ),
            (
                Error::InvalidMessage(InvalidMessage::InvalidContentType),
                "is not TLS",
            ),
            (
                Error::AlertReceived(AlertDescription::AccessDenied),
                "AccessDenied",
            ),
            (Error::DecryptError, "decrypt"),
        ] {
            let text = reason(&io::Error::other(error));
            assert!(text.contains(words), "{text}");
        }
        let text = reason(&io::ErrorKind::UnexpectedEof.into());
        assert!(text.contains("without saying why"), "{text}");
    }
}
