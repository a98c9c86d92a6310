//! LLaVA as its own repository writes it, and the grids of both conventions.

use super::*;

fn original() -> Value {
    json!({
        "architectures": ["LlavaLlamaForCausalLM"], "model_type": "llava", "eos_token_id": 2, "hidden_act": "silu",
        "hidden_size": 64, "intermediate_size": 112, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 1024, "rms_norm_eps": 1e-5, "vocab_size": 320,
        "torch_dtype": "float16", "image_aspect_ratio": "pad", "mm_hidden_size": 1024,
        "mm_projector_type": "mlp2x_gelu", "mm_vision_select_feature": "patch", "mm_vision_select_layer": -2,
        "mm_vision_tower": "openai/clip-vit-large-patch14-336"
    })
}

fn anyres() -> Value {
    let mut json = original();
    json["image_aspect_ratio"] = "anyres".into();
    json["mm_patch_merge_type"] = "spatial_unpad".into();
    json["image_grid_pinpoints"] = json!([[336, 672], [1008, 336]]);
    json
}

fn next() -> Value {
    let mut json = tiny();
    json["architectures"] = json!(["LlavaNextForConditionalGeneration"]);
    json["image_grid_pinpoints"] = json!([[336, 672], [1008, 336]]);
    json
}

fn without(mut json: Value, field: &str) -> Value {
    json.as_object_mut().unwrap().remove(field).unwrap();
    json
}

#[test]
fn the_decoder_lies_beside_the_model_and_the_tower_is_the_published_one() {
    let config = read(&original()).unwrap();
    assert_eq!((config.family, config.dialect), (Family::Llava, Dialect::Original));
    assert_eq!((config.text.hidden_size, config.text.kv_heads, config.text.vocab_size), (64, 2, 320));
    assert_eq!(config.text.eos_token_ids, [2]);
    let VisionConfig { tower, hidden_size, layers, layers_used, heads, .. } = config.vision;
    assert_eq!((tower, hidden_size, layers, layers_used, heads), (Tower::Clip, 1024, 24, 23, 16));
    assert_eq!((config.vision.tokens_per_tile(), config.vision.activation), (576, Activation::QuickGelu));
    assert_eq!((config.image_token_id, config.tiling), (None, Tiling::One { pad: Some(true) }));
    assert_eq!(config.projector, ProjectorConfig { norm: false, activation: Activation::Gelu, bias: true });
    assert_eq!(config.stored_dtype.as_deref(), Some("float16"));
}

#[test]
fn classes_and_kinds_name_the_same_models() {
    let mut mistral = original();
    mistral["architectures"] = json!(["LlavaMistralForCausalLM"]);
    assert_eq!(read(&mistral).unwrap().text.max_positions, 1024);
    mistral["max_position_embeddings"] = 32_768.into();
    assert_eq!(read(&mistral).unwrap().text.max_positions, 4096, "a window that is left out");
    mistral["sliding_window"] = json!(null);
    assert_eq!(read(&mistral).unwrap().text.max_positions, 32_768);
    let mut kind = without(mistral.clone(), "architectures");
    kind["model_type"] = "llava_mistral".into();
    assert_eq!(read(&kind), read(&mistral));
    for name in ["llava", "llava_llama"] {
        let mut kind = without(original(), "architectures");
        kind["model_type"] = name.into();
        assert_eq!(read(&kind), read(&original()), "{name}");
    }
}

#[test]
fn pictures_are_padded_cropped_or_cut_as_the_reference_would() {
    let tiling = |json: &Value| read(json).map(|config| (config.family, config.tiling));
    let cropped = Ok((Family::Llava, Tiling::One { pad: Some(false) }));
    assert_eq!(tiling(&without(original(), "image_aspect_ratio")), cropped);
    for ratio in ["square", "crop"] {
        let mut json = original();
        json["image_aspect_ratio"] = ratio.into();
        assert_eq!(tiling(&json), cropped);
    }
    let grids = Tiling::AnyRes { pinpoints: vec![(672, 336), (336, 1008)] };
    assert_eq!(tiling(&anyres()), Ok((Family::LlavaNext, grids.clone())), "width before height");
    let mut text = anyres();
    text["image_grid_pinpoints"] = "[(336, 672), (1008, 336)]".into();
    assert_eq!(tiling(&text), Ok((Family::LlavaNext, grids)));
    let grids = Tiling::AnyRes { pinpoints: vec![(336, 672), (1008, 336)] };
    assert_eq!(tiling(&next()), Ok((Family::LlavaNext, grids)), "height before width");
    let grids = Tiling::AnyRes { pinpoints: vec![(336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008)] };
    assert_eq!(tiling(&without(next(), "image_grid_pinpoints")), Ok((Family::LlavaNext, grids)));
}

#[test]
fn grids_that_are_none_are_refused() {
    assert!(read(&without(anyres(), "image_grid_pinpoints")).unwrap_err().to_string().contains("missing"));
    for (base, wrong) in [
        (anyres(), json!("(1x1),...,(6x6)")),
        (anyres(), json!("[(336, 672), (1008,)]")),
        (anyres(), json!("[(336, 99999999999999999999)]")),
        (anyres(), json!("")),
        (anyres(), Value::from("1".repeat(5000))),
        (anyres(), json!([])),
        (anyres(), json!([[0, 336]])),
        (next(), json!([[336, -1]])),
        (next(), json!([[336, i64::MAX]])),
        (next(), json!(vec![[336, 336]; 65])),
    ] {
        let mut json = base;
        json["image_grid_pinpoints"] = wrong;
        let error = read(&json).unwrap_err().to_string();
        assert!(error.contains("image_grid_pinpoints") && error.len() < 400, "{error}");
    }
}

#[test]
fn what_is_not_served_is_refused_by_name() {
    for (base, field, value, words) in [
        (original(), "mm_projector_type", json!("mlp3x_gelu"), ["mlp3x_gelu", "mlp2x_gelu"]),
        (original(), "mm_projector_type", json!(null), ["linear", "mlp2x_gelu"]),
        (original(), "image_aspect_ratio", json!("anyres_max_9"), ["anyres_max_9", "image_aspect_ratio"]),
        (original(), "mm_vision_select_layer", json!(25), ["mm_vision_select_layer", "25"]),
        (original(), "mm_vision_select_feature", json!("cls"), ["mm_vision_select_feature", "cls"]),
        (original(), "s2", json!(true), ["s2", "false"]),
        (original(), "mm_use_im_start_end", json!(true), ["mm_use_im_start_end", "false"]),
        (original(), "hidden_size", json!(0), ["hidden_size is 0", "between"]),
        (original(), "rope_scaling", json!({"type": "linear"}), ["linear", "rope_scaling"]),
        (anyres(), "mm_patch_merge_type", json!("spatial"), ["spatial", "spatial_unpad"]),
        (anyres(), "mm_patch_merge_type", json!(null), ["flat", "spatial_unpad"]),
        (anyres(), "mm_vision_select_feature", json!("cls_patch"), ["class token", "mm_vision_select_feature"]),
        (next(), "vision_feature_select_strategy", json!("full"), ["class token", "vision_feature_select_strategy"]),
    ] {
        let mut json = base;
        json[field] = value;
        let error = read(&json).unwrap_err().to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error} lacks one of {words:?}");
    }
}
