//! The command `check`, as it is typed.

use rcgen::{CertificateParams, KeyPair};
use std::path::Path;
use std::process::Command;
use time::OffsetDateTime;

/// Runs `check` with a listener that has this certificate and key: exit code, standard output, standard error.
fn check(directory: &Path, certificate: &str, key: &str) -> (i32, String, String) {
    let write = |name: &str, text: &str| {
        let path = directory.join(name);
        std::fs::write(&path, text).unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
        }
    };
    write("certificate.pem", certificate);
    write("key.pem", key);
    write("secret", "Sm0~samplesecret-of.tests");
    write(
        "bridge.toml",
        r#"
        [[listener]]
        tls = "starttls"
        certificate = "certificate.pem"
        key = "key.pem"
        [account.office]
        tenant = "contoso.example"
        client_id = "11111111-2222-3333-4444-555555555555"
        client_secret = { file = "secret" }
        mailbox = "scanner@contoso.example"
        "#,
    );
    let output = Command::new(env!("CARGO_BIN_EXE_smtp-oauth-bridge"))
        .args(["check", "--config"])
        .arg(directory.join("bridge.toml"))
        .output()
        .unwrap();
    let text = |octets: Vec<u8>| String::from_utf8(octets).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// A certificate that ends in so many days, and its key.
fn pair(days: i64) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["bridge.test".into()]).unwrap();
    let now = smtp_oauth_bridge::clock::Clock::machine().now().millis() / 1000;
    params.not_after = OffsetDateTime::from_unix_timestamp(now + days * 24 * 60 * 60).unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

#[test]
fn a_certificate_near_its_end_is_told_of() {
    let directory = tempfile::tempdir().unwrap();
    for (days, words) in [
        (400, None),
        (10, Some("is good for 10 more days only, until ")),
        (-1, Some("is out of date since ")),
    ] {
        let (certificate, key) = pair(days);
        let (code, out, _) = check(directory.path(), &certificate, &key);
        assert_eq!(code, 0, "{out}");
        match words {
            None => assert_eq!(out, "the configuration is good\n"),
            Some(words) => {
                assert!(out.starts_with("warning: the certificate "), "{out}");
                assert!(out.contains("/certificate.pem ") && out.contains(words), "{out}");
            }
        }
    }
}

#[test]
fn a_certificate_that_cannot_be_used_is_a_problem() {
    let directory = tempfile::tempdir().unwrap();
    let (code, _, error) = check(directory.path(), &pair(400).0, &pair(400).1);
    assert_eq!(code, 78, "{error}");
    assert!(
        error.contains("The first certificate in the file must be the one that"),
        "{error}"
    );
}
