//! The real servers over loopback TLS, asked by a small client.

use super::*;
use crate::mail::Timestamp;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use std::time::Duration;

const SCANNER: &str = "scanner@fabrikam.example";
const GRAPH: &str = "https://graph.microsoft.com/.default";

struct World {
    sandbox: Sandbox,
    client: Client,
    shutdown: CancellationToken,
    _directory: tempfile::TempDir,
}

fn client(ca_file: &Path, http1: bool) -> Client {
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(ca_file).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut builder = Client::builder()
        .no_proxy()
        .retry(reqwest::retry::never())
        .redirect(reqwest::redirect::Policy::none());
    if http1 {
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        builder = builder.http1_only();
    } else {
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    }
    builder.tls_backend_preconfigured(tls).build().unwrap()
}

impl World {
    async fn new() -> Self {
        Self::with(Tenant::demo(), Clock::machine()).await
    }

    async fn with(tenant: Tenant, clock: Clock) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let settings = Settings {
            cloud: SocketAddr::from(([127, 0, 0, 1], 0)),
            inbox: SocketAddr::from(([127, 0, 0, 1], 0)),
            directory: directory.path().join("sandbox"),
            tenant,
            smtp: None,
        };
        let shutdown = CancellationToken::new();
        let sandbox = Sandbox::start(settings, clock, shutdown.clone()).await.unwrap();
        Self {
            client: client(sandbox.ca_file(), false),
            sandbox,
            shutdown,
            _directory: directory,
        }
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        vec![
            ("grant_type", "client_credentials".to_owned()),
            ("client_id", Tenant::demo().client_id),
            ("client_secret", "sandbox-secret-not-a-real-one".to_owned()),
            ("scope", GRAPH.to_owned()),
        ]
    }

    async fn ask_token(&self, tenant: &str, fields: &[(&str, String)]) -> Response {
        let url = format!("{}/{tenant}/oauth2/v2.0/token", self.sandbox.authority_url());
        self.client.post(url).form(fields).send().await.unwrap()
    }

    async fn token(&self) -> String {
        let response = self.ask_token("fabrikam.example", &self.fields()).await;
        assert_eq!(response.status(), StatusCode::OK);
        let body: Value = response.json().await.unwrap();
        body["access_token"].as_str().unwrap().to_owned()
    }

    fn post(&self, token: &str, mailbox: &str) -> RequestBuilder {
        let url = format!("{}/v1.0/users/{mailbox}/sendMail", self.sandbox.graph_url());
        self.client.post(url).bearer_auth(token)
    }

    fn mime(&self, token: &str, message: &str) -> RequestBuilder {
        let post = self.post(token, SCANNER).header("content-type", "text/plain");
        post.body(STANDARD.encode(message))
    }

    fn json(&self, token: &str, message: &Value) -> RequestBuilder {
        self.post(token, SCANNER).json(message)
    }

    fn local(&self, method: Method, path: &str) -> RequestBuilder {
        self.client
            .request(method, format!("{}{path}", self.sandbox.inbox_url()))
    }

    async fn get(&self, path: &str) -> Value {
        let response = self.local(Method::GET, path).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        response.json().await.unwrap()
    }

    async fn patch(&self, change: Value) {
        let response = self
            .local(Method::PATCH, "/tenant")
            .json(&change)
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{:?}", response.text().await);
    }

    async fn fault(&self, rule: Value) {
        let response = self
            .local(Method::POST, "/faults")
            .json(&rule)
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{:?}", response.text().await);
    }

    async fn arrived(&self) -> usize {
        self.get("/inbox").await.as_array().unwrap().len()
    }
}

const HELLO: &str = "From: Scanner <scanner@fabrikam.example>\r\nTo: Bob <bob@contoso.example>\r\nCc: carol@contoso.example\r\n\
    Bcc: eve@contoso.example\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nMessage-ID: <1@bridge.example>\r\n\r\nhi\r\n";

fn message_to(recipients: usize) -> String {
    let to: Vec<String> = (0..recipients).map(|i| format!("r{i}@contoso.example")).collect();
    format!("To: {}\r\n\r\nhi\r\n", to.join(",\r\n "))
}

