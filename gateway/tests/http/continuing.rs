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
use vlm_contract::continuation::{Head, PATH, SIGNATURE, SIGNED_AT, STATE_PREFIX, signed_bytes};

/// Tokens of every answer.
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

/// The data of the events of an undisturbed answer.
pub fn undisturbed(id: &str) -> Vec<String> {
    events(id, None).into_iter().map(|(_, data)| data).collect()
}

/// State and data of the events of a new answer, or of one that goes on from the token `from`.
fn events(id: &str, from: Option<usize>) -> Vec<(Option<Value>, String)> {
    let chunk = |choices: Value, usage: Value| {
        json!({"id": id, "object": "chat.completion.chunk", "created": 7, "choices": choices, "usage": usage})
            .to_string()
    };
    let delta = |text: Option<String>, reason: Option<&str>| {
        chunk(json!([{"index": 0, "delta": {"content": text}, "finish_reason": reason}]), Value::Null)
    };
    let state = |tokens: Vec<usize>, ended: Option<&str>| Some(json!({"seed": 5, "tokens": tokens, "ended": ended}));
    let mut all = Vec::new();
    if from.is_none() {
        all.push((state(vec![], None), delta(Some(String::new()), None)));
    }
    for token in from.unwrap_or(0)..TOKENS {
        let ended = (token + 1 == TOKENS).then_some("length");
        all.push((state(vec![token], ended), delta(Some(format!(" word{token}")), None)));
    }
    all.push((state(vec![], Some("length")), delta(None, Some("length"))));
    all.push((None, chunk(json!([]), json!({"completion_tokens": TOKENS}))));
    all.push((None, "[DONE]".to_owned()));
    all
}

async fn begin(State(state): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 24).await.unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap();
    // Of several answers at once no state is told.
    let asked = parts.headers.get("x-vlm-stream-state").is_some_and(|value| value == "true");
    let with_state = asked && body["n"].as_u64().is_none_or(|n| n == 1);
    state.asked.lock().unwrap().push(parts.headers);
    answer(&state, "chatcmpl-1", None, with_state)
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
    assert_eq!((head.seed, head.created), (5, 7));
    let (id, from) = (head.id.clone(), head.tokens.len());
    state.continued.lock().unwrap().push((head, body[end + 1..].to_vec(), parts.headers));
    answer(&state, &id, Some(from), true)
}

fn answer(state: &Shared, id: &str, from: Option<usize>, with_state: bool) -> Response {
    let cut = *state.cut.lock().unwrap();
    let all = events(id, from).into_iter().map(move |(state, data)| {
        let state = state.filter(|_| with_state).map(|state| format!(": {STATE_PREFIX}{state}\n"));
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
        Cut::Breaks(after) => {
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
    ([("content-type", "text/event-stream")], body).into_response()
}
