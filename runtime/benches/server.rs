//! What the server costs beside the model, on a tiny model: processor time of a request outside the engine (parse,
//! tokenise, detokenise, events; the decoding of a large JPEG apart), and how much later than from the engine itself
//! the first token comes over HTTP.
//!
//! `RAYON_NUM_THREADS=1 taskset -c 0 cargo bench --workspace --bench server` prints the table that `results/server.md`
//! keeps. All is on one core: on two, what a thread needs wavers with what the engine computes beside it.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;
use vlm_runtime::checkpoint::Checkpoint;
use vlm_runtime::engine::{Engine, EngineOptions, Request};
use vlm_runtime::image::ImageLimits;
use vlm_runtime::metrics::Metrics;
use vlm_runtime::precision::Precision;
use vlm_runtime::processor::{Processor, PromptMessage, PromptPart, PromptRole};
use vlm_runtime::server::admission::Admission;
use vlm_runtime::server::app::{App, Limits, Loaded, Settings};
use vlm_runtime::server::auth::Keys;
use vlm_runtime::server::cors::Origins;
use vlm_runtime::server::defaults::SamplingDefaults;
use vlm_runtime::server::lifecycle::Lifecycle;
use vlm_runtime::server::listen::{self, ConnectionLimits};
use vlm_runtime::server::router;
use vlm_runtime::server::sources::Sources;

/// Threads of the server, by which its processor time is told from the engine's.
const THREADS: &str = "http";
const REQUESTS: usize = 200;
const ANSWER: usize = 64;

struct Bench {
    runtime: Runtime,
    engine: Engine,
    processor: Arc<Processor>,
    connection: TcpStream,
    asked: usize,
}

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/tiny-llava");
    let mut bench = start(&root.join("model"));
    let picture = std::fs::read(root.join("demo.png")).unwrap();
    for _ in 0..20 {
        let text = bench.known_text();
        bench.ask(&text, None, 4);
    }
    println!("Tiny LLaVA, {REQUESTS} requests of each kind, answers of {ANSWER} tokens in a stream, one at a time.\n");
    println!("| what | milliseconds |\n|---|---|");
    row("processor time of a request beside the engine, 1 KB of text", bench.processor_time(None));
    let small = format!("and a PNG of {} KB", picture.len().div_ceil(1024));
    row(
        &format!("processor time of a request beside the engine, 1 KB of text {small}"),
        bench.processor_time(Some(&picture)),
    );
    let jpeg = jpeg();
    let decoding = median((0..20).map(|_| {
        let begun = Instant::now();
        drop(bench.processor.prepare_image(&jpeg, &ImageLimits::default()).unwrap());
        begun.elapsed()
    }));
    row(&format!("of a JPEG of {} KB: decoded, resized, normalised", jpeg.len() / 1024), decoding);
    let (mut direct, mut http) = (Vec::new(), Vec::new());
    for _ in 0..REQUESTS {
        direct.push(bench.first_token());
        let text = bench.known_text();
        http.push(bench.ask(&text, None, 4));
    }
    let (direct, http) = (median(direct), median(http));
    row("first token from the engine itself, median", direct);
    row("first token over HTTP, median", http);
    row("the difference", http.saturating_sub(direct));
}

fn row(what: &str, time: Duration) {
    println!("| {what} | {:.3} |", time.as_secs_f64() * 1e3);
}

fn median(times: impl IntoIterator<Item = Duration>) -> Duration {
    let mut times: Vec<Duration> = times.into_iter().collect();
    times.sort_unstable();
    times[times.len() / 2]
}

fn start(model: &Path) -> Bench {
    let checkpoint = Checkpoint::open(model).unwrap();
    let processor = Arc::new(Processor::open(&checkpoint).unwrap());
    let max_tokens = processor.max_model_len();
    let options = EngineOptions {
        max_tokens,
        max_concurrency: 8,
        max_queue: 64,
        kv_bytes: None,
        encoder_cache_bytes: 1 << 28,
        precision: Precision::F32,
    };
    let engine = Engine::start(&checkpoint, options).unwrap();
    let limits = Limits {
        image: ImageLimits::default(),
        images: 8,
        body_bytes: 64 << 20,
        body_time: Duration::from_secs(60),
        keep_alive: Duration::from_secs(10),
    };
    let settings = Settings {
        limits,
        names: vec!["tiny".to_owned()],
        sources: Sources::new(None, None),
        keys: Keys::default(),
        origins: Origins::default(),
        gateway_key: None,
    };
    let lifecycle = Lifecycle::new(CancellationToken::new());
    let app =
        Arc::new(App::new(settings, Admission::new(72, limits.body_bytes), Metrics::new(None).unwrap(), lifecycle));
    let defaults = SamplingDefaults::default();
    app.loaded(Loaded { engine: engine.clone(), processor: Arc::clone(&processor), defaults, max_tokens });
    let runtime = Builder::new_multi_thread()
        .thread_name(THREADS)
        .worker_threads(listen::threads())
        .enable_all()
        .build()
        .unwrap();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let counted = app.metrics.connections();
    let close = CancellationToken::new();
    runtime.spawn(listen::serve(listener, router::router(app), ConnectionLimits::default(), counted, close));
    let connection = TcpStream::connect(address).unwrap();
    connection.set_nodelay(true).unwrap();
    Bench { runtime, engine, processor, connection, asked: 0 }
}

