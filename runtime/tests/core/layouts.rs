//! The same numbers under every known naming, in one file or in shards, at 16 or 32 bits.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use vlm_runtime::ops::{Batch, Segment, nth_table, room_for};
use vlm_runtime::tolerance::{self, Difference};

use crate::fixture::{self, Fixture, POSITIONS, difference, flat};

pub fn tensors() -> HashMap<String, Tensor> {
    let mut all = HashMap::new();
    for n in 1..=3 {
        let shard = fixture::dir().join(format!("model-{n:05}-of-00003.safetensors"));
        all.extend(candle_core::safetensors::load(shard, &Device::Cpu).unwrap());
    }
    all
}

/// The fixture in a folder of its own, its weights in one file.
pub fn write(dir: &Path, tensors: &HashMap<String, Tensor>) {
    for file in ["config.json", "tokenizer.json", "preprocessor_config.json", "generation_config.json"] {
        std::fs::copy(fixture::dir().join(file), dir.join(file)).unwrap();
    }
    candle_core::safetensors::save(tensors, dir.join("model.safetensors")).unwrap();
}

pub fn logits(fixture: &Fixture) -> Tensor {
    let prompt = fixture.prompt();
    let embeds = fixture.embeds(&prompt);
    let cache = fixture.model.kv_cache(room_for(1, POSITIONS)).unwrap();
    let batch =
        Batch::new(&[Segment { blocks: &nth_table(0, POSITIONS), start: 0, rows: prompt.ids.len(), long: false }]);
    let hidden = fixture.model.language().forward(&embeds, &batch, &cache).unwrap();
    fixture.model.language().logits(&hidden, batch.last_rows()).unwrap()
}

#[test]
fn every_naming_gives_the_same_logits() {
    let hub = logits(&Fixture::open());
    let saved = |name: &str| name.replace("vision_tower.vision_model.", "vision_tower.");
    let nested = |name: &str| match name.strip_prefix("language_model.") {
        Some("lm_head.weight") => "lm_head.weight".to_owned(),
        Some(rest) => format!("model.language_model.{}", rest.strip_prefix("model.").unwrap()),
        None => format!("model.{}", saved(name)),
    };
    let namings: [&dyn Fn(&str) -> String; 3] = [&str::to_owned, &saved, &nested];
    for rename in namings {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &tensors().into_iter().map(|(name, tensor)| (rename(&name), tensor)).collect());
        assert!(difference(&logits(&Fixture::open_at(dir.path())), &hub) == 0.0);
    }
}

#[test]
fn sixteen_bit_weights_are_read() {
    let hub = logits(&Fixture::open());
    for dtype in [DType::F16, DType::BF16] {
        let dir = tempfile::tempdir().unwrap();
        write(
            dir.path(),
            &tensors().into_iter().map(|(name, tensor)| (name, tensor.to_dtype(dtype).unwrap())).collect(),
        );
        let rounded = logits(&Fixture::open_at(dir.path()));
        let difference = Difference::between(&flat(&rounded), &flat(&hub));
        assert!(difference.max_abs > 0.0, "{dtype:?}");
        assert_eq!(difference.beyond(&tolerance::logits(dtype)), None, "{dtype:?}: {difference:?}");
    }
}

#[test]
fn a_head_that_is_not_stored_is_the_embedding() {
    let dir = tempfile::tempdir().unwrap();
    let mut tied = tensors();
    tied.remove("language_model.lm_head.weight");
    write(dir.path(), &tied);
    let without = logits(&Fixture::open_at(dir.path()));
    let embedding = tied["language_model.model.embed_tokens.weight"].clone();
    tied.insert("language_model.lm_head.weight".to_owned(), embedding);
    write(dir.path(), &tied);
    assert!(difference(&without, &logits(&Fixture::open_at(dir.path()))) == 0.0);
}
