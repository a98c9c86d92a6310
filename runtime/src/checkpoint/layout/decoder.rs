//! The decoder's tensors: three ways to store a layer, one way to read it.

use candle_core::Tensor;
use vlm_catalog::architecture::TextConfig;

use super::super::{CheckpointError, Tensors, Weights};
use super::LinearTensors;

/// How layers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decoder {
    /// Each projection by itself (Llama, Mistral, Qwen2).
    Split,
    /// Queries, keys and values in one tensor, gate and up in another (Phi-3).
    Fused,
    /// Queries, keys and values of each key head side by side, and names of its own (InternLM2).
    Grouped,
}

impl Decoder {
    pub fn probe(text: &str, has: impl Fn(&str) -> bool) -> Self {
        if has(&format!("{text}layers.0.attention.wqkv.weight")) {
            Self::Grouped
        } else if has(&format!("{text}layers.0.self_attn.qkv_proj.weight")) {
            Self::Fused
        } else {
            Self::Split
        }
    }
}

/// Tensors of a decoder.
pub struct DecoderTensors<'a> {
    at: Tensors<'a>,
    head: Option<(Tensors<'a>, &'a str)>,
    decoder: Decoder,
    config: &'a TextConfig,
}

impl<'a> DecoderTensors<'a> {
    pub(super) fn new(
        weights: &'a Weights,
        text: &str,
        head: Option<&'a str>,
        decoder: Decoder,
        config: &'a TextConfig,
    ) -> Self {
        Self { at: weights.at(text), head: head.map(|name| (weights.at(""), name)), decoder, config }
    }

    /// What the decoder is.
    pub fn config(&self) -> &'a TextConfig {
        self.config
    }

    /// Embeddings `[vocabulary, width]`.
    pub fn embedding(&self) -> LinearTensors<'a> {
        let name = if self.decoder == Decoder::Grouped { "tok_embeddings" } else { "embed_tokens" };
        LinearTensors::new(self.at.clone(), &[(name, self.config.vocab_size)], self.config.hidden_size, false)
    }

    /// The output head `[vocabulary, width]`; `None` when it is the embedding.
    pub fn head(&self) -> Option<LinearTensors<'a>> {
        let (at, name) = self.head.clone()?;
        let place = name.strip_suffix(".weight").unwrap_or(name);
        Some(LinearTensors::new(at, &[(place, self.config.vocab_size)], self.config.hidden_size, false))
    }

    /// Weight of the last norm: `[width]`.
    ///
    /// # Errors
    /// As [`Weights::tensor`].
    pub fn norm(&self) -> Result<Tensor, CheckpointError> {
        self.at.at("norm").get("weight", &[self.config.hidden_size])
    }

    /// Layer `n`.
    pub fn layer(&self, n: usize) -> DecoderLayer<'a> {
        DecoderLayer { at: self.at.at("layers").at(n), decoder: self.decoder, config: self.config }
    }
}

/// Tensors of one layer.
pub struct DecoderLayer<'a> {
    at: Tensors<'a>,
    decoder: Decoder,
    config: &'a TextConfig,
}

impl<'a> DecoderLayer<'a> {
    /// Weight of the norm before attention: `[width]`.
    ///
    /// # Errors
    /// As [`Weights::tensor`].
    pub fn input_norm(&self) -> Result<Tensor, CheckpointError> {
        self.norm("input_layernorm", "attention_norm")
    }

    /// Weight of the norm before the gated layer: `[width]`.
    ///
    /// # Errors
    /// As [`Weights::tensor`].
    pub fn post_norm(&self) -> Result<Tensor, CheckpointError> {
        self.norm("post_attention_layernorm", "ffn_norm")
    }

    /// Rows of all queries, then keys, then values: `[(heads + 2 · kv heads) · head dim, width]`.
    pub fn qkv(&self) -> LinearTensors<'a> {
        let TextConfig { heads, kv_heads, head_dim, hidden_size, qkv_bias, .. } = *self.config;
        let (q, kv) = (heads * head_dim, kv_heads * head_dim);
        let linear =
            |place: &str, parts: &[(&str, usize)]| LinearTensors::new(self.at.at(place), parts, hidden_size, qkv_bias);
        match self.decoder {
            Decoder::Split => linear("self_attn", &[("q_proj", q), ("k_proj", kv), ("v_proj", kv)]),
            Decoder::Fused => linear("self_attn", &[("qkv_proj", q + 2 * kv)]),
            Decoder::Grouped => LinearTensors {
                order: Some(ungrouped(heads / kv_heads, kv_heads, head_dim)),
                ..linear("attention", &[("wqkv", q + 2 * kv)])
            },
        }
    }

    /// Attention's way out: `[width, heads · head dim]`.
    pub fn out(&self) -> LinearTensors<'a> {
        let (place, name) =
            if self.decoder == Decoder::Grouped { ("attention", "wo") } else { ("self_attn", "o_proj") };
        let parts = [(name, self.config.hidden_size)];
        LinearTensors::new(self.at.at(place), &parts, self.config.heads * self.config.head_dim, false)
    }

    /// Rows of the gate, then of what it gates: `[2 · inner, width]`.
    pub fn gate_up(&self) -> LinearTensors<'a> {
        let (width, inner) = (self.config.hidden_size, self.config.intermediate_size);
        let (place, parts): (_, &[_]) = match self.decoder {
            Decoder::Split => ("mlp", &[("gate_proj", inner), ("up_proj", inner)]),
            Decoder::Fused => ("mlp", &[("gate_up_proj", 2 * inner)]),
            Decoder::Grouped => ("feed_forward", &[("w1", inner), ("w3", inner)]),
        };
        LinearTensors::new(self.at.at(place), parts, width, false)
    }

    /// The gated layer's way out: `[width, inner]`.
    pub fn down(&self) -> LinearTensors<'a> {
        let (place, name) =
            if self.decoder == Decoder::Grouped { ("feed_forward", "w2") } else { ("mlp", "down_proj") };
        let parts = [(name, self.config.hidden_size)];
        LinearTensors::new(self.at.at(place), &parts, self.config.intermediate_size, false)
    }

    fn norm(&self, name: &str, grouped: &str) -> Result<Tensor, CheckpointError> {
        let name = if self.decoder == Decoder::Grouped { grouped } else { name };
        self.at.at(name).get("weight", &[self.config.hidden_size])
    }
}

/// Rows of queries, then keys, then values in a tensor that stores, for each key head, its `group` query heads, the
/// key head and the value head. Query head j then belongs to key head j ÷ group, as everywhere else.
fn ungrouped(group: usize, kv_heads: usize, head_dim: usize) -> Vec<u32> {
    let heads = |first: usize, count: usize| {
        (0..kv_heads).flat_map(move |kv_head| (first..first + count).map(move |head| kv_head * (group + 2) + head))
    };
    let heads = heads(0, group).chain(heads(group, 1)).chain(heads(group + 1, 1));
    heads.flat_map(|head| head * head_dim..(head + 1) * head_dim).map(|row| row as u32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grouped_heads_come_apart_in_the_order_of_the_query_heads() {
        // 2 key heads with 2 queries each: query, query, key, value, query, query, key, value.
        assert_eq!(ungrouped(2, 2, 1), [0, 1, 4, 5, 2, 6, 3, 7]);
        assert_eq!(ungrouped(1, 2, 2), [0, 1, 6, 7, 2, 3, 8, 9, 4, 5, 10, 11]);
    }
}
