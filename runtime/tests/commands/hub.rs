//! `fetch` and `inspect` against a hub: what they leave on the disk and in the termination message.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;
use vlm_catalog::checkpoint::{CheckpointSize, Head};
use vlm_catalog::inspection::Inspection;
use vlm_contract::diagnosis::{Cause, Diagnosis};
use vlm_test_hub::{Fault, Repository, TestHub};

use crate::case::{Ended, FAMILIES, dir};

const NAME: &str = "org/tiny";
const TOKEN: &str = "hf_s3cret";

fn repository() -> Repository {
    Repository::of_folder(NAME, &dir(FAMILIES[2]))
}

/// A call of the binary in an environment without settings of the machine's own.
fn command(hub: &TestHub, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vlm-runtime"));
    command.args(words).args(["--uri", "hf://org/tiny"]);
    command.env("HF_ENDPOINT", &hub.endpoint).env_remove("HF_TOKEN").env_remove("RUST_LOG");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Lets a command end while the hub of this thread's runtime answers.
async fn ended(mut command: Command) -> Ended {
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    Ended {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        error: String::from_utf8(output.stderr).unwrap(),
    }
}

struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn fetch(&self, hub: &TestHub) -> Command {
        command(hub, &["fetch", "--to", &self.path("model"), "--termination-log", &self.path("log"), "--port", "0"])
    }

    fn diagnosis(&self) -> Diagnosis {
        serde_json::from_slice(&std::fs::read(self.path("log")).unwrap()).unwrap()
    }
}

#[tokio::test]
async fn a_fetched_checkpoint_is_one_that_loads() {
    let (hub, place) = (TestHub::start(vec![repository()]).await, Place::new());
    let first = ended(place.fetch(&hub)).await;
    assert_eq!(first.code, 0, "{}{}", first.out, first.error);
    assert!(first.out.contains(&repository().commit()), "{}", first.out);
    assert!(!Path::new(&place.path("log")).exists(), "nothing is wrong");
    let asked = hub.asked().len();
    let again = ended(place.fetch(&hub)).await;
    assert_eq!((again.code, hub.asked().len()), (0, asked), "{}{}", again.out, again.error);
    let case = dir(FAMILIES[2]);
    let verified = crate::case::verify(&case, &["--model", &place.path("model"), "--dtype", "f32"]);
    assert_eq!(verified.code, 0, "{}{}", verified.out, verified.error);
}

async fn fails(hub: &TestHub, change: impl FnOnce(&mut Command), cause: Cause) -> Diagnosis {
    let place = Place::new();
    let mut command = place.fetch(hub);
    change(&mut command);
    let ended = ended(command).await;
    assert_eq!(ended.code, i32::from(cause.exit_code()), "{}{}", ended.out, ended.error);
    let diagnosis = place.diagnosis();
    assert_eq!((diagnosis.reason, format!("{diagnosis}\n")), (cause, ended.error));
    assert!(!Path::new(&place.path("model")).exists());
    assert!(!ended.out.contains("s3cret"), "{}", ended.out);
    diagnosis
}

#[tokio::test]
async fn every_way_to_fail_has_its_exit_code_and_one_sentence() {
    let private = Repository { token: Some(TOKEN.to_owned()), ..repository() };
    let hub = TestHub::start(vec![private]).await;
    let denied = fails(&hub, |_| (), Cause::ModelAccessDenied).await;
    assert!(denied.message.contains("org/tiny") && denied.message.contains("tokenSecretRef"), "{}", denied.message);
    fails(&hub, |command| _ = command.env("HF_TOKEN", "hf_wrong"), Cause::ModelNotFound).await;
    let bad_token = fails(&hub, |command| _ = command.env("HF_TOKEN", "hf s3cret"), Cause::InvalidArguments).await;
    assert!(!bad_token.message.contains("s3cret"), "{}", bad_token.message);
    let no_file = fails(&hub, |command| _ = command.args(["--token-file", "/nonexistent"]), Cause::InvalidArguments);
    assert!(no_file.await.message.contains("/nonexistent"));
    let with = |command: &mut Command| _ = command.env("HF_TOKEN", TOKEN);
    hub.fail("/blobs/", vec![Fault::Flip(9); 99]);
    let corrupt = fails(&hub, with, Cause::WeightsCorrupt).await;
    assert!(corrupt.message.contains("safetensors") && corrupt.message.contains("SHA-256"), "{}", corrupt.message);
    let hub = TestHub::start(vec![]).await;
    fails(&hub, with, Cause::ModelNotFound).await;
    let address = |command: &mut Command| _ = command.env("HF_ENDPOINT", "not-an-address");
    fails(&hub, address, Cause::InvalidArguments).await;
    let malformed = |command: &mut Command| _ = command.args(["--revision", "../x"]);
    fails(&hub, malformed, Cause::InvalidArguments).await;
}

#[tokio::test]
async fn a_token_from_a_file_opens_a_private_repository() {
    let hub = TestHub::start(vec![Repository { token: Some(TOKEN.to_owned()), ..repository() }]).await;
    let place = Place::new();
    std::fs::write(place.path("token"), format!("{TOKEN}\n")).unwrap();
    let mut command = place.fetch(&hub);
    command.args(["--token-file", &place.path("token")]).env("RUST_LOG", "trace");
    let ended = ended(command).await;
    assert_eq!(ended.code, 0, "{}{}", ended.out, ended.error);
    assert!(!ended.out.contains("s3cret") && !ended.error.contains("s3cret"), "the log shows the token");
}

/// A running fetch, killed when dropped, and the address of its metrics.
struct Running {
    child: Child,
    metrics: String,
}

