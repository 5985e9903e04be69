//! The Graph upstream and its tokens against the sandbox: every kind of answer, and none.

use crate::support::{Cloud, accept, address, spool};
use bytes::Bytes;
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use smtp_oauth_bridge::http::{Proxy, client};
use smtp_oauth_bridge::mail::{Disposition, Scope};
use smtp_oauth_bridge::oauth::{ClientCredentials, Tokens};
use smtp_oauth_bridge::sandbox::Tenant;
use smtp_oauth_bridge::upstream::{Graph, Parcel, Upstream};
use tempfile::TempDir;

struct Office {
    cloud: Cloud,
    graph: Graph,
    parcel: Parcel,
    message: Vec<u8>,
    _dir: TempDir,
}

const SCOPE: &str = "https://graph.microsoft.com/.default";

async fn office_with(body_octets: usize, secret: Option<&str>) -> Office {
    let dir = TempDir::new().unwrap();
    let cloud = Cloud::start(dir.path()).await;
    let secret = secret
        .unwrap_or(cloud.tenant.client_secret.expose_secret())
        .to_owned();
    let graph = graph_of(&cloud, secret, &cloud.sandbox.graph_url());
    let mut stored = b"From: scanner@fabrikam.example\r\nTo: bob@y.example\r\nSubject: x\r\n\r\n".to_vec();
    let skip = stored.len() as u64;
    stored.extend((0..body_octets).map(|n| b"0123456789ABCDE\r\n"[n % 17]));
    let spool = spool(dir.path());
    let id = accept(&spool, "scanner@fabrikam.example", &["bob@y.example"], &stored)
        .await
        .id;
    let (_, body) = spool.store().message(id).await.unwrap();
    let mut message = b"Received: here\r\n".to_vec();
    message.extend_from_slice(&stored);
    let parcel = Parcel {
        id,
        mailbox: address("scanner@fabrikam.example"),
        listed: true,
        from: vec![address("scanner@fabrikam.example")],
        recipients: vec![address("bob@y.example")],
        head: Bytes::copy_from_slice(&message[..message.len() - body_octets]),
        skip,
        body,
    };
    Office {
        cloud,
        graph,
        parcel,
        message,
        _dir: dir,
    }
}

fn graph_of(cloud: &Cloud, secret: String, base: &str) -> Graph {
    let Tenant { id, client_id, .. } = &cloud.tenant;
    let authority = cloud.sandbox.authority_url();
    let secret = SecretString::from(secret);
    let grant = ClientCredentials::new(
        cloud.http.clone(),
        &authority,
        id,
        client_id,
        secret,
        SCOPE.to_owned(),
    )
    .unwrap();
    Graph::new(cloud.http.clone(), base, Tokens::new(grant))
}

impl Office {
    fn graph_at(&self, base: &str) -> Graph {
        let secret = self.cloud.tenant.client_secret.expose_secret().to_owned();
        graph_of(&self.cloud, secret, base)
    }

    async fn deliver(&self) -> Disposition {
        if let Err(failure) = self.graph.prepare().await {
            return failure;
        }
        let report = self.graph.deliver(&self.parcel).await;
        assert_eq!(report.dispositions.len(), 1);
        report.dispositions[0].clone()
    }

    async fn fault(&self, what: serde_json::Value) {
        self.cloud
            .fault(json!({ "where": "sendMail", "times": 1, "what": what }))
            .await;
    }
}

#[tokio::test]
async fn what_arrives_is_what_was_sent_whatever_its_size() {
    for octets in [0, 1, 2, 3, 64_000, 96 * 1024 - 80, 300_001, 2_800_000] {
        let office = office_with(octets, None).await;
        let disposition = office.deliver().await;
        assert!(matches!(disposition, Disposition::Relayed(_)), "{disposition:?}");
        let inbox = office.cloud.inbox().await;
        assert_eq!(inbox.len(), 1);
        assert!(office.cloud.raw(&inbox[0]).await == office.message, "{octets}");
        assert_eq!(inbox[0]["mailbox"], "scanner@fabrikam.example");
    }
}

#[tokio::test]
async fn one_token_serves_many_messages_and_many_askers_make_one_request() {
    let office = office_with(10, None).await;
    let asked: Vec<_> = (0..20).map(|_| office.graph.prepare()).collect();
    for answer in asked {
        answer.await.unwrap();
    }
    let (a, b) = tokio::join!(office.deliver(), office.deliver());
    assert!(matches!(
        (a, b),
        (Disposition::Relayed(_), Disposition::Relayed(_))
    ));
    assert_eq!(office.cloud.requests("/token").await, 1);
}

#[tokio::test]
async fn askers_at_the_same_moment_share_one_token_request() {
    let office = office_with(10, None).await;
    office.cloud.patch(json!({ "latency_ms": 50 })).await;
    let mut askers = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let graph = office.graph.clone();
        askers.spawn(async move { graph.prepare().await });
    }
    while let Some(answer) = askers.join_next().await {
        answer.unwrap().unwrap();
    }
    assert_eq!(office.cloud.requests("/token").await, 1);
}

#[tokio::test]
async fn a_401_gets_one_fresh_token_and_a_second_one_holds_the_account() {
    let office = office_with(10, None).await;
    office.fault(json!({ "kind": "refuse_token" })).await;
    assert!(matches!(office.deliver().await, Disposition::Relayed(_)));
    assert_eq!(office.cloud.requests("/token").await, 2);
    office
        .cloud
        .fault(json!({ "where": "sendMail", "times": 2, "what": { "kind": "refuse_token" } }))
        .await;
    let Disposition::Held(cause) = office.deliver().await else {
        panic!()
    };
    assert_eq!(cause.scope, Scope::Account);
    assert!(cause.public.contains("tenant"), "{}", cause.public);
}

