//! The server: two ports, one of the hub and one of its storage. The storage refuses whoever brings a token along.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::{StreamExt, stream};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::fault::Fault;
use crate::repository::{Repository, is_large, sha256};

/// A question that was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Whether it went to the storage.
    pub storage: bool,
    /// Path and query.
    pub path: String,
    /// `Range`, as it was sent.
    pub range: Option<String>,
    /// `Authorization`, as it was sent.
    pub authorization: Option<String>,
}

/// A running hub; it ends when this is dropped.
pub struct TestHub {
    /// Address of the hub.
    pub endpoint: String,
    /// Address of its storage.
    pub storage: String,
    shared: Arc<Shared>,
    servers: Vec<JoinHandle<()>>,
}

struct Shared {
    repositories: Vec<Repository>,
    asked: Mutex<Vec<Asked>>,
    faults: Mutex<Vec<(String, VecDeque<Fault>)>>,
    storage_port: u16,
}

impl TestHub {
    /// Starts on free ports of this machine.
    pub async fn start(repositories: Vec<Repository>) -> Self {
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        Self::start_at(repositories, free, free).await
    }

    /// Starts on these addresses.
    pub async fn start_at(repositories: Vec<Repository>, hub: SocketAddr, storage: SocketAddr) -> Self {
        let (hub, storage) = (TcpListener::bind(hub).await.unwrap(), TcpListener::bind(storage).await.unwrap());
        let (hub_address, storage_address) = (hub.local_addr().unwrap(), storage.local_addr().unwrap());
        let shared = Arc::new(Shared {
            repositories,
            asked: Mutex::default(),
            faults: Mutex::default(),
            storage_port: storage_address.port(),
        });
        let serve = |listener, is_storage| {
            let shared = Arc::clone(&shared);
            let router = Router::new().fallback(answer).with_state((shared, is_storage));
            tokio::spawn(async move { axum::serve(listener, router).await.unwrap() })
        };
        let servers = vec![serve(hub, false), serve(storage, true)];
        Self {
            endpoint: format!("http://{hub_address}"),
            storage: format!("http://{storage_address}"),
            shared,
            servers,
        }
    }

    /// The next answers to paths that contain `path` go wrong, one after another.
    pub fn fail(&self, path: &str, faults: impl IntoIterator<Item = Fault>) {
        self.shared.faults.lock().unwrap().push((path.to_owned(), faults.into_iter().collect()));
    }

    /// Everything that was asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().unwrap().clone()
    }

    /// What was asked of the storage so far, which is where large files come from.
    pub fn ranges(&self) -> Vec<Option<String>> {
        self.asked().into_iter().filter(|asked| asked.storage).map(|asked| asked.range).collect()
    }

    /// Waits for the server to end, which it does not.
    pub async fn wait(mut self) {
        for server in std::mem::take(&mut self.servers) {
            server.await.unwrap();
        }
    }
}

impl Drop for TestHub {
    fn drop(&mut self) {
        for server in &self.servers {
            server.abort();
        }
    }
}

impl Shared {
    fn next_fault(&self, path: &str) -> Option<Fault> {
        let mut faults = self.faults.lock().unwrap();
        faults.iter_mut().find(|(part, left)| path.contains(part.as_str()) && !left.is_empty())?.1.pop_front()
    }
}

async fn answer(State((shared, is_storage)): State<(Arc<Shared>, bool)>, request: Request) -> Response {
    let text = |name| request.headers().get(name).map(|v: &header::HeaderValue| v.to_str().unwrap().to_owned());
    let path = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
    let asked = Asked {
        storage: is_storage,
        path: path.clone(),
        range: text(header::RANGE),
        authorization: text(header::AUTHORIZATION),
    };
    shared.asked.lock().unwrap().push(asked.clone());
    let fault = shared.next_fault(&path);
    match &fault {
        Some(Fault::Status(status, after)) => {
            let status = StatusCode::from_u16(*status).unwrap();
            let after = after.map(|seconds| [(header::RETRY_AFTER, seconds.to_string())]);
            return after.map_or_else(|| status.into_response(), |after| (status, after).into_response());
        }
        Some(Fault::Body(body)) => {
            let body = body.clone();
            let chunks = stream::once(async move { Ok::<_, std::io::Error>(body) });
            return Body::from_stream(chunks).into_response();
        }
        Some(Fault::Redirect(to)) => return (StatusCode::FOUND, [(header::LOCATION, to.clone())]).into_response(),
        _ => {}
    }
    if is_storage {
        return shared.stored(&asked, fault.as_ref());
    }
    let host = request.headers().get(header::HOST).map(|v| v.to_str().unwrap()).unwrap_or_default();
    let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
    shared.of_hub(&asked, host, fault.as_ref())
}

