//! HTTP servers in the place of replicas: one that answers as it is told, and one that speaks raw bytes.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::post,
};
use bytes::Bytes;
use futures::stream;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::Semaphore,
};

/// How a replica answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// With the body that it got.
    Echo,
    /// With five events.
    Stream,
    /// With two events, and then never again.
    StreamForever,
    /// 429.
    Full,
    /// 503, at once elsewhere.
    Leaving,
    /// 500 with words of its own.
    Failing,
    /// 302.
    Redirecting,
    /// With what it got, once it is let.
    Gated,
}

pub struct Replica {
    pub address: SocketAddr,
    pub state: Arc<Shared>,
    server: tokio::task::JoinHandle<()>,
}

pub struct Shared {
    mood: Mutex<Mood>,
    pub seen: Mutex<Vec<(HeaderMap, Bytes)>>,
    /// What was asked for, with whatever follows a question mark.
    pub paths: Mutex<Vec<String>>,
    pub gate: Semaphore,
    running: AtomicUsize,
    pub most: AtomicUsize,
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Replica {
    pub async fn start(mood: Mood) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Shared {
            mood: Mutex::new(mood),
            seen: Mutex::default(),
            paths: Mutex::default(),
            gate: Semaphore::new(0),
            running: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
        });
        let router = Router::new()
            .route("/v1/chat/completions", post(answer))
            .route("/v1/completions", post(answer))
            .route("/v1/responses", post(answer))
            .with_state(Arc::clone(&state));
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, state, server }
    }

    pub fn turn(&self, mood: Mood) {
        *self.state.mood.lock().unwrap() = mood;
    }

    pub fn count(&self) -> usize {
        self.state.seen.lock().unwrap().len()
    }
}

struct Running<'a>(&'a Shared);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn answer(State(state): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 24).await.unwrap();
    state.paths.lock().unwrap().push(parts.uri.to_string());
    state.seen.lock().unwrap().push((parts.headers, body.clone()));
    let running = state.running.fetch_add(1, Ordering::SeqCst) + 1;
    state.most.fetch_max(running, Ordering::SeqCst);
    let _running = Running(&state);
    let mood = *state.mood.lock().unwrap();
    let json = [("content-type", "application/json"), ("connection", "x-inner"), ("x-inner", "1")];
    match mood {
        Mood::Echo => (json, body).into_response(),
        Mood::Gated => {
            state.gate.acquire().await.unwrap().forget();
            (json, body).into_response()
        }
        Mood::Stream => events(stream::iter((0..5).map(|n| Ok(format!("data: {n}\n\n"))))),
        Mood::StreamForever => {
            let two = stream::iter((0..2).map(|n| Ok(format!("data: {n}\n\n"))));
            events(futures::StreamExt::chain(two, stream::pending()))
        }
        Mood::Full => (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "0")], "{}").into_response(),
        Mood::Leaving => (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "0")], "{}").into_response(),
        Mood::Failing => {
            let words = r#"{"error": {"message": "own words", "type": "server_error", "code": "engine_error"}}"#;
            (StatusCode::INTERNAL_SERVER_ERROR, json, words).into_response()
        }
        Mood::Redirecting => (StatusCode::FOUND, [("location", "http://127.0.0.1:1/")]).into_response(),
    }
}

fn events(all: impl futures::Stream<Item = Result<String, std::io::Error>> + Send + 'static) -> Response {
    ([("content-type", "text/event-stream")], Body::from_stream(all)).into_response()
}

/// Answers every connection's first request with these bytes, and closes it.
pub async fn raw(answer: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = [0; 4096];
                let _ = stream.read(&mut head).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            });
        }
    });
    address
}

/// Answers with a head, then with a piece again and again, to so many bytes in all, and closes the connection.
pub async fn endless(head: &'static str, piece: &'static str, most: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(head.as_bytes()).await;
                for _ in 0..most / piece.len() {
                    if stream.write_all(piece.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// An address that nobody listens at.
pub async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}
