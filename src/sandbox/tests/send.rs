//! Graph: both forms, each check, each limit.

use super::*;

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

fn message_to(recipients: usize) -> String {
    let to: Vec<String> = (0..recipients).map(|i| format!("r{i}@contoso.example")).collect();
    format!("To: {}\r\n\r\nhi\r\n", to.join(",\r\n "))
}
