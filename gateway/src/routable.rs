//! Asks a new replica about a small picture, the way that users' requests go, before users are sent there. Effects: one
//! request to the replica.
//!
//! Whoever reaches the admin port can have a replica asked, and nothing else: the request is made here, of names that
//! the cluster has told, goes to a replica that takes none yet, and is bounded in number.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use axum::{
    body::{Body, to_bytes},
    http::{HeaderValue, Method, Request, StatusCode, header},
};
use serde_json::{Value, json};
use vlm_contract::{
    headers::{REQUEST_ID, VIA},
    metrics::via,
    routable::{Answer, LONGEST_ANSWER, MOST_SECONDS, Question},
};

use crate::{app::App, desk::newcomers::Newcomer, proxy::upstream, routes::ModelId};

/// A square of one colour on a ground of another: 32 × 32 pixels, PNG.
const PICTURE: &str = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAACAAAAAgCAIAAAD8GO2jAAAAL0lEQVR42mP4SmPAMGrBqAVD2II7NhokoVELRi0YtWDUglELhqcFo1XmqAUjyAIAEVDdiPOaP1cAAAAASUVORK5CYII=";
/// Where it is asked.
const ROUTE: &str = "/v1/chat/completions";
/// Replicas that are asked at the same time.
const AT_ONCE: usize = 16;
/// A replica that was asked is not asked again before.
const REST: Duration = Duration::from_millis(200);
/// Replicas of which it is known that they rest, those that are being asked among them.
const KNOWN: usize = 1024;
/// More than the answer of a model server to that question, whatever it is.
const LONGEST: usize = 256 * 1024;

/// Why a replica is not asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such replica of a model that is served here.
    #[error("this gateway knows no such pod of a model; its watch may be behind")]
    Unknown,
    /// It takes requests, or is on its way out.
    #[error("the pod takes requests already, or is on its way out")]
    NotNew,
    /// It is being asked or was just now, or too many are.
    #[error("the pod is being asked already, or too many are; retry in 1 s")]
    Busy,
}

impl Refusal {
    /// As HTTP has it.
    pub const fn status(self) -> StatusCode {
        match self {
            Self::Unknown => StatusCode::NOT_FOUND,
            Self::NotNew => StatusCode::CONFLICT,
            Self::Busy => StatusCode::TOO_MANY_REQUESTS,
        }
    }
}

/// Replicas that are being asked, and those that were just now with the end of their rest.
#[derive(Debug, Default)]
pub struct Probes(Mutex<HashMap<Question, Option<Duration>>>);

impl Probes {
    /// Notes that a replica is asked from now until the result is dropped; `None` when it has to wait.
    fn begin(&self, question: &Question, now: Duration) -> Option<Asking<'_>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, rests| rests.is_none_or(|until| until > now));
        let asked = all.values().filter(|rests| rests.is_none()).count();
        if all.contains_key(question) || asked >= AT_ONCE || all.len() >= KNOWN {
            return None;
        }
        all.insert(question.clone(), None);
        Some(Asking { probes: self, question: question.clone(), begun: now, since: std::time::Instant::now() })
    }
}

/// A replica that is being asked.
struct Asking<'a> {
    probes: &'a Probes,
    question: Question,
    begun: Duration,
    since: std::time::Instant,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        let rests = self.begun + self.since.elapsed() + REST;
        let mut all = self.probes.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(self.question.clone(), Some(rests));
    }
}

