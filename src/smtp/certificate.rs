//! The certificate of a listener: read from files or made by ourselves, and kept fresh while we run.
//!
//! One [`Keeper`] owns each certificate. It looks every few seconds, not when a client comes: so whoever replaces a
//! file reads in the log at once whether the new one is good, and no client waits for a disk.

use super::expiry::{self, Told};
use super::own_certificate::OwnCertificate;
use crate::clock::Clock;
use crate::config::CertificateFiles;
use crate::config::Listener;
use crate::config::TlsMode;
use crate::mail::Timestamp;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;
use std::fs::Metadata;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// How often it is looked whether a certificate has changed or nears its end.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// How long to wait after our own could not be made.
const HOUR: Duration = Duration::from_secs(60 * 60);

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read.
    #[error("{path} cannot be read: {error}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system or the PEM reader says.
        error: String,
    },
    /// There is nothing in it.
    #[error("{0} holds no certificate in PEM form")]
    Empty(PathBuf),
    /// Certificate and key do not go together, or one of them is damaged.
    #[error(
        "{certificate} and {key} cannot be used: {error}. The first certificate in the file must be the one that \
         the key belongs to"
    )]
    Unusable {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What the TLS library says.
        error: rustls::Error,
    },
    /// Our own cannot be made.
    #[error("a certificate cannot be made in {directory}: {error}")]
    Make {
        /// Where it would be kept.
        directory: PathBuf,
        /// What went wrong.
        error: String,
    },
}

/// Where clients' handshakes find the present certificate.
pub(super) type Current = watch::Receiver<Arc<ServerConfig>>;

/// The owner of one certificate.
#[derive(Debug)]
pub(super) struct Keeper {
    source: Source,
    clock: Clock,
    current: watch::Sender<Arc<ServerConfig>>,
    /// The files as they were when the present certificate was read.
    good: Fingerprint,
    /// The files as they were when they could not be used, and whether that was told.
    bad: Option<(Fingerprint, bool)>,
    /// Before this, our own is not made again.
    make_again: Timestamp,
    /// When the present certificate ends, and what was said about it.
    end: Option<Timestamp>,
    told: Option<Told>,
}

/// A certificate that is ready for use.
struct Ready {
    config: Arc<ServerConfig>,
    /// When it ends, or one of its authorities that stand beside it.
    end: Option<Timestamp>,
}

/// Looks at the certificates that these listeners are given, without using them: what is to be said about their end.
/// Blocks on the disk.
///
/// # Errors
/// [`CertificateError`] for the first that cannot be used.
pub fn check_certificates(listeners: &[Listener], now: Timestamp) -> Result<Vec<String>, CertificateError> {
    let ending = ending_certificates(listeners, now)?;
    let warning = |(file, end): (PathBuf, Timestamp)| {
        let (warning, _) = expiry::warning(end, now, None)?;
        Some(format!("the certificate {} {warning}: {REPLACE}", file.display()))
    };
    Ok(ending.into_iter().filter_map(warning).collect())
}

/// Those of the certificates that these listeners are given that are near their end or over, and when that is. Blocks on
/// the disk.
///
/// # Errors
/// [`CertificateError`] for the first that cannot be used.
pub fn ending_certificates(
    listeners: &[Listener],
    now: Timestamp,
) -> Result<Vec<(PathBuf, Timestamp)>, CertificateError> {
    let mut seen: Vec<&CertificateFiles> = Vec::new();
    let mut ending = Vec::new();
    let encrypted = listeners.iter().filter(|listener| listener.tls != TlsMode::Off);
    for files in encrypted.filter_map(|listener| listener.certificate.as_ref()) {
        if seen.contains(&files) {
            continue;
        }
        seen.push(files);
        let end = load(files)?.end;
        let near = end.filter(|end| expiry::warning(*end, now, None).is_some());
        ending.extend(near.map(|end| (files.certificate.clone(), end)));
    }
    Ok(ending)
}

/// What to do about a certificate that nears its end.
const REPLACE: &str = "put a new one in its place, it is read again by itself";

/// Where a certificate comes from.
#[derive(Debug)]
pub(super) enum Source {
    /// The operator's files.
    Files(CertificateFiles),
    /// Made here.
    Own(OwnCertificate),
}

/// What tells two states of the files apart without reading them.
type Fingerprint = [Option<FileId>; 2];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileId {
    size: u64,
    times: [i128; 2],
    inode: u64,
}

impl Keeper {
    /// Reads the certificate, or makes it if it is our own. Blocks on the disk.
    pub(super) fn open(source: Source, clock: Clock) -> Result<Self, CertificateError> {
        if let Source::Own(own) = &source {
            own.make_if_due(clock.now())?;
        }
        let good = fingerprint(source.files());
        let Ready { config, end } = load(source.files())?;
        let mut keeper = Self {
            source,
            clock,
            current: watch::Sender::new(config),
            good,
            bad: None,
            make_again: Timestamp::from_millis(0),
            end,
            told: None,
        };
        keeper.tell_of_its_end();
        Ok(keeper)
    }

