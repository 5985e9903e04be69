//! Faults, and stopping.

use super::*;

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
