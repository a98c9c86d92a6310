//! One prompt through tower, projector, packing and decoder by the engine's own steps, keeping what each gives.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Result, Tensor, bail};

use crate::engine::{CHUNK, NotFinite, Sampling, Steps, choose};
use crate::models::VisionLanguage;
use crate::ops::{Segment, nth_table, room_for};
use crate::processor::Prompt;

/// Last positions of the prompt whose logits are kept.
const TAIL: usize = 32;

/// Where the answer's tokens come from.
#[derive(Clone, Copy, Debug)]
pub enum Answer<'a> {
    /// The most likely ones, so many.
    Greedy(usize),
    /// These, whatever the logits say.
    Forced(&'a [u32]),
}

/// What one prompt gave.
#[derive(Debug)]
pub struct Record {
    /// In f32, by name: `pixel_values` `[tiles, 3, side, side]`, `vision_features` `[tiles, rows, joined width]`,
    /// `projected` `[tiles, rows, width]`, `packed` `[image tokens, width]` where grids are packed (LLaVA-1.6), none
    /// of these without pictures; `inputs_embeds` `[1, tokens, width]`, `logits_tail` `[up to 32, vocabulary]`,
    /// `step_logits` `[answer, vocabulary]`.
    pub tensors: BTreeMap<&'static str, Tensor>,
    /// The answer.
    pub ids: Vec<u32>,
}

/// Runs `prompt` and its answer. The model must be loaded for as many positions. Gives it back.
///
/// # Errors
/// Ids, pictures or rows that do not fit together, and numbers that are not finite where a token is to be chosen.
pub fn record(model: VisionLanguage, prompt: &Prompt, answer: Answer<'_>) -> Result<(Record, VisionLanguage)> {
    let mut tensors = BTreeMap::new();
    let rows = see(&model, prompt, &mut tensors)?;
    let embeds = model.embed(&prompt.ids, prompt.image_token, &rows)?;
    let count = match answer {
        Answer::Greedy(count) => count,
        Answer::Forced(ids) => ids.len(),
    };
    let total = prompt.ids.len();
    let long = model.language().is_long(total + count);
    let steps = Steps::new(model, room_for(1, total + count))?;
    let blocks = nth_table(0, total + count);
    let (tail, mut logits) = read(&steps, &embeds, &blocks, long)?;
    let (mut ids, mut step_logits) = (Vec::with_capacity(count), Vec::with_capacity(count));
    for step in 0..count {
        let id = match answer {
            Answer::Greedy(_) => most_likely(&logits, step)?,
            Answer::Forced(ids) => ids[step],
        };
        ids.push(id);
        step_logits.push(logits.clone());
        if step + 1 < count {
            logits = steps.next(&[(Segment { blocks: &blocks, start: total + step, rows: 1, long }, id)])?;
        }
    }
    tensors.insert("inputs_embeds", embeds.unsqueeze(0)?);
    tensors.insert("logits_tail", tail);
    tensors.insert("step_logits", Tensor::cat(&step_logits, 0)?);
    for tensor in tensors.values_mut() {
        *tensor = tensor.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.contiguous()?;
    }
    Ok((Record { tensors, ids }, steps.into_model()))
}

/// The rows of each picture in the prompt; what leads to them goes to `tensors`.
fn see(model: &VisionLanguage, prompt: &Prompt, tensors: &mut BTreeMap<&'static str, Tensor>) -> Result<Vec<Tensor>> {
    let (mut pixels, mut features, mut projected, mut rows) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for image in &prompt.images {
        let of_image = model.vision_features(image)?;
        let (tiles, per_tile, _) = of_image.dims3()?;
        let of_decoder = model.project(&of_image)?;
        let width = of_decoder.dim(1)?;
        let shape = (image.tiles, 3, image.height, image.width);
        pixels.push(Tensor::from_slice(&image.pixels.values(), shape, &Device::Cpu)?);
        rows.push(model.pack(&of_decoder, image)?);
        projected.push(of_decoder.reshape((tiles, per_tile, width))?);
        features.push(of_image);
    }
    if rows.is_empty() {
        return Ok(rows);
    }
    tensors.insert("pixel_values", Tensor::cat(&pixels, 0)?);
    tensors.insert("vision_features", Tensor::cat(&features, 0)?);
    tensors.insert("projected", Tensor::cat(&projected, 0)?);
    if prompt.images.iter().any(|image| image.kept.is_some()) {
        tensors.insert("packed", Tensor::cat(&rows, 0)?);
    }
    Ok(rows)
}

/// Reads the whole prompt: logits of its last positions, and once more of the very last alone, as the engine asks
/// for them.
fn read(steps: &Steps, embeds: &Tensor, blocks: &[u32], long: bool) -> Result<(Tensor, Tensor)> {
    let total = embeds.dim(0)?;
    let mut tail = Vec::new();
    for start in (0..total).step_by(CHUNK) {
        let rows = CHUNK.min(total - start);
        let chunk = embeds.narrow(0, start, rows)?.contiguous()?;
        let skipped = total.saturating_sub(TAIL).saturating_sub(start).min(rows);
        let wanted: Vec<u32> = (skipped as u32..rows as u32).collect();
        let hidden = steps.read(&chunk, &[Segment { blocks, start, rows, long }], &wanted)?;
        tail.extend((!wanted.is_empty()).then_some(hidden));
    }
    let Some(last) = tail.last() else { bail!("the prompt has no tokens") };
    let last = steps.logits(&last.narrow(0, last.dim(0)? - 1, 1)?)?;
    Ok((steps.logits(&Tensor::cat(&tail, 0)?)?, last))
}

fn most_likely(logits: &Tensor, step: usize) -> Result<u32> {
    let logits: Vec<f32> = logits.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
    match choose(&logits, &Sampling::default(), 0.0) {
        Ok(id) => Ok(id),
        Err(NotFinite) => bail!("the logits of generated token {step} are not finite"),
    }
}