    /// Where the certificate can always be found as it is.
    pub(super) fn current(&self) -> Current {
        self.current.subscribe()
    }

    /// Looks after the certificate until `stop`.
    pub(super) async fn keep(mut self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(LOOK_EVERY) => {}
            }
            let looking = tokio::task::spawn_blocking(move || {
                self.look();
                self
            });
            match looking.await {
                Ok(keeper) => self = keeper,
                // A panic is told by its hook; the present certificate stays in use.
                Err(_) => return,
            }
        }
    }

    /// Reads the files again if they have changed, and makes our own anew if it nears its end. What cannot be used
    /// changes nothing; it is told if it is still so at the next look, because whoever replaces two files does one
    /// after the other.
    fn look(&mut self) {
        let time = self.clock.now();
        if let Source::Own(own) = &self.source
            && time >= self.make_again
            && let Err(error) = own.make_if_due(time)
        {
            tracing::error!("{error}; the present one stays in use, and it is tried again in an hour");
            self.make_again = time.plus(HOUR);
        }
        self.read_again();
        self.tell_of_its_end();
    }

    fn read_again(&mut self) {
        let files = self.source.files();
        let now = fingerprint(files);
        if now == self.good {
            self.bad = None;
            return;
        }
        if self.bad == Some((now, true)) {
            return;
        }
        match load(files) {
            Ok(Ready { config, end }) => {
                tracing::info!(certificate = %files.certificate.display(), "the certificate has changed and is now in use");
                self.current.send_replace(config);
                self.good = now;
                self.bad = None;
                (self.end, self.told) = (end, None);
            }
            Err(error) => self.complain(now, &error),
        }
    }

    /// Warns in time of the end of the present certificate.
    fn tell_of_its_end(&mut self) {
        let now = self.clock.now();
        let due = self.end.and_then(|end| expiry::warning(end, now, self.told));
        let Some((warning, told)) = due else {
            return;
        };
        self.told = Some(told);
        let certificate = self.source.files().certificate.display();
        match self.source {
            Source::Files(_) => tracing::warn!("the certificate {certificate} {warning}: {REPLACE}"),
            Source::Own(_) => tracing::warn!(
                "the bridge's own certificate {certificate} {warning}: a line before this one says why it cannot be \
                 made anew"
            ),
        }
    }

    /// Tells of what is found for the second time.
    fn complain(&mut self, found: Fingerprint, error: &CertificateError) {
        match &mut self.bad {
            Some((before, told)) if *before == found => {
                if !*told {
                    *told = true;
                    tracing::error!(
                        "the new certificate cannot be used, the old one stays in use as long as the bridge runs: {error}"
                    );
                }
            }
            _ => self.bad = Some((found, false)),
        }
    }
}

impl Source {
    fn files(&self) -> &CertificateFiles {
        match self {
            Self::Files(files) => files,
            Self::Own(own) => own.files(),
        }
    }
}

/// The TLS of a listener with the certificate in these files.
///
/// TLS 1.2 and 1.3 with the suites that rustls has: forward secrecy and authenticated encryption, nothing else.
/// Sessions are not resumed: devices connect seldom, and what is not kept costs no memory.
fn load(files: &CertificateFiles) -> Result<Ready, CertificateError> {
    let CertificateFiles { certificate, key } = files;
    let chain: Vec<_> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .map_err(|error| unreadable(certificate, &error))?;
    if chain.is_empty() {
        return Err(CertificateError::Empty(certificate.clone()));
    }
    let end = expiry::first_end(chain.iter().map(|certificate| certificate.as_ref()));
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable(key, &error))?;
    ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, private))
        .map(|mut config| {
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
            Ready {
                config: Arc::new(config),
                end,
            }
        })
        .map_err(|error| CertificateError::Unusable {
            certificate: certificate.clone(),
            key: key.clone(),
            error,
        })
}

fn unreadable(path: &Path, error: &rustls::pki_types::pem::Error) -> CertificateError {
    use rustls::pki_types::pem::Error;
    let error = match error {
        Error::NoItemsFound => "there is nothing of the expected kind in it".to_owned(),
        Error::Io(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            "the user that the bridge runs as may not read it".to_owned()
        }
        Error::Io(error) => error.to_string(),
        error => error.to_string(),
    };
    CertificateError::Read {
        path: path.to_owned(),
        error,
    }
}

fn fingerprint(files: &CertificateFiles) -> Fingerprint {
    [&files.certificate, &files.key]
        .map(|path| std::fs::metadata(path).ok().map(|metadata| FileId::of(&metadata)))
}

