//! What a client is told, of every error.

use axum::{body::to_bytes, http::HeaderMap};

use super::*;
use crate::request::peek;

fn header_of(error: GatewayError, name: &str) -> Option<String> {
    error.into_response().headers().get(name).map(|value| value.to_str().unwrap().to_owned())
}

#[test]
fn a_full_model_is_429_and_one_that_cannot_answer_503() {
    let full = Refusal::QueueFull { held: 3, waking: true, retry_after_seconds: 7 };
    let cannot = Refusal::CannotStart { reason: "WeightsCorrupt".to_owned(), message: "fetch again".to_owned() };
    let waited = Refusal::Waited { seconds: 300, retry_after_seconds: 9 };
    for (refusal, status, retry, reason) in [
        (full, 429, "7", "queue_full"),
        (cannot, 503, "60", "WeightsCorrupt"),
        (waited, 503, "9", "waited_too_long"),
        (Refusal::SwitchedOff, 503, "60", "switched_off"),
    ] {
        let error = GatewayError::from(refusal);
        assert_eq!(error.status().as_u16(), status, "{error}");
        assert_eq!(header_of(error.clone(), "retry-after").as_deref(), Some(retry), "{error}");
        assert_eq!(header_of(error, REASON).as_deref(), Some(reason));
    }
}

#[test]
fn the_body_is_as_openai_has_it() {
    let detail = GatewayError::ModelNotFound { asked: "x".to_owned() }.body().error;
    assert_eq!((detail.param.as_deref(), detail.code.as_deref()), (Some("model"), Some("model_not_found")));
    assert_eq!(detail.kind, "invalid_request_error");
    assert_eq!(GatewayError::Draining.body().error.kind, "service_unavailable_error");
    assert_eq!(header_of(GatewayError::Draining, "retry-after").as_deref(), Some("0"));
    let unprintable = Refusal::CannotStart { reason: "a\nb".to_owned(), message: String::new() };
    assert_eq!(header_of(unprintable.into(), REASON), None);
}

/// The place of a variant in the table below: a new one does not compile until it has one.
const fn place(error: &GatewayError) -> usize {
    match error {
        GatewayError::Malformed(_) => 0,
        GatewayError::ModelMissing => 1,
        GatewayError::ModelNotFound { .. } => 2,
        GatewayError::BodyTooLarge { .. } => 3,
        GatewayError::BodyTimeout { .. } => 4,
        GatewayError::Coding => 5,
        GatewayError::BodyBroken => 6,
        GatewayError::BodiesFull => 7,
        GatewayError::ContentType { .. } => 8,
        GatewayError::Route { .. } => 9,
        GatewayError::Method { .. } => 10,
        GatewayError::Refused(Refusal::QueueFull { .. }) => 11,
        GatewayError::Refused(Refusal::Waited { .. }) => 12,
        GatewayError::Refused(Refusal::SwitchedOff) => 13,
        GatewayError::Refused(Refusal::CannotStart { .. }) => 14,
        GatewayError::Refused(Refusal::Gone) => 15,
        GatewayError::ReplicasFailed { .. } => 16,
        GatewayError::AnswerBroken => 17,
        GatewayError::NotContinued(_) => 18,
        GatewayError::Draining => 19,
        GatewayError::Internal => 20,
    }
}

/// An error, its status, the body's `type` and `code`, `Retry-After`, and what it says to do.
type Row = (GatewayError, u16, &'static str, &'static str, Option<&'static str>, &'static str);