async fn graph_error(request: RequestBuilder) -> (u16, String) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let id = response.headers()["request-id"].to_str().unwrap().to_owned();
    let body: Value = response.json().await.unwrap();
    let error = &body["error"];
    assert_eq!(error["innerError"]["request-id"], id);
    assert!(error["innerError"]["client-request-id"].is_string());
    assert_eq!(error["innerError"]["date"].as_str().unwrap().len(), 19);
    assert!(error["message"].is_string());
    (status, error["code"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_token_says_what_it_is_for() {
    let world = World::new().await;
    for tenant in ["fabrikam.example", "3B6F1D62-90b1-4a5e-8f0c-6d2f5a1e7c44"] {
        let response = world.ask_token(tenant, &world.fields()).await;
        assert_eq!(response.status(), StatusCode::OK);
        let body: Value = response.json().await.unwrap();
        assert_eq!(body["token_type"], "Bearer");
        assert_eq!(body["expires_in"], 3599);
        assert!(body.get("refresh_token").is_none());
        let token = body["access_token"].as_str().unwrap();
        let parts: Vec<&str> = token.split('.').collect();
        assert_eq!(parts.len(), 3);
        let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(parts[1]).unwrap()).unwrap();
        assert_eq!(claims["aud"], "https://graph.microsoft.com");
        assert_eq!(claims["roles"], json!(["Mail.Send"]));
        assert_eq!(claims["appid"], Tenant::demo().client_id);
        assert_eq!(
            claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(),
            3599
        );
    }
    world.patch(json!({"grant": "rbac"})).await;
    let token = world.token().await;
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    assert!(claims.get("roles").is_none());
    assert_eq!(world.mime(&token, HELLO).send().await.unwrap().status(), 202);
}

#[tokio::test]
async fn client_credentials_in_http_basic() {
    let world = World::new().await;
    let url = format!(
        "{}/fabrikam.example/oauth2/v2.0/token",
        world.sandbox.authority_url()
    );
    let request = world
        .client
        .post(url)
        .form(&[("grant_type", "client_credentials"), ("scope", GRAPH)]);
    let right = request
        .try_clone()
        .unwrap()
        .basic_auth(Tenant::demo().client_id, Some("sandbox%2Dsecret-not-a-real-one"));
    assert_eq!(right.send().await.unwrap().status(), 200);
    let wrong = request.basic_auth(Tenant::demo().client_id, Some("x"));
    assert_eq!(wrong.send().await.unwrap().status(), 401);
}

#[tokio::test]
async fn each_refusal_of_entra() {
    let world = World::new().await;
    let none = "";
    for (tenant, field, value, status, error, number) in [
        ("contoso.example", "scope", GRAPH, 400, "invalid_request", 90_002),
        ("contoso", "scope", GRAPH, 400, "invalid_request", 900_023),
        ("common", "scope", GRAPH, 400, "invalid_request", 50_059),
        (
            "",
            "client_id",
            "00000000-0000-0000-0000-000000000000",
            400,
            "unauthorized_client",
            700_016,
        ),
        ("", "client_secret", "wrong", 401, "invalid_client", 7_000_215),
        ("", "client_secret", none, 401, "invalid_client", 7_000_218),
        ("", "client_assertion", "a.b.c", 401, "invalid_client", 700_027),
        ("", "client_id", none, 400, "invalid_request", 900_144),
        ("", "grant_type", none, 400, "invalid_request", 900_144),
        (
            "",
            "grant_type",
            "password",
            400,
            "unsupported_grant_type",
            70_003,
        ),
        ("", "scope", none, 400, "invalid_request", 900_144),
        (
            "",
            "scope",
            "https://graph.microsoft.com/Mail.Send",
            400,
            "invalid_scope",
            1_002_012,
        ),
        (
            "",
            "scope",
            "https://graph.microsoft.com/.default https://outlook.office365.com/.default",
            400,
            "invalid_scope",
            28_000,
        ),
        (
            "",
            "scope",
            "https://grahp.microsoft.com/.default",
            400,
            "invalid_resource",
            500_011,
        ),
    ] {
        let tenant = if tenant.is_empty() {
            "fabrikam.example"
        } else {
            tenant
        };
        let mut fields = world.fields();
        fields.retain(|(name, _)| *name != field);
        if value != none {
            fields.push((field, value.to_owned()));
        }
        let response = world.ask_token(tenant, &fields).await;
        let context = format!("{tenant} {field}={value}");
        assert_eq!(response.status(), status, "{context}");
        let body: Value = response.json().await.unwrap();
        assert_eq!(body["error"], error, "{context}");
        assert_eq!(body["error_codes"], json!([number]), "{context}");
        let description = body["error_description"].as_str().unwrap();
        assert!(
            description.starts_with(&format!("AADSTS{number}: ")),
            "{description}"
        );
        assert!(description.contains(body["trace_id"].as_str().unwrap()));
        assert!(description.contains(body["timestamp"].as_str().unwrap()));
    }
}

#[tokio::test]
async fn a_rotated_secret_and_a_token_for_someone_else() {
    let world = World::new().await;
    let mut fields = world.fields();
    fields[3].1 = "https://outlook.office365.com/.default".to_owned();
    let body: Value = world
        .ask_token("fabrikam.example", &fields)
        .await
        .json()
        .await
        .unwrap();
    let (status, code) = graph_error(world.mime(body["access_token"].as_str().unwrap(), HELLO)).await;
    assert_eq!((status, code.as_str()), (401, "InvalidAuthenticationToken"));

    world.patch(json!({"client_secret": "another"})).await;
    assert_eq!(
        world
            .ask_token("fabrikam.example", &world.fields())
            .await
            .status(),
        401
    );
    fields[2].1 = "another".to_owned();
    assert_eq!(world.ask_token("fabrikam.example", &fields).await.status(), 200);
}

#[tokio::test]
async fn a_token_ends_by_the_given_clock() {
    let clock = Clock::following_tokio(Timestamp::from_millis(1_795_250_820_123));
    let world = World::with(Tenant::demo(), clock).await;
    let token = world.token().await;
    assert_eq!(world.mime(&token, HELLO).send().await.unwrap().status(), 202);
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(3599)).await;
    tokio::time::resume();
    let (status, code) = graph_error(world.mime(&token, HELLO)).await;
    assert_eq!((status, code.as_str()), (401, "InvalidAuthenticationToken"));
}

