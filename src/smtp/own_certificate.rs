//! A certificate of our own making, for listeners that were given none: self-signed, made once and kept.

use super::certificate::CertificateError;
use crate::config::CertificateFiles;
use crate::files::{make_private_directory, write_private};
use crate::mail::Timestamp;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose,
    PKCS_RSA_SHA256, RsaKeySize,
};
use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;
use time::OffsetDateTime;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How long it is good. Whoever trusts it must import it again after that.
const LIFETIME: Duration = Duration::from_secs(2 * 365 * 24 * 60 * 60);
/// How long before its end it is replaced.
const RENEW_BEFORE: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Stand before the certificate in its file, so that nobody needs an X.509 parser to know them.
const END: &str = "# good until, in milliseconds since 1970: ";
const NAME: &str = "# made for: ";
/// The longest common name (RFC 5280, ub-common-name).
const MAX_COMMON_NAME: usize = 64;

/// The certificate in one directory.
#[derive(Debug)]
pub(super) struct OwnCertificate {
    hostname: String,
    addresses: Vec<IpAddr>,
    directory: PathBuf,
    files: CertificateFiles,
}

impl OwnCertificate {
    /// The one that is kept in `directory`, good for this name, these addresses, and those of this machine.
    pub(super) fn new(directory: PathBuf, hostname: &str, addresses: Vec<IpAddr>) -> Self {
        Self {
            hostname: hostname.to_owned(),
            addresses,
            files: CertificateFiles {
                certificate: directory.join("certificate.pem"),
                key: directory.join("key.pem"),
            },
            directory,
        }
    }

    pub(super) fn files(&self) -> &CertificateFiles {
        &self.files
    }

    /// Makes it if there is none, if it nears its end, or if we have another name now. Other addresses are no
    /// reason: a device that was told to trust it would be locked out by a new lease of DHCP.
    pub(super) fn make_if_due(&self, now: Timestamp) -> Result<(), CertificateError> {
        if self.is_good(now) {
            return Ok(());
        }
        let failed = |error: String| CertificateError::Make {
            directory: self.directory.clone(),
            error,
        };
        let (certificate, key) = self.sign(now).map_err(|error| failed(error.to_string()))?;
        let end = now.plus(LIFETIME).millis();
        let certificate = format!("{END}{end}\n{NAME}{}\n{certificate}", self.hostname);
        // The key goes first and the certificate with the end last: what is half written is not good.
        make_private_directory(&self.directory)
            .and_then(|()| write_private(&self.files.key, key.as_bytes()))
            .and_then(|()| write_private(&self.files.certificate, certificate.as_bytes()))
            .map_err(|error| failed(error.to_string()))?;
        tracing::info!(
            certificate = %self.files.certificate.display(),
            "made a certificate for TLS; devices that verify certificates must be told to trust it"
        );
        Ok(())
    }

    fn is_good(&self, now: Timestamp) -> bool {
        let Ok(text) = fs::read_to_string(&self.files.certificate) else {
            return false;
        };
        let mut lines = text.lines();
        let end = lines.next().and_then(|line| line.strip_prefix(END)?.parse().ok());
        let name = lines.next().and_then(|line| line.strip_prefix(NAME));
        let is_in_time = end.is_some_and(|end| Timestamp::from_millis(end) > now.plus(RENEW_BEFORE));
        is_in_time && name == Some(self.hostname.as_str()) && self.files.key.is_file()
    }

    /// RSA, because the oldest devices that know TLS 1.2 know nothing else. Not an authority: whoever steals the key
    /// can pose as this machine only, even towards devices that were told to trust it.
    fn sign(&self, now: Timestamp) -> Result<(String, String), rcgen::Error> {
        let mut addresses: BTreeSet<IpAddr> = machine_addresses();
        addresses.extend(&self.addresses);
        addresses.extend([IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()]);
        let mut names = BTreeSet::from([self.hostname.clone(), "localhost".to_owned()]);
        names.extend(addresses.iter().map(ToString::to_string));
        let mut params = CertificateParams::new(names.into_iter().collect::<Vec<_>>())?;
        let today =
            OffsetDateTime::from_unix_timestamp(now.millis() / 1000).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        // Devices whose clock is a day late exist.
        params.not_before = today.saturating_sub(DAY.try_into().unwrap_or_default());
        params.not_after = today.saturating_add(LIFETIME.try_into().unwrap_or_default());
        params.distinguished_name = DistinguishedName::new();
        let common_name = Some(self.hostname.as_str()).filter(|name| name.len() <= MAX_COMMON_NAME);
        params
            .distinguished_name
            .push(DnType::CommonName, common_name.unwrap_or("smtp-oauth-bridge"));
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
        ];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?;
        let certificate = params.self_signed(&key)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }
}

