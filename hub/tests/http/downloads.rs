//! Downloads that break off, stall, lie or go on where they ended.

use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use vlm_contract::diagnosis::Cause;
use vlm_hub::HubError;
use vlm_hub::fetch::{Fetched, Progress, Wanted, fetch};
use vlm_test_hub::{Fault, TestHub};

use super::{client, listing, name, tiny};

async fn get(server: &TestHub, to: &Path) -> Result<Fetched, HubError> {
    fetch(&client(server), Wanted { repository: &name(), revision: "main", to }, &|_| ()).await
}

fn assert_is_the_checkpoint(to: &Path) {
    let expected = [
        "config.json",
        "model-1.safetensors",
        "model-2.safetensors",
        "model.safetensors.index.json",
        "tokenizer.json",
        "vlm-checkpoint.json",
    ];
    assert_eq!(listing(to), expected);
    for name in &expected[..5] {
        assert!(std::fs::read(to.join(name)).unwrap() == tiny().files[*name], "{name} differs");
    }
}

#[tokio::test]
async fn a_checkpoint_is_what_the_hub_has_and_nothing_else() {
    let (server, dir) = (TestHub::start(vec![tiny()]).await, tempfile::tempdir().unwrap());
    let to = dir.path().join("deep/er/model");
    let seen = Mutex::new(Vec::new());
    let wanted = Wanted { repository: &name(), revision: "main", to: &to };
    let fetched = fetch(&client(&server), wanted, &|progress| seen.lock().unwrap().push(progress)).await.unwrap();
    assert_is_the_checkpoint(&to);
    let files = tiny().files;
    let total: u64 = listing(&to).iter().filter_map(|name| files.get(name)).map(|c| c.len() as u64).sum();
    assert_eq!(fetched, Fetched { revision: tiny().commit(), bytes: total, was_there: false });
    let seen = seen.into_inner().unwrap();
    assert_eq!(seen.first(), Some(&Progress { fetched_bytes: 0, total_bytes: total }));
    assert!(seen.iter().any(|p| p.fetched_bytes == total) && seen.len() > 5, "{seen:?}");
}

#[tokio::test]
async fn a_cut_is_gone_on_from_where_it_was() {
    let (server, dir) = (TestHub::start(vec![tiny()]).await, tempfile::tempdir().unwrap());
    let digest = vlm_test_hub::repository::sha256(&tiny().files["model-1.safetensors"]);
    server.fail(&digest, [Fault::Cut(1_500_000), Fault::Cut(700_000)]);
    let to = dir.path().join("model");
    get(&server, &to).await.unwrap();
    assert_is_the_checkpoint(&to);
    let ranges: Vec<_> =
        server.asked().into_iter().filter(|a| a.storage && a.path.contains(&digest)).map(|a| a.range).collect();
    let from = |range: &Option<String>| {
        range.as_ref().map_or(0, |r| r.trim_start_matches("bytes=").trim_end_matches('-').parse::<u64>().unwrap())
    };
    let from: Vec<u64> = ranges.iter().map(from).collect();
    assert_eq!(from.len(), 3, "{ranges:?}");
    assert!(from[0] == 0 && from[1] > 0 && from[1] <= 1_500_000 && from[2] > from[1], "{ranges:?}");
}

/// As a container that is started again: another process, the same disk.
#[tokio::test]
async fn another_attempt_goes_on_from_what_is_on_the_disk() {
    let (server, dir) = (TestHub::start(vec![tiny()]).await, tempfile::tempdir().unwrap());
    let digest = vlm_test_hub::repository::sha256(&tiny().files["model-1.safetensors"]);
    let mut faults = vec![Fault::Cut(2_000_000)];
    faults.extend(vec![Fault::Status(500, None); 2]);
    server.fail(&digest, faults);
    let to = dir.path().join("model");
    let error = get(&server, &to).await.unwrap_err();
    assert_eq!(error.cause(), Cause::WeightsDownloadFailed);
    assert!(error.to_string().contains("model-1.safetensors") && error.to_string().contains("500"), "{error}");
    assert!(!to.exists());
    let kept = std::fs::metadata(dir.path().join("model.partial/model-1.safetensors.part")).unwrap().len();
    assert!(kept > 0 && kept <= 2_000_000, "{kept}");
    let before = server.asked().len();
    get(&server, &to).await.unwrap();
    assert_is_the_checkpoint(&to);
    let later: Vec<_> = server
        .asked()
        .into_iter()
        .skip(before)
        .filter(|a| a.storage)
        .map(|a| (a.path.contains(&digest), a.range))
        .collect();
    assert_eq!(later.iter().filter(|(large, _)| *large).count(), 1, "{later:?}");
    assert!(later.contains(&(true, Some(format!("bytes={kept}-")))), "{later:?}");
}

