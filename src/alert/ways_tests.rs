use super::super::topic::{Topic, Trouble};
use super::*;
use crate::delivery::AccountStatus;
use secrecy::SecretString;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

fn tell(account: &str) -> Tell {
    Tell::Trouble {
        trouble: Trouble {
            topic: Topic::Account(account.to_owned()),
            since: NOW,
            text: "The secret has expired.".to_owned(),
            detail: String::new(),
            repeat: Some(Duration::from_secs(1)),
        },
        again: false,
    }
}

fn message() -> Message {
    Message::new(&tell("office"), "bridge.example", NOW)
}

/// Answers one request with `answer`; gives back what was asked.
async fn server(answer: &'static str) -> (String, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = listener.local_addr().unwrap().to_string();
    let asked = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut asked = String::new();
        let mut buffer = [0; 4096];
        while !asked.contains("\r\n\r\n") || !asked.ends_with('}') {
            let read = socket.read(&mut buffer).await.unwrap();
            assert!(read > 0, "the request ends in the middle: {asked}");
            asked.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
        }
        socket.write_all(answer.as_bytes()).await.unwrap();
        asked
    });
    (place, asked)
}

fn webhook(url: &str, format: WebhookFormat) -> Webhook {
    Webhook {
        url: SecretString::from(url),
        host: "127.0.0.1".to_owned(),
        local: true,
        format,
    }
}

#[tokio::test]
async fn a_webhook_gets_the_alert_where_its_format_wants_it() {
    let client = http::client(None, http::Proxy::None).unwrap();
    for (format, request, field) in [
        (WebhookFormat::Json, "POST /hooks/T0KEN HTTP/1.1", "\"version\":1"),
        (
            WebhookFormat::Slack,
            "POST /hooks/T0KEN HTTP/1.1",
            "\"text\":\":warning:",
        ),
        (WebhookFormat::Teams, "POST /hooks/T0KEN HTTP/1.1", "AdaptiveCard"),
        (
            WebhookFormat::Ntfy,
            "POST /hooks/ HTTP/1.1",
            "\"topic\":\"T0KEN\"",
        ),
    ] {
        let (place, asked) = server("HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n").await;
        let webhook = webhook(&format!("http://{place}/hooks/T0KEN"), format);
        post(&client, &webhook, &message()).await.unwrap();
        let asked = asked.await.unwrap();
        assert!(asked.starts_with(request), "{asked}");
        assert!(asked.contains(field), "{asked}");
    }
}

#[tokio::test]
async fn an_error_of_a_webhook_says_what_to_do_and_keeps_the_url() {
    let client = http::client(None, http::Proxy::None).unwrap();
    for (answer, expected) in [
        (
            "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
            "make a new one",
        ),
        ("HTTP/1.1 400 Bad\r\ncontent-length: 0\r\n\r\n", "webhook_format"),
        (
            "HTTP/1.1 302 Found\r\nlocation: http://x.example/T0KEN\r\ncontent-length: 0\r\n\r\n",
            "redirects",
        ),
        ("HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n", "tried again"),
        ("nonsense", ""),
    ] {
        let (place, _asked) = server(answer).await;
        let webhook = webhook(&format!("http://{place}/hooks/T0KEN"), WebhookFormat::Json);
        let error = post(&client, &webhook, &message()).await.unwrap_err();
        assert!(error.contains(expected) && !error.contains("T0KEN"), "{error}");
        assert!(!format!("{webhook:?}").contains("T0KEN"));
    }
}

fn shell(script: &str) -> Vec<String> {
    ["/bin/sh", "-c", script].map(str::to_owned).to_vec()
}

#[tokio::test]
async fn a_command_gets_the_alert_and_no_environment_of_ours() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out");
    let script = format!("{{ cat; env; }} > {}", out.display());
    run(&shell(&script), &message(), COMMAND_LIMIT).await.unwrap();
    let text = std::fs::read_to_string(&out).unwrap();
    let json: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(json["name"], "account broken: office");
    assert!(text.contains("\nALERT_EVENT=alert\n") && text.contains("\nALERT_KIND=account_broken\n"));
    // What cargo sets for its tests stands for our secrets.
    assert!(!text.contains("CARGO"), "{text}");
}

#[tokio::test]
async fn a_command_that_fails_or_cannot_be_started_says_so() {
    let failed = run(&shell("exit 3"), &message(), COMMAND_LIMIT)
        .await
        .unwrap_err();
    assert!(failed.contains('3'), "{failed}");
    let missing = run(&["/nonexistent".to_owned()], &message(), COMMAND_LIMIT).await;
    assert!(missing.unwrap_err().starts_with("it cannot be started"));
    // One that does not read what it is given is none the worse.
    run(&shell("exec 0<&-; exit 0"), &message(), COMMAND_LIMIT)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_command_that_hangs_is_killed_with_all_that_it_has_started() {
    let directory = tempfile::tempdir().unwrap();
    let pid = directory.path().join("pid");
    let script = format!("sleep 1000 & echo $! > {}; wait", pid.display());
    let error = run(&shell(&script), &message(), Duration::from_millis(1500))
        .await
        .unwrap_err();
    assert!(error.starts_with("it was killed"), "{error}");
    let pid: i32 = std::fs::read_to_string(&pid).unwrap().trim().parse().unwrap();
    let state = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    for _ in 0..500 {
        let state = state();
        // Nobody may be there to bury it.
        if state.is_empty() || state.contains(") Z ") {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the grandchild lives: {}", state());
}

#[test]
fn mail_goes_by_an_account_that_is_well_and_not_the_one_it_is_about() {
    let account = |name: &str| Account {
        name: name.to_owned(),
        mailbox: format!("{name}@x.example").parse().unwrap(),
        send_as: Vec::new(),
    };
    let status = |name: &str, paused| AccountStatus {
        name: name.to_owned(),
        configured: true,
        paused,
        health: Health::Well,
        mailboxes: Vec::new(),
    };
    let carriers = Carriers {
        to: "it@x.example".parse().unwrap(),
        accounts: vec![account("first"), account("second")],
        planner: Planner::new(account("first")),
    };
    for (about, paused, expected) in [
        ("first", None, Some("second")),
        ("second", None, Some("first")),
        ("first", Some(NOW), None),
    ] {
        let status = Status {
            at: NOW,
            paused: None,
            accounts: vec![status("first", None), status("second", paused)],
            planning: 0,
        };
        let tell = tell(about);
        let message = Message::new(&tell, "bridge.example", NOW);
        let reports = carriers.mail(&tell, Some(&status), &message, NOW);
        match expected {
            Some(by) => {
                let mail = &reports.unwrap().new[0];
                assert!(mail.message.report, "nobody gets a report about it");
                let text = String::from_utf8(mail.body.to_vec()).unwrap();
                assert!(
                    text.contains(&format!("From: Mail bridge <{by}@x.example>")),
                    "{text}"
                );
                assert!(
                    text.contains("To: it@x.example") || text.contains("To: <it@x.example>"),
                    "{text}"
                );
            }
            None => assert!(matches!(reports, Err(Unsent::NoWay(_))), "{about}"),
        }
    }
}
