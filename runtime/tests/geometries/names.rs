//! The names and shapes of every tensor, as each repository has them. Written from the published layouts, apart from
//! the code under test.

use vlm_catalog::architecture::{Dialect, Family, ModelConfig, Tower};

pub type Tensors = Vec<(String, Vec<usize>)>;

/// How a decoder's layers are stored.
#[derive(Clone, Copy, PartialEq)]
pub enum Decoder {
    Split,
    /// Phi-3.
    Fused,
    /// InternLM2.
    Grouped,
}

/// All tensors of a checkpoint of `config`.
pub fn all(config: &ModelConfig, stored: Decoder) -> Tensors {
    let mut out = Tensors::new();
    match (config.dialect, config.family) {
        (Dialect::Transformers, Family::InternVl) => {
            decoder(&mut out, config, "language_model.model.", "language_model.lm_head.weight", stored);
            intern_vit(&mut out, config, "vision_tower.", false);
            projector(&mut out, config, "multi_modal_projector.", ["layer_norm", "linear_1", "linear_2"]);
        }
        (Dialect::Transformers, _) => {
            decoder(&mut out, config, "language_model.model.", "language_model.lm_head.weight", stored);
            clip(&mut out, config, "vision_tower.vision_model.");
            projector(&mut out, config, "multi_modal_projector.", ["", "linear_1", "linear_2"]);
            newline(&mut out, config, "image_newline");
        }
        (Dialect::Original, Family::InternVl) => {
            let head = if stored == Decoder::Grouped { "output" } else { "lm_head" };
            decoder(&mut out, config, "language_model.model.", &format!("language_model.{head}.weight"), stored);
            intern_vit(&mut out, config, "vision_model.", true);
            projector(&mut out, config, "mlp1.", ["0", "1", "3"]);
        }
        (Dialect::Original, _) => {
            decoder(&mut out, config, "model.", "lm_head.weight", stored);
            clip(&mut out, config, "model.vision_tower.vision_tower.vision_model.");
            projector(&mut out, config, "model.mm_projector.", ["", "0", "2"]);
            newline(&mut out, config, "model.image_newline");
        }
    }
    out
}

fn linear(out: &mut Tensors, name: &str, rows: usize, inputs: usize, bias: bool) {
    out.push((format!("{name}.weight"), vec![rows, inputs]));
    if bias {
        out.push((format!("{name}.bias"), vec![rows]));
    }
}

fn norm(out: &mut Tensors, name: &str, width: usize, bias: bool) {
    out.push((format!("{name}.weight"), vec![width]));
    if bias {
        out.push((format!("{name}.bias"), vec![width]));
    }
}

fn decoder(out: &mut Tensors, config: &ModelConfig, at: &str, head: &str, stored: Decoder) {
    let text = &config.text;
    let (width, inner, bias) = (text.hidden_size, text.intermediate_size, text.qkv_bias);
    let (q, kv) = (text.heads * text.head_dim, text.kv_heads * text.head_dim);
    let embedding = if stored == Decoder::Grouped { "tok_embeddings" } else { "embed_tokens" };
    linear(out, &format!("{at}{embedding}"), text.vocab_size, width, false);
    for n in 0..text.layers {
        let at = format!("{at}layers.{n}.");
        let (attention, gated, norms) = match stored {
            Decoder::Grouped => ("attention", "feed_forward", ["attention_norm", "ffn_norm"]),
            _ => ("self_attn", "mlp", ["input_layernorm", "post_attention_layernorm"]),
        };
        let parts: &[(&str, usize)] = match stored {
            Decoder::Split => &[("q_proj", q), ("k_proj", kv), ("v_proj", kv)],
            Decoder::Fused => &[("qkv_proj", q + 2 * kv)],
            Decoder::Grouped => &[("wqkv", q + 2 * kv)],
        };
        for (name, rows) in parts {
            linear(out, &format!("{at}{attention}.{name}"), *rows, width, bias);
        }
        let (way_out, down) = if stored == Decoder::Grouped { ("wo", "w2") } else { ("o_proj", "down_proj") };
        linear(out, &format!("{at}{attention}.{way_out}"), width, q, false);
        let parts: &[(&str, usize)] = match stored {
            Decoder::Split => &[("gate_proj", inner), ("up_proj", inner)],
            Decoder::Fused => &[("gate_up_proj", 2 * inner)],
            Decoder::Grouped => &[("w1", inner), ("w3", inner)],
        };
        for (name, rows) in parts {
            linear(out, &format!("{at}{gated}.{name}"), *rows, width, false);
        }
        linear(out, &format!("{at}{gated}.{down}"), width, inner, false);
        for name in norms {
            norm(out, &format!("{at}{name}"), width, false);
        }
    }
    norm(out, &format!("{at}norm"), width, false);
    out.push((head.to_owned(), vec![text.vocab_size, width]));
}

