//! A replica that says with each event what continues its answer, breaks off as it is told, and continues the answers
//! of others.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::post,
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use futures::{StreamExt, stream};
use ring::{
    digest::{SHA256, digest},
    signature::{ED25519, UnparsedPublicKey},
};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use vlm_contract::{
    continuation::{
        AnswerState, Ended, Head, Identity, PATH, SIGNATURE, SIGNED_AT, STATE_PREFIX, StreamState, signed_bytes,
    },
    headers::STREAM_STATE,
};

/// Tokens of the first answer.
pub const TOKENS: usize = 12;

/// How an answer ends before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// It does not.
    Never,
    /// The connection breaks after so many events.
    Breaks(usize),
    /// After so many events, it says that the server ends.
    Says(usize, &'static str),
    /// After so many events, nothing more comes.
    Silent(usize),
    /// The connection breaks after so many events, and the state is told as a former release did.
    Former(usize),
    /// A continuation is refused with this status.
    Refuses(u16),
}

pub struct Continuing {
    pub address: SocketAddr,
    pub state: Arc<Shared>,
    server: tokio::task::JoinHandle<()>,
}

pub struct Shared {
    key: String,
    cut: Mutex<Cut>,
    /// Heads of continuations, and the body after each.
    pub continued: Mutex<Vec<(Head, Vec<u8>, HeaderMap)>>,
    pub asked: Mutex<Vec<HeaderMap>>,
}

impl Drop for Continuing {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Continuing {
    /// With the gateway's public key.
    pub async fn start(key: &str, cut: Cut) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Shared {
            key: key.to_owned(),
            cut: Mutex::new(cut),
            continued: Mutex::default(),
            asked: Mutex::default(),
        });
        let router = Router::new()
            .route("/v1/chat/completions", post(begin))
            .route("/v1/completions", post(begin))
            .route("/v1/responses", post(begin))
            .route(PATH, post(go_on))
            .layer(axum::extract::DefaultBodyLimit::disable())
            .with_state(Arc::clone(&state));
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, state, server }
    }

    pub fn cut(&self, cut: Cut) {
        *self.state.cut.lock().unwrap() = cut;
    }

    pub fn continued(&self) -> usize {
        self.state.continued.lock().unwrap().len()
    }
}

/// What is asked for: how its events look, and of how many answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Chat(usize),
    Text(usize),
    Response,
}

impl Shape {
    pub fn path(self) -> &'static str {
        match self {
            Self::Chat(_) => "/v1/chat/completions",
            Self::Text(_) => "/v1/completions",
            Self::Response => "/v1/responses",
        }
    }

    /// Of a request.
    fn of(path: &str, body: &[u8]) -> Self {
        let body: Value = serde_json::from_slice(body).unwrap();
        let count = body["n"].as_u64().unwrap_or(1) as usize;
        let all = [Self::Chat(count), Self::Text(count), Self::Response];
        all.into_iter().find(|shape| shape.path() == path).unwrap()
    }

    fn answers(self) -> usize {
        match self {
            Self::Chat(count) | Self::Text(count) => count,
            Self::Response => 1,
        }
    }
}

/// The data of the events of an undisturbed chat of one answer.
pub fn undisturbed(id: &str) -> Vec<String> {
    undisturbed_of(Shape::Chat(1), id)
}

/// The data of the events of an undisturbed stream.
pub fn undisturbed_of(shape: Shape, id: &str) -> Vec<String> {
    events(shape, id, &[]).into_iter().map(|(_, data)| data).collect()
}

/// State and data of the events of a stream that goes on from `before`: a token of each answer in turn. The second
/// answer has half of the tokens.
fn events(shape: Shape, id: &str, before: &[AnswerState]) -> Vec<(Option<StreamState>, String)> {
    let mut all = Vec::new();
    if before.is_empty() {
        all.extend(beginning(shape, id));
    }
    let before = |answer: usize| before.get(answer).cloned().unwrap_or_default();
    for token in 0..=TOKENS {
        for answer in 0..shape.answers() {
            let (before, most) = (before(answer), TOKENS / (answer + 1));
            let state = |tokens: Vec<u32>, ended: bool| {
                let ended = ended.then_some(Ended::Length);
                StreamState { answer, tokens, ended, ..StreamState::default() }
            };
            if token < most && token >= before.tokens.len() {
                let data = said(shape, id, answer, token);
                all.push((Some(state(vec![token as u32], token + 1 == most)), data));
            }
            if token == most && !before.closed {
                all.extend(closing(shape, id, answer, StreamState { closed: true, ..state(vec![], true) }));
            }
        }
    }
    let last = StreamState { last: true, ..StreamState::default() };
    if shape == Shape::Response {
        all.push((Some(last), numbered("response.completed", TOKENS + 4, &json!({"response": {"id": id}}))));
    } else {
        all.push((None, chunk(shape, id, &json!([]), &json!({"completion_tokens": TOKENS}))));
        all.push((Some(last), "[DONE]".to_owned()));
    }
    all
}

/// The first events, of which the last has the state.
fn beginning(shape: Shape, id: &str) -> Vec<(Option<StreamState>, String)> {
    let first = match shape {
        Shape::Text(_) => return Vec::new(),
        Shape::Chat(count) => (0..count).map(|answer| delta(shape, id, answer, Some(""), None)).collect(),
        Shape::Response => ["response.created", "response.in_progress"]
            .into_iter()
            .enumerate()
            .map(|(number, kind)| numbered(kind, number, &json!({"response": {"id": id, "created_at": 7}})))
            .collect::<Vec<_>>(),
    };
    let last = first.len() - 1;
    first.into_iter().enumerate().map(|(n, data)| ((n == last).then(StreamState::default), data)).collect()
}

