//! A GPU that fails for good while a model is served: who asked is told, and the process ends by itself and says why.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use candle_core::{DType, Tensor};
use vlm_contract::diagnosis::{Cause, Diagnosis};
use vlm_runtime::args::{Command as Ask, parse};
use vlm_runtime::commands::serve;
use vlm_runtime::device::{DeviceChoice, open};
use vlm_runtime::diagnose::report;
use vlm_runtime::ops::gather_at;

use crate::gpu::gpu;

/// The command line of the process that is to lose its GPU.
const LINE: &str = "VLM_TEST_LINE";
/// What it says then.
const LOST: &str = "the GPU is lost";
const PATIENCE: Duration = Duration::from_secs(60);

/// Reads far outside of all memory, by which every context of this process on its GPU ends.
fn lose() {
    let gpu = open(DeviceChoice::Cuda).unwrap();
    let table = Tensor::zeros((2, 4096), DType::F32, &gpu).unwrap();
    let _ = gather_at(&table, &Tensor::new(&[u32::MAX], &gpu).unwrap());
    assert!(gpu.synchronize().is_err(), "the GPU goes on");
}

/// Serves as its environment says, and loses the GPU when a line comes in.
#[test]
#[ignore = "ends the GPU for its process, which the test below starts"]
fn serves_until_its_gpu_is_lost() {
    let line: Vec<OsString> = std::env::var(LINE).unwrap().split(' ').map(OsString::from).collect();
    let Ok(Ask::Serve(args)) = parse(&line).map(|cli| cli.command) else { panic!("{line:?} does not serve") };
    std::thread::spawn(|| {
        std::io::stdin().read_line(&mut String::new()).unwrap();
        lose();
        println!("{LOST}");
    });
    let log = args.termination_log.clone();
    let error = serve::run(args).unwrap_err();
    report(&error.diagnosis(), log.as_deref());
    std::process::exit(error.cause().exit_code().into());
}

/// Another process with this test in it; killed when dropped.
struct Server {
    child: Child,
    out: BufReader<ChildStdout>,
    port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn start(log: &str) -> Self {
        let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/llava15_llama_hub");
        let line = format!(
            "vlm-runtime serve --model {model} --device cuda --host 127.0.0.1 --port {port} --termination-log {log}"
        );
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["lost::serves_until_its_gpu_is_lost", "--exact", "--ignored", "--nocapture"]).env(LINE, line);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out, port }
    }

    /// Status and body of what is answered.
    fn ask(&self, method: &str, path: &str, body: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let head = "host: test\r\nconnection: close\r\ncontent-type: application/json";
        write!(stream, "{method} {path} HTTP/1.1\r\n{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let status = answer.split(' ').nth(1)?.parse().ok()?;
        Some((status, answer))
    }

    fn complete(&self) -> (u16, String) {
        self.ask("POST", "/v1/completions", r#"{"prompt": "Hi", "max_tokens": 3, "ignore_eos": true}"#).unwrap()
    }

    fn until_ready(&mut self) {
        let begun = Instant::now();
        while self.ask("GET", "/ready", "").is_none_or(|(status, _)| status != 200) {
            assert!(self.child.try_wait().unwrap().is_none(), "the server ended");
            assert!(begun.elapsed() < PATIENCE, "the server does not become ready");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Has it lose its GPU, and waits until it has.
    fn lose(&mut self) {
        writeln!(self.child.stdin.as_mut().unwrap()).unwrap();
        let mut line = String::new();
        while !line.contains(LOST) {
            line.clear();
            assert!(self.out.read_line(&mut line).unwrap() > 0, "the server ended");
        }
    }

    /// The code with which it ends by itself.
    fn code(&mut self) -> Option<i32> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(begun.elapsed() < PATIENCE, "the server stays, although its GPU is lost");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn a_lost_gpu_fails_who_asked_and_ends_the_server_without_another_request() {
    let Some(_turn) = gpu() else { return };
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("termination");
    let mut server = Server::start(log.to_str().unwrap());
    server.until_ready();
    assert_eq!(server.complete().0, 200);
    server.lose();
    let (status, answer) = server.complete();
    assert!(status == 500 && answer.contains("engine_error"), "{status} {answer}");
    assert_eq!(server.code(), Some(i32::from(Cause::StartFailed.exit_code())));
    let said: Diagnosis = serde_json::from_slice(&std::fs::read(log).unwrap()).unwrap();
    assert!(said.reason == Cause::StartFailed && said.message.contains("GPU failed"), "{said}");
}
