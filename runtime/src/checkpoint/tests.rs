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