impl Shared {
    fn of_hub(&self, asked: &Asked, host: &str, fault: Option<&Fault>) -> Response {
        let (path, query) = asked.path.split_once('?').unwrap_or((&asked.path, ""));
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let (name, rest) = match parts.as_slice() {
            ["api", "models", organisation, name, rest @ ..] | [organisation, name, rest @ ..] => {
                (format!("{organisation}/{name}"), rest)
            }
            _ => return StatusCode::NOT_FOUND.into_response(),
        };
        let repository = self.repositories.iter().find(|repository| repository.name == name);
        let may_read = |repository: &Repository| {
            let expected = repository.token.as_ref().map(|token| format!("Bearer {token}"));
            expected.is_none() || expected == asked.authorization
        };
        let Some(repository) = repository.filter(|repository| may_read(repository)) else {
            // As the hub does: without a token nobody learns whether there is such a repository.
            let status = if asked.authorization.is_some() { StatusCode::NOT_FOUND } else { StatusCode::UNAUTHORIZED };
            return (status, [("x-error-message", "Repository not found or private")]).into_response();
        };
        match rest {
            ["revision" | "tree" | "resolve", revision, ..] if !repository.has_revision(revision) => {
                (StatusCode::NOT_FOUND, [("x-error-message", "Invalid rev id")]).into_response()
            }
            ["revision", _] => axum::Json(json!({"id": name, "sha": repository.commit()})).into_response(),
            ["tree", _] => page(repository, path, query),
            ["resolve", _, file] => match repository.files.get(*file) {
                Some(content) if is_large(file) => {
                    let to = format!(
                        "http://{host}:{}/blobs/{}/{file}?signature=s3cret",
                        self.storage_port,
                        sha256(content)
                    );
                    (StatusCode::FOUND, [(header::LOCATION, to)]).into_response()
                }
                Some(content) => bytes(content, asked.range.as_deref(), fault),
                None => (StatusCode::NOT_FOUND, [("x-error-message", "Entry not found")]).into_response(),
            },
            _ => StatusCode::NOT_FOUND.into_response(),
        }
    }

    fn stored(&self, asked: &Asked, fault: Option<&Fault>) -> Response {
        if asked.authorization.is_some() {
            return (StatusCode::BAD_REQUEST, "only one way of authorisation is allowed").into_response();
        }
        let digest = asked.path.trim_start_matches("/blobs/").split('/').next().unwrap_or_default();
        let mut all = self.repositories.iter().flat_map(|repository| repository.files.iter());
        match all.find(|(path, content)| is_large(path) && sha256(content) == digest) {
            Some((_, content)) => bytes(content, asked.range.as_deref(), fault),
            None => StatusCode::NOT_FOUND.into_response(),
        }
    }
}

/// A page of the list of files.
fn page(repository: &Repository, path: &str, query: &str) -> Response {
    let from: usize = query.strip_prefix("cursor=").and_then(|cursor| cursor.parse().ok()).unwrap_or(0);
    let entries = repository.entries();
    let size = if repository.page == 0 { entries.len() } else { repository.page };
    let page: Vec<_> = entries.iter().skip(from).take(size).cloned().collect();
    let mut headers = HeaderMap::new();
    if from + size < entries.len() {
        let next = format!("<{path}?cursor={}>; rel=\"next\"", from + size);
        headers.insert(header::LINK, next.parse().unwrap());
    }
    (headers, axum::Json(page)).into_response()
}

/// The whole of a file or a range of it, as the fault will have it.
fn bytes(content: &Bytes, range: Option<&str>, fault: Option<&Fault>) -> Response {
    let mut content = content.clone();
    if let Some(Fault::Flip(place)) = fault {
        let mut changed = content.to_vec();
        changed[*place] ^= 1;
        content = Bytes::from(changed);
    }
    let size = content.len();
    let wanted = range.filter(|_| fault != Some(&Fault::NoRanges)).map(|range| {
        let (from, to) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
        (from.parse::<usize>().unwrap(), to.parse::<usize>().map_or(size, |to| (to + 1).min(size)))
    });
    let mut headers = HeaderMap::new();
    let (status, body) = match wanted {
        Some((from, _)) if from >= size => return StatusCode::RANGE_NOT_SATISFIABLE.into_response(),
        Some((from, to)) => {
            headers.insert(header::CONTENT_RANGE, format!("bytes {from}-{}/{size}", to - 1).parse().unwrap());
            (StatusCode::PARTIAL_CONTENT, content.slice(from..to))
        }
        None => (StatusCode::OK, content),
    };
    headers.insert(header::CONTENT_LENGTH, body.len().into());
    (status, headers, streamed(body, fault)).into_response()
}

fn streamed(body: Bytes, fault: Option<&Fault>) -> Body {
    let (kept, end) = match fault {
        Some(Fault::Cut(kept)) => (*kept, Some(true)),
        Some(Fault::Stall(kept)) => (*kept, Some(false)),
        Some(Fault::Slow(size, pause)) => return slow(&body, *size, *pause),
        _ => return Body::from(body),
    };
    let first = stream::once(async move { Ok(body.slice(..kept.min(body.len()))) });
    let rest = match end {
        Some(true) => stream::once(async {
            // So that the first bytes are on their way before the connection breaks.
            tokio::time::sleep(Duration::from_millis(20)).await;
            Err::<Bytes, _>(std::io::Error::other("cut"))
        })
        .left_stream(),
        _ => stream::pending().right_stream(),
    };
    Body::from_stream(first.chain(rest))
}

fn slow(body: &Bytes, size: usize, pause: Duration) -> Body {
    let pieces: Vec<Bytes> =
        (0..body.len()).step_by(size).map(|at| body.slice(at..(at + size).min(body.len()))).collect();
    Body::from_stream(stream::iter(pieces).then(move |piece| async move {
        tokio::time::sleep(pause).await;
        Ok::<_, std::io::Error>(piece)
    }))
}
