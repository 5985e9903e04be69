//! What the tests have in common: a spool in a temporary directory, a sandbox, and patience with a limit.

use smtp_oauth_bridge::clock::Clock;
use smtp_oauth_bridge::http::{Proxy, client};
use smtp_oauth_bridge::mail::{Address, BodyType, Envelope, ReversePath};
use smtp_oauth_bridge::sandbox::{Sandbox, Settings, Tenant};
use smtp_oauth_bridge::spool::{Message, Origin, Spool, SpoolSettings};
use std::path::Path;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long something that must happen may take before the test fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `happened`; looks again every few milliseconds, and fails after [`PATIENCE`].
pub(crate) async fn eventually<T>(what: &str, mut happened: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(value) = happened().await {
            return value;
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "this never happened: {what}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) fn address(text: &str) -> Address {
    text.parse().unwrap()
}

pub(crate) fn spool(directory: &Path) -> Spool {
    let settings = SpoolSettings {
        directory: directory.join("spool"),
        max_size: 1 << 30,
        min_free: 0,
    };
    Spool::open(&settings, Clock::machine()).unwrap()
}

/// Puts a message into the spool as the listener would.
pub(crate) async fn accept(spool: &Spool, from: &str, to: &[&str], body: &[u8]) -> Message {
    let mut draft = spool.intake().begin();
    draft.write(body).await.unwrap();
    let recipients = to.iter().map(|text| address(text));
    let envelope = Envelope::new(
        ReversePath::Address(address(from)),
        recipients,
        BodyType::SevenBit,
    )
    .unwrap();
    let origin = Origin {
        client: "127.0.0.1".parse().unwrap(),
        greeting: "test".to_owned(),
        esmtp: true,
        listener: "local".to_owned(),
        tls: false,
        user: None,
    };
    draft.accept(envelope, origin).await.unwrap()
}

/// A sandbox that ends with the test.
pub(crate) struct Cloud {
    pub(crate) sandbox: Sandbox,
    pub(crate) tenant: Tenant,
    pub(crate) http: reqwest::Client,
    _stop: tokio_util::sync::DropGuard,
}

impl Cloud {
    pub(crate) async fn start(directory: &Path) -> Self {
        let stop = CancellationToken::new();
        let tenant = Tenant::demo();
        let settings = Settings {
            cloud: "127.0.0.1:0".parse().unwrap(),
            inbox: "127.0.0.1:0".parse().unwrap(),
            directory: directory.join("sandbox"),
            tenant: tenant.clone(),
            smtp: None,
        };
        let sandbox = Sandbox::start(settings, Clock::machine(), stop.clone())
            .await
            .unwrap();
        let http = client(Some(sandbox.ca_file()), Proxy::None).unwrap();
        Self {
            sandbox,
            tenant,
            http,
            _stop: stop.drop_guard(),
        }
    }

    /// What arrived, oldest first.
    pub(crate) async fn inbox(&self) -> Vec<serde_json::Value> {
        self.get("/inbox").await.json().await.unwrap()
    }

    /// The octets of a message that arrived.
    pub(crate) async fn raw(&self, entry: &serde_json::Value) -> Vec<u8> {
        let id = entry["id"]
            .as_str()
            .map_or_else(|| entry["id"].to_string(), str::to_owned);
        self.get(&format!("/inbox/{id}/raw"))
            .await
            .bytes()
            .await
            .unwrap()
            .to_vec()
    }

    /// Scripts a fault: `{"where": …, "times": …, "what": {…}}`.
    pub(crate) async fn fault(&self, fault: serde_json::Value) {
        let url = format!("{}/faults", self.sandbox.inbox_url());
        let answer = self.http.post(url).json(&fault).send().await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
    }

    /// Changes a switch of the tenant.
    pub(crate) async fn patch(&self, change: serde_json::Value) {
        let url = format!("{}/tenant", self.sandbox.inbox_url());
        let answer = self.http.patch(url).json(&change).send().await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
    }

    /// How many requests the cloud's side has seen to paths that end so.
    pub(crate) async fn requests(&self, path_end: &str) -> usize {
        let log: Vec<serde_json::Value> = self.get("/requests").await.json().await.unwrap();
        log.iter()
            .filter(|entry| {
                entry["path"]
                    .as_str()
                    .is_some_and(|path| path.ends_with(path_end))
            })
            .count()
    }

    async fn get(&self, path: &str) -> reqwest::Response {
        self.http
            .get(format!("{}{path}", self.sandbox.inbox_url()))
            .send()
            .await
            .unwrap()
    }
}
