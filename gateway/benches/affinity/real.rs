//! The same question asked of real model servers: three of them on this machine's processors, past the gateways by
//! round robin and by a hash of the text, and through two gateways; and the same while one of them goes and another,
//! which has seen nothing, comes.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use vlm_contract::metrics::{ENCODER_CACHE_HITS, ENCODER_CACHE_MISSES, REQUESTS_ARRIVED};
use vlm_gateway::{app::App, request::affinity::hash, server};

use crate::{
    measured::TOKENS,
    quantile, served,
    trace::{Random, TEXTS},
};

const SERVERS: usize = 3;
const PICTURES: u32 = 60;
/// Bytes for about 24 pictures' rows, and for about as many prompts' keys and values.
const CACHE: [&str; 4] = ["--encoder-cache-bytes", "4500000", "--kv-bytes", "26000000"];
const SECONDS: f64 = 60.0;
/// Requests a second: about four fifths of what two cores bear when half of the pictures are new to their server.
const RATE: f64 = 12.0;

struct Server {
    address: SocketAddr,
    process: Child,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Server {
    async fn start(runtime: &str, model: &str, client: &reqwest::Client) -> Self {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let mut command = Command::new(runtime);
        command.args(["serve", "--model", model, "--served-model-name", "tiny", "--host", "127.0.0.1"]);
        command.args(["--port", &port.to_string()]).args(CACHE).env("RAYON_NUM_THREADS", "1");
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the runtime");
        let server = Self { address: (Ipv4Addr::LOCALHOST, port).into(), process };
        let ready = || client.get(format!("http://{}/ready", server.address)).send();
        while !ready().await.is_ok_and(|answer| answer.status().is_success()) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        server
    }

    async fn counted(&self, client: &reqwest::Client, name: &str) -> f64 {
        let page = client.get(format!("http://{}/metrics", self.address)).send().await.unwrap().text().await.unwrap();
        page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap_or_default()
    }
}

/// A picture of 192², which the model sees in four tiles and as a whole: a BMP of coloured squares.
fn picture(number: u32) -> String {
    let side = 192_u32;
    let pixels = side * side * 3;
    let mut file = b"BM".to_vec();
    for word in [54 + pixels, 0, 54, 40, side, side, 0x0018_0001, 0, pixels, 2835, 2835, 0, 0] {
        file.extend(word.to_le_bytes());
    }
    for at in 0..side * side {
        let square = [number, at % side / 16, at / side / 16].map(u32::to_le_bytes).concat();
        file.extend(&hash(&square).to_le_bytes()[..3]);
    }
    format!("data:image/bmp;base64,{}", STANDARD.encode(file))
}

fn question(picture: &str, text: u32) -> String {
    json!({
        "model": "tiny", "stream": true, "temperature": 0, "max_tokens": TOKENS, "ignore_eos": true,
        "messages": [{"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": picture}},
            {"type": "text", "text": format!("what is number {text}?")},
        ]}],
    })
    .to_string()
}

/// Whether an event has text: the first has the role alone.
fn has_token(events: &str) -> bool {
    events.split("\"content\":\"").skip(1).any(|rest| !rest.is_empty() && !rest.starts_with('"'))
}

/// Milliseconds from `since` to the first token, and to the end of the answer.
async fn ask(client: reqwest::Client, address: SocketAddr, body: String, since: Instant) -> (f64, f64) {
    let request = client.post(format!("http://{address}/v1/chat/completions")).body(body);
    let mut answer = request.header("content-type", "application/json").send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let (mut first, mut text) = (None, String::new());
    while let Some(piece) = answer.chunk().await.unwrap() {
        text.push_str(&String::from_utf8_lossy(&piece));
        if first.is_none() && has_token(&text) {
            first = Some(since.elapsed().as_secs_f64() * 1e3);
        }
    }
    assert!(text.contains("[DONE]"), "{text}");
    (first.expect("a token"), since.elapsed().as_secs_f64() * 1e3)
}

#[tokio::main]
pub async fn run(runtime: &str, model: &str) {
    rustls::crypto::ring::default_provider().install_default().unwrap();
    let client = reqwest::Client::builder().no_proxy().tcp_nodelay(true).build().unwrap();
    constants(runtime, model, &client).await;
    let pictures: Arc<Vec<String>> = Arc::new((0..PICTURES).map(picture).collect());
    println!("\n| servers | way | encoder cache hits | TTFT p50 ms | p90 ms | most ÷ mean requests |");
    println!("|---|---|---|---|---|---|");
    for changing in [false, true] {
        for way in [Way::RoundRobin, Way::Text, Way::Gateways] {
            let mut servers = Vec::new();
            for _ in 0..SERVERS + usize::from(changing) {
                servers.push(Server::start(runtime, model, &client).await);
            }
            let Asked { first, busiest } = load(way, &servers, &pictures, &client).await;
            let (mut hits, mut misses) = (0.0, 0.0);
            for server in &servers {
                hits += server.counted(&client, ENCODER_CACHE_HITS).await;
                misses += server.counted(&client, ENCODER_CACHE_MISSES).await;
            }
            let (p50, p90) = (quantile(first.clone(), 0.5), quantile(first, 0.9));
            let servers = if changing { "one goes, one comes" } else { "three" };
            println!(
                "| {servers} | {} | {:.0} % | {p50:.0} | {p90:.0} | {busiest:.2} |",
                way.name(),
                100.0 * hits / (hits + misses).max(1.0)
            );
        }
    }
}

