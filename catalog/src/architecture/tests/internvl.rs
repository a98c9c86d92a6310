//! InternVL in both conventions.

use super::*;

fn chat() -> Value {
    json!({
        "architectures": ["InternVLChatModel"], "model_type": "internvl_chat", "downsample_ratio": 0.5,
        "dynamic_image_size": true, "force_image_size": 28, "max_dynamic_patch": 6, "min_dynamic_patch": 1,
        "ps_version": "v2", "select_layer": -1, "template": "internvl2_5", "use_thumbnail": true,
        "llm_config": {"architectures": ["Qwen2ForCausalLM"], "eos_token_id": 258, "hidden_size": 64,
            "intermediate_size": 112, "max_position_embeddings": 1024, "num_attention_heads": 4,
            "num_hidden_layers": 2, "num_key_value_heads": 2, "vocab_size": 320, "torch_dtype": "bfloat16"},
        "vision_config": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 4, "image_size": 28, "patch_size": 7, "norm_type": "layer_norm",
            "qk_normalization": false, "qkv_bias": true}
    })
}

fn hub() -> Value {
    let mut json = chat();
    let text = json["llm_config"].take();
    json["vision_config"] = json!({"model_type": "internvl_vision", "hidden_size": 32, "intermediate_size": 64,
        "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": [28, 28], "patch_size": [7, 7],
        "attention_bias": true});
    let vision = json["vision_config"].take();
    json!({"architectures": ["InternVLForConditionalGeneration"], "model_type": "internvl", "image_seq_length": 4,
        "image_token_id": 261, "text_config": text, "vision_config": vision})
}

fn error(mut json: Value, field: &str, value: Value) -> String {
    json[field] = value;
    read(&json).unwrap_err().to_string()
}

#[test]
fn both_conventions_describe_the_same_model() {
    let (chat, hub) = (read(&chat()).unwrap(), read(&hub()).unwrap());
    assert_eq!((&chat.text, &chat.vision, chat.projector), (&hub.text, &hub.vision, hub.projector));
    assert_eq!((chat.family, chat.vision.tokens_per_tile(), chat.vision.shuffle), (Family::InternVl, 4, 2));
    assert_eq!((chat.dialect, hub.dialect), (Dialect::Original, Dialect::Transformers));
    assert_eq!((chat.image_token_id, hub.image_token_id), (None, Some(261)));
    assert_eq!(chat.tiling, Tiling::Dynamic { min: 1, max: 6, thumbnail: true });
    assert_eq!(hub.tiling, Tiling::Dynamic { min: 1, max: 12, thumbnail: true });
    assert_eq!((chat.template.as_deref(), hub.template), (Some("internvl2_5"), None));
    assert_eq!((chat.stored_dtype.as_deref(), chat.text.eos_token_ids), (Some("bfloat16"), vec![258]));
    assert!(chat.text.qkv_bias && chat.projector.norm);
}

#[test]
fn a_chat_model_takes_its_defaults_from_its_own_classes() {
    let json = json!({"architectures": ["InternVLChatModel"], "ps_version": "v2", "force_image_size": 448,
        "llm_config": {"architectures": ["LlamaForCausalLM"]}});
    let config = read(&json).unwrap();
    assert_eq!(config.tiling, Tiling::Dynamic { min: 1, max: 1, thumbnail: false });
    let VisionConfig { tower, layers, hidden_size, heads, layers_used, image_size, .. } = config.vision;
    assert_eq!(tower, Tower::InternVit { rms_norm: true, qk_norm: true, qkv_bias: false });
    assert_eq!((layers, hidden_size, heads, layers_used, image_size), (48, 3200, 25, 48, 448));
    let mut json = chat();
    json["dynamic_image_size"] = false.into();
    assert_eq!(read(&json).unwrap().tiling, Tiling::Dynamic { min: 1, max: 1, thumbnail: false });
    json = chat();
    for field in ["max_dynamic_patch", "min_dynamic_patch", "use_thumbnail", "select_layer", "downsample_ratio"] {
        json.as_object_mut().unwrap().remove(field);
    }
    let config = read(&json).unwrap();
    assert_eq!(config.tiling, Tiling::Dynamic { min: 1, max: 6, thumbnail: false });
    assert_eq!((config.vision.layers_used, config.vision.shuffle), (2, 2));
}

