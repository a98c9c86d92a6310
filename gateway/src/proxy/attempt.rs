//! One attempt at one replica, up to the first byte that a client gets of its answer: a short answer is read whole
//! before that, and of a stream the first event, so that one which breaks off can be had elsewhere.

use std::collections::VecDeque;

use axum::{
    body::{Body, BodyDataStream},
    http::{HeaderMap, Request, StatusCode, header},
    response::Response,
};
use bytes::Bytes;
use futures::StreamExt;

use super::{Job, flow, headers, retry::Kind, upstream};
use crate::{desk::Lease, error::GatewayError, migrate, sse::Splitter};

/// Bytes of an answer that are read before the client gets the first of them; events go on as soon as one is whole.
const READ_AHEAD: usize = 1 << 20;

/// An attempt that failed before the first byte of an answer.
pub(super) struct Failure {
    pub kind: Kind,
    /// The replica that failed.
    pub lease: Lease,
    /// What it said, if it said anything that a client can be given.
    reply: Option<Response>,
}

impl Failure {
    /// The word in metrics and logs.
    pub(super) fn reason(&self) -> &'static str {
        match self.kind {
            Kind::Unreachable => "unreachable",
            Kind::BrokeOff => "broke_off",
            Kind::Rubbish => "rubbish",
            Kind::Full { .. } => "full",
            Kind::Leaving { .. } => "leaving",
            Kind::Failed => "failed",
        }
    }

    /// What the client gets when no further attempt is made: the replica's own words, where it has any.
    pub(super) fn pass_on(self, job: &Job, attempts: u32) -> Result<Response, GatewayError> {
        let last = self.reason();
        match self.reply {
            Some(reply) => {
                let (mut parts, body) = reply.into_parts();
                headers::of_answer(&mut parts.headers);
                let begun = Begun { first: VecDeque::new(), rest: body.into_data_stream() };
                let flow = flow::follow(begun, self.lease, job, false);
                Ok(Response::from_parts(parts, flow))
            }
            None => Err(GatewayError::ReplicasFailed { attempts, last }),
        }
    }
}

/// The body of an answer that has begun.
pub(crate) struct Begun {
    pub first: VecDeque<Bytes>,
    pub rest: BodyDataStream,
}

impl Begun {
    /// Reads all of an answer, or of `events` up to the end of the first; `None` when it breaks off before.
    async fn read(mut rest: BodyDataStream, events: bool) -> Option<Self> {
        let (mut first, mut length) = (VecDeque::new(), 0);
        let mut splitter = events.then(Splitter::default);
        while let Some(piece) = rest.next().await {
            let piece = piece.ok()?;
            length += piece.len();
            let has_event = splitter.as_mut().is_some_and(|splitter| splitter.push(piece.clone()).is_some());
            first.push_back(piece);
            if has_event || length > READ_AHEAD {
                return Some(Self { first, rest });
            }
        }
        (!events).then_some(Self { first, rest })
    }

    /// The next piece.
    pub(crate) async fn next(&mut self) -> Option<Result<Bytes, axum::Error>> {
        match self.first.pop_front() {
            Some(piece) => Some(Ok(piece)),
            None => self.rest.next().await,
        }
    }
}

/// Asks the replica of `lease`; the answer gives it back at its end.
pub(super) async fn ask(job: &Job, mut lease: Lease) -> Result<Response, Failure> {
    let mut request = Request::new(Body::from(job.body.bytes.clone()));
    *request.method_mut() = axum::http::Method::POST;
    request.headers_mut().clone_from(&job.headers);
    match upstream::uri(lease.seat().address, &job.path).parse() {
        Ok(uri) => *request.uri_mut() = uri,
        Err(_) => return Err(Failure { kind: Kind::Unreachable, lease, reply: None }),
    }
    let response = match job.app.upstream.send(request).await {
        Ok(response) => response,
        Err(error) => {
            let kind = if error.is_connect() { Kind::Unreachable } else { Kind::BrokeOff };
            return Err(Failure { kind, lease, reply: None });
        }
    };
    if let Some(kind) = failed(response.status(), response.headers()) {
        // A redirect or the like is nothing that a model server says.
        let status = response.status();
        let usable = (status.is_server_error() || status.is_client_error()) && flow::is_json(response.headers());
        return Err(Failure { kind, lease, reply: usable.then_some(response) });
    }
    let (mut parts, body) = response.into_parts();
    let events = flow::is_events(&parts.headers);
    if !events && !flow::is_json(&parts.headers) {
        return Err(Failure { kind: Kind::Rubbish, lease, reply: None });
    }
    let Some(begun) = Begun::read(body.into_data_stream(), events).await else {
        return Err(Failure { kind: Kind::BrokeOff, lease, reply: None });
    };
    lease.answered();
    headers::of_answer(&mut parts.headers);
    let identity = migrate::take_identity(&mut parts.headers);
    let body = if events && migrate::asked_for_state(&job.headers) {
        migrate::follow(begun, lease, job.source(), identity)
    } else {
        flow::follow(begun, lease, job, events)
    };
    Ok(Response::from_parts(parts, body))
}

/// How an answer is a failure of its replica; `None` for what is the client's to have.
pub(crate) fn failed(status: StatusCode, headers: &HeaderMap) -> Option<Kind> {
    let retry_after_seconds = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    match status {
        StatusCode::TOO_MANY_REQUESTS => Some(Kind::Full { retry_after_seconds }),
        StatusCode::SERVICE_UNAVAILABLE => Some(Kind::Leaving { retry_after_seconds }),
        status if status.is_success() || status.is_client_error() => None,
        _ => Some(Kind::Failed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn success_and_the_clients_own_errors_are_answers() {
        let of = |status: u16| failed(StatusCode::from_u16(status).unwrap(), &HeaderMap::new());
        for status in [200, 204, 400, 404, 408, 413] {
            assert_eq!(of(status), None, "{status}");
        }
        assert_eq!(of(429), Some(Kind::Full { retry_after_seconds: None }));
        assert_eq!(of(503), Some(Kind::Leaving { retry_after_seconds: None }));
        for status in [302, 500, 502, 504] {
            assert_eq!(of(status), Some(Kind::Failed), "{status}");
        }
        let soon = HeaderMap::from_iter([(header::RETRY_AFTER, 7.into())]);
        let full = failed(StatusCode::TOO_MANY_REQUESTS, &soon);
        assert_eq!(full, Some(Kind::Full { retry_after_seconds: Some(7) }));
    }
}
