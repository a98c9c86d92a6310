//! A server that answers in the words of the model server, at once: what is measured is the way, not the model.

use std::{convert::Infallible, net::Ipv4Addr, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::DefaultBodyLimit,
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
    routing::post,
};
use tokio::{net::TcpListener, runtime::Builder};

/// Between two events of a stream.
pub const PACE: Duration = Duration::from_millis(200);

const ANSWER: &str = r#"{"id":"chatcmpl-0123456789abcdef0123456789abcdef","object":"chat.completion","created":1764230400,"model":"tiny","choices":[{"index":0,"message":{"role":"assistant","content":"A red circle on a white ground, and beside it the digits 4 and 2.","refusal":null},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":211,"completion_tokens":18,"total_tokens":229,"prompt_tokens_details":{"cached_tokens":0}}}"#;
const EVENT: &str = "data: {\"id\":\"chatcmpl-0123456789abcdef0123456789abcdef\",\"object\":\"chat.completion.chunk\",\"created\":1764230400,\"model\":\"tiny\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" circle\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n";

/// Listens on a port of the system's choice, and prints it.
pub fn run() {
    Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        println!("{}", listener.local_addr().unwrap());
        let router = Router::new().route("/v1/chat/completions", post(answer)).layer(DefaultBodyLimit::disable());
        axum::serve(axum::serve::ListenerExt::tap_io(listener, |stream| stream.set_nodelay(true).unwrap()), router)
            .await
            .unwrap();
    });
}

async fn answer(body: Bytes) -> Response {
    // Ahead of the picture, as clients send it.
    if !body[..body.len().min(100)].windows(13).any(|window| window == b"\"stream\":true") {
        return ([(CONTENT_TYPE, "application/json")], ANSWER).into_response();
    }
    let events = async_stream::stream! {
        loop {
            yield Ok::<_, Infallible>(Bytes::from_static(EVENT.as_bytes()));
            tokio::time::sleep(PACE).await;
        }
    };
    ([(CONTENT_TYPE, "text/event-stream")], Body::from_stream(events)).into_response()
}
