//! The configuration as administrators meet it: sample files, variables, secrets, and the example. One file,
//! long because every sample of every section goes through the same few helpers.

use super::*;
use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

/// A part of every secret in `tests/config`, and of those below.
const SECRET_PARTS: [&str; 4] = ["Ab8Q", "pasted", "Sm0~", "0123456789"];

const ACCOUNT: &str = r#"
    [account.office]
    tenant = "contoso.example"
    client_id = "11111111-2222-3333-4444-555555555555"
    client_secret = { env = "OFFICE_SECRET" }
    mailbox = "scanner@contoso.example"
"#;

fn surroundings(variables: &[(&str, &str)]) -> Surroundings {
    let variables = variables
        .iter()
        .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
    Surroundings {
        variables: variables.collect(),
        machine_name: "machine.example".to_owned(),
    }
}

fn with_secret(variables: &[(&str, &str)]) -> Surroundings {
    let mut surroundings = surroundings(variables);
    surroundings
        .variables
        .insert("OFFICE_SECRET".to_owned(), "Sm0~0123456789".to_owned());
    surroundings
}

fn text(text: &str, surroundings: &Surroundings) -> Result<Loaded, LoadError> {
    parse(text, Path::new("bridge.toml"), surroundings)
}

fn secret(loaded: &Loaded) -> &Secret {
    let Grant::ClientCredentials { secret } = &loaded.config.accounts[0].grant;
    secret
}

fn samples(directory: &str) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    paths.sort();
    paths
}

#[test]
fn good_samples_load() {
    for path in samples("tests/config/good") {
        let loaded = load(&path, &surroundings(&[])).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(secret(&loaded).expose(), "Sm0~samplesecret-of.tests", "{path:?}");
    }
}

#[test]
fn bad_samples_say_what_is_expected() {
    let samples = samples("tests/config/bad");
    assert!(samples.len() >= 20);
    for path in samples {
        let error = load(&path, &surroundings(&[])).expect_err(&path.display().to_string());
        let got = format!("{error}\n");
        for part in SECRET_PARTS {
            assert!(!got.contains(part), "a secret is in the message:\n{got}");
            assert!(
                !format!("{error:?}").contains(part),
                "a secret is in the error:\n{error:?}"
            );
        }
        let beside = path.with_extension("expected");
        if std::env::var_os("UPDATE_EXPECTED").is_some() {
            fs::write(&beside, &got).unwrap();
        }
        let expected = fs::read_to_string(&beside).unwrap_or_default();
        assert_eq!(
            got, expected,
            "{path:?}; UPDATE_EXPECTED=1 writes what is said now\n{got}"
        );
    }
}

#[test]
fn the_smallest_file_means_the_defaults() {
    let path = Path::new("tests/config/good/smallest.toml");
    assert!(fs::read_to_string(path).unwrap().lines().count() <= 10);
    let config = load(path, &surroundings(&[])).unwrap().config;
    assert_eq!(config.hostname, "machine.example");
    assert_eq!(config.state_dir, Path::new("/var/lib/smtp-oauth-bridge"));
    assert_eq!(
        config.tls.extra_ca_file.as_deref(),
        Some(Path::new("tests/config/good/ca.pem"))
    );
    let [listener] = &config.listeners[..] else {
        panic!("{config:?}")
    };
    let loopback: Vec<SocketAddr> = ["127.0.0.1:2525", "[::1]:2525"]
        .map(|text| text.parse().unwrap())
        .to_vec();
    let bind: Vec<Bind> = loopback.iter().copied().map(Bind::Address).collect();
    assert_eq!((listener.name.as_str(), &listener.bind), ("local", &bind));
    assert_eq!((listener.tls, listener.unix_mode), (TlsMode::Off, 0o666));
    assert!(listener.certificate.is_none() && listener.proxy_protocol.is_empty());
    let access = &listener.access;
    assert_eq!(
        (access.auth, access.max_connections_per_client),
        (AuthMode::Off, 50)
    );
    assert_eq!((access.messages_per_minute, access.recipients_per_minute), (0, 0));
    assert_eq!(config.users.file, Path::new("/var/lib/smtp-oauth-bridge/users"));
    assert_eq!(
        config.admin.control,
        Path::new("/var/lib/smtp-oauth-bridge/control.sock")
    );
    assert_eq!(config.spool.failed_retention, Duration::from_secs(30 * 86_400));
    assert!(
        loopback
            .iter()
            .all(|address| listener.allow.iter().any(|net| net.contains(&address.ip())))
    );
    assert_eq!(listener.max_message_size, 2_900_000);
    let account = &config.accounts[0];
    assert_eq!(
        (account.name.as_str(), account.transport),
        ("office", Transport::Auto)
    );
    assert_eq!(account.endpoints.authority.as_str(), "https://localhost:8443");
    assert_eq!(account.endpoints.graph.as_str(), "https://localhost:8443/graph");
    assert_eq!(account.endpoints.graph_resource, "https://graph.microsoft.com");
    assert_eq!(config.delivery.retry.len(), 6);
    assert_eq!(config.delivery.uncertain_wait, Duration::from_secs(300));
    assert_eq!(
        (config.report.failures_to, config.report.delay_warning),
        (FailuresTo::Sender, None)
    );
}

