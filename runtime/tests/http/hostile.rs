//! A corpus of bad requests: each gets a 4xx in `OpenAI`'s shape, memory stays bounded, and the next request is served.

mod bombs;

use reqwest::StatusCode;
use reqwest::header::CONTENT_TYPE;
use serde_json::{Value, json};
use vlm_contract::openai::error::ErrorBody;

use super::server::{Server, answer, question, url_of};

/// Most that the whole corpus may add to the memory in use: four of the largest bodies, and the pictures that a
/// picture's limit allows on every core.
const MOST_MEMORY: u64 = 400 << 20;

/// A bad request: what it is, content type, body.
type Bad = (String, &'static str, Vec<u8>);

fn json_body(name: &str, body: &Value) -> Bad {
    (name.to_owned(), "application/json", body.to_string().into_bytes())
}

/// Each field with values that it cannot have.
fn wrong_fields() -> Vec<Bad> {
    let fields: [(&str, &[Value]); 26] = [
        ("messages", &[json!(null), json!(1), json!("x"), json!({}), json!([]), json!([[]]), json!([null])]),
        ("model", &[json!(1), json!(["tiny"]), json!("x".repeat(100_000))]),
        ("max_tokens", &[json!(0), json!(-1), json!(1.5), json!("8"), json!(4_000_000_000_u64), json!([8])]),
        ("max_completion_tokens", &[json!(0), json!(1e300), json!(true)]),
        ("temperature", &[json!(-1), json!(2.1), json!("hot"), json!([]), json!(1e300)]),
        ("top_p", &[json!(0), json!(1.1), json!(-0.0), json!({})]),
        ("stop", &[json!(5), json!([5]), json!(""), json!(["a", "b", "c", "d", "e"]), json!([["a"]])]),
        ("stream", &[json!("yes"), json!(1), json!([])]),
        ("stream_options", &[json!(1), json!([1]), json!({"include_usage": "x"})]),
        ("seed", &[json!("x"), json!(1e300), json!(1.5)]),
        ("min_tokens", &[json!(-1), json!("1"), json!(1_000_000)]),
        ("top_k", &[json!(-2), json!("x"), json!(1e300), json!(9_000_000_000_u64)]),
        ("min_p", &[json!(-0.1), json!(1.1), json!("x")]),
        ("presence_penalty", &[json!(-2.1), json!(2.1), json!([])]),
        ("frequency_penalty", &[json!(-2.1), json!(1e300), json!({})]),
        ("repetition_penalty", &[json!(0), json!(-1), json!("x")]),
        ("logit_bias", &[json!([]), json!({"x": 1}), json!({"1": 101}), json!({"1": "x"}), json!({"-1": 1})]),
        ("n", &[json!(0), json!(-1), json!(129), json!("2"), json!(4_000_000_000_u64)]),
        ("ignore_eos", &[json!("yes"), json!(1)]),
        ("top_logprobs", &[json!(1), json!(21), json!(-1), json!("x")]),
        ("logprobs", &[json!("yes"), json!(1), json!([])]),
        ("parallel_tool_calls", &[json!("no"), json!(0), json!({})]),
        ("stop_token_ids", &[json!(1), json!([-1]), json!(["x"]), json!(vec![1; 129])]),
        ("response_format", &[json!("json"), json!({}), json!({"type": "xml"}), json!({"type": "json_schema"})]),
        ("tools", &[json!({}), json!([{}]), json!([{"type": "function", "function": {"name": ""}}]), json!([1])]),
        ("tool_choice", &[json!(7), json!("always"), json!("required"), json!({"type": "function"})]),
    ];
    let mut bad = Vec::new();
    for (field, values) in fields {
        for (index, value) in values.iter().enumerate() {
            bad.push(json_body(&format!("{field} {index}"), &question(&json!({field: value}))));
        }
    }
    let part = |part: Value| question(&json!({"messages": [{"role": "user", "content": [part]}]}));
    for (index, wrong) in [
        json!(null),
        json!("x"),
        json!({}),
        json!({"type": "text"}),
        json!({"type": "text", "text": 1}),
        json!({"type": "video"}),
        json!({"type": "image_url"}),
        json!({"type": "image_url", "image_url": 1}),
        json!({"type": "image_url", "image_url": {"url": 1}}),
        json!({"type": "image_url", "image_url": {"url": "x".repeat(1 << 20)}}),
    ]
    .into_iter()
    .enumerate()
    {
        bad.push(json_body(&format!("part {index}"), &part(wrong)));
    }
    bad
}

/// A field, and values that it cannot have.
type Wrong = (&'static str, Vec<Value>);

/// For the other routes: what is right, and fields with values that they cannot have.
fn wrong_elsewhere() -> Vec<(&'static str, Value, Vec<Wrong>)> {
    let model = || ("model", vec![json!(1), json!(["tiny"])]);
    vec![
        (
            "/v1/completions",
            json!({"model": "tiny", "prompt": "hi", "max_tokens": 1}),
            vec![
                model(),
                ("prompt", vec![json!(null), json!({}), json!(true), json!([])]),
                ("max_tokens", vec![json!(0), json!("8"), json!(4_000_000_000_u64)]),
                ("temperature", vec![json!(-1), json!("hot")]),
                ("logprobs", vec![json!(true), json!(21), json!(-1)]),
                ("echo", vec![json!("yes"), json!(1)]),
                ("n", vec![json!(0), json!(129), json!("2")]),
                ("stop", vec![json!(5), json!("")]),
                ("logit_bias", vec![json!([]), json!({"1": 101})]),
                ("response_format", vec![json!("json"), json!({"type": "xml"})]),
                ("stream", vec![json!("yes")]),
            ],
        ),
        (
            "/v1/responses",
            json!({"model": "tiny", "input": "hi", "max_output_tokens": 1}),
            vec![
                model(),
                ("input", vec![json!(null), json!(1), json!({}), json!([1]), json!([{"type": "audio"}])]),
                ("instructions", vec![json!(1), json!([])]),
                ("max_output_tokens", vec![json!(0), json!("8")]),
                ("temperature", vec![json!(2.1), json!("hot")]),
                ("top_p", vec![json!(0), json!(1.1)]),
                ("text", vec![json!("json"), json!({"format": {"type": "xml"}})]),
                ("tools", vec![json!({}), json!([1]), json!([{"type": "function", "name": ""}])]),
                ("parallel_tool_calls", vec![json!("no")]),
                ("previous_response_id", vec![json!("resp_1"), json!(1)]),
                ("background", vec![json!(true), json!("no")]),
                ("metadata", vec![json!([]), json!("x")]),
                ("stream", vec![json!(1)]),
            ],
        ),
        (
            "/tokenize",
            json!({"model": "tiny", "prompt": "hi"}),
            vec![
                model(),
                ("prompt", vec![json!(null), json!(1), json!("a".repeat((1 << 20) + 1))]),
                ("add_special_tokens", vec![json!("no")]),
                ("return_token_strs", vec![json!(1)]),
                ("messages", vec![json!("x"), json!([1])]),
                ("tools", vec![json!({}), json!([1])]),
            ],
        ),
        (
            "/detokenize",
            json!({"model": "tiny", "tokens": [5]}),
            vec![model(), ("tokens", vec![json!(null), json!("x"), json!([-1]), json!([1_000_000]), json!([0.5])])],
        ),
    ]
}

/// Bodies that are no requests at all.
fn no_requests() -> Vec<Bad> {
    let deep = |open: &str, close: &str, depth: usize| {
        format!("{{\"messages\": {}{}}}", open.repeat(depth), close.repeat(depth)).into_bytes()
    };
    let bodies: Vec<(&str, &'static str, Vec<u8>)> = vec![
        ("empty", "application/json", Vec::new()),
        ("zeros", "application/json", vec![0; 10_000]),
        (
            "not UTF-8",
            "application/json",
            b"{\"messages\": [{\"role\": \"user\", \"content\": \"\xff\xfe\"}]}".to_vec(),
        ),
        ("half a surrogate", "application/json", br#"{"messages": [{"role": "user", "content": "\ud800"}]}"#.to_vec()),
        ("cut short", "application/json", b"{\"messages\": [{\"role\": \"user\", \"content\": \"hi".to_vec()),
        ("two at once", "application/json", b"{\"messages\": []} {\"messages\": []}".to_vec()),
        ("the same field twice", "application/json", br#"{"messages": [{"role": "user"}], "messages": []}"#.to_vec()),
        ("deep lists", "application/json", deep("[", "]", 100_000)),
        ("deep objects", "application/json", deep("{\"a\":", "}", 100_000)),
        ("deep ignored", "application/json", [b"{\"x\": ".to_vec(), b"[".repeat(1_000_000)].concat()),
        ("a number without end", "application/json", [b"{\"max_tokens\": 1".to_vec(), b"0".repeat(1 << 20)].concat()),
        ("many messages", "application/json", many_messages()),
        (
            "a long text",
            "application/json",
            question(&json!({"messages": [
            {"role": "user", "content": "a ".repeat(2 << 20)}]}))
            .to_string()
            .into_bytes(),
        ),
        (
            "a word without end",
            "application/json",
            question(&json!({"messages": [
            {"role": "user", "content": "a".repeat(3 << 20)}]}))
            .to_string()
            .into_bytes(),
        ),
        ("many pictures", "application/json", many_pictures()),
        ("another type", "text/plain", b"hi".to_vec()),
        ("XML", "application/xml", b"<messages/>".to_vec()),
        ("no boundary", "multipart/form-data", b"--X\r\n".to_vec()),
        (
            "no end",
            "multipart/form-data; boundary=X",
            b"--X\r\nContent-Disposition: form-data; name=\"prompt\"\r\n\r\nhi".to_vec(),
        ),
        ("many fields", "multipart/form-data; boundary=X", many_fields()),
        (
            "a header without end",
            "multipart/form-data; boundary=X",
            [b"--X\r\nX: ".to_vec(), vec![b'a'; 1 << 20]].concat(),
        ),
        ("a file that is none", "multipart/form-data; boundary=X", form_file(b"not a picture")),
    ];
    bodies.into_iter().map(|(name, kind, body)| (name.to_owned(), kind, body)).collect()
}

fn many_messages() -> Vec<u8> {
    let message = json!({"role": "user", "content": "hi"});
    question(&json!({"messages": vec![message; 100_000]})).to_string().into_bytes()
}

fn many_pictures() -> Vec<u8> {
    let image = json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}});
    question(&json!({"messages": [{"role": "user", "content": vec![image; 10_000]}]})).to_string().into_bytes()
}

fn many_fields() -> Vec<u8> {
    b"--X\r\nContent-Disposition: form-data; name=\"x\"\r\n\r\nx\r\n".repeat(10_000)
}

fn form_file(bytes: &[u8]) -> Vec<u8> {
    let head = b"--X\r\nContent-Disposition: form-data; name=\"prompt\"\r\n\r\nhi\r\n\
                 --X\r\nContent-Disposition: form-data; name=\"image\"; filename=\"x\"\r\n\r\n";
    [head, bytes, b"\r\n--X--\r\n"].concat()
}

/// Pictures that are broken or that burst, inside a data URL.
fn pictures() -> Vec<Bad> {
    let ask = |name: &str, url: &str| {
        let content = json!([{"type": "image_url", "image_url": {"url": url}}]);
        json_body(name, &question(&json!({"messages": [{"role": "user", "content": content}]})))
    };
    let mut bad: Vec<Bad> = bombs::all().iter().map(|(name, bytes)| ask(name, &url_of(bytes))).collect();
    for (name, url) in [
        ("base64 cut short", "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAAB"),
        ("base64 with one character", "data:image/png;base64,A"),
        ("no base64", "data:image/png;base64,%%%%"),
        ("no data", "data:image/png;base64,"),
        ("no comma", "data:image/png;base64"),
        ("plain data", "data:image/png,abc"),
        ("no scheme", "picture.png"),
    ] {
        bad.push(ask(name, url));
    }
    bad
}

async fn refused(server: &Server, (name, kind, body): Bad) {
    let shown = String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned();
    let sent = server.post().header(CONTENT_TYPE, kind).body(body).send().await;
    let response = sent.unwrap_or_else(|error| panic!("{name}: {error}: {shown}"));
    let status = response.status();
    let text = response.text().await.unwrap();
    assert!(status.is_client_error(), "{name}: {status} {text}: {shown}");
    let error = serde_json::from_str::<ErrorBody>(&text).unwrap_or_else(|_| panic!("{name}: {text}")).error;
    assert!(error.message.len() < 1000 && !error.kind.is_empty(), "{name}: {error:?}");
}

#[tokio::test]
async fn every_bad_request_is_refused_in_shape_and_the_next_is_served() {
    let words = ["--max-body-bytes", "8388608", "--max-image-pixels", "4000000"];
    let server = Server::start(&words).await;
    assert_eq!(server.ask(&question(&json!({}))).await.0, 200);
    let before = server.peak_memory();
    let corpus: Vec<Bad> = wrong_fields().into_iter().chain(no_requests()).chain(pictures()).collect();
    println!("{} bad requests", corpus.len());
    assert!(corpus.len() >= 60, "{}", corpus.len());
    for bad in corpus {
        refused(&server, bad).await;
    }
    for length in [true, false] {
        let body = vec![b' '; 100 << 20];
        let body = if length {
            reqwest::Body::from(body)
        } else {
            let chunks = body.chunks(1 << 20).map(|chunk| Ok::<_, std::io::Error>(chunk.to_vec())).collect::<Vec<_>>();
            reqwest::Body::wrap_stream(futures::stream::iter(chunks))
        };
        let answer = server.post().header(CONTENT_TYPE, "application/json").body(body).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(answer.headers()["connection"], "close");
        assert!(answer.json::<ErrorBody>().await.is_ok());
    }
    assert_eq!(server.ask(&question(&json!({}))).await.0, 200);
    let grown = server.peak_memory().saturating_sub(before);
    println!("the corpus took {} MiB at most", grown >> 20);
    assert!(grown < MOST_MEMORY, "{} MiB", grown >> 20);
    assert_eq!(server.metric("vlm_requests_running").await, 0);
}

#[tokio::test]
async fn wrong_fields_of_the_other_routes_are_named() {
    let server = Server::start(&[]).await;
    for (path, right, wrong) in wrong_elsewhere() {
        let url = format!("{}{path}", server.base);
        let post = async |body: &Value| answer(server.client.post(&url).json(body).send().await.unwrap()).await;
        for (field, values) in wrong {
            for value in values {
                let mut body = right.clone();
                body[field] = value;
                let shown: String = body.to_string().chars().take(200).collect();
                let (status, refused) = post(&body).await;
                assert_eq!(status, 400, "{path}: {shown}: {refused}");
                let error = serde_json::from_value::<ErrorBody>(refused).unwrap().error;
                // The field itself, or what is wrong within it.
                let param = error.param.unwrap_or_default();
                let within =
                    param.strip_prefix(field).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']));
                assert!(within, "{path}: {param} is named: {shown}");
                assert_eq!(error.kind, "invalid_request_error");
            }
        }
        let mut unknown = right.clone();
        unknown["model"] = json!("another");
        assert_eq!(post(&unknown).await.0, 404, "{path}");
        assert_eq!(post(&right).await.0, 200, "{path}");
    }
}

#[tokio::test]
async fn many_bad_requests_at_once_are_bounded_in_memory_too() {
    let words = ["--max-body-bytes", "8388608", "--max-image-pixels", "4000000"];
    let server = Server::start(&words).await;
    let before = server.peak_memory();
    let mut asking = Vec::new();
    for round in 0..4 {
        // With more bytes behind them some that only end too early are pictures.
        for (name, bytes) in bombs::all().into_iter().filter(|(name, _)| !name.ends_with("that ends")) {
            let padded = [bytes, vec![0; 3 << 20]].concat();
            asking.push((format!("{name} {round}"), "multipart/form-data; boundary=X", form_file(&padded)));
        }
    }
    let all = asking.into_iter().map(|bad| refused(&server, bad));
    futures::future::join_all(all).await;
    let grown = server.peak_memory().saturating_sub(before);
    assert!(grown < MOST_MEMORY, "{} MiB", grown >> 20);
    assert_eq!(server.ask(&question(&json!({}))).await.0, 200);
}
