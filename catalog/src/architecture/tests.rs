//! Spellings that must read alike, and numbers that must be refused by name.

use super::raw::RawConfig;
use super::*;

fn read(json: &serde_json::Value) -> Result<ModelConfig, ArchitectureError> {
    let raw: RawConfig = serde_json::from_value(json.clone()).unwrap();
    describe(&raw)
}

fn tiny() -> serde_json::Value {
    serde_json::json!({
        "architectures": ["LlavaForConditionalGeneration"], "model_type": "llava", "image_token_index": 260,
        "torch_dtype": "float16", "vision_feature_layer": -2,
        "text_config": {"model_type": "llama", "vocab_size": 320, "hidden_size": 64, "intermediate_size": 112,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 1024,
            "rms_norm_eps": 1e-5, "rope_theta": 20000.0},
        "vision_config": {"model_type": "clip_vision_model", "hidden_size": 32, "intermediate_size": 64,
            "num_hidden_layers": 3, "num_attention_heads": 4, "image_size": 28, "patch_size": 7}
    })
}

#[test]
fn old_and_new_spellings_describe_the_same_model() {
    let old = tiny();
    let mut new = tiny();
    let text = new["text_config"].as_object_mut().unwrap();
    text.remove("rope_theta");
    text.insert("rope_parameters".into(), serde_json::json!({"rope_theta": 20000.0, "rope_type": "default"}));
    new["vision_config"]["image_size"] = serde_json::json!([28, 28]);
    let whole = new.as_object_mut().unwrap();
    let id = whole.remove("image_token_index").unwrap();
    whole.insert("image_token_id".into(), id);
    let dtype = whole.remove("torch_dtype").unwrap();
    whole.insert("dtype".into(), dtype);
    assert_eq!(read(&old).unwrap(), read(&new).unwrap());
    assert!((read(&old).unwrap().text.rope_theta - 20_000.0).abs() < f64::EPSILON);
}

#[test]
fn a_hub_config_without_sizes_is_llava_7b() {
    let json = serde_json::json!({"model_type": "llava", "text_config": {"max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5, "vocab_size": 32064}, "image_token_index": 32000});
    let config = read(&json).unwrap();
    assert_eq!((config.text.hidden_size, config.text.intermediate_size, config.text.layers), (4096, 11008, 32));
    assert_eq!((config.text.heads, config.text.kv_heads, config.text.head_dim), (32, 32, 128));
    assert_eq!(config.text.kv_bytes_per_token(2), 524_288);
    assert_eq!((config.vision.layers, config.vision.layers_used, config.vision.tokens_per_tile()), (24, 23, 576));
}

#[test]
fn the_feature_layer_counts_from_the_end_and_skips_what_is_not_needed() {
    let used = |layer: i64| {
        let mut json = tiny();
        json["vision_feature_layer"] = layer.into();
        read(&json).map(|config| config.vision.layers_used)
    };
    assert_eq!(used(-1), Ok(3));
    assert_eq!(used(-2), Ok(2));
    assert_eq!(used(0), Ok(0));
    assert_eq!(used(3), Ok(3));
    assert!(used(4).is_err());
    assert!(used(-5).is_err());
    assert!(used(i64::MIN).is_err());
}

#[test]
fn hostile_numbers_are_refused_by_the_name_of_their_field() {
    let hostile = [0, -1, i64::MAX, i64::MIN];
    for (part, field) in [
        ("text_config", "vocab_size"),
        ("text_config", "hidden_size"),
        ("text_config", "intermediate_size"),
        ("text_config", "num_hidden_layers"),
        ("text_config", "num_attention_heads"),
        ("text_config", "num_key_value_heads"),
        ("text_config", "head_dim"),
        ("text_config", "max_position_embeddings"),
        ("vision_config", "hidden_size"),
        ("vision_config", "intermediate_size"),
        ("vision_config", "num_hidden_layers"),
        ("vision_config", "num_attention_heads"),
        ("vision_config", "num_channels"),
        ("vision_config", "image_size"),
        ("vision_config", "patch_size"),
    ] {
        for value in hostile {
            let mut json = tiny();
            json[part][field] = value.into();
            let error = read(&json).expect_err(field).to_string();
            assert!(error.contains(field), "{error} does not name {field}");
            assert!(error.contains(&value.to_string()), "{error} does not give {value}");
        }
    }
}

#[test]
fn heads_that_do_not_divide_are_refused() {
    for (field, value) in [("num_attention_heads", 3), ("num_key_value_heads", 3), ("head_dim", 17)] {
        let mut json = tiny();
        json["text_config"][field] = value.into();
        assert!(read(&json).unwrap_err().to_string().contains(field));
    }
    let mut json = tiny();
    json["vision_config"]["patch_size"] = 5.into();
    assert!(read(&json).unwrap_err().to_string().contains("patch_size"));
}

#[test]
fn what_is_not_served_is_named_together_with_what_is() {
    for (pointer, value) in [
        ("/architectures/0", "Qwen2VLForConditionalGeneration"),
        ("/text_config/model_type", "mistral"),
        ("/vision_config/model_type", "siglip_vision_model"),
    ] {
        let mut json = tiny();
        *json.pointer_mut(pointer).unwrap() = value.into();
        let error = read(&json).unwrap_err();
        assert!(matches!(error, ArchitectureError::Unsupported { .. }), "{error}");
        assert!(error.to_string().contains(value) && error.to_string().contains("supported:"), "{error}");
    }
    let mut quantised = tiny();
    quantised["quantization_config"] = serde_json::json!({"bits": 4, "quant_method": "gptq"});
    assert!(read(&quantised).unwrap_err().to_string().contains("quantization_config"));
}

#[test]
fn long_rope_is_refused_and_dynamic_is_not() {
    let mut json = tiny();
    json["text_config"]["rope_scaling"] = serde_json::json!({"type": "dynamic", "factor": 2.0});
    assert!(read(&json).is_ok());
    json["text_config"]["rope_scaling"] = serde_json::json!({"rope_type": "longrope"});
    assert!(read(&json).unwrap_err().to_string().contains("longrope"));
}