#[test]
fn every_key_means_something() {
    let config = load(Path::new("tests/config/good/everything.toml"), &surroundings(&[]))
        .unwrap()
        .config;
    assert_eq!(config.state_dir, Path::new("tests/config/good/state"));
    assert_eq!(config.listeners[1].allow[0].to_string(), "10.0.3.0/24");
    assert_eq!(config.listeners[1].allow[1].to_string(), "fd00::17/128");
    let listener = &config.listeners[1];
    assert_eq!(
        listener.bind[2..],
        [
            Bind::Systemd("smtp".into()),
            Bind::Unix("tests/config/good/smtp.sock".into())
        ]
    );
    assert_eq!((listener.tls, listener.unix_mode), (TlsMode::StartTls, 0o660));
    assert_eq!(listener.proxy_protocol[0].to_string(), "10.0.0.5/32");
    let files = listener.certificate.as_ref().unwrap();
    assert_eq!(files.certificate, Path::new("tests/config/good/ca.pem"));
    assert_eq!(files.key, Path::new("tests/config/good/key.pem"));
    assert_eq!(config.listeners[2].tls, TlsMode::Implicit);
    let account = &config.accounts[0];
    assert_eq!(account.tenant.as_str(), "66666666-7777-8888-9999-aaaaaaaaaaaa");
    assert_eq!(account.endpoints.authority.as_str(), "http://127.0.0.1:8080");
    assert_eq!(account.endpoints.graph.as_str(), "https://graph.microsoft.us");
    assert_eq!(account.endpoints.graph_resource, "https://graph.microsoft.us");
    assert_eq!(config.delivery.on_uncertain, OnUncertain::Hold);
    let history = config.history;
    assert_eq!(
        (history.keep.as_secs(), history.max_size),
        (30 * 86_400, 100_000_000)
    );
    assert!(!history.subjects);
    assert_eq!(
        listener.access,
        Access {
            auth: AuthMode::Optional,
            old_auth_line: true,
            max_connections_per_client: 5,
            messages_per_minute: 30,
            recipients_per_minute: 300,
            greeting_delay: Duration::from_secs(4),
            bare_newline: BareNewline::Reject,
        }
    );
    assert_eq!(config.report.failures_to, FailuresTo::Admin);
    assert_eq!(
        config.report.admin.as_ref().unwrap().to_string(),
        "it@contoso.example"
    );
    assert_eq!(config.report.delay_warning, Some(Duration::from_secs(4 * 3600)));
    let alerts = &config.report.alerts;
    let webhook = alerts.webhook.as_ref().unwrap();
    assert_eq!(format!("{webhook:?}"), "Webhook(127.0.0.1:8088, Ntfy)");
    assert!(webhook.local && alerts.command.as_ref().unwrap().len() == 3);
    assert_eq!(alerts.queue, Some(Duration::from_secs(2 * 3600)));
    assert_eq!(config.users.file, Path::new("tests/config/good/people"));
    assert_eq!(config.limits.max_connections, 50);
    assert_eq!((config.spool.max_size, config.spool.min_free), (500_000_000, 0));
    assert_eq!(config.spool.failed_retention, Duration::from_secs(7 * 86_400));
    assert_eq!(
        config.admin.control,
        Path::new("tests/config/good/run/control.sock")
    );
    assert_eq!(
        (config.log.format, config.log.level),
        (LogFormat::Json, LogLevel::Debug)
    );
}

