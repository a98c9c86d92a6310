//! HTTP/2 in raw frames: what a client of it may say that would mean something else in the HTTP/1.1 that a replica is
//! asked in. Each is refused, or the replica sees one request, the one that was meant.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::gateway::{Gateway, question};
use crate::replica::{Mood, Replica};

const QUESTION: &str = r#"{"model":"tiny"}"#;
const INNER: &str = "POST /v1/chat/completions HTTP/1.1\r\nhost: evil\r\ncontent-type: application/json\r\n\
                     content-length: 16\r\n\r\n{\"model\":\"tiny\"}";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const GO_AWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// `:status: 200` as an index (RFC 7541, appendix A).
const STATUS_200: u8 = 0x88;

/// What it tries, fields of the request, and the pieces of its body.
type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a [&'a str]);

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [length[1], length[2], length[3], kind, flags, 0, 0, 0, stream];
    [&head[..], payload].concat()
}

/// A string without Huffman's code (RFC 7541, section 5.2).
fn string(text: &str) -> Vec<u8> {
    let mut all = Vec::new();
    if let Some(mut rest) = text.len().checked_sub(127) {
        all.push(127);
        while rest >= 128 {
            all.push(128 | (rest % 128) as u8);
            rest /= 128;
        }
        all.push(rest as u8);
    } else {
        all.push(text.len() as u8);
    }
    all.extend(text.as_bytes());
    all
}

/// The fields of an honest request, with others in place of those of the same name and the rest after them.
fn fields(others: &[(&str, &str)]) -> Vec<u8> {
    let honest = [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "gateway"),
        (":path", "/v1/chat/completions"),
        ("content-type", "application/json"),
    ];
    let other = |name: &str| others.iter().any(|(other, _)| *other == name);
    let kept = honest.iter().filter(|(name, _)| !other(name));
    // Names with a colon go first, as they must.
    let (first, last): (Vec<_>, Vec<_>) = kept.chain(others).partition(|(name, _)| name.starts_with(':'));
    // Literals that are not indexed (RFC 7541, section 6.2.2).
    let literal = |(name, value): &&(&str, &str)| [vec![0], string(name), string(value)].concat();
    first.iter().chain(&last).flat_map(literal).collect()
}

/// Whether a request is answered with 200; otherwise with another status, or its stream or connection is ended.
async fn answered(gateway: &Gateway, others: &[(&str, &str)], data: &[&str]) -> bool {
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, &[]));
    let ends = if data.is_empty() { END_STREAM } else { 0 };
    bytes.extend(frame(HEADERS, END_HEADERS | ends, 1, &fields(others)));
    for (at, piece) in data.iter().enumerate() {
        let ends = if at + 1 == data.len() { END_STREAM } else { 0 };
        bytes.extend(frame(DATA, ends, 1, piece.as_bytes()));
    }
    // The gateway may close before all is sent.
    let _ = stream.write_all(&bytes).await;
    let reading = async {
        loop {
            let mut head = [0; 9];
            if stream.read_exact(&mut head).await.is_err() {
                return false;
            }
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            if stream.read_exact(&mut payload).await.is_err() {
                return false;
            }
            match head[3] {
                // Past what changes the size of the table of headers.
                HEADERS => return payload.iter().find(|byte| **byte & 0xe0 != 0x20) == Some(&STATUS_200),
                RESET | GO_AWAY => return false,
                _ => {}
            }
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), reading).await.expect("neither answered nor refused")
}

/// Asks so, and then honestly on a connection to the replica that may have been used; the replica has seen whole
/// requests of ours and nothing else.
async fn smuggles_nothing(
    (gateway, replica): (&Gateway, &Replica),
    name: &str,
    others: &[(&str, &str)],
    data: &[&str],
) -> bool {
    let before = replica.count();
    let answered = answered(gateway, others, data).await;
    assert_eq!(gateway.ask(&question()).send().await.unwrap().status(), 200);
    let seen = replica.state.seen.lock().unwrap()[before..].to_vec();
    assert_eq!(seen.len(), 1 + usize::from(answered), "{name}: what the replica has seen");
    for (headers, body) in seen {
        assert!(body == QUESTION || body == question().to_string(), "{name}: {body:?}");
        assert_eq!(headers["host"].to_str().unwrap(), replica.address.to_string(), "{name}");
        assert_eq!(headers["content-length"], body.len().to_string().as_str(), "{name}");
        for header in ["transfer-encoding", "connection", "upgrade", "te", "x-evil", "expect"] {
            assert!(!headers.contains_key(header), "{name}: {header}");
        }
    }
    assert!(replica.state.paths.lock().unwrap().iter().all(|path| path == "/v1/chat/completions"), "{name}");
    answered
}