#[tokio::test]
async fn bad_tokens_are_refused() {
    let world = World::new().await;
    for value in ["", "Basic abc", "Bearer", "Bearer abc", "Bearer a.b.c"] {
        let url = format!("{}/v1.0/users/{SCANNER}/sendMail", world.sandbox.graph_url());
        let request = world.client.post(url).header("authorization", value).body("x");
        assert_eq!(
            graph_error(request).await,
            (401, "InvalidAuthenticationToken".to_owned()),
            "{value}"
        );
    }
    let token = world.token().await;
    assert_eq!(
        world
            .local(Method::DELETE, "/tokens")
            .send()
            .await
            .unwrap()
            .status(),
        204
    );
    assert_eq!(graph_error(world.mime(&token, HELLO)).await.0, 401);
}

#[tokio::test]
async fn a_mime_message_arrives_byte_for_byte() {
    let world = World::new().await;
    let token = world.token().await;
    // Wrapped at 76 as in Microsoft's example, over HTTP/1.1 this time.
    let wrapped: Vec<u8> = STANDARD
        .encode(HELLO)
        .into_bytes()
        .chunks(76)
        .collect::<Vec<_>>()
        .join(&b"\r\n"[..]);
    let one = client(world.sandbox.ca_file(), true);
    let url = format!(
        "{}/v1.0/users/Scanner%40Fabrikam.example/sendMail",
        world.sandbox.graph_url()
    );
    let request = one
        .post(url)
        .bearer_auth(&token)
        .header("content-type", "text/plain; charset=us-ascii");
    let response = request
        .header("client-request-id", "7d2b")
        .body(wrapped)
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 202);
    assert_eq!(response.headers()["client-request-id"], "7d2b");
    assert_eq!(response.headers()["request-id"].len(), 36);
    assert!(response.bytes().await.unwrap().is_empty());

    let inbox = world.get("/inbox").await;
    let entry = &inbox[0];
    assert_eq!(inbox.as_array().unwrap().len(), 1);
    assert_eq!(entry["id"], 1);
    assert_eq!(entry["mailbox"], SCANNER);
    assert_eq!(entry["form"], "mime");
    assert_eq!(entry["size"], HELLO.len());
    assert_eq!(entry["subject"], "Grüße");
    assert_eq!(entry["from"], SCANNER);
    assert_eq!(entry["message_id"], "<1@bridge.example>");
    assert_eq!(entry["client_request_id"], "7d2b");
    assert_eq!(
        entry["recipients"],
        json!([
            {"address": "bob@contoso.example", "field": "to"},
            {"address": "carol@contoso.example", "field": "cc"},
            {"address": "eve@contoso.example", "field": "bcc"},
        ])
    );
    assert_eq!(&world.get("/inbox/1").await, entry);
    let raw = world.local(Method::GET, "/inbox/1/raw").send().await.unwrap();
    assert_eq!(raw.headers()["content-type"], "message/rfc822");
    assert_eq!(raw.bytes().await.unwrap(), HELLO.as_bytes());
    let seen = world
        .local(Method::GET, "/inbox/1/delivered")
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert_eq!(seen, HELLO.replace("Bcc: eve@contoso.example\r\n", ""));

    assert_eq!(
        world
            .local(Method::DELETE, "/inbox")
            .send()
            .await
            .unwrap()
            .status(),
        204
    );
    assert_eq!(world.arrived().await, 0);
    assert_eq!(
        world
            .local(Method::GET, "/inbox/1")
            .send()
            .await
            .unwrap()
            .status(),
        404
    );
}

