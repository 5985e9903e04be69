//! The real servers over loopback TLS, asked by a small client.

mod local;
mod send;
mod token;
mod trouble;

use super::*;
use crate::mail::Timestamp;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
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

#[test]
fn the_manual_names_every_switch_and_every_fault() {
    let manual = include_str!("../../../docs/src/sandbox.md");
    let tenant = Tenant::demo().shown();
    for switch in tenant.as_object().unwrap().keys() {
        assert!(manual.contains(&format!("`{switch}`")), "{switch}");
    }
    let refused = serde_json::from_str::<faults::Rule>(r#"{"where":"token","what":{"kind":"?"}}"#);
    let refused = refused.unwrap_err().to_string();
    let kinds = refused.split_once("expected one of ").unwrap().1;
    for kind in kinds.split('`').skip(1).step_by(2) {
        assert!(manual.contains(&format!("`{kind}`")), "{kind}");
    }
}