impl FileId {
    /// The inode tells a file that was moved here, the time of the last change of the inode a new mode or owner.
    #[cfg(unix)]
    fn of(metadata: &Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        let time =
            |seconds: i64, nanoseconds: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
        Self {
            size: metadata.size(),
            times: [
                time(metadata.mtime(), metadata.mtime_nsec()),
                time(metadata.ctime(), metadata.ctime_nsec()),
            ],
            inode: metadata.ino(),
        }
    }

    #[cfg(not(unix))]
    fn of(metadata: &Metadata) -> Self {
        let modified = metadata.modified().ok();
        let since = modified.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
        let time = since.map_or(0, |since| i128::try_from(since.as_nanos()).unwrap_or(0));
        Self {
            size: metadata.len(),
            times: [time, 0],
            inode: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair};
    use std::fs;

    fn write(files: &CertificateFiles, certificate: &str, key: &str) {
        fs::write(&files.certificate, certificate).unwrap();
        fs::write(&files.key, key).unwrap();
    }

    fn pair() -> (String, String) {
        pair_until(Timestamp::from_millis(4_000_000_000_000))
    }

    fn pair_until(end: Timestamp) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["bridge.test".into()]).unwrap();
        params.not_after = time::OffsetDateTime::from_unix_timestamp(end.millis() / 1000).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    fn files(directory: &Path) -> CertificateFiles {
        CertificateFiles {
            certificate: directory.join("certificate.pem"),
            key: directory.join("key.pem"),
        }
    }

    #[test]
    fn a_new_certificate_is_taken_and_a_bad_one_told_once() {
        let directory = tempfile::tempdir().unwrap();
        let files = files(directory.path());
        let (certificate, key) = pair();
        write(&files, &certificate, &key);
        let mut keeper = Keeper::open(Source::Files(files.clone()), Clock::machine()).unwrap();
        let current = keeper.current();
        let first = current.borrow().clone();
        keeper.look();
        assert!(Arc::ptr_eq(&first, &current.borrow()));

        // The certificate is there already, the key not yet: nothing is told, nothing changes.
        let (certificate, key) = pair();
        fs::write(&files.certificate, &certificate).unwrap();
        keeper.look();
        assert!(matches!(keeper.bad, Some((_, false))));
        assert!(Arc::ptr_eq(&first, &current.borrow()));
        fs::write(&files.key, &key).unwrap();
        keeper.look();
        assert!(keeper.bad.is_none());
        let second = current.borrow().clone();
        assert!(!Arc::ptr_eq(&first, &second));

        // One that stays bad.
        fs::write(&files.certificate, "no certificate").unwrap();
        for told in [false, true, true] {
            keeper.look();
            assert!(matches!(keeper.bad, Some((_, t)) if t == told));
            assert!(Arc::ptr_eq(&second, &current.borrow()));
        }
        fs::remove_file(&files.key).unwrap();
        keeper.look();
        assert!(matches!(keeper.bad, Some((_, false))));
        write(&files, &certificate, &key);
        keeper.look();
        assert!(keeper.bad.is_none());
    }

    #[test]
    fn the_end_is_told_until_there_is_a_new_certificate() {
        let directory = tempfile::tempdir().unwrap();
        let files = files(directory.path());
        let clock = Clock::machine();
        let (certificate, key) = pair_until(clock.now().plus(HOUR));
        write(&files, &certificate, &key);
        let mut keeper = Keeper::open(Source::Files(files.clone()), clock).unwrap();
        let told = keeper.told;
        assert!(told.is_some());
        keeper.look();
        assert_eq!(keeper.told, told);
        let (certificate, key) = pair();
        write(&files, &certificate, &key);
        keeper.look();
        assert_eq!(keeper.told, None);
        // One that is over already is taken, because somebody wants it, and told of.
        let (certificate, key) = pair_until(clock.now());
        write(&files, &certificate, &key);
        keeper.look();
        assert!(keeper.told.is_some_and(|now| Some(now) != told));
    }

    #[test]
    fn what_cannot_be_used_says_why() {
        let directory = tempfile::tempdir().unwrap();
        let files = files(directory.path());
        let (certificate, key) = pair();
        let (_, other) = pair();
        for (certificate, key, words) in [
            ("", key.as_str(), "certificate.pem holds no certificate"),
            (&certificate, "", "key.pem cannot be read: there is nothing"),
            (&certificate, &other, "the one that the key belongs to"),
        ] {
            write(&files, certificate, key);
            let error = Keeper::open(Source::Files(files.clone()), Clock::machine())
                .unwrap_err()
                .to_string();
            assert!(error.contains(words), "{error}");
        }
        fs::remove_file(&files.certificate).unwrap();
        let error = Keeper::open(Source::Files(files), Clock::machine()).unwrap_err();
        assert!(matches!(error, CertificateError::Read { .. }), "{error}");
    }
}