#[tokio::test]
async fn a_json_message_arrives() {
    let world = World::new().await;
    let token = world.token().await;
    let body = json!({
        "MESSAGE": {
            "subject": "Scan",
            "body": {"contentType": "Text", "content": "see attached"},
            "toRecipients": [{"emailAddress": {"address": "bob@contoso.example", "name": "Bob"}}],
            "bccRecipients": [{"emailAddress": {"address": "eve@contoso.example"}}],
            "internetMessageHeaders": [{"name": "X-Bridge-Id", "value": "q-17"}],
            "attachments": [{"@odata.type": "#microsoft.graph.fileAttachment", "name": "a.txt", "contentBytes": "aGk="}],
        },
        "savetosentitems": "false",
    });
    assert_eq!(world.json(&token, &body).send().await.unwrap().status(), 202);
    let entry = world.get("/inbox/1").await;
    assert_eq!(entry["form"], "json");
    assert_eq!(entry["subject"], "Scan");
    assert_eq!(entry["from"], SCANNER);
    assert_eq!(entry["saved_to_sent_items"], false);
    assert_eq!(
        entry["recipients"][1],
        json!({"address": "eve@contoso.example", "field": "bcc"})
    );
    let raw = world.local(Method::GET, "/inbox/1/raw").send().await.unwrap();
    assert_eq!(raw.headers()["content-type"], "application/json");
    assert_eq!(raw.bytes().await.unwrap(), body.to_string().as_bytes());
    assert_eq!(
        world
            .local(Method::GET, "/inbox/1/delivered")
            .send()
            .await
            .unwrap()
            .status(),
        404
    );
}

#[tokio::test]
async fn each_refusal_of_the_json_form() {
    let world = World::new().await;
    let token = world.token().await;
    let to = json!([{"emailAddress": {"address": "bob@contoso.example"}}]);
    let header = |name: &str| json!({"name": name, "value": "v"});
    let with = |key: &str, value: Value| {
        let mut message = json!({"toRecipients": to});
        message[key] = value;
        json!({"message": message})
    };
    for (body, code) in [
        (json!([]), "BadRequest"),
        (json!({}), "UnableToDeserializePostBody"),
        (
            json!({"message": {"toRecipients": to}, "saveToSentItems": 1}),
            "UnableToDeserializePostBody",
        ),
        (json!({"message": {"toRecipients": []}}), "ErrorInvalidRecipients"),
        (
            with("ccRecipients", json!([{"emailAddress": {"address": "bob"}}])),
            "ErrorInvalidRecipients",
        ),
        (
            with("ccRecipients", json!([{"address": "bob"}])),
            "UnableToDeserializePostBody",
        ),
        (
            with("internetMessageHeaders", json!([])),
            "InvalidInternetMessageHeaderCollection",
        ),
        (
            with("internetMessageHeaders", Value::Array(vec![header("x-a"); 6])),
            "InvalidInternetMessageHeaderCollection",
        ),
        (
            with("internetMessageHeaders", json!([header("Foo")])),
            "InvalidInternetMessageHeader",
        ),
        (
            with("attachments", json!([{"name": "a"}])),
            "UnableToDeserializePostBody",
        ),
        (
            with(
                "attachments",
                json!([{"@odata.type": "#microsoft.graph.fileAttachment", "name": "a", "contentBytes": "%"}]),
            ),
            "RequestBodyRead",
        ),
    ] {
        assert_eq!(
            graph_error(world.json(&token, &body)).await,
            (400, code.to_owned()),
            "{body}"
        );
    }
    assert_eq!(world.arrived().await, 0);
}

