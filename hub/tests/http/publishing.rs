//! Who may write a directory, and what becomes of one that is there.

use std::path::Path;
use std::sync::Arc;

use vlm_contract::diagnosis::Cause;
use vlm_hub::HubError;
use vlm_hub::fetch::{Fetched, Wanted, fetch};
use vlm_test_hub::{Fault, TestHub};

use super::{client, listing, name, repository_of, tiny, with_file};

async fn get(server: &TestHub, revision: &str, to: &Path) -> Result<Fetched, HubError> {
    fetch(&client(server), Wanted { repository: &name(), revision, to }, &|_| ()).await
}

#[tokio::test]
async fn what_is_there_needs_no_hub() {
    let (server, dir) = (TestHub::start(vec![tiny()]).await, tempfile::tempdir().unwrap());
    let to = dir.path().join("model");
    let first = get(&server, "main", &to).await.unwrap();
    let asked = server.asked().len();
    for revision in ["main", &tiny().commit()] {
        let again = get(&server, revision, &to).await.unwrap();
        assert_eq!(again, Fetched { was_there: true, ..first.clone() });
    }
    assert_eq!(server.asked().len(), asked);
}

#[tokio::test]
async fn a_directory_with_something_else_is_left_alone() {
    let (server, dir) = (TestHub::start(vec![tiny()]).await, tempfile::tempdir().unwrap());
    let to = dir.path().join("model");
    get(&server, "main", &to).await.unwrap();
    let before = listing(&to);
    let other = Wanted { repository: &repository_of("org/other"), revision: "main", to: &to };
    let error = fetch(&client(&server), other, &|_| ()).await.unwrap_err();
    assert_eq!(error.cause(), Cause::InvalidArguments);
    assert!(error.to_string().contains("org/tiny") && error.to_string().contains("org/other"), "{error}");
    let error = get(&server, "v2", &to).await.unwrap_err();
    assert!(error.to_string().contains("v2"), "{error}");
    std::fs::write(to.join("config.json"), "changed").unwrap();
    let error = get(&server, "main", &to).await.unwrap_err();
    assert!(error.to_string().contains("changed"), "{error}");
    assert_eq!(listing(&to), before);
    let mine = dir.path().join("mine");
    std::fs::create_dir(&mine).unwrap();
    std::fs::write(mine.join("thesis.txt"), "x").unwrap();
    let error = get(&server, "main", &mine).await.unwrap_err();
    assert!(matches!(error, HubError::Occupied { .. }), "{error}");
    assert_eq!(listing(&mine), ["thesis.txt"]);
}

#[tokio::test]
async fn an_empty_directory_is_as_good_as_none() {
    let (server, dir) = (TestHub::start(vec![tiny()]).await, tempfile::tempdir().unwrap());
    let to = dir.path().join("model");
    std::fs::create_dir(&to).unwrap();
    get(&server, "main", &to).await.unwrap();
    assert!(to.join("config.json").exists());
}

#[tokio::test]
async fn unfinished_work_on_another_commit_is_thrown_away() {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("model");
    // A file that is gone, and one of the same size that is another.
    let old = with_file(with_file(tiny(), "special_tokens_map.json", "{}"), "tokenizer.json", "[]");
    let server = TestHub::start(vec![old]).await;
    server.fail("/blobs/", vec![Fault::Status(500, None); 99]);
    get(&server, "main", &to).await.unwrap_err();
    assert!(dir.path().join("model.partial/special_tokens_map.json").exists());
    let server = TestHub::start(vec![tiny()]).await;
    get(&server, "main", &to).await.unwrap();
    assert!(!to.join("special_tokens_map.json").exists() && !dir.path().join("model.partial").exists());
    assert_eq!(std::fs::read(to.join("tokenizer.json")).unwrap(), tiny().files["tokenizer.json"]);
    assert!(!to.join(".commit").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_that_fetch_into_one_directory_download_once() {
    let (server, dir) = (Arc::new(TestHub::start(vec![tiny()]).await), tempfile::tempdir().unwrap());
    let to = dir.path().join("model");
    let fetches = (0..8).map(|_| {
        let (server, to) = (Arc::clone(&server), to.clone());
        tokio::spawn(async move { get(&server, "main", &to).await.unwrap() })
    });
    let fetches: Vec<_> = fetches.collect();
    let mut downloaded = 0;
    for fetched in fetches {
        downloaded += usize::from(!fetched.await.unwrap().was_there);
    }
    assert_eq!(downloaded, 1);
    assert_eq!(server.ranges().len(), 2, "two large files, once each");
}

#[tokio::test]
async fn a_place_that_cannot_be_written_is_named() {
    let (server, dir) = (TestHub::start(vec![tiny()]).await, tempfile::tempdir().unwrap());
    let file = dir.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let error = get(&server, "main", &file.join("model")).await.unwrap_err();
    assert!(matches!(error, HubError::Write { .. }) && error.to_string().contains("file"), "{error}");
    let error = get(&server, "main", Path::new("/")).await.unwrap_err();
    assert!(error.to_string().contains("name of its own"), "{error}");
}
