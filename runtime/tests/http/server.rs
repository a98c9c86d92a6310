//! Starting the binary, asking it, stopping it.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longest wait for a condition.
pub const PATIENCE: Duration = Duration::from_secs(60);

static CRYPTO: LazyLock<()> = LazyLock::new(|| {
    let _ = rustls::crypto::ring::default_provider().install_default();
});

/// The tiny checkpoint.
pub fn checkpoint() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/llava15_llama_hub")
}

/// The picture that belongs to it.
pub fn png() -> Vec<u8> {
    std::fs::read(checkpoint().join("images/0.png")).unwrap()
}

/// The picture as a data URL.
pub fn data_url() -> String {
    url_of(&png())
}

/// A picture as a data URL.
pub fn url_of(png: &[u8]) -> String {
    use base64::Engine as _;
    format!("data:image/png;base64,{}", base64::prelude::BASE64_STANDARD.encode(png))
}

/// A command that starts the binary with these words.
pub fn command(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vlm-runtime"));
    command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A running server; killed when dropped.
pub struct Server {
    child: Child,
    pub base: String,
    pub client: Client,
    log: Arc<Mutex<String>>,
}

impl Server {
    /// Starts on the tiny checkpoint and waits until it is ready.
    pub async fn start(words: &[&str]) -> Self {
        Self::start_on(&checkpoint(), words).await
    }

    /// Starts on a checkpoint and waits until it is ready.
    pub async fn start_on(model: &Path, words: &[&str]) -> Self {
        Self::start_in(model, words, &[]).await
    }

    /// Starts on a checkpoint with variables of the environment, and waits until it is ready.
    pub async fn start_in(model: &Path, words: &[&str], variables: &[(&str, &str)]) -> Self {
        let server = Self::begin(model, words, variables);
        server.until("ready", async || server.get("/ready").await.status() == 200).await;
        server
    }

    /// Starts on a checkpoint, and waits until it listens.
    pub fn begin(model: &Path, words: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut all = vec!["serve", "--model", model.to_str().unwrap(), "--host", "127.0.0.1"];
        all.extend(["--port", "0", "--served-model-name", "tiny"]);
        all.extend(words);
        let mut child = command(&all).envs(variables.iter().copied()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut address = None;
        let mut seen = String::new();
        while address.is_none() {
            let begin = seen.len();
            let read = lines.read_line(&mut seen).unwrap();
            let mut complaint = String::new();
            if read == 0 {
                child.stderr.take().unwrap().read_to_string(&mut complaint).unwrap();
            }
            assert!(read > 0, "the server ended: {seen}{complaint}");
            address = seen[begin..].trim_end().split_once("listening address=").map(|(_, a)| a.to_owned());
        }
        let log = Arc::new(Mutex::new(seen));
        let sink = Arc::clone(&log);
        std::thread::spawn(move || {
            let mut line = String::new();
            while lines.read_line(&mut line).is_ok_and(|read| read > 0) {
                sink.lock().unwrap().push_str(&line);
                line.clear();
            }
        });
        LazyLock::force(&CRYPTO);
        let base = format!("http://{}", address.unwrap());
        Self { child, base, client: Client::new(), log }
    }

    pub async fn get(&self, path: &str) -> Response {
        self.client.get(format!("{}{path}", self.base)).send().await.unwrap()
    }

    pub fn post(&self) -> RequestBuilder {
        self.client.post(format!("{}/v1/chat/completions", self.base))
    }

    /// Sends a JSON body; status and JSON of the answer.
    pub async fn ask(&self, body: &Value) -> (u16, Value) {
        answer(self.post().json(body).send().await.unwrap()).await
    }

    /// The whole number that a series of `/metrics` has.
    pub async fn metric(&self, series: &str) -> u64 {
        let text = self.get("/metrics").await.text().await.unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{series} is not in\n{text}")).parse().unwrap()
    }

    /// Waits for a condition.
    pub async fn until(&self, what: &str, condition: impl AsyncFn() -> bool) {
        let begun = Instant::now();
        while !condition().await {
            assert!(begun.elapsed() < PATIENCE, "not in time: {what}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Where it listens, as host and port.
    pub fn address(&self) -> &str {
        self.base.strip_prefix("http://").unwrap()
    }

    /// Sends bytes as they are, and reads what comes until the connection is closed.
    pub async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address()).await.unwrap();
        // The server may refuse before all is sent.
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let reading = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
        assert!(reading.is_ok(), "the connection hangs");
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// The most memory that it has used, in bytes.
    pub fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        1024 * line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        let kill = format!("kill -TERM {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// Waits for the process to end.
    pub async fn ended(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(begun.elapsed() < PATIENCE, "it does not end\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Status and JSON.
pub async fn answer(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or_else(|_| panic!("{status}: no JSON: {text}")))
}

/// A text question.
pub fn question(more: &Value) -> Value {
    let mut body = json!({"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 8});
    merge(&mut body, more);
    body
}

/// A question about the picture, as the reference outputs have it.
pub fn about_picture(more: &Value) -> Value {
    let mut body = json!({"model": "tiny", "temperature": 0, "max_tokens": 12, "messages": [
        {"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": data_url()}},
            {"type": "text", "text": "What is shown in this image?"}]}]});
    merge(&mut body, more);
    body
}

/// The longest answer that the checkpoint's context holds.
pub fn long(more: &Value) -> Value {
    let mut body = question(&json!({"max_tokens": 900, "ignore_eos": true, "stream": true}));
    merge(&mut body, more);
    body
}

fn merge(body: &mut Value, more: &Value) {
    for (name, value) in more.as_object().into_iter().flatten() {
        body[name] = value.clone();
    }
}

/// The data of each event of a stream.
pub fn events(text: &str) -> Vec<String> {
    let mut events = Vec::new();
    for block in text.split("\n\n").filter(|block| !block.is_empty()) {
        for line in block.lines() {
            if let Some(data) = line.strip_prefix("data: ") {
                events.push(data.to_owned());
            } else {
                assert!(line.starts_with(':'), "neither data nor comment: {line}");
            }
        }
    }
    events
}
