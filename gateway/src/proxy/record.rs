//! The access log's line of one request, and its metrics, at the end of its answer. No contents.

use std::time::Instant;

use axum::{body::Body, http::header, response::Response};
use futures::StreamExt;

use crate::{
    error::excerpt,
    metrics::Metrics,
    routes::ModelId,
    server::listen::{Activity, Answering},
    server::surround::RequestId,
};

/// How an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Whole.
    Complete,
    /// The client went away.
    ClientLeft,
    /// The answer broke off.
    Broken,
}

/// What is written when it is dropped.
pub(super) struct Record {
    metrics: Metrics,
    begun: Instant,
    id: RequestId,
    path: String,
    model: Option<ModelId>,
    request_bytes: usize,
    answer_bytes: u64,
    /// Bytes of the whole answer, where it says how many.
    announced: Option<u64>,
    status: Option<u16>,
    first_byte_milliseconds: Option<u64>,
    end: End,
    /// Keeps the connection from counting as silent.
    answering: Option<Answering>,
}

impl Record {
    pub(super) fn new(metrics: Metrics, id: RequestId, path: &str) -> Self {
        Self {
            metrics,
            begun: Instant::now(),
            id,
            path: excerpt(path),
            model: None,
            request_bytes: 0,
            answer_bytes: 0,
            announced: None,
            status: None,
            first_byte_milliseconds: None,
            end: End::ClientLeft,
            answering: None,
        }
    }

    /// Counts the answer as open on its connection until the end of the record.
    pub(super) fn on(&mut self, connection: Option<&Activity>) {
        self.answering = connection.map(Activity::answer);
    }

    /// The model is known.
    pub(super) fn of(&mut self, model: &ModelId, request_bytes: usize) {
        self.model = Some(model.clone());
        self.request_bytes = request_bytes;
    }

    /// Follows the answer to its end.
    pub(super) fn follow(mut self, response: Response) -> Response {
        self.status = Some(response.status().as_u16());
        let length = response.headers().get(header::CONTENT_LENGTH);
        self.announced = length.and_then(|length| length.to_str().ok()?.parse().ok());
        response.map(|body| {
            let mut pieces = body.into_data_stream();
            Body::from_stream(async_stream::stream! {
                let mut record = self;
                while let Some(piece) = pieces.next().await {
                    match &piece {
                        Ok(bytes) => record.passed(bytes.len()),
                        Err(_) => record.end = End::Broken,
                    }
                    yield piece;
                }
                if record.end == End::ClientLeft {
                    record.end = End::Complete;
                }
            })
        })
    }

    fn passed(&mut self, bytes: usize) {
        self.answer_bytes += bytes as u64;
        if self.announced == Some(self.answer_bytes) {
            // Nobody asks for more than was announced, not even for the end.
            self.end = End::Complete;
        }
        self.first_byte_milliseconds.get_or_insert(self.begun.elapsed().as_millis() as u64);
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if let (Some(model), Some(status)) = (&self.model, self.status) {
            self.metrics.finished(model, status);
        }
        tracing::info!(
            request_id = %self.id,
            path = self.path,
            namespace = self.model.as_ref().map(|model| model.namespace.as_str()),
            model = self.model.as_ref().map(|model| model.name.as_str()),
            status = self.status,
            end = ?self.end,
            request_bytes = self.request_bytes,
            answer_bytes = self.answer_bytes,
            first_byte_milliseconds = self.first_byte_milliseconds,
            milliseconds = self.begun.elapsed().as_millis() as u64,
            "request"
        );
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderMap;
    use bytes::Bytes;
    use futures::stream;

    use super::*;

    fn record() -> Record {
        Record::new(Metrics::new().unwrap(), RequestId::of(&HeaderMap::new()), "/v1/x")
    }

    #[test]
    fn an_answer_of_announced_length_is_complete_with_its_last_byte() {
        let mut record = record();
        record.announced = Some(4);
        record.passed(3);
        assert_eq!(record.end, End::ClientLeft);
        record.passed(1);
        assert_eq!(record.end, End::Complete);
    }

    #[tokio::test]
    async fn an_answer_goes_through_as_it_is() {
        let pieces = stream::iter([Ok("a"), Ok("b"), Err(std::io::Error::other("gone"))].map(|p| p.map(Bytes::from)));
        let response = record().follow(Response::new(Body::from_stream(pieces)));
        let mut pieces = response.into_body().into_data_stream();
        assert_eq!(
            (pieces.next().await.unwrap().unwrap(), pieces.next().await.unwrap().unwrap()),
            ("a".into(), "b".into())
        );
        assert!(pieces.next().await.unwrap().is_err() && pieces.next().await.is_none());
    }
}