#[tokio::test]
async fn a_wrong_secret_holds_the_account_and_says_what_to_do_but_not_the_secret() {
    let office = office_with(10, Some("pasted-from-the-wrong-column")).await;
    let Disposition::Held(cause) = office.deliver().await else {
        panic!()
    };
    assert_eq!(cause.scope, Scope::Account);
    assert!(
        cause.public.contains("Value") && cause.diagnostic.contains("AADSTS7000215"),
        "{cause:?}"
    );
    assert!(!format!("{cause:?}").contains("pasted-from"));
}

#[tokio::test]
async fn graphs_own_errors_are_classified_by_their_code() {
    let cases = [
        (
            json!({"kind": "status", "status": 429, "code": "ApplicationThrottled", "retry_after": 7}),
            "Deferred",
            Scope::Mailbox,
            Some(7),
        ),
        (
            json!({"kind": "status", "status": 503, "code": "ErrorServerBusy"}),
            "Deferred",
            Scope::Mailbox,
            None,
        ),
        (
            json!({"kind": "status", "status": 500, "code": "ErrorVirusDetected"}),
            "Failed",
            Scope::Message,
            None,
        ),
        (
            json!({"kind": "status", "status": 403, "code": "ErrorAccessDenied"}),
            "Held",
            Scope::Mailbox,
            None,
        ),
        (
            json!({"kind": "html", "status": 403}),
            "Held",
            Scope::Account,
            None,
        ),
        (
            json!({"kind": "html", "status": 502}),
            "Uncertain",
            Scope::Message,
            None,
        ),
        (
            json!({"kind": "redirect", "status": 307, "location": "https://127.0.0.1:1/elsewhere"}),
            "Held",
            Scope::Account,
            None,
        ),
    ];
    let office = office_with(10, None).await;
    for (fault, expected, scope, retry_after) in cases {
        office.fault(fault.clone()).await;
        let disposition = office.deliver().await;
        assert!(
            format!("{disposition:?}").starts_with(expected),
            "{fault}: {disposition:?}"
        );
        let cause = disposition.cause().unwrap();
        assert_eq!(cause.scope, scope, "{fault}: {cause:?}");
        assert_eq!(
            cause.retry_after.map(|pause| pause.as_secs()),
            retry_after,
            "{fault}"
        );
    }
    assert!(office.cloud.inbox().await.is_empty());
}

#[tokio::test]
async fn an_answer_that_was_not_heard_is_uncertain_and_a_body_that_did_not_leave_is_not() {
    let office = office_with(2_000_000, None).await;
    for (fault, arrived) in [
        (json!({"kind": "close_after_body"}), 0),
        (json!({"kind": "accept_then_close"}), 1),
        (json!({"kind": "accept_then_answer", "status": 504}), 2),
        (json!({"kind": "accept_then_answer", "status": 200}), 3),
        (json!({"kind": "truncated"}), 4),
    ] {
        office.fault(fault.clone()).await;
        let disposition = office.deliver().await;
        let heard = matches!(disposition, Disposition::Relayed(_)) && fault["kind"] == "truncated";
        assert!(
            heard || matches!(disposition, Disposition::Uncertain(_)),
            "{fault}: {disposition:?}"
        );
        assert_eq!(office.cloud.inbox().await.len(), arrived, "{fault}");
    }
    office.fault(json!({"kind": "close_before_body"})).await;
    let disposition = office.deliver().await;
    assert!(matches!(disposition, Disposition::Deferred(_)), "{disposition:?}");
}

#[tokio::test]
async fn nobody_there_defers_the_account_and_a_stranger_s_certificate_holds_it() {
    let office = office_with(10, None).await;
    let untrusting = client(None, Proxy::None);
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let authority = office.cloud.sandbox.authority_url();
    for (http, authority, expected) in [
        (
            Some(office.cloud.http.clone()),
            format!("https://127.0.0.1:{port}"),
            "Deferred",
        ),
        (untrusting.ok(), authority, "Held"),
    ] {
        // A machine without any system certificates cannot even build a client that trusts nobody extra.
        let Some(http) = http else { continue };
        let secret = SecretString::from("x".to_owned());
        let grant =
            ClientCredentials::new(http.clone(), &authority, "t", "c", secret, SCOPE.to_owned()).unwrap();
        let graph = Graph::new(http, &authority, Tokens::new(grant));
        let failure = graph.prepare().await.unwrap_err();
        assert!(format!("{failure:?}").starts_with(expected), "{failure:?}");
        assert_eq!(failure.cause().unwrap().scope, Scope::Account);
    }
}

#[tokio::test]
async fn a_lasting_401_does_not_ask_for_a_token_at_every_probe() {
    let office = office_with(10, None).await;
    office
        .cloud
        .fault(json!({ "where": "sendMail", "times": 10, "what": { "kind": "refuse_token" } }))
        .await;
    for _ in 0..5 {
        assert!(matches!(office.deliver().await, Disposition::Held(_)));
    }
    assert_eq!(office.cloud.requests("/token").await, 6);
}

#[tokio::test]
async fn an_answer_before_the_body_was_sent_leaves_no_doubt() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let office = office_with(2_800_000, None).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let proxy = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut beginning = [0; 400];
        stream.read_exact(&mut beginning).await.unwrap();
        let page = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno";
        stream.write_all(page).await.unwrap();
        // Kept open and unread, so that the rest of the body cannot leave.
        stream
    });
    let graph = office.graph_at(&base);
    let report = graph.deliver(&office.parcel).await;
    assert!(
        matches!(report.dispositions[0], Disposition::Deferred(_)),
        "{:?}",
        report.dispositions[0]
    );
    drop(proxy.await.unwrap());
}
