//! Answers that no hub gives: none of them gets far.

use bytes::Bytes;
use serde_json::json;
use vlm_contract::diagnosis::Cause;
use vlm_hub::fetch::{Wanted, fetch};
use vlm_hub::hf::Place;
use vlm_hub::{HubError, facts};
use vlm_test_hub::{Fault, Repository, TestHub};

use super::{client, listing, name, tiny, with_file};

/// What fetching from a hub ends with, and that it leaves no checkpoint.
async fn refused(server: &TestHub) -> HubError {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("model");
    let wanted = Wanted { repository: &name(), revision: "main", to: &to };
    let error = fetch(&client(server), wanted, &|_| ()).await.unwrap_err();
    assert!(!to.exists(), "{error}");
    assert!(listing(dir.path()).iter().all(|name| name.starts_with("model.")), "{:?}", listing(dir.path()));
    error
}

#[tokio::test]
async fn a_list_with_a_path_that_climbs_out_is_refused() {
    for path in ["../x", "a/../../x", "/tmp/x", "..", "a\\..\\x"] {
        let entry = json!({"type": "file", "path": path, "size": 1, "oid": "ce013625030ba8dba906f756967f9e9ca394464a"});
        let server = TestHub::start(vec![Repository { more_entries: vec![entry], ..tiny() }]).await;
        let error = refused(&server).await;
        assert!(matches!(error, HubError::UnsafePath { .. }), "{path}: {error}");
        assert_eq!(error.cause(), Cause::WeightsCorrupt);
    }
}

#[tokio::test]
async fn an_index_that_sends_tensors_elsewhere_is_refused() {
    for file in ["../config.json", "a/b.safetensors", "config.json", ".commit", "x.safetensors.part"] {
        let index = json!({"weight_map": {"a": file}}).to_string();
        let server = TestHub::start(vec![with_file(tiny(), "model.safetensors.index.json", index)]).await;
        let error = refused(&server).await;
        assert_eq!(error.cause(), Cause::WeightsCorrupt, "{file}: {error}");
        assert!(error.to_string().contains("index"), "{error}");
    }
}

#[tokio::test]
async fn a_huge_configuration_is_not_read() {
    let huge = Bytes::from(vec![b' '; (4 << 20) + 1]);
    let server = TestHub::start(vec![with_file(tiny(), "config.json", huge.clone())]).await;
    let error = refused(&server).await;
    assert!(matches!(error, HubError::TooLarge { .. }) && error.to_string().contains("config.json"), "{error}");
    // Listed as small, and then it is not.
    let server = TestHub::start(vec![tiny()]).await;
    server.fail("/config.json", [Fault::Body(huge)]);
    let error = facts::of_repository(&client(&server), &name(), &tiny().commit()).await.unwrap_err();
    assert!(matches!(error, HubError::TooLarge { .. }), "{error}");
}

#[tokio::test]
async fn an_endless_answer_is_cut_at_the_limit() {
    let server = TestHub::start(vec![tiny()]).await;
    server.fail("/resolve/", [Fault::Body(Bytes::from(vec![b'x'; 1 << 20]))]);
    let commit = tiny().commit();
    let place = Place { repository: &name(), commit: &commit, path: "config.json" };
    let error = client(&server).read(place, 1000).await.unwrap_err();
    assert!(error.to_string().contains("1000 bytes"), "{error}");
}

#[tokio::test]
async fn answers_that_are_no_answers_are_told_in_short() {
    let page = Bytes::from_static(b"<html>Sign in to the guest network</html>");
    for (path, body) in [
        ("/revision/", page.clone()),
        ("/revision/", Bytes::from_static(br#"{"sha": "../../etc"}"#)),
        ("/revision/", Bytes::from_static(b"{}")),
        ("/tree/", page),
        ("/tree/", Bytes::from(json!([{"type": "file", "path": "config.json", "oid": "x"}]).to_string())),
        ("/tree/", Bytes::from("[".repeat(100_000))),
    ] {
        let server = TestHub::start(vec![tiny()]).await;
        server.fail(path, [Fault::Body(body.clone())]);
        let error = refused(&server).await;
        assert_eq!(error.cause(), Cause::WeightsDownloadFailed, "{body:?}: {error}");
        assert!(error.to_string().len() < 600, "{error}");
    }
}

#[tokio::test]
async fn a_file_longer_than_listed_is_refused() {
    let server = TestHub::start(vec![tiny()]).await;
    let longer = [&tiny().files["model-2.safetensors"][..], b"more"].concat();
    let digest = vlm_test_hub::repository::sha256(&tiny().files["model-2.safetensors"]);
    server.fail(&digest, [Fault::Body(Bytes::from(longer))]);
    let error = refused(&server).await;
    assert!(error.to_string().contains("model-2.safetensors") && error.to_string().contains("more than"), "{error}");
}