#[tokio::test]
async fn each_refusal_of_graph() {
    let mut tenant = Tenant::demo();
    for (name, licensed, blocked_by_policy) in [("unlicensed", false, false), ("blocked", true, true)] {
        tenant.mailboxes.push(Mailbox {
            licensed,
            blocked_by_policy,
            ..Mailbox::new(
                format!("{name}@fabrikam.example").parse().unwrap(),
                SendAs::default(),
            )
        });
    }
    let world = World::with(tenant, Clock::machine()).await;
    let token = world.token().await;
    let plain = |mailbox: &str, body: &str| {
        let post = world.post(&token, mailbox).header("content-type", "text/plain");
        post.body(body.to_owned())
    };
    let good = STANDARD.encode(HELLO);
    let me = world
        .client
        .post(format!("{}/v1.0/me/sendMail", world.sandbox.graph_url()))
        .bearer_auth(&token);
    for (request, status, code) in [
        (me.body(good.clone()), 400, "BadRequest"),
        (plain("nobody@fabrikam.example", &good), 404, "ErrorInvalidUser"),
        (
            plain("unlicensed@fabrikam.example", &good),
            404,
            "MailboxNotEnabledForRESTAPI",
        ),
        (plain("blocked@fabrikam.example", &good), 403, "ErrorAccessDenied"),
        (
            plain(SCANNER, "no base64"),
            400,
            "ErrorMimeContentInvalidBase64String",
        ),
        (
            plain(SCANNER, "aGk-_w=="),
            400,
            "ErrorMimeContentInvalidBase64String",
        ),
        (plain(SCANNER, "aGk"), 400, "ErrorMimeContentInvalidBase64String"),
        (plain(SCANNER, ""), 400, "ErrorMimeContentInvalidBase64String"),
        (
            world.mime(&token, "Subject: s\r\n\r\nhi"),
            400,
            "ErrorInvalidRecipients",
        ),
        (
            world.mime(&token, "To: root\r\n\r\nhi"),
            400,
            "ErrorInvalidRecipients",
        ),
        (
            world.mime(&token, &message_to(501)),
            400,
            "ErrorExceededMaxRecipientLimit",
        ),
        (world.post(&token, SCANNER).body(good.clone()), 400, "BadRequest"),
        (
            world
                .post(&token, SCANNER)
                .header("content-type", "message/rfc822")
                .body(good.clone()),
            415,
            "UnsupportedMediaType",
        ),
        (
            world.client.get(format!(
                "{}/v1.0/users/{SCANNER}/sendMail",
                world.sandbox.graph_url()
            )),
            405,
            "Request_BadRequest",
        ),
        (
            world
                .client
                .get(format!("{}/v1.0/users", world.sandbox.graph_url())),
            400,
            "BadRequest",
        ),
    ] {
        assert_eq!(graph_error(request).await, (status, code.to_owned()));
    }
    assert_eq!(world.arrived().await, 0);
    assert_eq!(
        world
            .mime(&token, &message_to(500))
            .send()
            .await
            .unwrap()
            .status(),
        202
    );
}

#[tokio::test]
async fn a_role_that_is_taken_away_works_until_the_token_ends() {
    let world = World::new().await;
    let old = world.token().await;
    world.patch(json!({"grant": "none"})).await;
    assert_eq!(world.mime(&old, HELLO).send().await.unwrap().status(), 202);
    let new = world.token().await;
    assert_eq!(
        graph_error(world.mime(&new, HELLO)).await,
        (403, "ErrorAccessDenied".to_owned())
    );
}

#[tokio::test]
async fn send_as_is_as_strict_as_it_is_switched() {
    let world = World::new().await;
    let token = world.token().await;
    let other = HELLO.replace("scanner@fabrikam", "someone@printer");
    assert_eq!(world.mime(&token, &other).send().await.unwrap().status(), 202);
    world.patch(json!({"send_as_strict": true})).await;
    assert_eq!(
        graph_error(world.mime(&token, &other)).await,
        (403, "ErrorSendAsDenied".to_owned())
    );
    assert_eq!(world.mime(&token, HELLO).send().await.unwrap().status(), 202);
    let listed = json!({"mailboxes": [{"address": SCANNER, "send_as": ["someone@printer.example"]}]});
    world.patch(listed).await;
    assert_eq!(world.mime(&token, &other).send().await.unwrap().status(), 202);
}

