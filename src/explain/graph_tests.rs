use super::*;

fn class(status: u16, code: Option<&str>) -> Class {
    graph(GraphAnswer {
        status,
        code,
        ..GraphAnswer::default()
    })
    .class
}

#[test]
fn the_code_decides_before_the_status() {
    assert_eq!(class(500, Some("ErrorVirusDetected")), Failed);
    assert_eq!(class(500, Some("ErrorSubmissionQuotaExceeded")), Held);
    assert_eq!(class(429, Some("ErrorSubmissionQuotaExceeded")), Held);
    assert_eq!(class(429, Some("AnythingElse")), Deferred);
    assert_eq!(class(503, Some("SomethingNew")), Deferred);
    assert_eq!(class(503, Some("serviceNotAvailable")), Deferred);
}

#[test]
fn an_answer_that_is_not_graphs_is_never_the_end_of_a_message() {
    for status in 100..600 {
        assert_ne!(class(status, None), Failed, "{status}");
    }
    assert_eq!(class(403, None), Held);
    assert_eq!(class(502, None), Uncertain);
    assert_eq!(class(200, None), Uncertain);
}

#[test]
fn an_unknown_code_costs_no_mail_unless_the_request_itself_is_bad() {
    for status in 100..600 {
        let failed = class(status, Some("SomethingNew")) == Failed;
        assert_eq!(failed, [400, 413, 422].contains(&status), "{status}");
    }
    for (status, code) in [
        (403, "Authorization_RequestDenied"),
        (404, "ErrorMailboxGone"),
        (403, "Forbidden"),
    ] {
        assert_eq!(class(status, Some(code)), Held, "{status} {code}");
    }
}

#[test]
fn time_outs_and_strange_successes_are_uncertain_unless_the_code_tells_more() {
    for (status, code) in [
        (504, "UnknownError"),
        (502, "generalException"),
        (408, "RequestTimeout"),
        (200, "SomethingNew"),
        (504, "GatewayTimeout"),
    ] {
        assert_eq!(class(status, Some(code)), Uncertain, "{status} {code}");
    }
    assert_eq!(class(504, Some("ErrorMailboxStoreUnavailable")), Deferred);
}

#[test]
fn send_as_denied_for_the_mailbox_itself_is_no_fault_of_the_message() {
    let denied = GraphAnswer {
        status: 403,
        code: Some("ErrorSendAsDenied"),
        message: "",
        own_sender: false,
    };
    assert_eq!(graph(denied).class, Failed);
    assert_eq!(
        graph(GraphAnswer {
            own_sender: true,
            ..denied
        })
        .class,
        Held
    );
}

#[test]
fn every_code_stands_in_the_table_once() {
    for (n, entry) in TABLE.iter().enumerate() {
        assert!(
            !TABLE[..n].iter().any(|other| other.code == entry.code),
            "{}",
            entry.code
        );
    }
}

/// Word for word as Graph says it.
#[test]
fn too_many_requests_at_once_are_told_from_too_many_in_a_time() {
    let code = |message| {
        let answer = GraphAnswer {
            status: 429,
            code: Some("ApplicationThrottled"),
            message,
            own_sender: false,
        };
        graph(answer).code
    };
    assert_eq!(
        code("Application is over its MailboxConcurrency limit."),
        MAILBOX_CONCURRENCY
    );
    assert_eq!(code("Application is over its limit."), "ApplicationThrottled");
}
