//! Clients that close their connection: what was computed for them is not computed any further. Exactly how many steps
//! that takes, the tests of the engine say; here it is seen through the sockets, on a model of which a step takes long.

use futures::StreamExt;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::loading::{GEOMETRY, random};
use super::random_llava::Geometry;
use super::server::{Server, question};

/// Tokens of a prompt that are read in one step.
const CHUNK: u64 = 512;

/// A connection on which `body` was asked.
async fn asking(server: &Server, body: &Value) -> TcpStream {
    let body = body.to_string();
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).await.unwrap();
    stream
}

async fn running(server: &Server) -> u64 {
    server.metric("vlm_requests_running").await
}

async fn waiting(server: &Server) -> u64 {
    server.metric("vlm_requests_waiting{stage=\"queue\"}").await
}

async fn generated(server: &Server) -> u64 {
    server.metric("vlm_generation_tokens_total").await
}

async fn cancelled(server: &Server) -> u64 {
    server.metric("vlm_requests_finished_total{reason=\"cancelled\"}").await
}

/// An answer of a thousand tokens.
fn endless(stream: bool) -> Value {
    question(&json!({"max_tokens": 1000, "ignore_eos": true, "stream": stream}))
}

#[tokio::test]
async fn nothing_is_computed_for_closed_sockets() {
    let model = random(&Geometry { layers: 4, ..GEOMETRY });
    let words = ["--max-tokens", "4096", "--max-concurrency", "1", "--max-queue", "4"];
    let server = Server::start_on(model.path(), &words).await;
    // First, while no beginning of its prompt is known.
    reading(&server).await;
    for stream in [true, false] {
        decoding(&server, stream).await;
    }
    queueing(&server).await;
}

/// While its answer is generated, of which a stream has told something.
async fn decoding(server: &Server, stream: bool) {
    let before = generated(server).await;
    let gone = cancelled(server).await;
    let mut leaves = asking(server, &endless(stream)).await;
    if stream {
        assert_ne!(leaves.read(&mut [0; 1024]).await.unwrap(), 0);
    }
    server.until("some tokens are there", async || generated(server).await >= before + 3).await;
    let then = generated(server).await;
    drop(leaves);
    server.until("it is gone", async || running(server).await == 0 && cancelled(server).await == gone + 1).await;
    let after = generated(server).await - then;
    assert!(after < 20, "{after} tokens more");
}

/// While its prompt of eight pieces is read: of the pieces after the one that was being read none is.
async fn reading(server: &Server) {
    let letters: String = ('a'..='y').cycle().take(3900).collect();
    let long = question(&json!({"messages": [{"role": "user", "content": letters}], "max_tokens": 1}));
    let leaves = asking(server, &long).await;
    server.until("its prompt is read", async || running(server).await == 1).await;
    drop(leaves);
    server.until("it is gone", async || running(server).await == 0).await;
    let (status, answer) = server.ask(&long).await;
    assert_eq!(status, 200, "{answer}");
    // What was read is in the cache.
    let usage = &answer["usage"];
    let read = usage["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
    assert!(usage["prompt_tokens"].as_u64().unwrap() > 7 * CHUNK && read % CHUNK == 0, "{usage}");
    // The first piece, or the second if it had begun when the end of the connection came through.
    assert!((1..=2).contains(&(read / CHUNK)), "{read} tokens were read");
}

/// While it waits behind another one, whose answer goes on.
async fn queueing(server: &Server) {
    let gone = cancelled(server).await;
    let mut runs = server.post().json(&endless(true)).send().await.unwrap().bytes_stream();
    assert!(runs.next().await.unwrap().is_ok());
    let leaves = asking(server, &endless(false)).await;
    server.until("it waits", async || waiting(server).await == 1).await;
    drop(leaves);
    server.until("it is gone", async || waiting(server).await == 0).await;
    let ended = server.metric("vlm_requests_finished_total{reason=\"length\"}").await;
    assert_eq!(ended, 1, "the other has ended");
    assert_eq!((running(server).await, cancelled(server).await), (1, gone + 1));
    let then = generated(server).await;
    server.until("the other goes on", async || generated(server).await > then).await;
    drop(runs);
    server.until("all are gone", async || running(server).await == 0).await;
}
