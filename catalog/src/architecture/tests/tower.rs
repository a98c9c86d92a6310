//! Towers that are found in tensors or described by their own file.

use super::raw::RawTower;
use super::*;

fn raw(layer: i64, heads: i64) -> RawConfig {
    serde_json::from_value(json!({"mm_vision_select_layer": layer, "num_attention_heads": heads})).unwrap()
}

fn shapes(width: usize, layers: usize) -> TowerShapes {
    TowerShapes {
        class: vec![width],
        patches: vec![width, 3, 7, 7],
        positions: vec![17, width],
        fc1: vec![2 * width, width],
        layers,
    }
}

fn published() -> TowerShapes {
    TowerShapes {
        class: vec![1024],
        patches: vec![1024, 3, 14, 14],
        positions: vec![577, 1024],
        fc1: vec![4096, 1024],
        layers: 24,
    }
}

#[test]
fn the_published_tower_is_found_without_a_guess() {
    let FoundTower { config, heads_guessed } = tower_from_tensors(&raw(-2, 32), &published(), None).unwrap();
    let described = read(&json!({"architectures": ["LlavaLlamaForCausalLM"], "mm_projector_type": "mlp2x_gelu"}));
    assert_eq!((config, heads_guessed), (described.unwrap().vision, false));
}

#[test]
fn shapes_give_the_sizes_and_the_layers_are_counted_from_the_end_of_what_is_there() {
    let FoundTower { config, heads_guessed } = tower_from_tensors(&raw(-2, 4), &shapes(32, 3), None).unwrap();
    let VisionConfig { hidden_size, intermediate_size, layers, heads, image_size, patch_size, layers_used, .. } =
        config;
    assert_eq!((hidden_size, intermediate_size, layers, heads), (32, 64, 3, 4));
    assert_eq!((image_size, patch_size, layers_used, heads_guessed), (28, 7, 2, true));
    assert_eq!(tower_from_tensors(&raw(1, 4), &shapes(32, 3), None).unwrap().config.layers_used, 1);
    assert!(tower_from_tensors(&raw(4, 4), &shapes(32, 3), None).is_err());
}

#[test]
fn the_towers_own_file_gives_what_shapes_do_not_show() {
    let whole = json!({"model_type": "clip", "text_config": {}, "vision_config": {"num_attention_heads": 8,
        "hidden_act": "gelu", "layer_norm_eps": 1e-6, "hidden_size": 999}});
    let alone = json!({"model_type": "clip_vision_model", "num_attention_heads": 8, "hidden_act": "gelu",
        "layer_norm_eps": 1e-6, "hidden_size": 999});
    for json in [whole, alone] {
        let tower: RawTower = serde_json::from_value(json).unwrap();
        let found = tower_from_tensors(&raw(-2, 4), &shapes(32, 3), Some(&tower)).unwrap();
        assert_eq!((found.config.heads, found.config.hidden_size, found.heads_guessed), (8, 32, false));
        assert_eq!(found.config.activation, Activation::Gelu);
        assert!((found.config.layer_norm_eps - 1e-6).abs() < 1e-12);
    }
    let json = json!({"model_type": "clip", "vision_config": {"hidden_size": 1024, "image_size": 336,
        "intermediate_size": 4096, "num_attention_heads": 16, "num_hidden_layers": 24, "patch_size": 14}});
    let tower: RawTower = serde_json::from_value(json).unwrap();
    let found = tower_from_tensors(&raw(-2, 4), &published(), None).unwrap().config;
    assert_eq!(describe_tower(&raw(-2, 4), &tower), Ok(found));
    let siglip: RawTower = serde_json::from_value(json!({"model_type": "siglip_vision_model"})).unwrap();
    assert!(describe_tower(&raw(-2, 4), &siglip).unwrap_err().to_string().contains("siglip"));
}

#[test]
fn heads_that_cannot_be_known_are_not_guessed() {
    let error = |heads, width| tower_from_tensors(&raw(-2, heads), &shapes(width, 3), None).unwrap_err().to_string();
    for (heads, width) in [(5, 32), (0, 32), (-4, 32), (32, 1280)] {
        let error = error(heads, width);
        assert!(error.contains("num_attention_heads") && error.contains(&width.to_string()), "{error}");
    }
    assert_eq!(tower_from_tensors(&raw(-2, 32), &shapes(768, 3), None).unwrap().config.heads, 12);
}

#[test]
fn shapes_that_make_no_tower_are_named() {
    type Harm = fn(&mut TowerShapes);
    let harm: [(&str, Harm); 9] = [
        ("class_embedding", |shapes| shapes.class = vec![1, 1, 32]),
        ("class_embedding", |shapes| shapes.class = vec![0]),
        ("patch_embedding", |shapes| shapes.patches[0] = 33),
        ("patch_embedding", |shapes| shapes.patches[2] = 8),
        ("patch_embedding", |shapes| shapes.patches = vec![32, 3, 0, 0]),
        ("position_embedding", |shapes| shapes.positions[0] = 16),
        ("position_embedding", |shapes| shapes.positions[0] = 1),
        ("position_embedding", |shapes| shapes.positions[0] = 0),
        ("fc1", |shapes| shapes.fc1[1] = 64),
    ];
    for (name, harm) in harm {
        let mut shapes = shapes(32, 3);
        harm(&mut shapes);
        let error = tower_from_tensors(&raw(-2, 4), &shapes, None).unwrap_err();
        assert!(matches!(error, ArchitectureError::Tensor { .. }), "{error}");
        assert!(error.to_string().contains(name) && error.to_string().contains("shape"), "{error}");
    }
    let huge = TowerShapes { positions: vec![usize::MAX, 32], ..shapes(32, 3) };
    assert!(tower_from_tensors(&raw(-2, 4), &huge, None).is_err());
    let square = (1 << 31) * (1 << 31) + 1;
    let huge = TowerShapes { positions: vec![square, 32], ..shapes(32, 3) };
    assert!(tower_from_tensors(&raw(-2, 4), &huge, None).unwrap_err().to_string().contains("image_size"));
    assert!(tower_from_tensors(&raw(-2, 4), &shapes(32, 0), None).is_err());
}
