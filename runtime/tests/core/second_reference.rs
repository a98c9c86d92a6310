//! The same numbers from a second implementation that shares no line with ours or with transformers: that of
//! candle-transformers, where its code is right (CLIP's layers; Llama, Mistral and Qwen2 at short positions).

use std::collections::HashMap;

use candle_core::{DType, Device, IndexOp, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::clip::text_model::Activation;
use candle_transformers::models::clip::vision_model::{ClipVisionConfig, ClipVisionTransformer};
use candle_transformers::models::{llama, mistral, qwen2};
use serde::de::DeserializeOwned;
use vlm_runtime::ops::{Batch, Segment, nth_table, room_for};

use crate::cases::{self, Case, case};
use crate::fixture::{POSITIONS, difference};

const FEATURES: f32 = 5e-4;
const LOGITS: f32 = 2e-3;

fn stored(case: &Case) -> VarBuilder<'static> {
    let mut all = HashMap::new();
    for entry in std::fs::read_dir(cases::dir(case.name)).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if name.starts_with("model") && name.ends_with(".safetensors") {
            all.extend(candle_core::safetensors::load(&path, &Device::Cpu).unwrap());
        }
    }
    VarBuilder::from_tensors(all, DType::F32, &Device::Cpu)
}

/// A part of `config.json`, with `more` where it leaves out what candle-transformers requires.
fn config(case: &Case, part: &str, more: &[(&str, serde_json::Value)]) -> serde_json::Value {
    let bytes = std::fs::read(cases::dir(case.name).join("config.json")).unwrap();
    let mut all: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    let mut part = all[part].take();
    for (name, value) in more {
        part[name] = value.clone();
    }
    part
}

fn parsed<T: DeserializeOwned>(json: serde_json::Value) -> T {
    serde_json::from_value(json).unwrap()
}

/// Ids of text alone: some prompt, then some answer that is fed token by token.
fn text() -> (Vec<u32>, Vec<u32>) {
    ((0..70).map(|i| (37 * i + 11) % 256).collect(), (0..8).map(|i| (91 * i + 5) % 256).collect())
}

/// Our logits after a prompt and after each id of an answer.
fn ours(case: &Case, embeds: &Tensor, answer: &[u32]) -> Vec<Tensor> {
    let language = case.model.language();
    let cache = case.model.kv_cache(room_for(1, POSITIONS)).unwrap();
    let (blocks, mut start) = (nth_table(0, POSITIONS), 0);
    let mut read = |rows: &Tensor| {
        let batch = Batch::new(&[Segment { blocks: &blocks, start, rows: rows.dim(0).unwrap(), long: false }]);
        start += rows.dim(0).unwrap();
        let hidden = language.forward(rows, &batch, &cache).unwrap();
        language.logits(&hidden, batch.last_rows()).unwrap()
    };
    let first = read(embeds);
    let steps = answer.iter().map(|id| read(&language.embed(&[*id]).unwrap()));
    std::iter::once(first).chain(steps.collect::<Vec<_>>()).collect()
}

/// Holds our logits for [`text`] against those of `theirs`, which takes ids `[1, n]` and the position of the first.
fn assert_same_text(case: &Case, mut theirs: impl FnMut(&Tensor, usize) -> candle_core::Result<Tensor>) {
    let (prompt, answer) = text();
    let got = ours(case, &case.model.language().embed(&prompt).unwrap(), &answer);
    let inputs = std::iter::once(prompt.as_slice()).chain(answer.chunks(1));
    let mut position = 0;
    for (step, (ids, got)) in inputs.zip(&got).enumerate() {
        let input = Tensor::new(ids, &Device::Cpu).unwrap().unsqueeze(0).unwrap();
        let expected = theirs(&input, position).unwrap().reshape(got.dims()).unwrap();
        position += ids.len();
        let difference = difference(got, &expected);
        assert!(difference <= LOGITS, "{}, step {step}: {difference}", case.name);
    }
}

#[test]
fn clip_features_equal_those_of_candle_transformers() {
    for name in ["llava15_llama_hub", "llava_next_mistral_hub"] {
        let case = case(name);
        let vision = config(case, "vision_config", &[]);
        let number = |field: &str| usize::try_from(vision[field].as_u64().unwrap()).unwrap();
        let layers = number("num_hidden_layers");
        let config = ClipVisionConfig {
            embed_dim: number("hidden_size"),
            activation: Activation::QuickGelu,
            intermediate_size: number("intermediate_size"),
            num_hidden_layers: layers,
            num_attention_heads: number("num_attention_heads"),
            projection_dim: number("projection_dim"),
            num_channels: 3,
            image_size: number("image_size"),
            patch_size: number("patch_size"),
        };
        let tower = ClipVisionTransformer::new(stored(case).pp("vision_tower.vision_model"), &config).unwrap();
        let hidden = tower.output_hidden_states(case.expected("pixel_values")).unwrap();
        let patches = |layer: usize| hidden[layer].i((.., 1.., ..)).unwrap();
        let got: Vec<Tensor> = case.images().iter().map(|image| case.model.vision_features(image).unwrap()).collect();
        let got = Tensor::cat(&got, 0).unwrap();
        // Its list starts with the first layer's output, so that "layer -2" of the reference is at `layers - 2`.
        let same = difference(&got, &patches(layers - 2));
        assert!(same <= FEATURES, "{name}: {same}");
        assert!(difference(&got, &patches(layers - 1)) > 0.1, "{name}: the last layer gives the same");
    }
}

#[test]
fn llama_logits_equal_those_of_candle_transformers() {
    let case = case("llava15_llama_hub");
    let config = parsed::<llama::LlamaConfig>(config(case, "text_config", &[])).into_config(false);
    let model = llama::Llama::load(stored(case).pp("language_model"), &config).unwrap();
    let new_cache = || llama::Cache::new(true, DType::F32, &config, &Device::Cpu).unwrap();
    let mut cache = new_cache();
    assert_same_text(case, |ids, position| model.forward(ids, position, &mut cache));

    let embeds = case.embeds(&case.prompt());
    let mut cache = new_cache();
    let expected = model.forward_input_embed(&embeds.unsqueeze(0).unwrap(), 0, &mut cache).unwrap();
    let difference = difference(&ours(case, &embeds, &[])[0], &expected);
    assert!(difference <= LOGITS, "with a picture: {difference}");
}

#[test]
fn mistral_logits_equal_those_of_candle_transformers() {
    let case = case("llava_next_mistral_hub");
    let config: mistral::Config = parsed(config(case, "text_config", &[]));
    let mut model = mistral::Model::new(&config, stored(case).pp("language_model")).unwrap();
    assert_same_text(case, |ids, position| model.forward(ids, position));
}

#[test]
fn qwen2_logits_equal_those_of_candle_transformers() {
    let case = case("internvl3_qwen2_hub");
    let config: qwen2::Config = parsed(config(case, "text_config", &[("sliding_window", 1024.into())]));
    let mut model = qwen2::ModelForCausalLM::new(&config, stored(case).pp("language_model")).unwrap();
    assert_same_text(case, |ids, position| model.forward(ids, position));
}