/// The tools must find the bridge although its secret is out of reach, and whatever else is wrong.
#[test]
fn where_the_bridge_is_can_be_read_without_its_secrets() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bridge.toml");
    let file = "state_dir = \"state\"\n[spool]\nmin_free = \"1MB\"\n\
                [account.office]\nclient_secret = { env = \"NOT_HERE\" }\nmailbox = 7\n";
    std::fs::write(&path, file).unwrap();
    let premises = load_premises(Some(&path), &[], &surroundings(&[])).unwrap();
    assert_eq!(premises.state_dir, directory.path().join("state"));
    assert_eq!(
        premises.admin.control,
        directory.path().join("state/control.sock")
    );
    assert_eq!(premises.spool.min_free, 1_000_000);
    let by_name = load_premises(None, &[&directory.path().join("no"), &path], &surroundings(&[]));
    assert_eq!(by_name.unwrap(), premises);
    let moved = surroundings(&[("SMTP_OAUTH_BRIDGE__STATE_DIR", "/elsewhere")]);
    let premises = load_premises(Some(&path), &[], &moved).unwrap();
    assert_eq!(premises.state_dir, Path::new("/elsewhere"));
    std::fs::write(&path, "state_dir = 7\n").unwrap();
    let error = load_premises(Some(&path), &[], &surroundings(&[])).unwrap_err();
    assert!(error.to_string().contains("state_dir"), "{error}");
}

#[test]
fn what_windows_editors_do_to_a_file_is_no_problem() {
    let file = format!("\u{feff}{}", ACCOUNT.trim_start().replace('\n', "\r\n"));
    assert!(text(&file, &with_secret(&[])).is_ok());
}

#[test]
fn variables_make_a_whole_configuration() {
    let surroundings = surroundings(&[
        ("PATH", "/bin"),
        ("SMTP_OAUTH_BRIDGE_CONFIG", "not ours: one underscore"),
        (
            "SMTP_OAUTH_BRIDGE__ACCOUNT__HEAD_OFFICE__TENANT",
            "contoso.example",
        ),
        (
            "SMTP_OAUTH_BRIDGE__ACCOUNT__HEAD_OFFICE__CLIENT_ID",
            "11111111-2222-3333-4444-555555555555",
        ),
        ("SMTP_OAUTH_BRIDGE__ACCOUNT__HEAD_OFFICE__CLIENT_SECRET__ENV", "S"),
        (
            "SMTP_OAUTH_BRIDGE__ACCOUNT__HEAD_OFFICE__MAILBOX",
            "a@contoso.example",
        ),
        ("SMTP_OAUTH_BRIDGE__LISTENER__0__BIND", "127.0.0.1:25, [::1]:25"),
        ("SMTP_OAUTH_BRIDGE__LISTENER__1__NAME", "other"),
        ("SMTP_OAUTH_BRIDGE__LISTENER__1__BIND__0", "127.0.0.1:26"),
        ("SMTP_OAUTH_BRIDGE__LISTENER__1__MAX_CONNECTIONS", "7"),
        ("SMTP_OAUTH_BRIDGE__LISTENER__1__MAX_MESSAGE_SIZE", "1MB"),
        ("SMTP_OAUTH_BRIDGE__DELIVERY__RETRY", "1m,2m"),
        ("S", "Sm0~0123456789"),
    ]);
    let loaded = load_default(&[Path::new("/nonexistent/bridge.toml")], &surroundings).unwrap();
    let config = &loaded.config;
    assert_eq!(config.accounts[0].name, "head_office");
    assert_eq!(secret(&loaded).expose(), "Sm0~0123456789");
    assert_eq!(config.listeners[0].bind.len(), 2);
    assert_eq!(config.listeners[1].bind.len(), 1);
    assert_eq!(
        (
            config.listeners[1].max_connections,
            config.listeners[1].max_message_size
        ),
        (7, 1_000_000)
    );
    assert_eq!(
        config.delivery.retry,
        [Duration::from_secs(60), Duration::from_secs(120)]
    );
    assert!(!format!("{surroundings:?}").contains("Sm0"));
}