#[test]
fn a_hub_model_takes_its_defaults_from_the_library() {
    let config = read(&json!({"model_type": "internvl"})).unwrap();
    assert_eq!(config.image_token_id, Some(151_667));
    let VisionConfig { tower, layers, hidden_size, image_size, layers_used, .. } = config.vision;
    assert_eq!(tower, Tower::InternVit { rms_norm: false, qk_norm: false, qkv_bias: false });
    assert_eq!((layers, hidden_size, image_size, layers_used), (24, 1024, 448, 24));
    assert_eq!((config.vision.tokens_per_tile(), config.text.vocab_size), (256, 151_936));
    assert!(config.text.qkv_bias);
}

#[test]
fn what_a_chat_model_must_not_ask_for_is_refused_by_name() {
    for (field, value, words) in [
        ("ps_version", json!("v1"), ["v1", "ps_version"]),
        ("ps_version", json!(null), ["v1", "ps_version"]),
        ("pad2square", json!(true), ["pad2square", "false"]),
        ("use_llm_lora", json!(16), ["use_llm_lora", "16"]),
        ("use_backbone_lora", json!(-1), ["use_backbone_lora", "-1"]),
        ("downsample_ratio", json!(0.4), ["downsample_ratio", "0.4"]),
        ("downsample_ratio", json!(0), ["downsample_ratio", "0"]),
        ("downsample_ratio", json!(1.0 / 3.0), ["image_size", "multiple of 3"]),
        ("select_layer", json!(3), ["select_layer", "3"]),
        ("force_image_size", json!(56), ["force_image_size", "28"]),
        ("max_dynamic_patch", json!(64), ["max_dynamic_patch", "63"]),
        ("max_dynamic_patch", json!(0), ["max_dynamic_patch", "63"]),
        ("min_dynamic_patch", json!(7), ["min_dynamic_patch", "6"]),
        ("llm_config", json!({}), ["llm_config.architectures", "missing"]),
        ("llm_config", json!({"architectures": ["Qwen3ForCausalLM"]}), ["Qwen3ForCausalLM", "InternLM2ForCausalLM"]),
        ("vision_config", json!({"model_type": "siglip_vision_model"}), ["siglip", "intern_vit_6b"]),
        ("vision_config", json!({"norm_type": "batch_norm"}), ["batch_norm", "rms_norm"]),
        (
            "vision_config",
            json!({"hidden_act": "gelu_pytorch_tanh"}),
            ["gelu_pytorch_tanh", "vision_config.hidden_act"],
        ),
    ] {
        let error = error(chat(), field, value);
        assert!(words.iter().all(|word| error.contains(word)), "{error} lacks one of {words:?}");
    }
}

#[test]
fn what_a_hub_model_must_not_ask_for_is_refused_by_name() {
    for (field, value, words) in [
        ("image_seq_length", json!(256), ["image_seq_length", "4"]),
        ("image_token_id", json!(320), ["image_token_id", "319"]),
        ("vision_feature_select_strategy", json!("full"), ["class token", "vision_feature_select_strategy"]),
        ("vision_feature_layer", json!(9), ["vision_feature_layer", "9"]),
        ("vision_config", json!({"use_mean_pooling": false}), ["vision_config.use_mean_pooling", "false"]),
        (
            "vision_config",
            json!({"use_absolute_position_embeddings": false}),
            ["use_absolute_position_embeddings", "false"],
        ),
        ("vision_config", json!({"model_type": "clip_vision_model"}), ["clip_vision_model", "internvl_vision"]),
    ] {
        let error = error(hub(), field, value);
        assert!(words.iter().all(|word| error.contains(word)), "{error} lacks one of {words:?}");
    }
}

#[test]
fn a_chat_decoder_is_named_by_its_class_or_else_by_its_kind() {
    let mut json = chat();
    json["llm_config"].as_object_mut().unwrap().remove("architectures");
    json["llm_config"]["model_type"] = "internlm2".into();
    assert!(!read(&json).unwrap().text.qkv_bias);
    json["llm_config"]["architectures"] = json!(["Qwen2ForCausalLM"]);
    assert!(read(&json).unwrap().text.qkv_bias);
    json["system_message"] = "Be brief.".into();
    assert_eq!(read(&json).unwrap().system_message.as_deref(), Some("Be brief."));
}
