//! Pictures of other servers: what is fetched, and that nothing inside is ever asked.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use vlm_runtime::image::ImageError;
use vlm_runtime::image::fetch::{FetchError, FetchLimits, Fetcher, Lookup, Networks};

use super::server::{Server, checkpoint, data_url, png, question};

/// A resolver of the test: names to the addresses of the first question, of the second, and so on.
#[derive(Default)]
struct Names {
    answers: HashMap<&'static str, Vec<Vec<IpAddr>>>,
    asked: Mutex<HashMap<String, usize>>,
}

impl Names {
    fn with(mut self, name: &'static str, answers: &[&[&str]]) -> Self {
        let parse = |addresses: &&[&str]| addresses.iter().map(|address| address.parse().unwrap()).collect();
        self.answers.insert(name, answers.iter().map(parse).collect());
        self
    }
}

impl Lookup for Names {
    fn lookup(&self, host: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        let mut asked = self.asked.lock().unwrap();
        let count = asked.entry(host.clone()).or_default();
        let found = self.answers.get(host.as_str()).map(|answers| answers[(*count).min(answers.len() - 1)].clone());
        *count += 1;
        async move { found.ok_or_else(|| io::Error::other("no such host")) }.boxed()
    }
}

fn fetcher(networks: &[&str], names: Names) -> Fetcher {
    let limits = FetchLimits { bytes: 100_000, time: Duration::from_secs(2) };
    let networks = Networks(networks.iter().map(|network| network.parse().unwrap()).collect());
    Fetcher::new(limits, networks, Arc::new(names)).unwrap()
}

/// A server on `address` that answers every request with the same bytes; where it listens and how often it was asked.
pub async fn serving(address: &str, answer: impl Fn(u16) -> Vec<u8> + Send + 'static) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((address, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = Arc::<AtomicUsize>::default();
    let counter = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counter.fetch_add(1, Ordering::SeqCst);
            let answer = answer(port);
            tokio::spawn(async move {
                let mut head = [0; 4096];
                let _ = stream.read(&mut head).await;
                let _ = stream.write_all(&answer).await;
                if answer.ends_with(b"...") {
                    tokio::time::sleep(Duration::from_secs(30)).await;
                }
            });
        }
    });
    (port, asked)
}

pub fn response(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n");
    [head.as_bytes(), body].concat()
}

pub fn redirect(to: &str) -> Vec<u8> {
    response("302 Found", &format!("location: {to}\r\n"), b"")
}

async fn fetch(fetcher: &Fetcher, url: &str) -> Result<usize, FetchError> {
    fetcher.fetch(fetcher.check(url)?).await.map(|bytes| bytes.len())
}

/// Hosts that lead inside, in every spelling; `PORT` is that of a server that must not be asked.
const INSIDE: [&str; 44] = [
    "http://127.0.0.1:PORT/x.png",
    "http://127.0.0.1.:PORT/",
    "http://127.1:PORT/",
    "http://127.255.255.254/",
    "http://0.0.0.0:PORT/",
    "http://0:PORT/",
    "http://2130706433:PORT/",
    "http://0x7f000001:PORT/",
    "http://0x7f.0.0.1:PORT/",
    "http://017700000001:PORT/",
    "http://0177.0.0.1:PORT/",
    "http://0177.0.0x1:PORT/",
    "http://１２７.0.0.1:PORT/",
    "http://127。0。0。1:PORT/",
    "http://%31%32%37.0.0.1:PORT/",
    "http://10.0.0.1/",
    "http://172.16.0.1/",
    "http://172.31.255.255/",
    "http://192.168.1.1/",
    "http://100.64.0.1/",
    "http://169.254.169.254/latest/meta-data/",
    "http://2852039166/latest/meta-data/",
    "http://0xa9fea9fe/",
    "http://0251.0376.0251.0376/",
    "http://192.0.0.192/",
    "http://198.18.0.1/",
    "http://224.0.0.1/",
    "http://255.255.255.255/",
    "https://127.0.0.1:PORT/",
    "http://[::1]:PORT/",
    "http://[::]:PORT/",
    "http://[0:0:0:0:0:0:0:1]:PORT/",
    "http://[::ffff:127.0.0.1]:PORT/",
    "http://[::ffff:7f00:1]:PORT/",
    "http://[::ffff:169.254.169.254]/",
    "http://[::127.0.0.1]:PORT/",
    "http://[64:ff9b::7f00:1]/",
    "http://[2002:7f00:1::]/",
    "http://[2001:0:7f00:1::]/",
    "http://[fe80::1]/",
    "http://[fd00:ec2::254]/latest/meta-data/",
    "http://[fc00::1]/",
    "http://[ff02::1]/",
    "http://[5f00::1]/",
];