#[test]
fn variables_override_the_file() {
    let file = format!(
        "hostname = \"file.example\"\n[[listener]]\nbind = [\"127.0.0.1:1\", \"127.0.0.1:2\"]\n{ACCOUNT}"
    );
    let surroundings = with_secret(&[
        ("SMTP_OAUTH_BRIDGE__HOSTNAME", "variable.example"),
        ("SMTP_OAUTH_BRIDGE__LISTENER__0__BIND__1", "127.0.0.1:3"),
        ("SMTP_OAUTH_BRIDGE__LISTENER__0__BIND__2", "127.0.0.1:4"),
        ("SMTP_OAUTH_BRIDGE__LISTENER__1__NAME", "added"),
        ("SMTP_OAUTH_BRIDGE__LISTENER__1__BIND", "127.0.0.1:5"),
        (
            "SMTP_OAUTH_BRIDGE__ACCOUNT__OFFICE__CLIENT_SECRET",
            "Sm0~directly",
        ),
    ]);
    let loaded = text(&file, &surroundings).unwrap();
    assert_eq!(loaded.config.hostname, "variable.example");
    let bind = ["127.0.0.1:1", "127.0.0.1:3", "127.0.0.1:4"].map(|text| Bind::Address(text.parse().unwrap()));
    assert_eq!(loaded.config.listeners[0].bind, bind);
    assert_eq!(loaded.config.listeners[1].name, "added");
    assert_eq!(secret(&loaded).expose(), "Sm0~directly");
    assert_eq!(
        secret(&loaded).source(),
        &SecretSource::Variable("SMTP_OAUTH_BRIDGE__ACCOUNT__OFFICE__CLIENT_SECRET".to_owned())
    );

    // The place of the secret is one thing, even though it is written as a section.
    let surroundings = with_secret(&[
        ("SMTP_OAUTH_BRIDGE__ACCOUNT__OFFICE__CLIENT_SECRET__ENV", "OTHER"),
        ("OTHER", "Sm0~other"),
    ]);
    let file = ACCOUNT.replace("env = \"OFFICE_SECRET\"", "file = \"/nonexistent/secret\"");
    assert_eq!(secret(&text(&file, &surroundings).unwrap()).expose(), "Sm0~other");
}

