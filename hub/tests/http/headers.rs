//! Facts of a repository by ranges: the weights themselves stay where they are.

use vlm_contract::diagnosis::Cause;
use vlm_hub::facts;
use vlm_test_hub::{Fault, Repository, TestHub};

use super::{client, name, safetensors, tiny, with_file};

#[tokio::test]
async fn the_tensors_are_known_without_the_weights() {
    let server = TestHub::start(vec![tiny()]).await;
    let facts = facts::of_repository(&client(&server), &name(), &tiny().commit()).await.unwrap();
    let tensors: Vec<_> = facts.tensors.as_ref().unwrap().iter().map(|t| (t.name.as_str(), t.bytes.len())).collect();
    assert_eq!(tensors, [("a", 3_000_000), ("b", 1000)]);
    assert_eq!(facts.config, tiny().files["config.json"]);
    assert_eq!(facts.revision, Some(tiny().commit()));
    let size = |name: &str| tiny().files[name].len() as u64;
    assert_eq!(facts.weight_bytes, size("model-1.safetensors") + size("model-2.safetensors"));
    // Two questions a file, of eight bytes and of the header; `pytorch_model.bin` is not looked at.
    let mut ranges = server.ranges();
    ranges.sort();
    let header = |name: &str| u64::from_le_bytes(tiny().files[name][..8].try_into().unwrap()) + 7;
    let of = |name: &str| Some(format!("bytes=8-{}", header(name)));
    let begin = Some("bytes=0-7".to_owned());
    let mut expected = vec![begin.clone(), begin, of("model-1.safetensors"), of("model-2.safetensors")];
    expected.sort();
    assert_eq!(ranges, expected);
}

#[tokio::test]
async fn a_server_without_ranges_is_read_no_further_than_the_header() {
    let server = TestHub::start(vec![tiny()]).await;
    server.fail("/blobs/", vec![Fault::NoRanges; 9]);
    let facts = facts::of_repository(&client(&server), &name(), &tiny().commit()).await.unwrap();
    assert_eq!(facts.tensors.unwrap().len(), 2);
}

#[tokio::test]
async fn pickles_are_weighed_and_not_opened() {
    let mut repository = tiny();
    repository.files.retain(|name, _| !name.contains("safetensors"));
    let server = TestHub::start(vec![repository.clone()]).await;
    let facts = facts::of_repository(&client(&server), &name(), &repository.commit()).await.unwrap();
    assert_eq!((facts.tensors, facts.weight_bytes), (None, 6));
}

async fn refused(repository: Repository) -> (Cause, String) {
    let commit = repository.commit();
    let server = TestHub::start(vec![repository]).await;
    let error = facts::of_repository(&client(&server), &name(), &commit).await.unwrap_err();
    (error.cause(), error.to_string())
}

#[tokio::test]
async fn a_hostile_header_is_refused_before_it_is_read() {
    let with_length = |length: u64| {
        let mut file = length.to_le_bytes().to_vec();
        file.extend([b' '; 100]);
        with_file(tiny(), "model-2.safetensors", file)
    };
    for length in [u64::MAX, 101, 1 << 40] {
        let (cause, text) = refused(with_length(length)).await;
        assert_eq!(cause, Cause::WeightsCorrupt);
        assert!(text.contains("model-2.safetensors") && text.contains(&length.to_string()), "{text}");
    }
    let (_, text) = refused(with_file(tiny(), "model-2.safetensors", &b"abc"[..])).await;
    assert!(text.contains("3 bytes"), "{text}");
    let (_, text) = refused(with_file(tiny(), "model-2.safetensors", safetensors("a", 10))).await;
    assert!(text.contains("stored twice"), "{text}");
}

#[tokio::test]
async fn a_shard_that_is_not_there_and_a_repository_without_weights_are_not_found() {
    let mut missing = tiny();
    missing.files.remove("model-2.safetensors");
    let (cause, text) = refused(missing).await;
    assert_eq!(cause, Cause::ModelNotFound);
    assert!(text.contains("model-2.safetensors") && text.contains("model.safetensors.index.json"), "{text}");
    let mut none = tiny();
    none.files.retain(|name, _| !name.contains("model"));
    let (cause, text) = refused(none).await;
    assert_eq!(cause, Cause::ModelNotFound);
    assert!(text.contains("model.safetensors"), "{text}");
    let mut no_config = tiny();
    no_config.files.remove("config.json");
    let (cause, text) = refused(no_config).await;
    assert_eq!(cause, Cause::ModelNotFound);
    assert!(text.contains("config.json"), "{text}");
}
