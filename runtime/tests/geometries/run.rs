//! Through the product's own path: opens, loads in 16 bit and in int4, sees a picture, reads a prompt, generates.

use std::path::Path;

use candle_core::DType;
use serde_json::{Value, json};
use vlm_catalog::architecture::{Family, ModelConfig, Tower};
use vlm_catalog::checkpoint::{CheckpointSize, Head};
use vlm_catalog::quantization::Quantization;
use vlm_runtime::checkpoint::Checkpoint;
use vlm_runtime::image::{ImageKey, KeptGrid, PreparedImage};
use vlm_runtime::models::VisionLanguage;
use vlm_runtime::ops::{Batch, Segment, finite, nth_table, room_for};
use vlm_runtime::precision::Precision;

const STEPS: u32 = 3;

/// Loads and runs the checkpoint in `dir`; what was found.
pub fn run(dir: &Path) -> Result<Value, String> {
    let checkpoint = Checkpoint::open(dir).map_err(|e| e.to_string())?;
    let expected = loaded(checkpoint.config());
    let mut found = json!({"parameters": expected});
    for quantization in [Quantization::None, Quantization::Int4] {
        let precision = Precision { dtype: DType::BF16, quantization, ..Precision::F32 };
        let image = picture(checkpoint.config());
        let positions = image.tokens + 16;
        let model = VisionLanguage::load(&checkpoint, positions, precision).map_err(|e| e.to_string())?;
        let weights = model.weights();
        if weights.parameters != expected {
            return Err(format!("{} parameters were loaded, and {expected} are stored", weights.parameters));
        }
        generate(&model, &image, positions).map_err(|e| format!("{quantization}: {e}"))?;
        found[quantization.name()] = json!({"bytes": weights.bytes, "bits_per_weight": weights.bits_per_weight(),
                                            "fallbacks": weights.fallbacks});
    }
    Ok(found)
}

/// What of a checkpoint is loaded: without the layers and the norm of CLIP that do not run.
fn loaded(config: &ModelConfig) -> u64 {
    let mut used = config.clone();
    used.vision.layers = config.vision.layers_used;
    let unused_norm = if config.vision.tower == Tower::Clip { 2 * config.vision.hidden_size as u64 } else { 0 };
    CheckpointSize::of(&used, Head::Stored).parameters() - unused_norm
}

/// One tile of noise; for LLaVA-1.6 the whole picture and a grid of one tile.
fn picture(config: &ModelConfig) -> PreparedImage {
    let (side, grid) = (config.vision.image_size, config.vision.grid());
    let next = config.family == Family::LlavaNext;
    let kept = KeptGrid { tile_rows: 1, tile_columns: 1, top: 0, left: 0, height: grid, width: grid };
    let tiles = if next { 2 } else { 1 };
    let pixels: Vec<f32> = (0..tiles * 3 * side * side).map(|i| ((i * 7919) % 2048) as f32 / 512.0 - 2.0).collect();
    let lines = if next { grid * (grid + 1) } else { 0 };
    let tokens = config.vision.tokens_per_tile() + lines;
    let key = ImageKey::of_pixels(&pixels);
    PreparedImage { tiles, height: side, width: side, pixels: pixels.into(), tokens, kept: next.then_some(kept), key }
}

fn generate(model: &VisionLanguage, image: &PreparedImage, positions: usize) -> candle_core::Result<()> {
    let config = model.config();
    let token = config.image_token_id.unwrap_or(config.text.vocab_size as u32);
    let rows = model.see(image)?;
    let mut ids = vec![1];
    ids.extend(std::iter::repeat_n(token, image.tokens));
    ids.extend([5, 6, 7]);
    let embeds = model.embed(&ids, token, &[rows])?;
    let (language, cache) = (model.language(), model.kv_cache(room_for(1, positions))?);
    let long = language.is_long(positions);
    let blocks = nth_table(0, positions);
    let batch = Batch::new(&[Segment { blocks: &blocks, start: 0, rows: ids.len(), long }]);
    let hidden = language.forward(&embeds, &batch, &cache)?;
    let mut logits = language.logits(&hidden, batch.last_rows())?;
    for step in 0..STEPS {
        if !finite(&logits)? {
            candle_core::bail!("numbers that are not finite at step {step}")
        }
        let values: Vec<f32> = logits.flatten_all()?.to_vec1()?;
        let best = (0..values.len()).max_by(|a, b| values[*a].total_cmp(&values[*b])).unwrap_or(0);
        if values.iter().all(|value| (value - values[0]).abs() < 1e-6) {
            candle_core::bail!("all logits are equal")
        }
        let start = ids.len() + step as usize;
        let batch = Batch::new(&[Segment { blocks: &blocks, start, rows: 1, long }]);
        let hidden = language.forward(&language.embed(&[best as u32])?, &batch, &cache)?;
        logits = language.logits(&hidden, batch.last_rows())?;
    }
    Ok(())
}