#[test]
fn problems_with_variables_name_the_variable() {
    let surroundings = with_secret(&[
        ("SMTP_OAUTH_BRIDGE__ACCOUNT__OFFICE__TENNANT", "x"),
        ("SMTP_OAUTH_BRIDGE__ACCOUNT__OFFICE__TENANT", "Ab8Q~pasted"),
        ("SMTP_OAUTH_BRIDGE__LISTENER__1__BIND", "127.0.0.1:25"),
        ("SMTP_OAUTH_BRIDGE__LOG", "json"),
        ("SMTP_OAUTH_BRIDGE__LOG__FORMAT", "json"),
        ("SMTP_OAUTH_BRIDGE__SPOOL__MAX__SIZE", "1GB"),
        ("SMTP_OAUTH_BRIDGE__SPOOL____MIN_FREE", "1GB"),
        ("SMTP_OAUTH_BRIDGE__DELIVERY__RETRY", ""),
    ]);
    let error = text(ACCOUNT, &surroundings).unwrap_err();
    let expected = "\
SMTP_OAUTH_BRIDGE__ACCOUNT__OFFICE__TENANT: account.office.tenant: is neither an ID nor a domain
    hint: write the \"Directory (tenant) ID\" or a domain of your organization, as in \"contoso.example\"
SMTP_OAUTH_BRIDGE__ACCOUNT__OFFICE__TENNANT: account.office.tennant: unknown key
    hint: did you mean SMTP_OAUTH_BRIDGE__ACCOUNT__OFFICE__TENANT?
SMTP_OAUTH_BRIDGE__DELIVERY__RETRY: delivery.retry: is an empty list
    hint: write at least one element, or leave the key out
SMTP_OAUTH_BRIDGE__LISTENER__1__BIND: listener: has elements that are not numbered from 0 without gaps
    hint: the first one is SMTP_OAUTH_BRIDGE__LISTENER__0
SMTP_OAUTH_BRIDGE__LOG: log: must be a section, but is a text
    hint: write a line [log] and the keys below it
SMTP_OAUTH_BRIDGE__LOG__FORMAT: contradicts SMTP_OAUTH_BRIDGE__LOG: one sets the whole key, the other a part of it
    hint: remove one of them
SMTP_OAUTH_BRIDGE__SPOOL__MAX__SIZE: spool.max: unknown key
    hint: known here: SMTP_OAUTH_BRIDGE__SPOOL__MAX_SIZE, SMTP_OAUTH_BRIDGE__SPOOL__MIN_FREE, SMTP_OAUTH_BRIDGE__SPOOL__FAILED_RETENTION
SMTP_OAUTH_BRIDGE__SPOOL____MIN_FREE: has an empty part
    hint: keys are separated by exactly two underscores, as in SMTP_OAUTH_BRIDGE__ACCOUNT__OFFICE__TENANT
8 problems";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn without_a_file_what_is_missing_is_named_as_a_variable() {
    let surroundings = surroundings(&[("SMTP_OAUTH_BRIDGE__ACCOUNT__OFFICE__TENANT", "contoso.example")]);
    let error = load_default(&[], &surroundings).unwrap_err();
    assert!(!error.is_missing());
    let mailbox = error
        .problems()
        .iter()
        .find(|problem| problem.key == "account.office.mailbox")
        .unwrap();
    assert_eq!(mailbox.place, Place::Environment);
    assert!(
        mailbox
            .hint
            .as_ref()
            .unwrap()
            .ends_with("SMTP_OAUTH_BRIDGE__ACCOUNT__OFFICE__MAILBOX")
    );
}

#[test]
fn without_file_and_variables_the_configuration_is_missing() {
    let paths = [Path::new("/nonexistent/a.toml"), Path::new("/nonexistent/b.toml")];
    let error = load_default(&paths, &surroundings(&[])).unwrap_err();
    assert!(error.is_missing());
    assert!(
        error
            .to_string()
            .contains("/nonexistent/a.toml and /nonexistent/b.toml"),
        "{error}"
    );
    assert!(load(paths[0], &surroundings(&[])).unwrap_err().is_missing());
}

#[test]
fn a_secret_comes_from_a_file_a_variable_or_a_credential() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("office"), "\u{feff}Sm0~0123456789\r\n").unwrap();
    let credentials = surroundings(&[("CREDENTIALS_DIRECTORY", directory.path().to_str().unwrap())]);
    let file = format!("file = '{}'", directory.path().join("office").display());
    for (way, surroundings, source) in [
        (
            file.as_str(),
            &surroundings(&[]),
            format!("file {}", directory.path().join("office").display()),
        ),
        (
            "env = \"OFFICE_SECRET\"",
            &with_secret(&[]),
            "environment variable OFFICE_SECRET".to_owned(),
        ),
        (
            "credential = \"office\"",
            &credentials,
            "systemd credential office".to_owned(),
        ),
    ] {
        let loaded = text(&ACCOUNT.replace("env = \"OFFICE_SECRET\"", way), surroundings).unwrap();
        assert_eq!(secret(&loaded).expose(), "Sm0~0123456789");
        assert_eq!(format!("{:?}", secret(&loaded)), format!("Secret({source})"));
        assert!(!format!("{loaded:?}").contains("Sm0"), "{loaded:?}");
    }
}

