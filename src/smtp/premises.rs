//! What opening listeners takes besides their configuration.

use super::certificate::{CertificateError, Current, Keeper, Source};
use super::own_certificate::OwnCertificate;
use super::socket::Inherited;
use crate::clock::Clock;
use crate::config::Bind;
use crate::config::CertificateFiles;
use crate::config::Listener;
use crate::config::TlsMode;
use std::net::IpAddr;
use std::path::PathBuf;

/// What opening listeners takes besides their configuration.
#[derive(Debug)]
pub struct Premises {
    hostname: String,
    tls_directory: PathBuf,
    clock: Clock,
    pub(super) inherited: Vec<(String, Inherited)>,
    /// Certificates that were needed so far; `None` stands for our own.
    certificates: Vec<(Option<CertificateFiles>, Current)>,
}

impl Premises {
    /// `state_dir` is where a certificate of our own is kept, `inherited` what systemd has opened for us.
    #[must_use]
    pub fn new(
        hostname: String,
        state_dir: PathBuf,
        clock: Clock,
        inherited: Vec<(String, Inherited)>,
    ) -> Self {
        Self {
            hostname,
            tls_directory: state_dir.join("tls"),
            clock,
            inherited,
            certificates: Vec::new(),
        }
    }

    /// Sockets that were opened for us and that no listener has asked for.
    pub fn unused(&self) -> impl Iterator<Item = &str> {
        self.inherited.iter().map(|(name, _)| name.as_str())
    }

    /// The certificate for a listener, and its keeper if it is the first to need it.
    pub(super) fn certificate(
        &mut self,
        listener: &Listener,
    ) -> Result<(Option<Current>, Option<Keeper>), CertificateError> {
        if listener.tls == TlsMode::Off {
            return Ok((None, None));
        }
        let same = |(files, _): &&(Option<CertificateFiles>, Current)| *files == listener.certificate;
        if let Some((_, current)) = self.certificates.iter().find(same) {
            return Ok((Some(current.clone()), None));
        }
        let source = match &listener.certificate {
            Some(files) => Source::Files(files.clone()),
            None => {
                let address = |bind: &Bind| match bind {
                    Bind::Address(address) => Some(address.ip()),
                    Bind::Systemd(_) | Bind::Unix(_) => None,
                };
                let addresses = listener.bind.iter().filter_map(address);
                let addresses = addresses.filter(|address: &IpAddr| !address.is_unspecified());
                Source::Own(OwnCertificate::new(
                    self.tls_directory.clone(),
                    &self.hostname,
                    addresses.collect(),
                ))
            }
        };
        let keeper = Keeper::open(source, self.clock)?;
        let current = keeper.current();
        self.certificates
            .push((listener.certificate.clone(), current.clone()));
        Ok((Some(current), Some(keeper)))
    }
}