/// Asks the replica of the question.
///
/// # Errors
/// [`Refusal`] when it is not asked.
pub async fn ask(app: &App, question: Question) -> Result<Answer, Refusal> {
    let id = ModelId { namespace: question.namespace.clone(), name: question.model.clone() };
    let address = match app.desk.newcomer(&id, &question.pod) {
        Newcomer::Unknown => return Err(Refusal::Unknown),
        Newcomer::None => return Err(Refusal::NotNew),
        Newcomer::At(address) => address,
    };
    let _asking = app.probes.begin(&question, app.desk.now()).ok_or(Refusal::Busy)?;
    let Some(request) = request(&upstream::uri(address, ROUTE), &id) else { return Err(Refusal::Unknown) };
    let limit = Duration::from_secs(MOST_SECONDS);
    let said = tokio::time::timeout(limit, send(app, request)).await;
    let said = said.unwrap_or_else(|_| Err(format!("the server did not answer a picture within {MOST_SECONDS} s")));
    tracing::debug!(model = %id, pod = question.pod, error = said.as_ref().err(), "a new replica was asked");
    Ok(match said {
        Ok(()) => Answer { routable: true, message: String::new() },
        Err(message) => Answer { routable: false, message },
    })
}

fn request(uri: &str, id: &ModelId) -> Option<Request<Body>> {
    let content =
        json!([{"type": "image_url", "image_url": {"url": PICTURE}}, {"type": "text", "text": "What is this?"}]);
    let body = json!({"model": id.to_string(), "max_tokens": 1, "temperature": 0,
                      "messages": [{"role": "user", "content": content}]});
    let mut request = Request::new(Body::from(body.to_string()));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri.parse().ok()?;
    let headers = request.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(VIA, HeaderValue::from_static(via::GATEWAY));
    headers.insert(REQUEST_ID, HeaderValue::from_str(&format!("routable-{}", uuid::Uuid::new_v4())).ok()?);
    Some(request)
}

/// What the server did instead of answering, if it did not.
async fn send(app: &App, request: Request<Body>) -> Result<(), String> {
    let response = app.upstream.send(request).await.map_err(|error| {
        let what = if error.is_connect() { "cannot be reached" } else { "broke off" };
        format!("the server {what} when a gateway asked it about a picture")
    })?;
    let status = response.status();
    let body = to_bytes(response.into_body(), LONGEST).await;
    let body = body.map_err(|_| "the server broke off its answer to a picture, or never ended it".to_owned())?;
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    if status == StatusCode::OK && body.pointer("/choices/0/message").is_some_and(Value::is_object) {
        return Ok(());
    }
    let words = body.pointer("/error/message").and_then(Value::as_str);
    let words: String = words.unwrap_or("no word of OpenAI's form").chars().take(LONGEST_ANSWER / 8).collect();
    Err(format!("the server answered a picture with {}: {words}", status.as_u16()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(pod: &str) -> Question {
        Question { namespace: "shop".to_owned(), model: "tiny".to_owned(), pod: pod.to_owned() }
    }

    #[test]
    fn a_replica_is_asked_once_at_a_time_and_rests_afterwards() {
        let probes = Probes::default();
        let second = Duration::from_secs(1);
        let asking = probes.begin(&question("a"), second);
        assert!(asking.is_some() && probes.begin(&question("a"), 9 * second).is_none());
        assert!(probes.begin(&question("b"), second).is_some(), "another one may be asked");
        drop(asking);
        assert!(probes.begin(&question("a"), second).is_none(), "it rests");
        assert!(probes.begin(&question("a"), 9 * second).is_some());
    }

    #[test]
    fn few_are_asked_at_the_same_time_and_few_remembered() {
        let probes = Probes::default();
        let asked: Vec<_> =
            (0..AT_ONCE).map(|n| probes.begin(&question(&n.to_string()), Duration::ZERO).unwrap()).collect();
        assert!(probes.begin(&question("one more"), Duration::ZERO).is_none());
        drop(asked);
        for n in 0..2 * KNOWN {
            drop(probes.begin(&question(&format!("later {n}")), Duration::ZERO));
        }
        assert!(probes.0.lock().unwrap().len() <= KNOWN);
    }

    #[test]
    fn the_picture_is_a_picture() {
        let data = PICTURE.strip_prefix("data:image/png;base64,").unwrap();
        let bytes = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, data).unwrap();
        assert!(bytes.starts_with(b"\x89PNG") && bytes.ends_with(b"IEND\xaeB`\x82"));
    }
}
