//! The decoder's tensors: three ways to store a layer, one way to read it.

use candle_core::Tensor;
use vlm_catalog::architecture::TextConfig;

use super::super::{CheckpointError, Tensors, Weights};
use super::{LinearTensors, start};

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
    ///
    /// # Errors
    /// As [`Weights::tensor`]; so have all the others.
    pub fn embedding(&self) -> Result<Tensor, CheckpointError> {
        let name = if self.decoder == Decoder::Grouped { "tok_embeddings" } else { "embed_tokens" };
        self.at.at(name).get("weight", &[self.config.vocab_size, self.config.hidden_size])
    }

    /// The output head `[vocabulary, width]`; `None` when it is the embedding.
    pub fn head(&self) -> Result<Option<Tensor>, CheckpointError> {
        let shape = [self.config.vocab_size, self.config.hidden_size];
        self.head.as_ref().map(|(at, name)| at.get(name, &shape)).transpose()
    }

    /// Weight of the last norm: `[width]`.
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

impl DecoderLayer<'_> {
    /// Weight of the norm before attention: `[width]`.
    pub fn input_norm(&self) -> Result<Tensor, CheckpointError> {
        self.norm("input_layernorm", "attention_norm")
    }

    /// Weight of the norm before the gated layer: `[width]`.
    pub fn post_norm(&self) -> Result<Tensor, CheckpointError> {
        self.norm("post_attention_layernorm", "ffn_norm")
    }

    /// Rows of all queries, then keys, then values: `[(heads + 2 · kv heads) · head dim, width]`.
    pub fn qkv(&self) -> Result<LinearTensors, CheckpointError> {
        let TextConfig { heads, kv_heads, head_dim, hidden_size, qkv_bias, .. } = *self.config;
        let (q, kv) = (heads * head_dim, kv_heads * head_dim);
        let read = |place: &str, names: &[(&str, usize)]| {
            LinearTensors::read(&self.at.at(place), names, hidden_size, qkv_bias)
        };
        match self.decoder {
            Decoder::Split => read("self_attn", &[("q_proj", q), ("k_proj", kv), ("v_proj", kv)]),
            Decoder::Fused => read("self_attn", &[("qkv_proj", q + 2 * kv)]),
            Decoder::Grouped => {
                let grouped = read("attention", &[("wqkv", q + 2 * kv)])?;
                let ungroup = |stored: &[Tensor]| match stored {
                    [one] => ungroup(one, heads / kv_heads, kv_heads, head_dim).map_err(|e| start(&e)),
                    _ => Ok(Vec::new()),
                };
                Ok(LinearTensors { weights: ungroup(&grouped.weights)?, biases: ungroup(&grouped.biases)? })
            }
        }
    }

    /// Attention's way out: `[width, heads · head dim]`.
    pub fn out(&self) -> Result<LinearTensors, CheckpointError> {
        let (place, name) =
            if self.decoder == Decoder::Grouped { ("attention", "wo") } else { ("self_attn", "o_proj") };
        let names = [(name, self.config.hidden_size)];
        LinearTensors::read(&self.at.at(place), &names, self.config.heads * self.config.head_dim, false)
    }

    /// Rows of the gate, then of what it gates: `[2 · inner, width]`.
    pub fn gate_up(&self) -> Result<LinearTensors, CheckpointError> {
        let (width, inner) = (self.config.hidden_size, self.config.intermediate_size);
        let (place, names): (_, &[_]) = match self.decoder {
            Decoder::Split => ("mlp", &[("gate_proj", inner), ("up_proj", inner)]),
            Decoder::Fused => ("mlp", &[("gate_up_proj", 2 * inner)]),
            Decoder::Grouped => ("feed_forward", &[("w1", inner), ("w3", inner)]),
        };
        LinearTensors::read(&self.at.at(place), names, width, false)
    }

    /// The gated layer's way out: `[width, inner]`.
    pub fn down(&self) -> Result<LinearTensors, CheckpointError> {
        let (place, name) =
            if self.decoder == Decoder::Grouped { ("feed_forward", "w2") } else { ("mlp", "down_proj") };
        let names = [(name, self.config.hidden_size)];
        LinearTensors::read(&self.at.at(place), &names, self.config.intermediate_size, false)
    }

    fn norm(&self, name: &str, grouped: &str) -> Result<Tensor, CheckpointError> {
        let name = if self.decoder == Decoder::Grouped { grouped } else { name };
        self.at.at(name).get("weight", &[self.config.hidden_size])
    }
}

/// Queries, keys and values out of a tensor that stores, for each key head, its `group` query heads, the key
/// head and the value head. Query head j then belongs to key head j ÷ group, as everywhere else.
fn ungroup(stored: &Tensor, group: usize, kv_heads: usize, head_dim: usize) -> candle_core::Result<Vec<Tensor>> {
    let inner = &stored.dims()[1..];
    let grouped = stored.reshape([&[kv_heads, group + 2, head_dim], inner].concat())?;
    [(0, group), (group, 1), (group + 1, 1)]
        .into_iter()
        .map(|(first, heads)| {
            let rows = [&[kv_heads * heads * head_dim], inner].concat();
            grouped.narrow(1, first, heads)?.contiguous()?.reshape(rows)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn grouped_heads_come_apart_in_the_order_of_the_query_heads() {
        // 2 key heads of width 1 with 2 queries each; the number says which head a row is.
        let stored = Tensor::new(&[[0f32], [1.0], [10.0], [20.0], [2.0], [3.0], [11.0], [21.0]], &Device::Cpu).unwrap();
        let parts = ungroup(&stored, 2, 2, 1).unwrap();
        let rows: Vec<Vec<f32>> = parts.iter().map(|part| part.flatten_all().unwrap().to_vec1().unwrap()).collect();
        assert_eq!(rows, [vec![0.0, 1.0, 2.0, 3.0], vec![10.0, 11.0], vec![20.0, 21.0]]);
        let bias = ungroup(&stored.squeeze(1).unwrap(), 2, 2, 1).unwrap();
        assert_eq!(bias[1].to_vec1::<f32>().unwrap(), [10.0, 11.0]);
    }
}
