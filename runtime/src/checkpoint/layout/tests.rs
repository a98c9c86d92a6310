//! Layouts by their keys alone; whole checkpoints are tested from outside.

use super::*;

fn probe(keys: &[&str]) -> Option<Layout> {
    Layout::probe(|name| keys.contains(&name))
}

#[test]
fn generations_of_llava_names_are_told_apart() {
    let hub = probe(&["multi_modal_projector.linear_1.weight", "vision_tower.vision_model.embeddings.class_embedding"]);
    let hub = hub.unwrap();
    assert_eq!((hub.text.as_str(), hub.tower.as_str()), ("language_model.model.", "vision_tower.vision_model."));
    let saved = probe(&["multi_modal_projector.linear_1.weight", "vision_tower.embeddings.class_embedding"]).unwrap();
    assert_eq!((saved.tower.as_str(), saved.tower_names), ("vision_tower.", TowerNames::Clip));
    let nested = probe(&[
        "model.multi_modal_projector.linear_1.weight",
        "model.vision_tower.embeddings.class_embedding",
        "lm_head.weight",
    ]);
    let nested = nested.unwrap();
    assert_eq!((nested.text.as_str(), nested.head.as_deref()), ("model.language_model.", Some("lm_head.weight")));
    assert_eq!((nested.tower.as_str(), nested.newline), ("model.vision_tower.", "model.image_newline"));
    let original = probe(&["model.mm_projector.0.weight", "model.norm.weight"]).unwrap();
    assert_eq!(original.name(), "original LLaVA");
    assert_eq!((original.text.as_str(), original.head), ("model.", None));
}

#[test]
fn the_two_namings_of_intern_vl_are_told_apart() {
    let hub = probe(&["multi_modal_projector.linear_1.weight", "vision_tower.embeddings.cls_token"]).unwrap();
    assert_eq!((hub.tower.as_str(), hub.tower_names), ("vision_tower.", TowerNames::InternVit));
    let nested =
        probe(&["model.multi_modal_projector.linear_1.weight", "model.vision_tower.embeddings.cls_token"]).unwrap();
    assert_eq!((nested.tower.as_str(), nested.tower_names), ("model.vision_tower.", TowerNames::InternVit));
    let chat = probe(&[
        "mlp1.0.weight",
        "language_model.model.layers.0.attention.wqkv.weight",
        "language_model.output.weight",
    ]);
    let chat = chat.unwrap();
    assert_eq!((chat.tower_names, chat.decoder), (TowerNames::InternVitChat, Decoder::Grouped));
    assert_eq!(chat.head.as_deref(), Some("language_model.output.weight"));
    let fused = probe(&["mlp1.0.weight", "language_model.model.layers.0.self_attn.qkv_proj.weight"]).unwrap();
    assert_eq!(fused.decoder, Decoder::Fused);
}

#[test]
fn nested_text_is_found_under_either_prefix() {
    let key = "model.multi_modal_projector.linear_1.weight";
    for prefix in ["model.language_model.", "model.language_model.model.", "language_model.model."] {
        let norm = format!("{prefix}norm.weight");
        assert_eq!(probe(&[key, &norm]).unwrap().text, prefix);
    }
}

#[test]
fn other_names_are_no_known_layout() {
    assert_eq!(probe(&["model.visual.patch_embed.proj.weight"]), None);
    assert_eq!(probe(&[]), None);
}
