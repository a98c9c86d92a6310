//! The parts that need no weights; whole checkpoints are tested from outside.

use super::*;

#[test]
fn json_errors_name_the_file_and_the_place() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    std::fs::write(&path, r#"{"text_config": {"hidden_size": "wide"}}"#).unwrap();
    let error = read_json::<RawConfig>(&path).unwrap_err().to_string();
    assert!(error.contains("config.json") && error.contains("text_config.hidden_size"), "{error}");
    std::fs::write(&path, r#"{"model_type": "llava"} {}"#).unwrap();
    assert!(read_json::<RawConfig>(&path).is_err(), "text after the end is accepted");
    assert!(read_json::<RawConfig>(&dir.path().join("other.json")).unwrap().is_none());
}

#[test]
fn a_load_tells_how_far_it_is() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/llava15_llama_hub");
    let progress = Arc::new(LoadProgress::default());
    assert_eq!(progress.bytes(), None);
    let options = OpenOptions { progress: Some(Arc::clone(&progress)), ..OpenOptions::default() };
    let checkpoint = Checkpoint::open_with(&dir, &options).unwrap();
    let (read, total) = progress.bytes().unwrap();
    assert!(read == 0 && total > 0);
    let weights = checkpoint.weights();
    let names: Vec<&str> = weights.names().collect();
    for (index, name) in names.iter().enumerate() {
        let shape = weights.shape(name).unwrap();
        weights.tensor(name, &shape, &candle_core::Device::Cpu).unwrap();
        let once = progress.bytes().unwrap();
        weights.tensor(name, &shape, &candle_core::Device::Cpu).unwrap();
        assert_eq!(progress.bytes().unwrap(), once);
        assert_eq!(once.0 == total, index + 1 == names.len());
    }
}