/// What [`crate::measured`] has, of these servers.
async fn constants(runtime: &str, model: &str, client: &reqwest::Client) {
    let server = Server::start(runtime, model, client).await;
    let one = |number: u32, text: u32| {
        let body = question(&picture(number), text);
        ask(client.clone(), server.address, body, Instant::now())
    };
    one(1000, 0).await;
    let (mut new, mut kept, mut steps, mut wide) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for number in 0..20 {
        new.push(one(number, 1).await.0);
        let (first, all) = one(number, 2).await;
        kept.push(first);
        steps.push((all - first) / f64::from(TOKENS - 1));
        let four = futures::join!(one(number, 3), one(number, 4), one(number, 5), one(number, 6));
        let last = [four.0, four.1, four.2, four.3].map(|(first, all)| (all - first) / f64::from(TOKENS - 1));
        wide.push(last.into_iter().fold(f64::INFINITY, f64::min));
    }
    let [new, kept, step, four] = [new, kept, steps, wide].map(|values| quantile(values, 0.5));
    println!(
        "first token of a new picture {new:.1} ms, of a kept one {kept:.1} ms; a token alone {step:.2} ms, beside three {four:.2} ms"
    );
}

#[derive(Clone, Copy)]
enum Way {
    RoundRobin,
    Text,
    Gateways,
}

impl Way {
    const fn name(self) -> &'static str {
        match self {
            Self::RoundRobin => "round robin, direct",
            Self::Text => "hash of the text, direct",
            Self::Gateways => "two gateways",
        }
    }
}

/// Which servers are there in each third of the time: of four, the third goes after the first and the fourth comes after
/// the second.
fn present(servers: &[Server], third: usize) -> Vec<SocketAddr> {
    let all: Vec<_> = servers.iter().map(|server| server.address).collect();
    match (&all[..], third) {
        ([a, b, _, _], 1) => vec![*a, *b],
        ([a, b, _, d], 2) => vec![*a, *b, *d],
        _ => all[..SERVERS].to_vec(),
    }
}

/// What became of a load.
struct Asked {
    /// Milliseconds until the first token of each answer.
    first: Vec<f64>,
    /// Requests of the busiest server over the mean of those that are there, the greatest of all thirds.
    busiest: f64,
}

async fn load(way: Way, servers: &[Server], pictures: &Arc<Vec<String>>, client: &reqwest::Client) -> Asked {
    let stop = CancellationToken::new();
    let mut direct = present(servers, 0);
    let gateways = [gateway(&direct, &stop).await, gateway(&direct, &stop).await];
    let mut random = Random(7);
    let weights: Vec<f64> = (1..=PICTURES).map(|n| f64::from(n).powf(-0.7)).collect();
    let all: f64 = weights.iter().sum();
    let begin = Instant::now();
    let (mut at, mut asked, mut number, mut third) = (0.0, Vec::new(), 0, 0);
    let (mut busiest, mut before) = (0.0, arrived(servers, client).await);
    while at < SECONDS {
        if (at / SECONDS * 3.0) as usize > third {
            busiest = f64::max(busiest, most_over_mean(&mut before, servers, direct.len(), client).await);
            third += 1;
            direct = present(servers, third);
            for (app, _) in &gateways {
                served::tell(app, &direct);
            }
        }
        at -= random.share().ln() / RATE;
        let mut left = random.share() * all;
        let which = weights.iter().position(|weight| {
            left -= weight;
            left <= 0.0
        });
        let text = (random.share() * f64::from(TEXTS)) as u32;
        let address = match way {
            Way::RoundRobin => direct[number % direct.len()],
            Way::Text => direct[hash(&text.to_le_bytes()) as usize % direct.len()],
            Way::Gateways => gateways[(random.share() * 2.0) as usize % 2].1,
        };
        let body = question(&pictures[which.unwrap_or(0)], text);
        let due = begin + Duration::from_secs_f64(at);
        tokio::time::sleep(due.saturating_duration_since(Instant::now())).await;
        asked.push(tokio::spawn(ask(client.clone(), address, body, due)));
        number += 1;
    }
    let mut first = Vec::new();
    for answer in asked {
        first.push(answer.await.unwrap().0);
    }
    busiest = f64::max(busiest, most_over_mean(&mut before, servers, direct.len(), client).await);
    stop.cancel();
    Asked { first, busiest }
}

/// Requests that each server got until now.
async fn arrived(servers: &[Server], client: &reqwest::Client) -> Vec<f64> {
    let of = |server: &'_ Server| {
        let address = server.address;
        async move {
            let page = client.get(format!("http://{address}/metrics")).send().await.unwrap().text().await.unwrap();
            let counts = page.lines().filter(|line| line.starts_with(REQUESTS_ARRIVED));
            counts.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
        }
    };
    futures::future::join_all(servers.iter().map(of)).await
}

/// The most that one server got since `before` over the mean of the `present`; `before` is now.
async fn most_over_mean(before: &mut Vec<f64>, servers: &[Server], present: usize, client: &reqwest::Client) -> f64 {
    let now = arrived(servers, client).await;
    let got: Vec<f64> = now.iter().zip(&*before).map(|(now, before)| now - before).collect();
    *before = now;
    got.iter().copied().fold(0.0, f64::max) * present as f64 / got.iter().sum::<f64>().max(1.0)
}

async fn gateway(replicas: &[SocketAddr], stop: &CancellationToken) -> (Arc<App>, SocketAddr) {
    let app = served::gateway(replicas, 10);
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(Arc::clone(&app.desk).run(stop.clone()));
    tokio::spawn(stop.clone().run_until_cancelled_owned(server::listen::serve(
        listener,
        server::router(Arc::clone(&app)),
        app.life.clone(),
        server::listen::Bounds::default(),
    )));
    (app, address)
}
