//! The answer to a streaming client whose request waits: once it has waited for a heartbeat's time, the stream begins
//! with comments that say how long it may take. From then on the status is 200, so an error is an event.

use std::sync::Arc;

use axum::{
    body::{Body, to_bytes},
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::Response,
};
use bytes::Bytes;
use futures::{StreamExt, future::BoxFuture};
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::{Job, flow::is_events};
use crate::{app::App, desk::Outlook, error::GatewayError, hold::Place, routes::ModelId, sse};

/// More than any error of a replica has.
const LONGEST_ERROR: usize = 64 * 1024;

/// Answers at once when there is an answer, and with heartbeats while the request waits.
pub(super) async fn respond(job: Job) -> Result<Response, GatewayError> {
    let app = Arc::clone(&job.app);
    let (model, place) = (job.route.id.clone(), job.place);
    let mut obtaining: BoxFuture<'static, _> = Box::pin(job.obtain());
    loop {
        tokio::select! {
            answer = &mut obtaining => return answer,
            () = sleep(app.heartbeat) => {
                if app.desk.outlook(&model, place).is_some() {
                    return Ok(stream(app, model, place, obtaining));
                }
            }
        }
    }
}

fn stream(
    app: Arc<App>,
    model: ModelId,
    place: Place,
    mut obtaining: BoxFuture<'static, Result<Response, GatewayError>>,
) -> Response {
    let body = async_stream::stream! {
        let mut beats = interval(app.heartbeat);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let answer = loop {
            let answer = tokio::select! {
                answer = &mut obtaining => Some(answer),
                _ = beats.tick() => None,
            };
            match answer {
                Some(answer) => break answer,
                None => yield Ok(sse::comment(&in_words(app.desk.outlook(&model, place)))),
            }
        };
        match answer {
            Ok(answer) if answer.status() == StatusCode::OK && is_events(answer.headers()) => {
                let mut events = answer.into_body().into_data_stream();
                while let Some(piece) = events.next().await {
                    yield piece;
                }
            }
            Ok(answer) => yield Ok(as_event(answer).await),
            Err(error) => {
                app.note_refused(&model, &error);
                yield Ok(sse::event(&error.body()));
            }
        }
    };
    let mut response = Response::new(Body::from_stream(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Proxies that buffer would keep the heartbeats from the reader.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

/// What the comment says.
fn in_words(outlook: Option<Outlook>) -> String {
    let Some(Outlook { ahead, waking, eta_seconds }) = outlook else {
        return "the answer is being computed".to_owned();
    };
    let state = if waking { "the model is waking up" } else { "every replica is busy" };
    let eta = eta_seconds.map_or_else(|| "unknown".to_owned(), |seconds| seconds.to_string());
    format!("{state}; requests before this one: {ahead}; eta_seconds={eta}")
}

/// An answer that is no stream, as an event: an error of the replica's, or a body that is whole.
async fn as_event(answer: Response) -> Bytes {
    match to_bytes(answer.into_body(), LONGEST_ERROR).await {
        Ok(body) => match serde_json::from_slice::<serde_json::Value>(&body) {
            Ok(json) => sse::event(&json),
            Err(_) => sse::event(&GatewayError::AnswerBroken.body()),
        },
        Err(_) => sse::event(&GatewayError::AnswerBroken.body()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heartbeat_says_what_is_waited_for_and_how_long() {
        let outlook = Outlook { ahead: 2, waking: true, eta_seconds: Some(14) };
        assert_eq!(in_words(Some(outlook)), "the model is waking up; requests before this one: 2; eta_seconds=14");
        let busy = Outlook { ahead: 0, waking: false, eta_seconds: None };
        assert!(in_words(Some(busy)).ends_with("eta_seconds=unknown"));
        assert!(!in_words(None).contains('\n'));
    }
}