impl Bench {
    /// A text that no request before had.
    fn text(&mut self) -> String {
        self.asked += 1;
        format!("Question {} of many. {}", self.asked, "Say what a careful person would see. ".repeat(28))
    }

    /// As [`Self::text`], but all begin alike: the engine remembers the most of it, so that its own time, which
    /// wavers, is short.
    fn known_text(&mut self) -> String {
        self.asked += 1;
        format!("{}That was question {} of many.", "Say what a careful person would see. ".repeat(28), self.asked)
    }

    /// Asks over HTTP; the time until the first token.
    fn ask(&mut self, text: &str, picture: Option<&[u8]>, tokens: usize) -> Duration {
        let mut content = vec![json!({"type": "text", "text": text})];
        if let Some(picture) = picture {
            use base64::Engine as _;
            let url = format!("data:image/png;base64,{}", base64::prelude::BASE64_STANDARD.encode(picture));
            content.insert(0, json!({"type": "image_url", "image_url": {"url": url}}));
        }
        let body = json!({"messages": [{"role": "user", "content": content}], "stream": true, "ignore_eos": true,
                          "temperature": 0, "max_tokens": tokens})
        .to_string();
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        );
        let begun = Instant::now();
        self.connection.write_all([head, body].concat().as_bytes()).unwrap();
        let (mut seen, mut first, mut buffer) = (Vec::new(), None, [0; 16 * 1024]);
        while !seen.windows(8).any(|part| part == b"[DONE]\n\n") {
            let read = self.connection.read(&mut buffer).unwrap();
            assert!(read > 0, "{}", String::from_utf8_lossy(&seen));
            seen.extend_from_slice(&buffer[..read]);
            // The chunk with the role comes before any token, and the text of a token may be held back.
            let chunks = seen.windows(6).filter(|part| *part == b"data: ").count();
            if first.is_none() && chunks >= 2 {
                first = Some(begun.elapsed());
            }
        }
        // The last chunk of the body, which is empty.
        while !seen.ends_with(b"0\r\n\r\n") {
            let read = self.connection.read(&mut buffer).unwrap();
            seen.extend_from_slice(&buffer[..read]);
        }
        first.unwrap()
    }

    /// Asks the engine itself; the time until the first token.
    fn first_token(&mut self) -> Duration {
        let parts = vec![PromptPart::Text(self.known_text())];
        let prompt = self.processor.prompt(&[PromptMessage { role: PromptRole::User, parts }]).unwrap();
        let request = Request { prompt, max_new_tokens: 4, ..Request::default() };
        let begun = Instant::now();
        let mut stream = self.engine.submit(request).unwrap();
        self.runtime.block_on(stream.next()).unwrap();
        let first = begun.elapsed();
        while self.runtime.block_on(stream.next()).is_some() {}
        first
    }

    /// Processor time of the server's threads for a request, the median.
    fn processor_time(&mut self, picture: Option<&[u8]>) -> Duration {
        median((0..REQUESTS).map(|_| {
            let (text, before) = (self.text(), server_time());
            self.ask(&text, picture, ANSWER);
            server_time().saturating_sub(before)
        }))
    }
}

/// Processor time of the server's threads until now, as the kernel counts it.
fn server_time() -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path());
    let ours = tasks.filter(|task| std::fs::read_to_string(task.join("comm")).unwrap().trim() == THREADS);
    let spent = ours.map(|task| {
        let text = std::fs::read_to_string(task.join("schedstat")).unwrap();
        text.split_whitespace().next().unwrap().parse::<u64>().unwrap()
    });
    Duration::from_nanos(spent.sum())
}

/// A JPEG file of about a megabyte.
fn jpeg() -> Vec<u8> {
    let mut state = 1_u32;
    let picture = image::RgbImage::from_fn(2048, 1536, |x, y| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let noise = (state >> 27) as u8;
        image::Rgb([(x / 8) as u8 ^ noise, (y / 8) as u8 ^ noise, ((x + y) / 16) as u8 ^ noise])
    });
    let mut file = Vec::new();
    image::codecs::jpeg::JpegEncoder::new_with_quality(&mut file, 85).encode_image(&picture).unwrap();
    file
}
