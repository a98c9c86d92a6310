//! A real small checkpoint, and files that are none.

use super::*;
use vlm_catalog::architecture::Family;
use vlm_catalog::quantization::Quantization;

fn tiny(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../examples/{name}/model"))
}

#[test]
fn a_real_checkpoint_is_known_exactly() {
    for (name, family) in [("tiny-llava", Family::Llava), ("tiny-internvl", Family::InternVl)] {
        let found = read(&tiny(name)).unwrap();
        assert!(found.exact && found.config.family == family, "{name}");
        let described = [Head::Stored, Head::Tied].map(|head| CheckpointSize::of(&found.config, head).parameters());
        assert!(described.contains(&found.size.parameters()), "{name}: {} {described:?}", found.size.parameters());
        assert!(found.weight_bytes.unwrap() > found.size.bytes(Quantization::None) / 2);
    }
}

#[test]
fn without_weights_the_sizes_are_those_of_the_description() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(tiny("tiny-llava").join("config.json"), dir.path().join("config.json")).unwrap();
    std::fs::write(dir.path().join("README.md"), "---\nlicense: mit\n---\n").unwrap();
    let found = read(dir.path()).unwrap();
    assert!(!found.exact && found.weight_bytes.is_none());
    assert_eq!(found.licence.as_deref(), Some("mit"));
}

#[test]
fn what_is_missing_or_hostile_is_named() {
    let says = |file: &str, content: &[u8]| {
        let dir = tempfile::tempdir().unwrap();
        std::fs::copy(tiny("tiny-llava").join("config.json"), dir.path().join("config.json")).unwrap();
        std::fs::write(dir.path().join(file), content).unwrap();
        read(dir.path()).unwrap_err().to_string()
    };
    let header = |json: &str| [&(json.len() as u64).to_le_bytes(), json.as_bytes()].concat();
    let safetensors = |json: &str| says("model.safetensors", &header(json));
    for (error, expected) in [
        (read(Path::new("/nonexistent")).unwrap_err().to_string(), "/nonexistent/config.json"),
        (says("config.json", b"{"), "config.json: EOF"),
        (says("config.json", b"{\"architectures\": [\"LlamaForCausalLM\"]}"), "not supported"),
        (says("config.json", &vec![b' '; 5 << 20]), "more than the 4194304 bytes"),
        (says("model.safetensors", b"abc"), "3 bytes, not even the 8"),
        (says("model.safetensors", &[0xff; 64]), "announces a header of 18446744073709551615 bytes"),
        (safetensors("[]"), "an object of tensors"),
        (safetensors("{}"), "no tensor of the embedding"),
        (safetensors(r#"{"a": {"shape": [-1]}}"#), "its header"),
        (safetensors(r#"{"a": {"shape": [18446744073709551615, 2]}}"#), "the tensors up to a"),
        (safetensors(r#"{"a": {"shape": [1,1,1,1,1,1,1,1,1]}}"#), "9 axes"),
        (says("model.safetensors.index.json", br#"{"weight_map": {"a": "../x"}}"#), "no plain name"),
        (says("model.safetensors.index.json", br#"{"weight_map": {"a": "x.safetensors"}}"#), "x.safetensors"),
    ] {
        assert!(error.contains(expected), "{error:?} lacks {expected:?}");
    }
}
