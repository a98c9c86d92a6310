//! Names of every layout find their part, and the sizes are those of the description.

use super::*;
use crate::architecture::describe;
use crate::architecture::raw::RawConfig;
use crate::quantization::Quantization;

fn model(name: &str) -> ModelConfig {
    let path = format!("{}/tests/models/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let raw: RawConfig = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    describe(&raw).unwrap()
}

/// The tensors of a small LLaVA-like model under the names of a layout, its vision tower among them or not.
fn stored(config: &ModelConfig, text: &str, head: &str, tower: Option<&str>) -> Vec<(String, Vec<usize>)> {
    let (t, v) = (&config.text, &config.vision);
    let (width, kv) = (t.hidden_size, t.kv_heads * t.head_dim);
    let mut all = vec![
        (format!("{text}embed_tokens.weight"), vec![t.vocab_size, width]),
        (format!("{text}norm.weight"), vec![width]),
        (head.to_owned(), vec![t.vocab_size, width]),
        ("model.mm_projector.0.weight".to_owned(), vec![width, v.hidden_size]),
        ("model.mm_projector.0.bias".to_owned(), vec![width]),
        ("model.mm_projector.2.weight".to_owned(), vec![width, width]),
        ("model.mm_projector.2.bias".to_owned(), vec![width]),
    ];
    for n in 0..t.layers {
        let at = format!("{text}layers.{n}.");
        for (name, shape) in [
            ("self_attn.q_proj.weight", vec![t.heads * t.head_dim, width]),
            ("self_attn.k_proj.weight", vec![kv, width]),
            ("self_attn.v_proj.weight", vec![kv, width]),
            ("self_attn.o_proj.weight", vec![width, t.heads * t.head_dim]),
            ("self_attn.rotary_emb.inv_freq", vec![t.head_dim / 2]),
            ("mlp.gate_proj.weight", vec![t.intermediate_size, width]),
            ("mlp.up_proj.weight", vec![t.intermediate_size, width]),
            ("mlp.down_proj.weight", vec![width, t.intermediate_size]),
            ("input_layernorm.weight", vec![width]),
            ("post_attention_layernorm.weight", vec![width]),
        ] {
            all.push((format!("{at}{name}"), shape));
        }
    }
    if let Some(tower) = tower {
        all.push((format!("{tower}embeddings.patch_embedding.weight"), vec![v.hidden_size, 3, 14, 14]));
        all.push((format!("{tower}embeddings.class_embedding"), vec![v.hidden_size]));
    }
    all
}

fn size(config: &ModelConfig, tensors: &[(String, Vec<usize>)]) -> Result<CheckpointSize, StoredError> {
    CheckpointSize::of_stored(config, tensors.iter().map(|(name, shape)| (name.as_str(), shape.as_slice())))
}

#[test]
fn stored_tensors_weigh_what_the_description_says() {
    for name in ["llava-v1.5-7b", "llava-v1.5-13b"] {
        let config = model(name);
        let tensors = stored(&config, "model.", "lm_head.weight", None);
        let (stored, described) = (size(&config, &tensors).unwrap(), CheckpointSize::of(&config, Head::Stored));
        for quantization in Quantization::ALL {
            assert_eq!(stored.bytes(quantization), described.bytes(quantization), "{name}, {quantization}");
            for part in
                [Part::Embedding, Part::DecoderLinear, Part::DecoderNorm, Part::Head, Part::Tower, Part::Projector]
            {
                assert_eq!(stored.bytes_of(part, quantization), described.bytes_of(part, quantization), "{part:?}");
            }
        }
    }
}

#[test]
fn a_tower_that_is_stored_is_not_added_again() {
    let config = model("llava-v1.5-7b");
    let tensors = stored(&config, "model.", "lm_head.weight", Some("model.vision_tower.vision_tower.vision_model."));
    let expected = 1024 * 3 * 14 * 14 + 1024;
    assert_eq!(size(&config, &tensors).unwrap().parameters_of(Part::Tower), expected);
}

#[test]
fn names_of_every_layout_find_their_part() {
    use Part::{DecoderLinear, DecoderNorm, Embedding, Head, Newline, Projector, Tower};
    for (name, axes, part) in [
        ("model.embed_tokens.weight", 2, Some(Embedding)),
        ("language_model.model.embed_tokens.weight", 2, Some(Embedding)),
        ("model.language_model.embed_tokens.weight", 2, Some(Embedding)),
        ("language_model.model.tok_embeddings.weight", 2, Some(Embedding)),
        ("language_model.lm_head.weight", 2, Some(Head)),
        ("lm_head.weight", 2, Some(Head)),
        ("model.language_model.lm_head.weight", 2, Some(Head)),
        ("language_model.output.weight", 2, Some(Head)),
        ("language_model.model.layers.0.attention.wqkv.weight", 2, Some(DecoderLinear)),
        ("language_model.model.layers.0.feed_forward.w1.weight", 2, Some(DecoderLinear)),
        ("model.layers.0.self_attn.q_proj.bias", 1, Some(DecoderNorm)),
        ("language_model.model.norm.weight", 1, Some(DecoderNorm)),
        ("model.layers.0.self_attn.rotary_emb.inv_freq", 1, None),
        ("vision_tower.vision_model.embeddings.position_ids", 2, None),
        ("vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight", 2, Some(Tower)),
        ("vision_tower.vision_model.embeddings.class_embedding", 1, Some(Tower)),
        ("model.vision_tower.vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight", 2, Some(Tower)),
        ("vision_model.encoder.layers.0.attn.qkv.weight", 2, Some(Tower)),
        ("model.vision_tower.encoder.layer.0.lambda_1", 1, Some(Tower)),
        ("mlp1.1.weight", 2, Some(Projector)),
        ("model.multi_modal_projector.linear_1.weight", 2, Some(Projector)),
        ("model.mm_projector.0.weight", 2, Some(Projector)),
        ("image_newline", 1, Some(Newline)),
        ("model.image_newline", 1, Some(Newline)),
    ] {
        assert_eq!(Part::of_tensor(name, axes), part, "{name}");
    }
}

#[test]
fn a_head_that_is_not_stored_is_tied() {
    let config = model("llava-v1.5-7b");
    let mut tensors = stored(&config, "model.", "lm_head.weight", None);
    tensors.retain(|(name, _)| name != "lm_head.weight");
    let tied = CheckpointSize::of(&config, Head::Tied);
    for quantization in Quantization::ALL {
        assert_eq!(size(&config, &tensors).unwrap().bytes(quantization), tied.bytes(quantization));
    }
}

#[test]
fn what_is_no_model_is_refused_by_name() {
    let config = model("llava-v1.5-7b");
    let good = stored(&config, "model.", "lm_head.weight", None);
    let with = |name: &str, shape: Vec<usize>| {
        let mut tensors = good.clone();
        tensors.push((name.to_owned(), shape));
        size(&config, &tensors).unwrap_err().to_string()
    };
    for shape in [vec![usize::MAX, usize::MAX], vec![usize::MAX], vec![1, usize::MAX, 2], vec![1 << 21, 1 << 20]] {
        assert!(with("model.layers.0.huge.weight", shape).contains("model.layers.0.huge.weight"));
    }
    assert_eq!(size(&config, &[]).unwrap_err(), StoredError::Missing { part: "the embedding" });
    let mut other = good.clone();
    other[0].1 = vec![32_001, 4096];
    let error = size(&config, &other).unwrap_err().to_string();
    assert!(error.contains("[32001, 4096]") && error.contains("[32000, 4096]"), "{error}");
    let many: Vec<_> = (1..5000).map(|n| (format!("layers.{n}.weight"), vec![n, 1])).collect();
    assert_eq!(size(&config, &many).unwrap_err(), StoredError::TooVaried);
}