#[tokio::test]
async fn the_size_limit_counts_request_bytes() {
    let world = World::new().await;
    let token = world.token().await;
    let limit = STANDARD.encode(HELLO).len();
    world.patch(json!({"request_limit": limit})).await;
    assert_eq!(world.mime(&token, HELLO).send().await.unwrap().status(), 202);
    let larger = format!("{HELLO}x\r\n");
    let response = world.mime(&token, &larger).send().await.unwrap();
    assert_eq!(response.status(), 413);
    assert!(serde_json::from_str::<Value>(&response.text().await.unwrap()).is_err());
    world.patch(json!({"oversize": "400"})).await;
    assert_eq!(
        graph_error(world.mime(&token, &larger)).await,
        (400, "BadRequest".to_owned())
    );
    world.patch(json!({"oversize": "200"})).await;
    assert_eq!(world.mime(&token, &larger).send().await.unwrap().status(), 200);
    // A body far above the limit is still answered and not cut.
    assert_eq!(
        world
            .mime(&token, &"x".repeat(9_000_000))
            .send()
            .await
            .unwrap()
            .status(),
        200
    );
    assert_eq!(world.arrived().await, 1);
    world
        .patch(json!({"request_limit": 9_000_000, "message_limit": 10}))
        .await;
    assert_eq!(
        graph_error(world.mime(&token, HELLO)).await.1,
        "ErrorMessageSizeExceeded"
    );
}

#[tokio::test]
async fn four_requests_at_a_time() {
    let world = World::new().await;
    let token = world.token().await;
    // Each of these four stays under way until it is dropped.
    let hang = json!({"where": "sendMail", "times": 4, "what": {"kind": "accept_then_close", "after_ms": 3_600_000}});
    world.fault(hang).await;
    let waiting: Vec<_> = (0..4)
        .map(|_| tokio::spawn(world.mime(&token, HELLO).send()))
        .collect();
    while world.arrived().await < 4 {
        tokio::task::yield_now().await;
    }
    let response = world.mime(&token, HELLO).send().await.unwrap();
    assert_eq!(response.status(), 429);
    assert_eq!(response.headers()["retry-after"], "2");
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["error"]["code"], "ApplicationThrottled");
    assert_eq!(
        body["error"]["message"],
        "Application is over its MailboxConcurrency limit."
    );
    for task in &waiting {
        task.abort();
    }
    while world.get("/requests").await.as_array().unwrap().len() < 6 {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.mime(&token, HELLO).send().await.unwrap().status(), 202);
}

#[tokio::test]
async fn quotas_of_time() {
    let clock = Clock::following_tokio(Timestamp::from_millis(1_795_250_820_123));
    let world = World::with(Tenant::demo(), clock).await;
    let token = world.token().await;
    world.patch(json!({"recipients_per_day": 5})).await;
    assert_eq!(world.mime(&token, HELLO).send().await.unwrap().status(), 202);
    assert_eq!(
        graph_error(world.mime(&token, HELLO)).await,
        (500, "ErrorSubmissionQuotaExceeded".to_owned())
    );
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(24 * 3600)).await;
    tokio::time::resume();
    let token = world.token().await;
    assert_eq!(world.mime(&token, HELLO).send().await.unwrap().status(), 202);
    world
        .patch(json!({"recipients_per_day": 10000, "upload_per_5_minutes": 1}))
        .await;
    assert_eq!(
        graph_error(world.mime(&token, HELLO)).await,
        (429, "ApplicationThrottled".to_owned())
    );
    world.patch(json!({"requests_per_10_minutes": 2})).await;
    assert_eq!(
        graph_error(world.mime(&token, HELLO)).await,
        (429, "ApplicationThrottled".to_owned())
    );
}

