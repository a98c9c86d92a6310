//! One decoder for the Llama kind: embeddings in, hidden states out, logits of chosen rows.

use candle_core::{Device, Result, Tensor};
use vlm_catalog::architecture::TextConfig;

use super::{linear, stack};
use crate::checkpoint::{CheckpointError, Tensors, Weights};
use crate::ops::{Batch, KvCache, Linear, RmsNorm, RopeTable, attention, silu_mul};

/// The decoder.
pub struct Language {
    embedding: Tensor,
    layers: Vec<Layer>,
    norm: RmsNorm,
    head: Linear,
    rope: RopeTable,
}

struct Layer {
    input_norm: RmsNorm,
    qkv: Linear,
    out: Linear,
    post_norm: RmsNorm,
    gate_up: Linear,
    down: Linear,
}

impl Language {
    /// Loads the decoder at `prefix`; the head is the tensor named `head`, or else the embedding.
    pub fn load(
        weights: &Weights,
        prefix: &str,
        head: &str,
        config: &TextConfig,
        positions: usize,
    ) -> std::result::Result<Self, CheckpointError> {
        let at = weights.at(prefix);
        let shape = [config.vocab_size, config.hidden_size];
        let embedding = at.get("embed_tokens.weight", &shape)?;
        let head = if weights.contains(head) { weights.tensor(head, &shape, &Device::Cpu)? } else { embedding.clone() };
        let layers = at.at("layers");
        let rope = RopeTable::new(positions, config.head_dim, config.rope_theta, &Device::Cpu)
            .map_err(|e| CheckpointError::Start(e.to_string()))?;
        Ok(Self {
            layers: (0..config.layers)
                .map(|n| Layer::load(&layers.at(n), config))
                .collect::<std::result::Result<_, _>>()?,
            norm: norm(&at, "norm", config)?,
            head: Linear::new(head, None),
            embedding,
            rope,
        })
    }

    /// Embeddings `[ids, width]`. Ids outside of the vocabulary are an error.
    pub fn embed(&self, ids: &[u32]) -> Result<Tensor> {
        self.embedding.index_select(&Tensor::new(ids, self.embedding.device())?, 0)
    }

    /// Runs `[rows, width]` through the layers, extending the caches of the rows' sequences.
    pub fn forward(&self, embeds: &Tensor, batch: &Batch, cache: &KvCache) -> Result<Tensor> {
        let mut x = embeds.clone();
        for (n, layer) in self.layers.iter().enumerate() {
            x = layer.forward(&x, n, &self.rope, batch, cache)?;
        }
        Ok(x)
    }

    /// Logits `[rows, vocabulary]` of the hidden states of `rows`.
    pub fn logits(&self, hidden: &Tensor, rows: &[u32]) -> Result<Tensor> {
        let hidden = hidden.index_select(&Tensor::new(rows, hidden.device())?, 0)?;
        self.head.forward(&self.norm.forward(&hidden)?)
    }
}

impl Layer {
    fn load(at: &Tensors<'_>, config: &TextConfig) -> std::result::Result<Self, CheckpointError> {
        let (width, inner) = (config.hidden_size, config.intermediate_size);
        let (q, kv) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
        let (attention, mlp) = (at.at("self_attn"), at.at("mlp"));
        let part = |name: &str, output| linear(&attention.at(name), width, output, config.qkv_bias);
        Ok(Self {
            input_norm: norm(at, "input_layernorm", config)?,
            qkv: stack(&[part("q_proj", q)?, part("k_proj", kv)?, part("v_proj", kv)?])?,
            out: linear(&attention.at("o_proj"), q, width, false)?,
            post_norm: norm(at, "post_attention_layernorm", config)?,
            gate_up: stack(&[
                linear(&mlp.at("gate_proj"), width, inner, false)?,
                linear(&mlp.at("up_proj"), width, inner, false)?,
            ])?,
            down: linear(&mlp.at("down_proj"), inner, width, false)?,
        })
    }

    fn forward(&self, x: &Tensor, n: usize, rope: &RopeTable, batch: &Batch, cache: &KvCache) -> Result<Tensor> {
        let qkv = self.qkv.forward(&self.input_norm.forward(x)?)?;
        cache.store(n, &qkv, rope, batch)?;
        let x = (x + self.out.forward(&attention(&qkv, cache, n, rope, batch)?)?)?;
        let gated = silu_mul(&self.gate_up.forward(&self.post_norm.forward(&x)?)?)?;
        x + self.down.forward(&gated)?
    }
}

fn norm(at: &Tensors<'_>, name: &str, config: &TextConfig) -> std::result::Result<RmsNorm, CheckpointError> {
    Ok(RmsNorm::new(at.at(name).get("weight", &[config.hidden_size])?, config.rms_norm_eps))
}
