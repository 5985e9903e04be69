//! The command `user`, as it is typed.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Runs `user` with these arguments and this standard input: exit code, standard output, standard error.
fn user(file: &Path, arguments: &[&str], input: &str) -> (i32, String, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_smtp-oauth-bridge"))
        .arg("user")
        .args(arguments)
        .arg("--file")
        .arg(file)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may end without reading.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let Output {
        status,
        stdout,
        stderr,
    } = child.wait_with_output().unwrap();
    let text = |octets: Vec<u8>| String::from_utf8(octets).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

#[test]
fn a_user_is_added_verified_changed_listed_and_removed() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("users");
    let said = |arguments: &[&str], input: &str| user(&file, arguments, input);

    let stdin = "--password-stdin";
    let (code, out, _) = said(
        &[
            "add",
            "scanner",
            "--sender",
            "scan@x.example",
            "--sender",
            "*@lab.example",
            stdin,
        ],
        "secret one\n",
    );
    assert_eq!(
        (code, out.as_str()),
        (0, "added scanner, who may send as scan@x.example,*@lab.example\n")
    );
    assert!(
        std::fs::read_to_string(&file)
            .unwrap()
            .starts_with("scanner $argon2id$v=19$m=7168,t=5,p=1$")
    );

    assert_eq!(said(&["verify", "scanner", stdin], "secret one\r\n").0, 0);
    let (code, _, error) = said(&["verify", "scanner", stdin], "secret\n");
    assert_eq!(
        (code, error.as_str()),
        (1, "this is not the password of scanner\n")
    );

    let (code, out, _) = said(&["add", "scanner", stdin], "two");
    assert_eq!(
        (code, out.as_str()),
        (
            0,
            "changed scanner, who may send as scan@x.example,*@lab.example\n"
        )
    );
    assert_eq!(said(&["verify", "scanner", stdin], "two").0, 0);

    // Another sender is no reason to type the password again; both can change at once.
    let (code, out, _) = said(
        &["add", "scanner", "--sender", "new@x.example"],
        "nobody asks for this",
    );
    assert_eq!(
        (code, out.as_str()),
        (
            0,
            "changed scanner, who may send as new@x.example; the password stays as it was\n"
        )
    );
    assert_eq!(said(&["verify", "scanner", stdin], "two").0, 0);
    let senders = ["--sender", "scan@x.example", "--sender", "*@lab.example"];
    let (code, out, _) = said(&[&["add", "scanner"], &senders[..], &[stdin]].concat(), "four");
    assert_eq!(
        (code, out.as_str()),
        (
            0,
            "changed scanner, who may send as scan@x.example,*@lab.example\n"
        )
    );
    assert_eq!(said(&["verify", "scanner", stdin], "four").0, 0);

    assert_eq!(
        said(&["add", "front desk", stdin], "three").1,
        "added front desk, who may send as anybody\n"
    );
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("# ours\nbroken\n{text}")).unwrap();
    let (code, out, _) = said(&["list"], "");
    assert_eq!(code, 0);
    assert!(out.starts_with(
        "scanner\tmay send as scan@x.example,*@lab.example\nfront desk\tmay send as anybody\nwarning: "
    ));
    assert!(out.contains("line 2: there is no password hash"), "{out}");

    assert_eq!(said(&["remove", "scanner"], "").1, "removed scanner\n");
    let (code, _, error) = said(&["remove", "scanner"], "");
    assert_eq!((code, error.contains("there is no user \"scanner\"")), (65, true));
    assert!(
        std::fs::read_to_string(&file)
            .unwrap()
            .starts_with("# ours\nbroken\n\"front desk\" $argon2id")
    );
}

#[test]
fn what_is_refused_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("users");
    for (arguments, input, message) in [
        (
            &["add", "a", "--password-stdin"][..],
            "\n",
            "the password is empty",
        ),
        (
            &["add", "a", "--password-stdin"],
            &"x".repeat(5000),
            "longer than 4096 octets",
        ),
        (
            &["add", "a"],
            "secret",
            "give it as the first line of standard input, with --password-stdin",
        ),
        (&["add", "", "--password-stdin"], "secret", "the name is empty"),
        (
            &["add", "a\nb", "--password-stdin"],
            "secret",
            "control character",
        ),
        (
            &["add", "a", "--sender", "a@x.example"],
            "secret",
            "give it as the first line of standard input, with --password-stdin",
        ),
        (
            &["add", "a", "--sender", "nobody", "--password-stdin"],
            "secret",
            "neither an address nor *@domain",
        ),
        (
            &["verify", "eve", "--password-stdin"],
            "secret",
            "there is no user \"eve\"",
        ),
    ] {
        let (code, _, error) = user(&file, arguments, input);
        assert_eq!(code, 65, "{arguments:?}: {error}");
        assert!(error.contains(message) && !error.contains("secret"), "{error}");
    }
    assert!(!file.exists());
    let nowhere = directory.path().join("missing").join("users");
    let (code, _, error) = user(&nowhere, &["add", "a", "--password-stdin"], "secret");
    assert_eq!(
        (code, error.contains("its directory does not exist")),
        (71, true),
        "{error}"
    );
}