#[tokio::test]
async fn a_server_without_ranges_begins_anew() {
    let (server, dir) = (TestHub::start(vec![tiny()]).await, tempfile::tempdir().unwrap());
    let digest = vlm_test_hub::repository::sha256(&tiny().files["model-1.safetensors"]);
    server.fail(&digest, [Fault::Cut(2_000_000), Fault::NoRanges]);
    let to = dir.path().join("model");
    get(&server, &to).await.unwrap();
    assert_is_the_checkpoint(&to);
}

#[tokio::test]
async fn a_body_that_stalls_is_given_up_and_a_slow_one_is_not() {
    let (server, dir) = (TestHub::start(vec![tiny()]).await, tempfile::tempdir().unwrap());
    let large = vlm_test_hub::repository::sha256(&tiny().files["model-1.safetensors"]);
    let small = vlm_test_hub::repository::sha256(&tiny().files["model-2.safetensors"]);
    server.fail(&large, [Fault::Stall(100_000)]);
    // Longer in all than the time in which the next bytes must come.
    server.fail(&small, [Fault::Slow(100, Duration::from_millis(250))]);
    let to = dir.path().join("model");
    get(&server, &to).await.unwrap();
    assert_is_the_checkpoint(&to);
    let asked = |digest: &str| server.asked().iter().filter(|a| a.storage && a.path.contains(digest)).count();
    assert_eq!((asked(&large), asked(&small)), (2, 1));
}

#[tokio::test]
async fn a_wrong_checksum_is_fetched_once_more_and_then_refused() {
    let (server, dir) = (TestHub::start(vec![tiny()]).await, tempfile::tempdir().unwrap());
    let digest = vlm_test_hub::repository::sha256(&tiny().files["model-1.safetensors"]);
    server.fail(&digest, [Fault::Flip(2_999_999)]);
    let to = dir.path().join("model");
    get(&server, &to).await.unwrap();
    assert_is_the_checkpoint(&to);

    let (server, to) = (TestHub::start(vec![tiny()]).await, dir.path().join("other"));
    server.fail(&digest, vec![Fault::Flip(2_999_999); 9]);
    let error = get(&server, &to).await.unwrap_err();
    assert_eq!(error.cause(), Cause::WeightsCorrupt);
    let text = error.to_string();
    assert!(text.contains("model-1.safetensors") && text.contains("SHA-256") && text.contains(&digest), "{text}");
    assert!(!to.exists() && !dir.path().join("other.partial/model-1.safetensors").exists());
}

#[tokio::test]
async fn small_files_are_compared_with_git_s_checksum() {
    let (server, dir) = (TestHub::start(vec![tiny()]).await, tempfile::tempdir().unwrap());
    server.fail("/tokenizer.json", vec![Fault::Flip(0); 9]);
    let error = get(&server, &dir.path().join("model")).await.unwrap_err();
    assert!(matches!(error, HubError::Checksum { .. }) && error.to_string().contains("tokenizer.json"), "{error}");
}

/// What is on the disk is hashed again, so a beginning that was damaged there is found.
#[tokio::test]
async fn a_damaged_beginning_is_found_and_mended() {
    let (server, dir) = (TestHub::start(vec![tiny()]).await, tempfile::tempdir().unwrap());
    let partial = dir.path().join("model.partial");
    std::fs::create_dir(&partial).unwrap();
    std::fs::write(partial.join(".commit"), tiny().commit()).unwrap();
    std::fs::write(partial.join("model-1.safetensors.part"), vec![7; 1_000_000]).unwrap();
    std::fs::write(partial.join("model-2.safetensors.part"), vec![7; 100_000]).unwrap();
    let to = dir.path().join("model");
    get(&server, &to).await.unwrap();
    assert_is_the_checkpoint(&to);
}