impl Running {
    async fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let address = tokio::task::spawn_blocking(move || {
            let line = out.lines().map_while(Result::ok).find(|line| line.contains("listening address=")).unwrap();
            line.split_once("listening address=").unwrap().1.trim().replace("0.0.0.0", "127.0.0.1")
        });
        Self { child, metrics: format!("http://{}/metrics", address.await.unwrap()) }
    }

    async fn bytes(&self, state: &str) -> u64 {
        let page = reqwest::get(&self.metrics).await.unwrap().text().await.unwrap();
        let series = format!("vlm_weights_bytes{{state=\"{state}\"}} ");
        page.lines().find_map(|line| line.strip_prefix(&series)).unwrap_or_else(|| panic!("{page}")).parse().unwrap()
    }

    fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    async fn until(&mut self, what: &str, mut holds: impl AsyncFnMut(&mut Self) -> bool) {
        let begun = std::time::Instant::now();
        while !holds(self).await {
            assert!(begun.elapsed().as_secs() < 30, "not in time: {what}");
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn progress_is_told_and_a_signal_ends_it_without_a_checkpoint() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (hub, place) = (TestHub::start(vec![repository()]).await, Place::new());
    hub.fail("/blobs/", vec![Fault::Stall(1000); 99]);
    let mut running = Running::start(place.fetch(&hub)).await;
    running.until("bytes", async |running| running.bytes("fetched").await > 0).await;
    let total = running.bytes("fetched").await + running.bytes("missing").await;
    let is_weights = |name: &str| name.starts_with("model") && name.ends_with(".safetensors");
    let weights: usize = repository().files.iter().filter(|(name, _)| is_weights(name)).map(|(_, c)| c.len()).sum();
    assert!(total >= weights as u64, "{total} of {weights}");
    running.signal("TERM");
    running.until("the end", async |running| running.child.try_wait().unwrap().is_some()).await;
    assert_eq!(running.child.wait().unwrap().code(), Some(143));
    assert!(!Path::new(&place.path("model")).exists() && Path::new(&place.path("model.partial")).exists());
}

fn inspection(ended: &Ended) -> Inspection {
    assert_eq!(ended.code, 0, "{}", ended.error);
    assert!(ended.out.len() <= 4097 && ended.out.trim_end().lines().count() == 1, "{}", ended.out.len());
    serde_json::from_str(&ended.out).unwrap()
}

/// Every fixture, in every layout: what `inspect` says of the stored tensors is what the description makes of them.
#[test]
fn an_inspection_weighs_what_the_description_says() {
    // The configuration of the original LLaVA does not describe its tower, and the fixtures' is smaller than the one
    // that it names.
    for name in crate::case::NAMES.into_iter().filter(|name| !name.ends_with("_orig")) {
        let found = inspection(&crate::case::run(&["inspect", "--model", dir(name).to_str().unwrap()]));
        let described = [Head::Stored, Head::Tied].map(|head| CheckpointSize::of(found.config(), head).parameters());
        assert!(described.contains(&found.size().parameters()), "{name}: {:?} {described:?}", found.size());
        let per_number = found.weight_bytes().unwrap() as f64 / found.size().parameters() as f64;
        assert!((1.9..4.2).contains(&per_number), "{name}: {per_number} bytes a number");
        assert!(found.is_exact() && found.revision().is_none(), "{name}");
    }
}

#[tokio::test]
async fn a_repository_is_inspected_without_its_weights() {
    let (hub, place) = (TestHub::start(vec![repository()]).await, Place::new());
    let ended = ended(command(&hub, &["inspect", "--termination-log", &place.path("log")])).await;
    let found = inspection(&ended);
    assert_eq!(found.revision(), Some(repository().commit().as_str()));
    let local = inspection(&crate::case::run(&["inspect", "--model", dir(FAMILIES[2]).to_str().unwrap()]));
    assert_eq!((found.config(), found.size()), (local.config(), local.size()));
    assert_eq!(std::fs::read_to_string(place.path("log")).unwrap(), ended.out.trim_end());
    let asked = hub.asked();
    let files = asked.iter().filter(|asked| asked.storage);
    assert!(files.clone().count() >= 2 && files.clone().all(|asked| asked.range.is_some()), "{asked:#?}");
}

#[tokio::test]
async fn an_inspection_that_fails_says_why_in_the_same_place() {
    let (hub, place) = (TestHub::start(vec![]).await, Place::new());
    let ended = ended(command(&hub, &["inspect", "--termination-log", &place.path("log")])).await;
    assert_eq!(ended.code, i32::from(Cause::ModelAccessDenied.exit_code()), "{}", ended.error);
    assert_eq!(place.diagnosis().reason, Cause::ModelAccessDenied);
    let unknown = place.path("unknown");
    std::fs::create_dir(&unknown).unwrap();
    for entry in std::fs::read_dir(dir(FAMILIES[2])).unwrap().map(Result::unwrap) {
        if entry.path().is_file() {
            std::fs::write(Path::new(&unknown).join(entry.file_name()), std::fs::read(entry.path()).unwrap()).unwrap();
        }
    }
    std::fs::write(Path::new(&unknown).join("config.json"), r#"{"model_type": "bert"}"#).unwrap();
    let ended = crate::case::run(&["inspect", "--model", &unknown]);
    assert_eq!(ended.code, i32::from(Cause::UnsupportedArchitecture.exit_code()), "{}", ended.error);
    let nothing: &[&str] = &["inspect"];
    assert_eq!(crate::case::run(nothing).code, 2);
    let volume = ["inspect", "--uri", "pvc://claim/path"];
    assert!(crate::case::run(&volume).error.contains("mounted"));
}
