//! `plan` of models on the hub, as the program that a person runs: what is asked for, what is said, and how it ends.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use vlm_test_hub::{Repository, TestHub};

const NAME: &str = "org/tiny";
const TOKEN: &str = "hf_secretOfTheTest";

/// How a run ended.
struct Ended {
    code: Option<i32>,
    out: String,
    error: String,
}

fn model() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/tiny-llava/model"))
}

fn tiny() -> Repository {
    let mut repository = Repository::of_folder(NAME, model());
    repository.files.insert("README.md".to_owned(), "---\nlicense: mit\n---\n".into());
    repository
}

/// Plans the model of this `spec.model`; the environment names the hub and, if there is one, the token.
async fn plan(model: &str, endpoint: &str, token: Option<&str>, flags: &[&str]) -> Ended {
    let manifest = format!(
        "apiVersion: vlm-operator.dev/v1alpha1\nkind: VisionModel\nmetadata: {{name: vision}}\nspec:\n  model: {model}\n  gpu: {{type: nvidia-l4}}\n"
    );
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-vlm"));
    command.args(["plan", "-f", "-"]).args(flags).env("HF_ENDPOINT", endpoint).env_remove("HF_TOKEN");
    command.envs(token.map(|token| ("HF_TOKEN", token)));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // The hub answers on this thread meanwhile.
    let run = move || {
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(manifest.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    let ended = tokio::task::spawn_blocking(run).await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let ended = Ended { code: ended.status.code(), out: text(ended.stdout), error: text(ended.stderr) };
    assert!(!ended.out.contains(TOKEN) && !ended.error.contains(TOKEN), "the token is shown");
    ended
}

#[tokio::test]
async fn a_repository_is_planned_as_its_directory_is_and_no_weights_are_fetched() {
    let server = TestHub::start(vec![tiny()]).await;
    let json = |ended: &Ended| {
        assert_eq!(ended.code, Some(0), "{}", ended.error);
        serde_json::from_str::<Value>(&ended.out).unwrap()[0].clone()
    };
    let spec = "{uri: 'hf://org/tiny'}";
    let mut remote = json(&plan(spec, &server.endpoint, None, &["-o", "json"]).await);
    assert_eq!(remote["model"]["revision"], tiny().commit());
    assert_eq!(remote["model"]["licence"], "mit");
    assert_eq!(remote["model"]["exact"], true);
    let ranges = server.ranges();
    assert_eq!(ranges.len(), 2, "{ranges:?}");
    assert_eq!(ranges[0].as_deref(), Some("bytes=0-7"));
    let dir = ["-o", "json", "--checkpoint", model().to_str().unwrap()];
    let local = json(&plan(spec, "http://127.0.0.1:9", None, &dir).await);
    for field in ["revision", "licence"] {
        remote["model"].as_object_mut().unwrap().remove(field);
    }
    assert_eq!(remote, local);
    let table = plan(spec, &server.endpoint, None, &[]).await.out;
    assert!(table.contains(&format!("hf://org/tiny at {}", tiny().commit())), "{table}");
}

#[tokio::test]
async fn the_revision_of_the_manifest_is_what_is_asked_for() {
    let server = TestHub::start(vec![tiny()]).await;
    let commit = tiny().commit();
    let ended = plan(&format!("{{uri: 'hf://org/tiny', revision: '{commit}'}}"), &server.endpoint, None, &[]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.error);
    let ended = plan("{uri: 'hf://org/tiny', revision: v9}", &server.endpoint, None, &[]).await;
    assert_eq!(ended.code, Some(10), "{}", ended.error);
    assert!(ended.error.contains("revision v9 of org/tiny"), "{}", ended.error);
}

#[tokio::test]
async fn a_private_repository_opens_to_its_token_alone() {
    let server = TestHub::start(vec![Repository { token: Some(TOKEN.to_owned()), ..tiny() }]).await;
    let spec = "{uri: 'hf://org/tiny'}";
    let refused = plan(spec, &server.endpoint, None, &[]).await;
    assert_eq!((refused.code, refused.out.as_str()), (Some(13), ""));
    for part in
        ["vision: ", "ModelAccessDenied: ", "no token was given", "; ", "set HF_TOKEN to a token that may read it"]
    {
        assert!(refused.error.contains(part), "{:?} lacks {part:?}", refused.error);
    }
    let opened = plan(spec, &server.endpoint, Some(TOKEN), &[]).await;
    assert_eq!(opened.code, Some(0), "{}", opened.error);
    let broken = plan(spec, &server.endpoint, Some(&format!("{TOKEN} {TOKEN}")), &[]).await;
    assert_eq!(broken.code, Some(2), "{}", broken.error);
    assert!(broken.error.contains("correct HF_ENDPOINT, HF_TOKEN"), "{}", broken.error);
}

#[tokio::test]
async fn a_repository_that_is_not_there_is_named() {
    let server = TestHub::start(vec![Repository { token: Some(TOKEN.to_owned()), ..tiny() }]).await;
    // As the real hub does: whoever sends a token learns that there is none, anybody else only that it is refused.
    let missing = plan("{uri: 'hf://org/other'}", &server.endpoint, Some(TOKEN), &[]).await;
    assert_eq!(missing.code, Some(10), "{}", missing.error);
    for part in ["ModelNotFound: ", "org/other", "check spec.model.uri and spec.model.revision"] {
        assert!(missing.error.contains(part), "{:?} lacks {part:?}", missing.error);
    }
    let nobody = plan("{uri: 'hf://org/other'}", &server.endpoint, None, &[]).await;
    assert_eq!(nobody.code, Some(13), "{}", nobody.error);
}

#[tokio::test]
async fn a_volume_and_no_uri_at_all_ask_for_a_directory_and_a_form() {
    for (uri, expected) in [
        (
            "pvc://weights/llava",
            "pvc://weights/llava is on a volume of the cluster, which is not read from here; name a copy",
        ),
        ("s3://weights/llava", "spec.model.uri: \"s3://weights/llava\" is of none of the forms"),
    ] {
        let ended = plan(&format!("{{uri: '{uri}'}}"), "http://127.0.0.1:9", None, &[]).await;
        assert_eq!(ended.code, Some(2), "{}", ended.error);
        assert!(ended.error.contains(expected), "{:?} lacks {expected:?}", ended.error);
    }
}