fn said(shape: Shape, id: &str, answer: usize, token: usize) -> String {
    let word = format!(" word{token}");
    match shape {
        Shape::Response => numbered("response.output_text.delta", token + 2, &json!({"delta": word})),
        _ => delta(shape, id, answer, Some(&word), None),
    }
}

/// The events with which an answer ends.
fn closing(shape: Shape, id: &str, answer: usize, state: StreamState) -> Vec<(Option<StreamState>, String)> {
    match shape {
        Shape::Response => vec![
            (None, numbered("response.output_text.done", TOKENS + 2, &json!({}))),
            (Some(state), numbered("response.output_item.done", TOKENS + 3, &json!({}))),
        ],
        _ => vec![(Some(state), delta(shape, id, answer, None, Some("length")))],
    }
}

fn chunk(shape: Shape, id: &str, choices: &Value, usage: &Value) -> String {
    let object = if matches!(shape, Shape::Text(_)) { "text_completion" } else { "chat.completion.chunk" };
    json!({"id": id, "object": object, "created": 7, "choices": choices, "usage": usage}).to_string()
}

fn delta(shape: Shape, id: &str, answer: usize, text: Option<&str>, reason: Option<&str>) -> String {
    let choice = match shape {
        Shape::Text(_) => json!({"index": answer, "text": text.unwrap_or_default(), "finish_reason": reason}),
        _ => json!({"index": answer, "delta": {"content": text}, "finish_reason": reason}),
    };
    chunk(shape, id, &json!([choice]), &Value::Null)
}

fn numbered(kind: &str, number: usize, more: &Value) -> String {
    let mut event = json!({"type": kind, "sequence_number": number});
    event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    event.to_string()
}

async fn begin(State(state): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 24).await.unwrap();
    let shape = Shape::of(parts.uri.path(), &body);
    let asked = parts.headers.get(STREAM_STATE).is_some_and(|value| value == "true");
    state.asked.lock().unwrap().push(parts.headers);
    answer(&state, asked, events(shape, "stream-1", &[]))
}

async fn go_on(State(state): State<Arc<Shared>>, request: Request) -> Response {
    if let Cut::Refuses(status) = *state.cut.lock().unwrap() {
        return (StatusCode::from_u16(status).unwrap(), "{}").into_response();
    }
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 24).await.unwrap();
    let at = parts.headers[SIGNED_AT].to_str().unwrap();
    let signature = BASE64_STANDARD.decode(&parts.headers[SIGNATURE]).unwrap();
    let key = UnparsedPublicKey::new(&ED25519, BASE64_STANDARD.decode(&state.key).unwrap());
    if key.verify(&signed_bytes(at, digest(&SHA256, &body).as_ref()), &signature).is_err() {
        return (StatusCode::UNAUTHORIZED, "{}").into_response();
    }
    let end = body.iter().position(|byte| *byte == b'\n').unwrap();
    let head: Head = serde_json::from_slice(&body[..end]).unwrap();
    assert_eq!(head.identity, identity());
    let events = events(Shape::of(&head.path, &body[end + 1..]), &head.identity.id, &head.answers);
    state.continued.lock().unwrap().push((head, body[end + 1..].to_vec(), parts.headers));
    answer(&state, true, events)
}

fn identity() -> Identity {
    Identity { id: "stream-1".to_owned(), created: 7, seed: 5 }
}

fn answer(state: &Shared, with_state: bool, events: Vec<(Option<StreamState>, String)>) -> Response {
    let cut = *state.cut.lock().unwrap();
    let told = with_state.then(identity).filter(|_| !matches!(cut, Cut::Former(_)));
    let all = events.into_iter().map(move |(state, data)| {
        let state = state.filter(|_| with_state).map(|state| match cut {
            Cut::Former(_) => json!({"seed": 5, "tokens": state.tokens, "ended": state.ended}).to_string(),
            _ => serde_json::to_string(&state).unwrap(),
        });
        let state = state.map(|state| format!(": {STATE_PREFIX}{state}\n"));
        Ok::<_, std::io::Error>(format!("{}data: {data}\n\n", state.unwrap_or_default()))
    });
    let all = stream::iter(all);
    // As over a network: not all at once.
    let all = all.then(|event| async {
        tokio::task::yield_now().await;
        event
    });
    let body = match cut {
        Cut::Never | Cut::Refuses(_) => Body::from_stream(all),
        Cut::Breaks(after) | Cut::Former(after) => {
            let broken = stream::once(async {
                tokio::task::yield_now().await;
                Err(std::io::Error::other("gone"))
            });
            Body::from_stream(all.take(after).chain(broken))
        }
        Cut::Says(after, code) => {
            let error = json!({"error": {"message": "own words", "code": code}});
            Body::from_stream(all.take(after).chain(stream::once(async move { Ok(format!("data: {error}\n\n")) })))
        }
        Cut::Silent(after) => Body::from_stream(all.take(after).chain(stream::pending())),
    };
    let mut response = ([("content-type", "text/event-stream")], body).into_response();
    if let Some(told) = told {
        response.headers_mut().insert(STREAM_STATE, serde_json::to_string(&told).unwrap().parse().unwrap());
    }
    response
}
