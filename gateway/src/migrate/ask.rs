//! One attempt to let a replica go on with an answer.

use std::{convert::Infallible, sync::Arc, time::SystemTime};

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header},
};
use bytes::Bytes;
use futures::{StreamExt, stream};
use vlm_contract::continuation::{CONTENT_TYPE, Head, PATH};

use super::{
    key::SigningKey,
    stream::{Replica, Source},
};
use crate::{
    desk::Lease,
    proxy::{attempt, flow, retry::Kind, upstream},
};

/// Bodies of more bytes are hashed away from the async threads.
const HASH_INLINE: usize = 256 * 1024;

/// What came of it.
pub(super) enum Asked {
    /// It goes on.
    Answers(Replica),
    /// Another one may.
    Failed(Kind, Lease),
    /// None will.
    Refused,
}

/// Asks the replica of `lease` to go on from `head`.
pub(super) async fn ask(source: &Source, head: &Head, mut lease: Lease) -> Asked {
    let Some(request) = request(source, head, &lease).await else { return Asked::Refused };
    let response = match source.app.upstream.send(request).await {
        Ok(response) => response,
        Err(error) if error.is_connect() => return Asked::Failed(Kind::Unreachable, lease),
        Err(_) => return Asked::Failed(Kind::BrokeOff, lease),
    };
    if let Some(kind) = attempt::failed(response.status(), response.headers()) {
        return Asked::Failed(kind, lease);
    }
    match response.status() {
        StatusCode::OK if flow::is_events(response.headers()) => {}
        // It has no key, or another one: it was made before the gateway's.
        StatusCode::NOT_FOUND | StatusCode::UNAUTHORIZED => return Asked::Failed(Kind::Failed, lease),
        status => {
            tracing::warn!(model = %source.route.id, %status, pod = lease.seat().pod, "a continuation was refused");
            return Asked::Refused;
        }
    }
    let mut rest = response.into_body().into_data_stream();
    match rest.next().await {
        Some(Ok(first)) => {
            lease.answered();
            Asked::Answers(Replica::new(attempt::Begun { first: [first].into(), rest }, lease, source))
        }
        _ => Asked::Failed(Kind::BrokeOff, lease),
    }
}

/// The signed request; `None` when there is nothing to sign with or to send.
async fn request(source: &Source, head: &Head, lease: &Lease) -> Option<Request<Body>> {
    let (signer, body) = (source.app.signer.as_ref()?, source.body.as_ref()?);
    let mut first = serde_json::to_vec(head).ok()?;
    first.push(b'\n');
    let pieces = [Bytes::from(first), body.bytes().clone()];
    let length = pieces.iter().map(Bytes::len).sum::<usize>();
    let signature = sign(signer, pieces.clone(), length).await?;
    let mut request = Request::new(Body::from_stream(stream::iter(pieces.map(Ok::<_, Infallible>))));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = upstream::uri(lease.seat().address, PATH).parse().ok()?;
    let headers = request.headers_mut();
    headers.clone_from(&source.headers);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    headers.extend(signature);
    Some(request)
}

async fn sign(signer: &Arc<SigningKey>, pieces: [Bytes; 2], length: usize) -> Option<HeaderMap> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs();
    if length <= HASH_INLINE {
        return Some(signer.sign(now, &pieces));
    }
    let signer = Arc::clone(signer);
    tokio::task::spawn_blocking(move || signer.sign(now, &pieces)).await.ok()
}