#[tokio::test]
async fn faults_that_answer() {
    let world = World::new().await;
    let token = world.token().await;
    let cases = [
        (
            json!({"kind": "status", "status": 503, "code": "ErrorServerBusy", "retry_after": 7}),
            503,
            0,
        ),
        (
            json!({"kind": "status", "status": 502, "headers": {"x-proxy": "yes"}}),
            502,
            0,
        ),
        (json!({"kind": "html", "status": 403}), 403, 0),
        (
            json!({"kind": "redirect", "status": 307, "location": "https://elsewhere.example/"}),
            307,
            0,
        ),
        (json!({"kind": "refuse_token"}), 401, 0),
        (json!({"kind": "delay", "ms": 1}), 202, 1),
        (json!({"kind": "accept_then_answer", "status": 504}), 504, 1),
        (
            json!({"kind": "accept_then_answer", "status": 200, "after_ms": 1}),
            200,
            1,
        ),
    ];
    for (what, status, arrived) in cases {
        world
            .fault(json!({"where": "sendMail", "mailbox": SCANNER, "what": what}))
            .await;
        let response = world.mime(&token, HELLO).send().await.unwrap();
        assert_eq!(response.status(), status, "{what}");
        let headers = response.headers().clone();
        let text = response.text().await.unwrap();
        match what["kind"].as_str().unwrap() {
            "html" => assert!(
                text.contains("<h1>403</h1>") && headers["content-type"].to_str().unwrap().contains("html")
            ),
            "redirect" => assert_eq!(headers["location"], "https://elsewhere.example/"),
            "status" if status == 503 => {
                assert_eq!(headers["retry-after"], "7");
                let body: Value = serde_json::from_str(&text).unwrap();
                assert_eq!(body["error"]["code"], "ErrorServerBusy");
            }
            "status" => assert!(text.is_empty() && headers["x-proxy"] == "yes"),
            _ => {}
        }
        assert_eq!(world.arrived().await, arrived, "{what}");
        world.local(Method::DELETE, "/inbox").send().await.unwrap();
        assert_eq!(world.get("/faults").await, json!([]));
    }
    assert_eq!(world.mime(&token, HELLO).send().await.unwrap().status(), 202);
}

#[tokio::test]
async fn faults_that_cut_the_connection() {
    let mut world = World::new().await;
    let token = world.token().await;
    for http1 in [true, false] {
        world.client = client(world.sandbox.ca_file(), http1);
        for (what, arrived) in [
            ("close_before_body", 0),
            ("close_after_body", 0),
            ("accept_then_close", 1),
        ] {
            world
                .fault(json!({"where": "sendMail", "what": {"kind": what}}))
                .await;
            let error = world.mime(&token, HELLO).send().await.unwrap_err();
            assert!(!error.is_connect() && !error.is_timeout(), "{what}: {error:?}");
            assert_eq!(world.arrived().await, arrived, "{what}");
            let requests = world.get("/requests").await;
            let last = requests.as_array().unwrap().last().unwrap();
            assert_eq!((&last["status"], &last["fault"]), (&Value::Null, &json!(what)));
        }
        world
            .fault(json!({"where": "sendMail", "what": {"kind": "truncated"}}))
            .await;
        let response = world.mime(&token, HELLO).send().await.unwrap();
        assert_eq!(response.status(), 202);
        response.bytes().await.unwrap_err();
        world
            .fault(json!({"where": "token", "what": {"kind": "truncated"}}))
            .await;
        let response = world.ask_token("fabrikam.example", &world.fields()).await;
        assert_eq!(response.status(), 200);
        response.bytes().await.unwrap_err();
        world.local(Method::DELETE, "/inbox").send().await.unwrap();
    }
}

#[tokio::test]
async fn faults_of_the_token_endpoint() {
    let world = World::new().await;
    let what = json!({"kind": "status", "status": 401, "code": "invalid_client", "aadsts": 7000222, "message": "expired."});
    world
        .fault(json!([
            {"where": "token", "what": what},
            {"where": "token", "what": {"kind": "refuse_token"}},
            {"where": "token", "what": {"kind": "status", "status": 503, "code": "temporarily_unavailable"}},
        ]))
        .await;
    let mut seen = Vec::new();
    for _ in 0..3 {
        let body: Value = world
            .ask_token("fabrikam.example", &world.fields())
            .await
            .json()
            .await
            .unwrap();
        seen.push((body["error"].clone(), body["error_codes"][0].clone()));
    }
    assert_eq!(
        json!(seen),
        json!([
            ["invalid_client", 7000222],
            ["invalid_client", 7000215],
            ["temporarily_unavailable", null]
        ])
    );
    world.token().await;
}