#[test]
fn a_secret_that_cannot_be_one_is_refused_without_being_shown() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("office");
    let file = ACCOUNT.replace("env = \"OFFICE_SECRET\"", &format!("file = '{}'", path.display()));
    let large = "Sm0~".repeat(20_000);
    for (content, message) in [
        (&b""[..], "the secret is empty"),
        (b" \r\n", "the secret is empty"),
        (b"Sm0~\n0123456789\n", "more than one line"),
        (b"Sm0~\xff0123456789", "not UTF-8"),
        (b"\xff\xfeS\0m\0", "UTF-16"),
        (large.as_bytes(), "too large"),
    ] {
        fs::write(&path, content).unwrap();
        let error = text(&file, &surroundings(&[])).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
        assert!(SECRET_PARTS.iter().all(|part| !error.contains(part)), "{error}");
    }
}

#[test]
fn an_id_instead_of_the_secret_and_an_open_file_are_warned_of() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("office");
    fs::write(&path, "ab8c0000-2222-3333-4444-555555555555\n").unwrap();
    #[cfg(unix)]
    set_mode(&path, 0o640);
    let file = ACCOUNT.replace("env = \"OFFICE_SECRET\"", &format!("file = '{}'", path.display()));
    let loaded = text(&file, &surroundings(&[])).unwrap();
    let warnings: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
    assert!(
        warnings.iter().any(|warning| warning.contains("\"Secret ID\"")),
        "{warnings:?}"
    );
    assert!(
        !warnings.iter().any(|warning| warning.contains("ab8c")),
        "{warnings:?}"
    );
    #[cfg(unix)]
    {
        let command = format!("chmod 600 {}", path.display());
        assert!(
            warnings
                .iter()
                .any(|w| w.contains(&command) && w.contains("mode 640")),
            "{warnings:?}"
        );
        set_mode(&path, 0o600);
        assert_eq!(text(&file, &surroundings(&[])).unwrap().warnings.len(), 1);
    }
}

#[cfg(unix)]
fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_machine_without_a_name_is_warned_of() {
    let mut surroundings = with_secret(&[]);
    surroundings.machine_name = "my machine".to_owned();
    let loaded = text(ACCOUNT, &surroundings).unwrap();
    assert_eq!(loaded.config.hostname, "localhost");
    assert_eq!(loaded.warnings.len(), 1, "{:?}", loaded.warnings);
}

#[test]
fn an_open_relay_needs_a_login_or_a_confirmation() {
    let listener = "[[listener]]\nbind = \"0.0.0.0:25\"\nallow = [\"10.0.0.0/8\", \"0.0.0.0/0\"]\n";
    let with = |line: &str| text(&format!("{listener}{line}\n{ACCOUNT}"), &with_secret(&[]));
    for line in [
        "",
        "auth = \"optional\"",
        "auth = \"any\"",
        "open_relay = \"yes\"",
    ] {
        let error = with(line).unwrap_err().to_string();
        assert!(error.contains("this is an open relay"), "{error}");
    }
    assert!(with("auth = \"required\"").is_ok());
    assert!(with("open_relay = \"anybody may send mail in our name\"").is_ok());
    let variable = ("SMTP_OAUTH_BRIDGE__LISTENER__0__AUTH", "required");
    assert!(text(&format!("{listener}{ACCOUNT}"), &with_secret(&[variable])).is_ok());
}

#[test]
fn a_password_that_crosses_a_network_in_the_clear_is_warned_of() {
    for (bind, tls, auth, warned) in [
        ("0.0.0.0:25", "off", "required", true),
        ("systemd:smtp", "off", "optional", true),
        ("0.0.0.0:25", "starttls", "required", false),
        ("0.0.0.0:25", "off", "any", false),
        ("127.0.0.1:25", "off", "required", false),
        ("unix:/run/x", "off", "required", false),
    ] {
        let file = format!(
            "[[listener]]\nbind = \"{bind}\"\nallow = \"10.0.0.0/8\"\ntls = \"{tls}\"\nauth = \"{auth}\"\n{ACCOUNT}"
        );
        let loaded = text(&file, &with_secret(&[])).unwrap();
        let warnings: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
        let passwords = warnings.iter().any(|w| w.contains("passwords cross the network"));
        assert_eq!(passwords, warned, "{file}\n{warnings:?}");
    }
}

