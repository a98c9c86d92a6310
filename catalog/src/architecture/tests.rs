//! Spellings that must read alike, and numbers that must be refused by name.

mod internvl;
mod original;
mod rope;
mod tower;

use serde_json::{Value, json};

use super::raw::RawConfig;
use super::*;
use crate::kv_cache::KvCacheDtype;

fn read(json: &Value) -> Result<ModelConfig, ArchitectureError> {
    let raw: RawConfig = serde_json::from_value(json.clone()).unwrap();
    describe(&raw)
}

fn tiny() -> Value {
    json!({
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
    text.insert("rope_parameters".into(), json!({"rope_theta": 20000.0, "rope_type": "default"}));
    new["vision_config"]["image_size"] = json!([28, 28]);
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
    let json = json!({"model_type": "llava", "text_config": {"max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5, "vocab_size": 32064}, "image_token_index": 32000});
    let config = read(&json).unwrap();
    assert_eq!((config.text.hidden_size, config.text.intermediate_size, config.text.layers), (4096, 11008, 32));
    assert_eq!((config.text.heads, config.text.kv_heads, config.text.head_dim), (32, 32, 128));
    assert_eq!(config.text.kv_bytes_per_token(2), 524_288);
    // A scale for each of 32 keys and 32 values of each of 32 layers.
    for dtype in [KvCacheDtype::Int8, KvCacheDtype::Fp8] {
        assert_eq!(dtype.bytes_per_token(&config.text, 2), 262_144 + 8192, "{dtype}");
    }
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
        ("/text_config/model_type", "gemma"),
        ("/text_config/hidden_act", "gelu_new"),
        ("/projector_hidden_act", "relu"),
        ("/text_config/rope_scaling/type", "yarn"),
        ("/vision_config/model_type", "siglip_vision_model"),
    ] {
        let mut json = tiny();
        json["projector_hidden_act"] = "gelu".into();
        json["text_config"]["hidden_act"] = "silu".into();
        json["text_config"]["rope_scaling"] = json!({"type": "default"});
        *json.pointer_mut(pointer).unwrap() = value.into();
        let error = read(&json).unwrap_err();
        assert!(matches!(error, ArchitectureError::Unsupported { .. }), "{error}");
        assert!(error.to_string().contains(value) && error.to_string().contains("supported:"), "{error}");
    }
}

#[test]
fn weights_quantised_beforehand_are_refused_wherever_it_is_said() {
    for (pointer, method) in
        [("", "gptq"), ("/text_config", "awq"), ("/llm_config", "awq"), ("/vision_config", "bitsandbytes")]
    {
        let mut json = tiny();
        json["llm_config"] = json!({});
        json.pointer_mut(pointer).unwrap()["quantization_config"] = json!({"bits": 4, "quant_method": method});
        let error = read(&json).unwrap_err().to_string();
        let field = format!("{pointer}/quantization_config")[1..].replace('/', ".");
        for word in ["pre-quantised", &field, method, "supported: f16"] {
            assert!(error.contains(word), "{error} lacks {word}");
        }
    }
    for odd in [json!({}), json!("awq"), json!(true), json!([4, 128]), json!(4), json!(-4), json!(0.5)] {
        let mut json = tiny();
        json["quantization_config"] = odd;
        assert!(read(&json).unwrap_err().to_string().contains("quantization_config"));
    }
    let mut none = tiny();
    none["quantization_config"] = Value::Null;
    assert_eq!(read(&none), read(&tiny()));
}

#[test]
fn an_unknown_architecture_lists_those_that_are_served() {
    for json in [json!({"architectures": ["LlavaQwenForCausalLM"]}), json!({"model_type": "qwen2_vl"}), json!({})] {
        let error = read(&json).unwrap_err().to_string();
        for class in [
            "LlavaForConditionalGeneration",
            "LlavaNextForConditionalGeneration",
            "InternVLForConditionalGeneration",
            "LlavaLlamaForCausalLM",
            "LlavaMistralForCausalLM",
            "InternVLChatModel",
        ] {
            assert!(error.contains(class), "{error} lacks {class}");
        }
    }
}

#[test]
fn a_decoder_with_biases_elsewhere_is_refused() {
    for field in ["attention_bias", "mlp_bias"] {
        let mut json = tiny();
        json["text_config"][field] = true.into();
        assert!(read(&json).unwrap_err().to_string().contains(field));
        json["text_config"][field] = false.into();
        assert_eq!(read(&json), read(&tiny()));
    }
}

#[test]
fn a_whole_model_is_bounded_though_each_of_its_numbers_is_small_enough() {
    let mut json = tiny();
    let text = &mut json["text_config"];
    text["num_attention_heads"] = 64.into();
    (text["hidden_size"], text["intermediate_size"], text["num_hidden_layers"]) =
        (json!(1 << 16), json!(1 << 18), json!(1 << 10));
    assert!(read(&json).unwrap_err().to_string().contains("parameters"));
    json["text_config"]["num_hidden_layers"] = 1.into();
    assert!(read(&json).is_ok());
    let mut json = tiny();
    (json["vision_config"]["image_size"], json["vision_config"]["patch_size"]) = (json!(4096), json!(1));
    assert!(read(&json).unwrap_err().to_string().contains("image_size"));
}

#[test]
fn the_image_token_is_one_of_the_vocabulary() {
    for id in [-1, 320, i64::MAX] {
        let mut json = tiny();
        json["image_token_index"] = id.into();
        assert!(read(&json).unwrap_err().to_string().contains("image_token_index"));
    }
    let mut json = tiny();
    json.as_object_mut().unwrap().remove("image_token_index");
    json["image_token_id"] = 320.into();
    assert!(read(&json).unwrap_err().to_string().contains("image_token_id"));
}

#[test]
fn several_feature_layers_and_sides_that_differ_are_refused() {
    let mut json = tiny();
    json["vision_feature_layer"] = json!([-2, -5]);
    assert!(read(&json).unwrap_err().to_string().contains("2 layers"));
    json["vision_feature_layer"] = json!([-2]);
    assert_eq!(read(&json), read(&tiny()));
    json["vision_config"]["image_size"] = json!([28, 56]);
    assert!(read(&json).unwrap_err().to_string().contains("image_size"));
    let mut json = tiny();
    json["vision_feature_select_strategy"] = "some".into();
    assert!(read(&json).unwrap_err().to_string().contains("vision_feature_select_strategy"));
    json["vision_feature_select_strategy"] = "full".into();
    assert_eq!(read(&json).unwrap().vision.tokens_per_tile(), 17);
}
