//! Files with certificates and keys: that they can be what they are named for. What they are worth is decided where
//! they are used.

use super::field::Field;
use super::secret;
use std::path::{Path, PathBuf};

/// Larger files are something else.
const LIMIT: usize = 8 * 1024 * 1024;

/// The path of a file with certificates. `right_file` says which one is meant.
pub(super) fn certificates(field: &Field<'_>, right_file: &str) -> Option<PathBuf> {
    let path = field.path()?;
    let octets = secret::read_file(field, &path, shown(field, &path), "the file", LIMIT)?;
    let has = |needle: &[u8]| memchr::memmem::find(&octets, needle).is_some();
    if has(b"-----BEGIN CERTIFICATE-----") || has(b"-----BEGIN TRUSTED CERTIFICATE-----") {
        Some(path)
    } else if has(b"PRIVATE KEY-----") {
        field.refuse("the file holds a private key and no certificate", right_file)
    } else {
        field.refuse(
            "the file holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)",
            "convert it: openssl x509 -inform der -in FILE -out FILE.pem",
        )
    }
}

/// The path of a file with a private key that needs no password.
pub(super) fn private_key(field: &Field<'_>) -> Option<PathBuf> {
    let path = field.path()?;
    let octets = secret::read_file(field, &path, shown(field, &path), "the file", LIMIT)?;
    let has = |needle: &[u8]| memchr::memmem::find(&octets, needle).is_some();
    if has(b"BEGIN ENCRYPTED PRIVATE KEY-----") || has(b"Proc-Type: 4,ENCRYPTED") {
        field.refuse(
            "the private key is protected by a password, and nobody is there to type it",
            "store it without one, readable by the bridge's user only: openssl pkey -in FILE -out NEWFILE",
        )
    } else if has(b"PRIVATE KEY-----") {
        secret::warn_if_others_can_read(field, &path, "the private key's file");
        Some(path)
    } else if has(b"-----BEGIN CERTIFICATE-----") {
        field.refuse(
            "the file holds a certificate and no private key",
            "name the file with the private key that belongs to the certificate",
        )
    } else {
        field.refuse(
            "the file holds no private key in PEM form (-----BEGIN PRIVATE KEY-----)",
            "convert it: openssl pkey -inform der -in FILE -out FILE.pem",
        )
    }
}

/// The path, if it may stand in a message: what has no slash may be a secret that was pasted in the wrong place.
fn shown<'p>(field: &Field<'_>, path: &'p Path) -> Option<&'p Path> {
    field.text()?.contains(['/', '\\']).then_some(path)
}
