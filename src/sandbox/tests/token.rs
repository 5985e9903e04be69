//! Entra: tokens and their refusals.

use super::*;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

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
