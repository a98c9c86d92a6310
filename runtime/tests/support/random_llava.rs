//! A LLaVA-1.5 of any size with random weights in bf16, as a checkpoint directory without a tokenizer. All layers
//! share one set of weights: neither speed nor memory depends on the numbers.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use serde_json::json;

/// Sizes of a model.
#[derive(Clone, Copy)]
pub struct Geometry {
    pub vocabulary: usize,
    pub hidden: usize,
    pub inner: usize,
    pub layers: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub vision_hidden: usize,
    pub vision_inner: usize,
    pub vision_layers: usize,
    pub vision_heads: usize,
    pub image: usize,
    pub patch: usize,
}

impl Geometry {
    fn config(&self) -> serde_json::Value {
        json!({
            "architectures": ["LlavaForConditionalGeneration"],
            "model_type": "llava",
            "image_token_index": self.vocabulary - 1,
            "projector_hidden_act": "gelu",
            "text_config": {
                "model_type": "llama",
                "vocab_size": self.vocabulary,
                "max_position_embeddings": 4096,
                "rms_norm_eps": 1e-5,
                "hidden_size": self.hidden,
                "intermediate_size": self.inner,
                "num_hidden_layers": self.layers,
                "num_attention_heads": self.heads,
                "num_key_value_heads": self.kv_heads,
            },
            "tie_word_embeddings": false,
            "torch_dtype": "bfloat16",
            "vision_config": {
                "model_type": "clip_vision_model",
                "hidden_size": self.vision_hidden,
                "image_size": self.image,
                "intermediate_size": self.vision_inner,
                "num_attention_heads": self.vision_heads,
                "num_hidden_layers": self.vision_layers,
                "patch_size": self.patch,
            },
            "vision_feature_layer": -2,
            "vision_feature_select_strategy": "default",
        })
    }
}

/// Writes `config.json` and `model.safetensors`.
pub fn write(dir: &Path, geometry: &Geometry) {
    std::fs::write(dir.join("config.json"), geometry.config().to_string()).unwrap();
    let mut tensors = HashMap::new();
    language(&mut tensors, geometry);
    vision(&mut tensors, geometry);
    candle_core::safetensors::save(&tensors, dir.join("model.safetensors")).unwrap();
}

/// Numbers as large as keep activations as large as they were.
fn random(shape: &[usize]) -> Tensor {
    let inner: usize = shape[1..].iter().product();
    let deviation = (inner as f32).sqrt().recip();
    Tensor::randn(0f32, deviation, shape, &Device::Cpu).unwrap().to_dtype(DType::BF16).unwrap()
}

fn constant(value: f64, length: usize) -> Tensor {
    (Tensor::ones(length, DType::BF16, &Device::Cpu).unwrap() * value).unwrap()
}

fn language(tensors: &mut HashMap<String, Tensor>, geometry: &Geometry) {
    let Geometry { vocabulary, hidden, inner, heads, kv_heads, .. } = *geometry;
    let kv = hidden / heads * kv_heads;
    let layer = [
        ("self_attn.q_proj", random(&[hidden, hidden])),
        ("self_attn.k_proj", random(&[kv, hidden])),
        ("self_attn.v_proj", random(&[kv, hidden])),
        ("self_attn.o_proj", random(&[hidden, hidden])),
        ("mlp.gate_proj", random(&[inner, hidden])),
        ("mlp.up_proj", random(&[inner, hidden])),
        ("mlp.down_proj", random(&[hidden, inner])),
        ("input_layernorm", constant(1.0, hidden)),
        ("post_attention_layernorm", constant(1.0, hidden)),
    ];
    for n in 0..geometry.layers {
        for (name, tensor) in &layer {
            tensors.insert(format!("language_model.model.layers.{n}.{name}.weight"), tensor.clone());
        }
    }
    for (name, tensor) in [
        ("model.embed_tokens", random(&[vocabulary, hidden])),
        ("model.norm", constant(1.0, hidden)),
        ("lm_head", random(&[vocabulary, hidden])),
    ] {
        tensors.insert(format!("language_model.{name}.weight"), tensor);
    }
}

fn vision(tensors: &mut HashMap<String, Tensor>, geometry: &Geometry) {
    let Geometry { hidden, vision_hidden: width, vision_inner: inner, image, patch, .. } = *geometry;
    let rows = (image / patch) * (image / patch) + 1;
    let mut linear = |name: String, output: usize, input: usize| {
        tensors.insert(format!("{name}.weight"), random(&[output, input]));
        tensors.insert(format!("{name}.bias"), constant(0.0, output));
    };
    linear("multi_modal_projector.linear_1".to_owned(), hidden, width);
    linear("multi_modal_projector.linear_2".to_owned(), hidden, hidden);
    let tower = "vision_tower.vision_model";
    for n in 0..geometry.vision_layers {
        let layer = format!("{tower}.encoder.layers.{n}");
        for name in ["q_proj", "k_proj", "v_proj", "out_proj"] {
            linear(format!("{layer}.self_attn.{name}"), width, width);
        }
        linear(format!("{layer}.mlp.fc1"), inner, width);
        linear(format!("{layer}.mlp.fc2"), width, inner);
    }
    let norms = (0..geometry.vision_layers)
        .flat_map(|n| ["layer_norm1", "layer_norm2"].map(|name| format!("{tower}.encoder.layers.{n}.{name}")))
        .chain([format!("{tower}.pre_layrnorm")]);
    for norm in norms {
        tensors.insert(format!("{norm}.weight"), constant(1.0, width));
        tensors.insert(format!("{norm}.bias"), constant(0.0, width));
    }
    let embeddings = format!("{tower}.embeddings");
    tensors.insert(format!("{embeddings}.class_embedding"), constant(0.1, width));
    tensors.insert(format!("{embeddings}.patch_embedding.weight"), random(&[width, 3, patch, patch]));
    tensors.insert(format!("{embeddings}.position_embedding.weight"), random(&[rows, width]));
}