#[tokio::test]
async fn bad_orders_are_refused_with_a_reason() {
    let world = World::new().await;
    for (method, path, body, hint) in [
        (Method::POST, "/faults", "{", "not JSON"),
        (
            Method::POST,
            "/faults",
            r#"{"where":"token","what":{"kind":"x"}}"#,
            "close_before_body",
        ),
        (Method::PATCH, "/tenant", r#"{"id":"x"}"#, "request_limit"),
        (Method::PATCH, "/tenant", r#"{"grant":"full"}"#, "rbac"),
        (
            Method::PATCH,
            "/tenant",
            r#"{"mailboxes":[{"address":"a@b","send_as":"all"}]}"#,
            "anyone",
        ),
    ] {
        let request = world
            .local(method, path)
            .header("content-type", "application/json")
            .body(body);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 400, "{body}");
        let answer: Value = response.json().await.unwrap();
        assert!(answer["error"].as_str().unwrap().contains(hint), "{answer}");
    }
    // A browser posts this across origins without asking.
    let simple = world
        .local(Method::POST, "/faults")
        .header("content-type", "text/plain")
        .body("{}");
    assert_eq!(simple.send().await.unwrap().status(), 400);
    let large = world
        .local(Method::POST, "/faults")
        .header("content-type", "application/json");
    assert_eq!(
        large.body("x".repeat(300_000)).send().await.unwrap().status(),
        413
    );
}

#[tokio::test]
async fn other_names_and_origins_are_kept_out() {
    let world = World::new().await;
    for (name, value, status) in [
        ("host", "evil.example", 403),
        ("host", "localhost:1", 200),
        ("origin", "https://evil.example", 403),
        ("origin", "null", 403),
        ("origin", "http://localhost:8026", 200),
    ] {
        let response = world
            .local(Method::GET, "/inbox")
            .header(name, value)
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), status, "{name}: {value}");
    }
}

#[tokio::test]
async fn the_page_and_the_logs() {
    let world = World::new().await;
    let page = world.local(Method::GET, "/").send().await.unwrap();
    let policy = page.headers()["content-security-policy"]
        .to_str()
        .unwrap()
        .to_owned();
    assert!(policy.starts_with("default-src 'none'"), "{policy}");
    assert!(page.text().await.unwrap().contains("Nothing has arrived yet"));
    let style = world.local(Method::GET, "/style.css").send().await.unwrap();
    assert!(
        style.headers()["content-type"]
            .to_str()
            .unwrap()
            .starts_with("text/css")
    );

    let token = world.token().await;
    world.mime(&token, HELLO).send().await.unwrap();
    let page = world
        .local(Method::GET, "/")
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert!(page.contains("Grüße") && page.contains("/inbox/1/raw") && page.contains("eve@contoso.example"));

    let log = world
        .local(Method::GET, "/requests")
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert!(!log.contains(&token) && !log.contains("sandbox-secret"), "{log}");
    let log: Value = serde_json::from_str(&log).unwrap();
    assert_eq!(log[0]["path"], "/fabrikam.example/oauth2/v2.0/token");
    assert_eq!(log[1]["path"], format!("/v1.0/users/{SCANNER}/sendMail"));
    assert_eq!(
        (&log[1]["method"], &log[1]["status"]),
        (&json!("POST"), &json!(202))
    );
    let tenant = world.get("/tenant").await;
    assert_eq!(tenant["request_limit"], 4_194_304);
    assert!(tenant.get("client_secret").is_none());
}

#[tokio::test]
async fn it_stops_with_a_request_under_way_and_frees_its_ports() {
    let world = World::new().await;
    let token = world.token().await;
    world
        .fault(json!({"where": "sendMail", "what": {"kind": "accept_then_close", "after_ms": 3_600_000}}))
        .await;
    let hanging = tokio::spawn(world.mime(&token, HELLO).send());
    while world.arrived().await == 0 {
        tokio::task::yield_now().await;
    }
    let (cloud, inbox) = (world.sandbox.cloud(), world.sandbox.inbox());
    world.shutdown.cancel();
    world.sandbox.stopped().await;
    hanging.await.unwrap().unwrap_err();
    for address in [cloud, inbox] {
        std::net::TcpStream::connect(address).unwrap_err();
    }
}

#[tokio::test]
async fn only_loopback_is_listened_on() {
    let directory = tempfile::tempdir().unwrap();
    let settings = Settings {
        cloud: SocketAddr::from(([0, 0, 0, 0], 0)),
        inbox: SocketAddr::from(([127, 0, 0, 1], 0)),
        directory: directory.path().to_owned(),
        tenant: Tenant::demo(),
        smtp: None,
    };
    let error = Sandbox::start(settings, Clock::machine(), CancellationToken::new())
        .await
        .unwrap_err();
    assert!(matches!(error, SandboxError::NotLoopback(_)), "{error}");
}