#[tokio::test]
async fn what_http_2_forbids_is_refused() {
    let (gateway, replica) = (Gateway::start().await, Replica::start(Mood::Echo).await);
    gateway.replicas(&[replica.address]);
    let both = (&gateway, &replica);
    assert!(smuggles_nothing(both, "an honest request", &[], &[QUESTION]).await);
    assert!(
        smuggles_nothing(both, "one with its length", &[("content-length", "16")], &[&QUESTION[..5], &QUESTION[5..]])
            .await
    );
    let (excess, chunked) = (format!("{QUESTION}{INNER}"), format!("0\r\n\r\n{INNER}"));
    let path = format!("/v1/chat/completions HTTP/1.1\r\nhost: evil\r\ncontent-length: 0\r\n\r\n{INNER}");
    let value = format!("a\r\nx-evil: b\r\ncontent-length: 0\r\n\r\n{INNER}");
    let name = format!("x-a: b\r\ncontent-length: 0\r\n\r\n{INNER}");
    let cases: &[Case<'_>] = &[
        ("a transfer coding", &[("transfer-encoding", "chunked")], &[&chunked]),
        ("a transfer coding and a length", &[("transfer-encoding", "chunked"), ("content-length", "16")], &[QUESTION]),
        ("a connection header", &[("connection", "content-length")], &[QUESTION]),
        ("an upgrade", &[("upgrade", "h2c")], &[QUESTION]),
        ("a length that is too short", &[("content-length", "16")], &[&excess]),
        ("a length that is too short, piece by piece", &[("content-length", "16")], &[QUESTION, INNER]),
        ("a length of nothing", &[("content-length", "0")], &[INNER]),
        ("a length that is too long", &[("content-length", "300")], &[QUESTION]),
        ("a length without a body", &[("content-length", "16")], &[]),
        ("two lengths", &[("content-length", "16"), ("content-length", "5")], &[QUESTION]),
        ("two lengths, the other way", &[("content-length", "5"), ("content-length", "16")], &[QUESTION]),
        ("a list of lengths", &[("content-length", "16, 16")], &[QUESTION]),
        ("a signed length", &[("content-length", "+16")], &[QUESTION]),
        ("a line end in a header that goes through", &[("user-agent", &value)], &[QUESTION]),
        ("one in the content type", &[("content-type", &value)], &[QUESTION]),
        ("one in an id", &[("x-request-id", &value)], &[QUESTION]),
        ("a bare CR", &[("accept", "a\rx-evil: b")], &[QUESTION]),
        ("a bare LF", &[("accept", "a\nx-evil: b")], &[QUESTION]),
        ("a NUL", &[("accept", "a\0b")], &[QUESTION]),
        ("a line end in a header's name", &[(&name, "c")], &[QUESTION]),
        ("a colon in a header's name", &[("x-a:b", "c")], &[QUESTION]),
        ("an upper case name", &[("Transfer-Encoding", "chunked")], &[&chunked]),
        ("a path with another request", &[(":path", &path)], &[QUESTION]),
        ("a path with a space", &[(":path", "/v1/chat/completions HTTP/1.1")], &[QUESTION]),
        ("a path twice", &[(":path", "/v1/chat/completions"), (":path", "/metrics")], &[QUESTION]),
        ("a method with another request", &[(":method", "POST / HTTP/1.1\r\nhost: evil\r\n\r\nPOST")], &[QUESTION]),
        ("a host with a line end", &[(":authority", "gateway\r\nx-evil: b")], &[QUESTION]),
    ];
    for (name, others, data) in cases {
        assert!(!smuggles_nothing(both, name, others, data).await, "{name} is answered");
    }
}

#[tokio::test]
async fn what_means_another_request_in_http_1_is_the_one_that_was_asked_or_none() {
    let (gateway, replica) = (Gateway::start().await, Replica::start(Mood::Echo).await);
    gateway.replicas(&[replica.address]);
    let cases: &[Case<'_>] = &[
        ("an absolute path", &[(":path", "http://evil/v1/chat/completions")], &[QUESTION]),
        ("a path to elsewhere", &[(":path", "//evil/v1/chat/completions")], &[QUESTION]),
        ("another query", &[(":path", "/v1/chat/completions?/../../metrics")], &[QUESTION]),
        ("a fragment", &[(":path", "/v1/chat/completions#/metrics")], &[QUESTION]),
        ("an encoded line end", &[(":path", "/v1/chat/completions%0d%0ax-evil:%20b")], &[QUESTION]),
        ("another host", &[(":authority", "evil:80")], &[QUESTION]),
        ("a host of its own", &[("host", "evil")], &[QUESTION]),
        ("another scheme", &[(":scheme", "https")], &[QUESTION]),
        ("a silly scheme", &[(":scheme", "gopher")], &[QUESTION]),
        ("an expectation", &[("expect", "100-continue")], &[QUESTION]),
        ("trailers", &[("te", "trailers")], &[QUESTION]),
        ("the same length twice", &[("content-length", "16"), ("content-length", "16")], &[QUESTION]),
        ("a second request as the body", &[], &[INNER]),
    ];
    let mut count = 0;
    for (name, others, data) in cases {
        count += usize::from(smuggles_nothing((&gateway, &replica), name, others, data).await);
    }
    assert!(count >= 4, "{count} of them are answered: an honest one is hidden in each");
}