#[test]
fn a_secret_in_the_place_of_any_value_is_never_repeated() {
    const SECRET: &str = "Ab8Q~pasted.secret-0123456789_ABCDEFGHIJK";
    let everything = fs::read_to_string("tests/config/good/everything.toml").unwrap();
    let lines: Vec<&str> = everything.lines().collect();
    for n in 0..lines.len() {
        let Some((key, _)) = lines[n].split_once('=') else {
            continue;
        };
        for value in [
            format!("\"{SECRET}\""),
            SECRET.to_owned(),
            format!("[\"{SECRET}\"]"),
            format!("\"{SECRET}"),
        ] {
            for line in [
                format!("{key}= {value}"),
                format!("{key}= {{ file = {value} }}"),
                value.clone(),
            ] {
                let mut changed: Vec<&str> = lines.clone();
                changed[n] = &line;
                let path = Path::new("tests/config/good/changed.toml");
                match parse(&changed.join("\n"), path, &surroundings(&[])) {
                    // A directory may have any name, and so may a file that need not exist.
                    Ok(loaded) => {
                        let config = loaded.config;
                        let places = [config.state_dir, config.users.file, config.admin.control];
                        assert!(places.iter().any(|place| place.ends_with(SECRET)), "{line}");
                    }
                    Err(error) => {
                        assert!(!format!("{error} {error:?}").contains("Ab8Q"), "{line}\n{error}");
                        assert!(
                            !format!("{error} {error:?}").contains("pasted"),
                            "{line}\n{error}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn the_example_shows_every_key_with_its_default() {
    let example = fs::read_to_string("bridge.example.toml").unwrap();
    let usable = example.replace(
        "file = \"/etc/smtp-oauth-bridge/office.secret\"",
        "env = \"OFFICE_SECRET\"",
    );
    let (result, known) = parse_with_keys(&usable, Path::new("bridge.example.toml"), &with_secret(&[]));
    let loaded = result.unwrap_or_else(|error| panic!("{error}"));
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    assert!(known.len() > 25, "{known:?}");

    // Everything that is commented out, switched on, and in its place.
    let mut shown: Known = Known::new();
    let mut texts: BTreeMap<String, String> = BTreeMap::new();
    let mut section = String::new();
    let mut explained = false;
    for line in example.lines() {
        if line.starts_with('[') {
            section = line
                .trim_matches(['[', ']'])
                .replace("account.office", "account.NAME")
                + ".";
            explained = false;
        }
        let setting = line.strip_prefix("# ").unwrap_or(line).split_once(" = ");
        match setting.filter(|(key, _)| key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')) {
            Some((key, value)) => {
                assert!(explained, "{line} needs a line that explains it");
                let key = format!("{section}{key}");
                shown.insert(key.clone(), None);
                texts.insert(key, value.to_owned());
                explained = false;
            }
            None => explained = line.starts_with("# "),
        }
    }
    for (key, default) in &known {
        let secret_part = key.strip_prefix("account.NAME.client_secret.");
        if let Some(way) = secret_part {
            let shown = example.contains(&format!("{{ {way} = "));
            assert!(shown, "bridge.example.toml does not show {{ {way} = … }}");
            continue;
        }
        let text = texts
            .get(key)
            .unwrap_or_else(|| panic!("bridge.example.toml does not show {key}"));
        if let Some(default) = default {
            assert_eq!(
                text, default,
                "bridge.example.toml shows another default of {key}"
            );
        }
    }
    for key in shown.keys() {
        assert!(
            known.contains_key(key),
            "bridge.example.toml shows {key}, which does not exist"
        );
    }
    let cloud = Cloud::Global;
    assert_eq!(
        texts["account.NAME.endpoints.authority"],
        format!("\"{}\"", cloud.authority())
    );
    assert_eq!(
        texts["account.NAME.endpoints.graph"],
        format!("\"{}\"", cloud.graph())
    );
}