fn clip(out: &mut Tensors, config: &ModelConfig, at: &str) {
    let vision = &config.vision;
    let (width, inner, patch) = (vision.hidden_size, vision.intermediate_size, vision.patch_size);
    out.push((format!("{at}embeddings.class_embedding"), vec![width]));
    out.push((format!("{at}embeddings.patch_embedding.weight"), vec![width, 3, patch, patch]));
    let rows = vision.grid() * vision.grid() + 1;
    out.push((format!("{at}embeddings.position_embedding.weight"), vec![rows, width]));
    norm(out, &format!("{at}pre_layrnorm"), width, true);
    for n in 0..vision.layers {
        let at = format!("{at}encoder.layers.{n}.");
        for name in ["q_proj", "k_proj", "v_proj", "out_proj"] {
            linear(out, &format!("{at}self_attn.{name}"), width, width, true);
        }
        linear(out, &format!("{at}mlp.fc1"), inner, width, true);
        linear(out, &format!("{at}mlp.fc2"), width, inner, true);
        norm(out, &format!("{at}layer_norm1"), width, true);
        norm(out, &format!("{at}layer_norm2"), width, true);
    }
    norm(out, &format!("{at}post_layernorm"), width, true);
}

fn intern_vit(out: &mut Tensors, config: &ModelConfig, at: &str, chat: bool) {
    let vision = &config.vision;
    let Tower::InternVit { rms_norm, qk_norm, qkv_bias } = vision.tower else { panic!("not an InternViT") };
    let (width, inner, patch) = (vision.hidden_size, vision.intermediate_size, vision.patch_size);
    let pick = |chat_name: &'static str, name: &'static str| if chat { chat_name } else { name };
    out.push((format!("{at}embeddings.{}", pick("class_embedding", "cls_token")), vec![1, 1, width]));
    let stem = format!("{at}embeddings.{}", pick("patch_embedding", "patch_embeddings.projection"));
    out.push((format!("{stem}.weight"), vec![width, 3, patch, patch]));
    out.push((format!("{stem}.bias"), vec![width]));
    let rows = vision.grid() * vision.grid() + 1;
    out.push((format!("{at}embeddings.{}", pick("position_embedding", "position_embeddings")), vec![1, rows, width]));
    for n in 0..vision.layers {
        let at = format!("{at}encoder.{}.{n}.", pick("layers", "layer"));
        let attention = format!("{at}{}.", pick("attn", "attention"));
        if chat {
            linear(out, &format!("{attention}qkv"), 3 * width, width, qkv_bias);
        } else {
            for name in ["q_proj", "k_proj", "v_proj"] {
                linear(out, &format!("{attention}{name}"), width, width, qkv_bias);
            }
        }
        if qk_norm {
            norm(out, &format!("{attention}q_norm"), width, false);
            norm(out, &format!("{attention}k_norm"), width, false);
        }
        linear(out, &format!("{attention}{}", pick("proj", "projection_layer")), width, width, true);
        linear(out, &format!("{at}mlp.fc1"), inner, width, true);
        linear(out, &format!("{at}mlp.fc2"), width, inner, true);
        norm(out, &format!("{at}{}", pick("norm1", "layernorm_before")), width, !rms_norm);
        norm(out, &format!("{at}{}", pick("norm2", "layernorm_after")), width, !rms_norm);
        out.push((format!("{at}{}", pick("ls1", "lambda_1")), vec![width]));
        out.push((format!("{at}{}", pick("ls2", "lambda_2")), vec![width]));
    }
}

fn projector(out: &mut Tensors, config: &ModelConfig, at: &str, [normed, first, second]: [&str; 3]) {
    let (width, shuffle) = (config.text.hidden_size, config.vision.shuffle);
    let joined = config.vision.hidden_size * shuffle * shuffle;
    if config.projector.norm {
        norm(out, &format!("{at}{normed}"), joined, true);
    }
    linear(out, &format!("{at}{first}"), width, joined, true);
    linear(out, &format!("{at}{second}"), width, width, true);
}

fn newline(out: &mut Tensors, config: &ModelConfig, name: &str) {
    if config.family == Family::LlavaNext {
        out.push((name.to_owned(), vec![config.text.hidden_size]));
    }
}
