//! The inbox server.

use super::*;

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
