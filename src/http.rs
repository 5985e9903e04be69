//! How the bridge speaks HTTPS: one client, one connection pool, and nothing behind our back.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls_platform_verifier::Verifier;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How long a connection may take to be made, with name look-up and TLS.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// An idle connection is dropped before the other side is likely to: a request on a connection that has just been
/// closed is one whose outcome is uncertain.
const POOL_IDLE: Duration = Duration::from_secs(30);

/// Why no HTTPS client could be built.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The file of `tls.extra_ca_file`.
    #[error("the CA file {path} cannot be read: {reason}. It must hold one or more certificates in PEM form")]
    CaFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// No certificates to trust, or the TLS library refuses.
    #[error("TLS cannot be set up: {0}. Install the package ca-certificates, or set `tls.extra_ca_file`")]
    Tls(#[from] rustls::Error),
    /// The HTTP library refuses.
    #[error("the HTTPS client cannot be built: {0}")]
    Client(#[from] reqwest::Error),
}

/// Which proxy requests go through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proxy {
    /// That of the variables HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY, which reqwest reads.
    Environment,
    /// None.
    None,
}

/// The client for every request to the provider, trusting what the system trusts and `extra_ca_file`.
///
/// It speaks HTTP/1.1: a connection carries one request at a time, so that it is always plain which one broke off.
/// Redirects are not followed (a 307 would carry token and mail elsewhere, a 302 would turn a POST into a GET that
/// answers 200), and nothing is ever retried by the library: a sendMail that is repeated is a second mail.
///
/// # Errors
/// [`HttpError`]
pub fn client(extra_ca_file: Option<&Path>, proxy: Proxy) -> Result<reqwest::Client, HttpError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let extra = extra_ca_file.map(certificates).transpose()?.unwrap_or_default();
    let verifier = Verifier::new_with_extra_roots(extra, provider.clone())?;
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous() // rustls's name for any verifier but its own; this one is the platform's
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    let builder = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(POOL_IDLE)
        .tcp_nodelay(true)
        .user_agent(concat!("smtp-oauth-bridge/", env!("CARGO_PKG_VERSION")));
    let builder = match proxy {
        Proxy::Environment => builder,
        Proxy::None => builder.no_proxy(),
    };
    Ok(builder.build()?)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, HttpError> {
    let error = |reason: String| HttpError::CaFile {
        path: path.to_owned(),
        reason,
    };
    let certificates: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|e| error(e.to_string()))?;
    if certificates.is_empty() {
        return Err(error("there is no certificate in it".to_owned()));
    }
    Ok(certificates)
}

/// The whole chain of an error in one line: `a: b: c`.
#[must_use]
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.ends_with(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        source = inner.source();
    }
    text
}

/// True if the failure was that the server's certificate is not trusted.
#[must_use]
pub fn is_untrusted(error: &(dyn std::error::Error + 'static)) -> bool {
    if matches!(error.downcast_ref(), Some(rustls::Error::InvalidCertificate(_))) {
        return true;
    }
    // An I/O error hides what it wraps from `source`.
    let wrapped = error
        .downcast_ref::<std::io::Error>()
        .and_then(std::io::Error::get_ref);
    wrapped.is_some_and(|inner| is_untrusted(inner)) || error.source().is_some_and(is_untrusted)
}

/// The value of a Retry-After field (RFC 9110 §10.2.3), in its form as seconds, which is the only one Microsoft and
/// Google send. At most a day.
#[must_use]
pub fn retry_after(headers: &reqwest::header::HeaderMap) -> Option<Duration> {
    const LONGEST: u64 = 24 * 3600;
    let seconds: f64 = headers
        .get(reqwest::header::RETRY_AFTER)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()?;
    (seconds.is_finite() && seconds >= 0.0).then(|| Duration::from_secs((seconds.ceil() as u64).min(LONGEST)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_in_seconds() {
        for (value, expected) in [
            ("7", Some(7)),
            ("1.5", Some(2)),
            ("-1", None),
            ("soon", None),
            ("99999999", Some(86_400)),
        ] {
            let mut headers = reqwest::header::HeaderMap::new();
            headers.insert("retry-after", value.parse().unwrap());
            assert_eq!(
                retry_after(&headers),
                expected.map(Duration::from_secs),
                "{value}"
            );
        }
    }

    #[test]
    fn a_bad_ca_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        for content in [None, Some("not a certificate")] {
            if let Some(content) = content {
                std::fs::write(&path, content).unwrap();
            }
            let error = client(Some(&path), Proxy::None).unwrap_err().to_string();
            assert!(error.contains("ca.pem") && error.contains("PEM"), "{error}");
        }
    }
}