/// The addresses of this machine that others can use, where the system says them (Linux); empty elsewhere.
fn machine_addresses() -> BTreeSet<IpAddr> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let four = local_ipv4(&read("/proc/net/fib_trie"));
    let six = local_ipv6(&read("/proc/net/if_inet6"));
    four.into_iter()
        .map(IpAddr::from)
        .chain(six.into_iter().map(IpAddr::from))
        .filter(|address| !address.is_loopback())
        .collect()
}

/// The addresses that the line after says to be `host LOCAL`.
fn local_ipv4(fib_trie: &str) -> BTreeSet<Ipv4Addr> {
    let mut found = BTreeSet::new();
    let mut last: Option<Ipv4Addr> = None;
    for line in fib_trie.lines() {
        let line = line.trim_start();
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.trim().parse().ok();
        } else if line.starts_with("/32 host LOCAL") {
            found.extend(last);
        }
    }
    found
}

/// The addresses in hexadecimal at the start of each line, but those that are good on one link only.
fn local_ipv6(if_inet6: &str) -> BTreeSet<Ipv6Addr> {
    let address = |line: &str| u128::from_str_radix(line.split_ascii_whitespace().next()?, 16).ok();
    if_inet6
        .lines()
        .filter_map(address)
        .map(Ipv6Addr::from)
        .filter(|address| !address.is_unicast_link_local())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    const NOW: Timestamp = Timestamp::from_millis(1_795_250_820_000);

    #[test]
    fn made_once_kept_and_renewed_before_its_end() {
        let directory = tempfile::tempdir().unwrap();
        let inside = directory.path().join("state/tls");
        let own = OwnCertificate::new(inside.clone(), "bridge.test", vec!["192.0.2.7".parse().unwrap()]);
        let certificate = || fs::read_to_string(&own.files.certificate).unwrap();
        own.make_if_due(NOW).unwrap();
        let first = certificate();
        own.make_if_due(NOW.plus(LIFETIME - RENEW_BEFORE - DAY)).unwrap();
        assert_eq!(certificate(), first);
        own.make_if_due(NOW.plus(LIFETIME - RENEW_BEFORE)).unwrap();
        let second = certificate();
        assert_ne!(second, first);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode(&own.files.key), 0o600);
            assert_eq!(mode(&inside), 0o700);
        }

        // It is a certificate for these names and addresses (subjectAltName holds them as they are).
        let der = CertificateDer::from_pem_slice(second.as_bytes()).unwrap();
        let names = [
            &b"bridge.test"[..],
            b"localhost",
            &[192, 0, 2, 7],
            &[127, 0, 0, 1],
        ];
        for name in names {
            assert!(memchr::memmem::find(&der, name).is_some(), "{name:?}");
        }

        let renamed = OwnCertificate::new(inside, "other.test", Vec::new());
        assert!(!renamed.is_good(NOW.plus(LIFETIME)));
        assert!(own.is_good(NOW.plus(LIFETIME)));
        fs::remove_file(&own.files.key).unwrap();
        assert!(!own.is_good(NOW.plus(LIFETIME)));
    }

    #[test]
    fn a_place_that_cannot_be_written_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        let own = OwnCertificate::new(file.join("tls"), "bridge.test", Vec::new());
        let error = own.make_if_due(NOW).unwrap_err().to_string();
        assert!(error.contains("file/tls"), "{error}");
    }

    #[test]
    fn addresses_as_linux_tells_them() {
        let fib_trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n     \
                        |-- 192.0.2.0\n        /24 link UNICAST\n     |-- 192.0.2.7\n        /32 host LOCAL\n     \
                        |-- 192.0.2.255\n        /32 link BROADCAST\n";
        assert_eq!(
            local_ipv4(fib_trie),
            BTreeSet::from([Ipv4Addr::new(192, 0, 2, 7)])
        );
        let if_inet6 = "fe800000000000000000000000000001 02 40 20 80     eth0\n\
                        20010db8000000000000000000000007 02 40 00 80     eth0\n\nbroken\n";
        let six: Ipv6Addr = "2001:db8::7".parse().unwrap();
        assert_eq!(local_ipv6(if_inet6), BTreeSet::from([six]));
    }
}
