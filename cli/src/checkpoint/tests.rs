//! A real small checkpoint, and files that are none.

use std::path::PathBuf;

use super::*;
use vlm_catalog::architecture::Family;
use vlm_catalog::checkpoint::{CheckpointSize, Head};
use vlm_catalog::quantization::Quantization;

fn tiny(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../examples/{name}/model"))
}

#[test]
fn a_real_checkpoint_is_known_exactly() {
    for (name, family) in [("tiny-llava", Family::Llava), ("tiny-internvl", Family::InternVl)] {
        let found = of_directory(&tiny(name)).unwrap();
        let (config, size) = (found.inspection.config(), found.inspection.size());
        assert!(found.inspection.is_exact() && config.family == family, "{name}");
        let described = [Head::Stored, Head::Tied].map(|head| CheckpointSize::of(config, head).parameters());
        assert!(described.contains(&size.parameters()), "{name}: {} {described:?}", size.parameters());
        assert!(found.inspection.weight_bytes().unwrap() > size.bytes(Quantization::None) / 2);
    }
}

#[test]
fn without_weights_the_sizes_are_those_of_the_description() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(tiny("tiny-llava").join("config.json"), dir.path().join("config.json")).unwrap();
    std::fs::write(dir.path().join("README.md"), "---\nlicense: mit\n---\n").unwrap();
    let found = of_directory(dir.path()).unwrap();
    assert!(!found.inspection.is_exact() && found.inspection.weight_bytes().is_none());
    assert_eq!(found.licence.as_deref(), Some("mit"));
}

#[test]
fn what_is_missing_or_hostile_is_named() {
    let says = |file: &str, content: &[u8]| {
        let dir = tempfile::tempdir().unwrap();
        std::fs::copy(tiny("tiny-llava").join("config.json"), dir.path().join("config.json")).unwrap();
        std::fs::write(dir.path().join(file), content).unwrap();
        of_directory(dir.path()).unwrap_err().to_string()
    };
    let safetensors = |json: &str, data: &[u8]| {
        let file = [&(json.len() as u64).to_le_bytes(), json.as_bytes(), data].concat();
        says("model.safetensors", &file)
    };
    let one = r#"{"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}"#;
    for (error, expected) in [
        (of_directory(Path::new("/nonexistent")).unwrap_err().to_string(), "/nonexistent"),
        (says("config.json", b"{"), "config.json is malformed: EOF"),
        (says("config.json", b"{\"architectures\": [\"LlamaForCausalLM\"]}"), "not supported"),
        (says("config.json", &vec![b' '; 5 << 20]), "more than the 4194304 bytes"),
        (says("README.md", &vec![b' '; 5 << 20]), "README.md has more than the 4194304 bytes"),
        (says("model.safetensors", b"abc"), "3 bytes, not even the 8"),
        (says("model.safetensors", &[0xff; 64]), "announce a header of 18446744073709551615 bytes"),
        (safetensors("[]", b""), "an object of tensors"),
        (safetensors("{}", b""), "it names no tensors"),
        (safetensors(one, b""), "it is cut short"),
        (safetensors(one, b"x"), "no tensor of the embedding"),
        (safetensors(&one.replace("[1]", "[-1]"), b"x"), "its header"),
        (safetensors(&one.replace("[1]", "[18446744073709551615, 2]"), b"x"), "the tensor a of"),
        (safetensors(&one.replace("[1]", "[1,1,1,1,1,1,1,1,1]"), b"x"), "9 axes"),
        (says("model.safetensors.index.json", br#"{"weight_map": {"a": "../x"}}"#), "not a plain file name"),
        (says("model.safetensors.index.json", br#"{"weight_map": {"a": "x.safetensors"}}"#), "x.safetensors"),
    ] {
        assert!(error.contains(expected), "{error:?} lacks {expected:?}");
    }
}