/// Every variant.
fn table() -> [Row; 21] {
    let word = || "x".to_owned();
    let full = Refusal::QueueFull { held: 3, waking: false, retry_after_seconds: 7 };
    let waited = Refusal::Waited { seconds: 300, retry_after_seconds: 9 };
    let cannot = Refusal::CannotStart { reason: "WeightsCorrupt".to_owned(), message: "fetch again".to_owned() };
    let (client, server) = ("invalid_request_error", "server_error");
    let unavailable = "service_unavailable_error";
    let seconds = Some("1");
    [
        (
            GatewayError::Malformed("model: sent twice; send it once".to_owned()),
            400,
            client,
            "malformed_body",
            None,
            "send",
        ),
        (GatewayError::ModelMissing, 400, client, "model_missing", None, "send the name"),
        (GatewayError::ModelNotFound { asked: word() }, 404, client, "model_not_found", None, "see /v1/models"),
        (GatewayError::BodyTooLarge { limit: 5 }, 413, client, "body_too_large", None, "send fewer"),
        (GatewayError::BodyTimeout { seconds: 5 }, 408, client, "body_timeout", None, "send it faster"),
        (GatewayError::Coding, 400, client, "transfer_coding", None, "send it chunked"),
        (GatewayError::BodyBroken, 400, client, "body_broken", None, "send it again"),
        (GatewayError::BodiesFull, 503, unavailable, "bodies_full", seconds, "retry in 1 s"),
        (GatewayError::content_type(None), 415, client, "unsupported_content_type", None, "send `application/json`"),
        (GatewayError::Route { path: word() }, 404, client, "unknown_url", None, "see /v1/models"),
        (GatewayError::Method { method: word() }, 405, client, "method_not_allowed", None, "`allow` names"),
        (full.into(), 429, "rate_limit_error", "queue_full", Some("7"), "retry in 7 s"),
        (waited.into(), 503, unavailable, "waited_too_long", Some("9"), "retry in 9 s"),
        (Refusal::SwitchedOff.into(), 503, unavailable, "switched_off", Some("60"), "retrying does not help"),
        (cannot.into(), 503, unavailable, "cannot_start", Some("60"), "retrying does not help until that is mended"),
        (Refusal::Gone.into(), 404, client, "model_not_found", None, "see /v1/models"),
        (
            GatewayError::ReplicasFailed { attempts: 3, last: "full" },
            502,
            server,
            "replicas_failed",
            seconds,
            "; retry",
        ),
        (GatewayError::AnswerBroken, 502, server, "answer_broken", Some("0"), "; retry"),
        (GatewayError::NotContinued("no other goes on; retry"), 502, server, "answer_broken", None, "; retry"),
        (GatewayError::Draining, 503, unavailable, "gateway_draining", Some("0"), "retry at once"),
        (GatewayError::Internal, 500, server, "internal_error", None, "retry once"),
    ]
}

#[tokio::test]
async fn every_error_says_what_happened_and_whether_to_retry() {
    for (at, (error, status, kind, code, retry, to_do)) in table().into_iter().enumerate() {
        assert_eq!(place(&error), at, "{error}");
        let words = error.to_string();
        let response = error.clone().into_response();
        assert_eq!(response.status().as_u16(), status, "{error}");
        let header = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(header("retry-after").as_deref(), retry, "{error}");
        // Whoever could have been answered is told when to come again, but where nobody knows or another answer follows.
        let for_nobody = matches!(error, GatewayError::Internal | GatewayError::NotContinued(_));
        assert_eq!(retry.is_some(), (status == 429 || status >= 500) && !for_nobody, "{error}");
        let reason = if code == "cannot_start" { "WeightsCorrupt" } else { code };
        assert_eq!(header(REASON).as_deref(), Some(reason), "{error}");
        let body = to_bytes(response.into_body(), 1 << 16).await.unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let error = &body["error"];
        assert_eq!((&error["type"], &error["code"], &error["message"]), (&kind.into(), &code.into(), &words.into()));
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(to_do) && message.len() > to_do.len() + 10, "{message}");
    }
}

#[tokio::test]
async fn a_body_that_cannot_be_read_says_what_to_mend() {
    let form = "multipart/form-data; boundary=X";
    let part = |name: &str| format!("--X\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\ny\r\n");
    for (kind, body, expected) in [
        ("application/json", "{".to_owned(), "mend it"),
        ("multipart/form-data", "x".to_owned(), "mend it"),
        (form, "--X\r\nbroken".to_owned(), "mend it"),
        (form, part("model").repeat(2) + "--X--\r\n", "send it once"),
        (form, part("x").repeat(300) + "--X--\r\n", "send fewer"),
    ] {
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(kind))]);
        let error = peek(&headers, &body.into()).await.unwrap_err();
        assert!(matches!(error, GatewayError::Malformed(_)), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    }
}