#[tokio::test]
async fn no_spelling_of_an_address_inside_is_asked() {
    let (port, asked) = serving("127.0.0.1", |_| response("200 OK", "", &png())).await;
    let fetcher = fetcher(&[], Names::default());
    for url in INSIDE {
        let url = url.replace("PORT", &port.to_string());
        let refused = fetch(&fetcher, &url).await;
        assert!(matches!(refused, Err(FetchError::NotPublic { .. })), "{url}: {refused:?}");
    }
    for url in [
        "ftp://8.8.8.8/",
        "gopher://127.0.0.1/",
        "file:///etc/passwd",
        "http://user:password@8.8.8.8/",
        "http://",
        "http://[::1",
        "http://a b/",
        "http://1.2.3.4.5.6/",
        "//127.0.0.1/",
        "x",
    ] {
        assert!(matches!(fetch(&fetcher, url).await, Err(FetchError::Url { .. })), "{url}");
    }
    assert!(fetch(&fetcher, &format!("http://8.8.8.8/{}", "x".repeat(9000))).await.is_err());
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn names_that_lead_inside_are_not_asked_even_when_they_change() {
    let (port, asked) = serving("127.0.0.1", |_| response("200 OK", "", &png())).await;
    let names = Names::default()
        .with("inside.test", &[&["127.0.0.1"]])
        .with("metadata.test", &[&["169.254.169.254"]])
        .with("mapped.test", &[&["::ffff:127.0.0.1"]])
        .with("both.test", &[&["93.184.216.34", "127.0.0.1"]])
        .with("localhost", &[&["::1", "127.0.0.1"]])
        .with("nothing.test", &[&[]])
        // First outside, and inside from the second question on.
        .with("changes.test", &[&["127.0.0.2"], &["127.0.0.1"]]);
    let fetcher = fetcher(&["127.0.0.2"], names);
    for host in
        ["inside.test", "metadata.test", "mapped.test", "both.test", "localhost", "nothing.test", "unknown.test"]
    {
        let refused = fetch(&fetcher, &format!("http://{host}:{port}/")).await;
        assert_eq!(refused, Err(FetchError::NotPublic { host: host.into() }));
    }
    // The first answer is what is connected to: nothing listens there, and nobody looks up again.
    let first = fetch(&fetcher, &format!("http://changes.test:{port}/")).await;
    assert_eq!(first, Err(FetchError::Connection));
    let second = fetch(&fetcher, &format!("http://changes.test:{port}/")).await;
    assert!(matches!(second, Err(FetchError::NotPublic { .. })));
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn redirects_are_checked_like_any_address() {
    let (inside, asked) = serving("127.0.0.1", |_| response("200 OK", "", &png())).await;
    let names = || Names::default().with("inside.test", &[&["127.0.0.1"]]).with("good.test", &[&["127.0.0.2"]]);
    let fetcher = fetcher(&["127.0.0.2"], names());
    for to in [
        format!("http://127.0.0.1:{inside}/"),
        format!("http://inside.test:{inside}/"),
        format!("//inside.test:{inside}/"),
        "http://169.254.169.254/latest/meta-data/".to_owned(),
        format!("http://[::ffff:127.0.0.1]:{inside}/"),
        format!("http://2130706433:{inside}/"),
    ] {
        let (port, _) = serving("127.0.0.2", move |_| redirect(&to)).await;
        let refused = fetch(&fetcher, &format!("http://good.test:{port}/")).await;
        assert!(matches!(refused, Err(FetchError::NotPublic { .. })), "{refused:?}");
    }
    for to in ["file:///etc/passwd", "gopher://x/"] {
        let (port, _) = serving("127.0.0.2", move |_| redirect(to)).await;
        assert!(matches!(fetch(&fetcher, &format!("http://127.0.0.2:{port}/")).await, Err(FetchError::Url { .. })));
    }
    let (port, turns) = serving("127.0.0.2", |port| redirect(&format!("http://127.0.0.2:{port}/again"))).await;
    let endless = fetch(&fetcher, &format!("http://127.0.0.2:{port}/")).await;
    assert!(matches!(endless, Err(FetchError::Redirect(_))), "{endless:?}");
    assert_eq!((turns.load(Ordering::SeqCst), asked.load(Ordering::SeqCst)), (4, 0));
    let (picture, _) = serving("127.0.0.2", |_| response("200 OK", "", &png())).await;
    let (port, _) = serving("127.0.0.2", move |_| redirect(&format!("//good.test:{picture}/x.png"))).await;
    assert_eq!(fetch(&fetcher, &format!("http://127.0.0.2:{port}/")).await, Ok(png().len()));
}

#[tokio::test]
async fn size_time_and_kind_are_bounded() {
    let fetcher = fetcher(&["127.0.0.2"], Names::default());
    let ask = async |answer: Vec<u8>| {
        let (port, _) = serving("127.0.0.2", move |_| answer.clone()).await;
        fetch(&fetcher, &format!("http://127.0.0.2:{port}/")).await
    };
    assert_eq!(ask(response("200 OK", "content-type: text/html\r\n", &png())).await, Ok(png().len()));
    let long = [png(), vec![0; 200_000]].concat();
    let large = |answer| matches!(answer, Err(FetchError::Image(ImageError::TooManyBytes { limit: 100_000, .. })));
    assert!(large(ask(response("200 OK", "", &long)).await));
    assert!(large(ask([b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n".as_slice(), &long].concat()).await));
    let page = b"<!doctype html><html><body>secret of the intranet</body></html>";
    let refused = ask(response("200 OK", "content-type: image/png\r\n", page)).await.unwrap_err();
    assert!(matches!(refused, FetchError::Image(_)) && !refused.to_string().contains("secret"), "{refused}");
    assert_eq!(ask(response("404 Not Found", "", b"")).await, Err(FetchError::Status { status: 404 }));
    assert_eq!(ask(b"nonsense\r\n\r\n".to_vec()).await, Err(FetchError::Connection));
    let begun = Instant::now();
    let slow = ask(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n...".to_vec()).await;
    assert_eq!(slow, Err(FetchError::Timeout { seconds: 2 }));
    assert!(begun.elapsed() < Duration::from_secs(4));
}

pub fn about(url: &str) -> Value {
    question(&json!({"messages": [{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "?"}]}]}))
}

#[tokio::test]
async fn a_server_that_may_fetches_and_answers_as_for_the_picture_itself() {
    let words = ["--allow-image-urls", "--image-url-network", "127.0.0.2", "--image-url-timeout-seconds", "2"];
    let server = Server::start(&words).await;
    let (port, _) = serving("127.0.0.2", |_| response("200 OK", "", &png())).await;
    let (status, fetched) = server.ask(&about(&format!("http://127.0.0.2:{port}/x.png"))).await;
    assert_eq!(status, 200, "{fetched}");
    let (_, sent) = server.ask(&about(&data_url())).await;
    assert_eq!(fetched["choices"], sent["choices"]);
    assert_eq!(fetched["usage"]["prompt_tokens"], sent["usage"]["prompt_tokens"]);
    let (inside, asked) = serving("127.0.0.1", |_| response("200 OK", "", &png())).await;
    let (moved, _) = serving("127.0.0.2", move |_| redirect(&format!("http://127.0.0.1:{inside}/"))).await;
    for url in [
        format!("http://127.0.0.1:{inside}/"),
        format!("http://localhost:{inside}/"),
        format!("http://127.0.0.2:{moved}/"),
        "http://169.254.169.254/latest/meta-data/".to_owned(),
    ] {
        let (status, refused) = server.ask(&about(&url)).await;
        assert_eq!((status, &refused["error"]["param"]), (400, &json!("messages[0].content[0].image_url")), "{url}");
        assert_eq!(refused["error"]["code"], "image_not_available", "{refused}");
    }
    assert_eq!(asked.load(Ordering::SeqCst), 0);
    assert_eq!(server.metric("vlm_image_fetch_seconds_count").await, 3);
}

#[tokio::test]
async fn a_server_that_may_reads_files_under_its_root_alone() {
    let root = checkpoint().join("images");
    let server = Server::start(&["--image-root", root.to_str().unwrap()]).await;
    let inside = root.canonicalize().unwrap();
    let (status, read) = server.ask(&about(&format!("file://{}/0.png", inside.display()))).await;
    assert_eq!(status, 200, "{read}");
    let (_, sent) = server.ask(&about(&data_url())).await;
    assert_eq!(read["choices"], sent["choices"]);
    // Some of these are pictures.
    let outside = "internvl2_internlm2_chat/images/0.png";
    assert!(inside.join("../..").join(outside).is_file());
    let beside = [format!("../../{outside}"), format!("%2e%2e/%2E%2E/{outside}"), format!("x/../../../{outside}")];
    for name in beside.iter().map(String::as_str).chain(["../config.json", "nothing.png", "", "..%2fconfig.json"]) {
        let (status, refused) = server.ask(&about(&format!("file://{}/{name}", inside.display()))).await;
        assert_eq!(status, 400, "{name}: {refused}");
        assert!(refused["error"]["message"].as_str().unwrap().contains("file"), "{refused}");
    }
    assert_eq!(server.ask(&about("file:///etc/passwd")).await.0, 400);
}
