//! A certificate authority for one: it vouches for this machine's loopback names and for nothing else.
//!
//! The authority's private key is thrown away once it has signed, so nothing on disk can vouch for another
//! server, and its name constraints (RFC 5280 §4.2.1.10) would forbid it anyway. Authority and certificate
//! are made anew together when they near their end.

use super::SandboxError;
use crate::clock::Clock;
use crate::files::{make_private_directory, write_private};
use crate::mail::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, NameConstraints,
};
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use time::OffsetDateTime;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a certificate is good.
const LIFETIME: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// How long before its end it is replaced.
const RENEW_BEFORE: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Stands before the certificate in its file, so that nobody needs an X.509 parser to know its end.
const END: &str = "# good until, in milliseconds since 1970: ";

/// The TLS side of the cloud server.
pub(super) struct Certificates {
    /// The authority that clients must trust, PEM.
    pub(super) ca_file: PathBuf,
    /// Ready for listening, with HTTP/2 and HTTP/1.1.
    pub(super) config: Arc<ServerConfig>,
}

impl Certificates {
    /// Reads them from `directory`, or makes them there if they are absent, unreadable or near their end.
    ///
    /// The TLS client on the other side compares with the machine's time, so this does too.
    pub(super) fn open(directory: &Path, provider: Arc<CryptoProvider>) -> Result<Self, SandboxError> {
        let ca_file = directory.join("ca.pem");
        let now = Clock::machine().now();
        if let Some(config) = read(directory, &provider, now) {
            return Ok(Self { ca_file, config });
        }
        make_private_directory(directory)
            .map_err(|error| SandboxError::Directory(directory.display().to_string(), error))?;
        make(directory, now)?;
        let config = read(directory, &provider, now).ok_or(SandboxError::Certificate)?;
        tracing::info!(target: "sandbox", ca_file = %ca_file.display(), "made a certificate authority for the sandbox");
        Ok(Self { ca_file, config })
    }
}

fn read(directory: &Path, provider: &Arc<CryptoProvider>, now: Timestamp) -> Option<Arc<ServerConfig>> {
    fs::metadata(directory.join("ca.pem")).ok()?;
    let certificate = fs::read_to_string(directory.join("server.pem")).ok()?;
    let end: i64 = certificate
        .lines()
        .next()?
        .strip_prefix(END)?
        .trim()
        .parse()
        .ok()?;
    if Timestamp::from_millis(end) <= now.plus(RENEW_BEFORE) {
        return None;
    }
    let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).ok()?];
    let key = PrivateKeyDer::from_pem_file(directory.join("server.key")).ok()?;
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()
        .ok()?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .ok()?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Some(Arc::new(config))
}

fn make(directory: &Path, now: Timestamp) -> Result<(), SandboxError> {
    let (ca, certificate, key) = sign(now).map_err(|_| SandboxError::Certificate)?;
    let end = now.plus(LIFETIME).millis();
    // The key goes first and the certificate with the end last: what is half written is not read.
    write_private(&directory.join("server.key"), key.as_bytes())
        .and_then(|()| write_private(&directory.join("ca.pem"), ca.as_bytes()))
        .and_then(|()| {
            write_private(
                &directory.join("server.pem"),
                format!("{END}{end}\n{certificate}").as_bytes(),
            )
        })
        .map_err(|error| SandboxError::Directory(directory.display().to_string(), error))
}

fn sign(now: Timestamp) -> Result<(String, String, String), rcgen::Error> {
    let mut ca = CertificateParams::new(Vec::new())?;
    set_validity(&mut ca, now);
    ca.distinguished_name
        .push(DnType::CommonName, "smtp-oauth-bridge sandbox (not Microsoft)");
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    ca.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![
            GeneralSubtree::DnsName("localhost".to_owned()),
            GeneralSubtree::IpAddress(CidrSubnet::from_v4_prefix([127, 0, 0, 0], 8)),
            GeneralSubtree::IpAddress(CidrSubnet::from_v6_prefix(
                std::net::Ipv6Addr::LOCALHOST.octets(),
                128,
            )),
        ],
        excluded_subtrees: Vec::new(),
    });
    let ca_key = KeyPair::generate()?;
    let ca_certificate = ca.self_signed(&ca_key)?;

    let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
    let mut server = CertificateParams::new(names)?;
    set_validity(&mut server, now);
    server.distinguished_name.push(DnType::CommonName, "localhost");
    server.use_authority_key_identifier_extension = true;
    server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let server_key = KeyPair::generate()?;
    let certificate = server.signed_by(&server_key, &Issuer::new(ca, ca_key))?;
    Ok((
        ca_certificate.pem(),
        certificate.pem(),
        server_key.serialize_pem(),
    ))
}

fn set_validity(params: &mut CertificateParams, now: Timestamp) {
    let now = OffsetDateTime::from_unix_timestamp(now.millis() / 1000).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    params.not_before = now.saturating_sub(DAY.try_into().unwrap_or_default());
    params.not_after = now.saturating_add(LIFETIME.try_into().unwrap_or_default());
    params.distinguished_name = rcgen::DistinguishedName::new();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn provider() -> Arc<CryptoProvider> {
        Arc::new(rustls::crypto::aws_lc_rs::default_provider())
    }

    #[test]
    fn made_once_and_then_kept() {
        let directory = tempfile::tempdir().unwrap();
        let inside = directory.path().join("a/b");
        let first = Certificates::open(&inside, provider()).unwrap();
        let authority = fs::read(&first.ca_file).unwrap();
        let second = Certificates::open(&inside, provider()).unwrap();
        assert_eq!(fs::read(second.ca_file).unwrap(), authority);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(inside.join("server.key"))
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn made_anew_when_damaged_or_near_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let first = Certificates::open(directory.path(), provider()).unwrap();
        let authority = || fs::read(&first.ca_file).unwrap();

        let before = authority();
        fs::write(directory.path().join("server.key"), "no key").unwrap();
        Certificates::open(directory.path(), provider()).unwrap();
        assert_ne!(authority(), before);

        let before = authority();
        let file = directory.path().join("server.pem");
        let text = fs::read_to_string(&file).unwrap();
        let end = Clock::machine().now().plus(RENEW_BEFORE / 2).millis();
        let rest = text.split_once('\n').unwrap().1;
        fs::write(&file, format!("{END}{end}\n{rest}")).unwrap();
        Certificates::open(directory.path(), provider()).unwrap();
        assert_ne!(authority(), before);
    }
}
