//! The comparisons. What prepares the prompt is compared on its own; the model then gets the reference's pixels and
//! ids, and the reference's answer token by token, so that no part is judged by what another did.

use std::sync::Arc;

use candle_core::{Device, Result as Computed, Tensor};

use super::expected::Expected;
use super::report::Report;
use crate::commands::CommandError;
use crate::commands::trace::{Answer, answer, record};
use crate::engine::{Sampling, choose};
use crate::image::{ImageKey, PreparedImage};
use crate::models::VisionLanguage;
use crate::precision::Precision;
use crate::processor::Prompt;
use crate::tolerance::{self, Judgement, judge};

/// What is computed between pixels and decoder, in order.
const FEATURES: [&str; 4] = ["vision_features", "projected", "packed", "inputs_embeds"];

/// What prepares a prompt: its ids and pixels. Gives the reference's prompt in the form of the model's; `None` when
/// they are so different that it cannot be run.
pub fn inputs(expected: &Expected, prompt: &Prompt, report: &mut Report) -> Result<Option<Prompt>, CommandError> {
    let image_tokens: Vec<usize> = prompt.images.iter().map(|image| image.tokens).collect();
    let ids = expected.input_ids(prompt.image_token);
    report.equal("image_tokens", &image_tokens, expected.image_tokens());
    report.equal("input_ids", &prompt.ids, &ids);
    let mut images = Vec::new();
    if let Some(got) = pixels(&prompt.images)? {
        let pixels = expected.input("pixel_values")?;
        report.close("pixel_values", &got, pixels, &tolerance::PIXELS)?;
        if got.dims() == pixels.dims() {
            images = with_pixels(&prompt.images, pixels)?;
        }
    }
    let places = ids.iter().filter(|id| **id == prompt.image_token).count();
    if images.len() != prompt.images.len() || places != image_tokens.iter().sum::<usize>() {
        report.notes.push("the model was not run: the reference's pictures take other tiles or tokens".to_owned());
        return Ok(None);
    }
    Ok(Some(Prompt { ids, image_token: prompt.image_token, images }))
}

/// What the model makes of the reference's prompt (`fed`), and what it answers to its own in f32. The model must be
/// loaded for as many positions.
pub fn outputs(
    expected: &Expected,
    model: VisionLanguage,
    [prompt, fed]: [&Prompt; 2],
    precision: Precision,
    report: &mut Report,
) -> Result<(), CommandError> {
    let forced = expected.forced_ids();
    let (record, model) = record(model, fed, Answer::Forced(forced))?;
    for name in FEATURES {
        let Some(got) = record.tensors.get(name) else { continue };
        report.close(name, got, expected.input(name)?, &tolerance::features(precision.dtype))?;
    }
    let limit = tolerance::decoded(precision, expected.dequantized());
    let (mut step_logits, mut difference) = (None, None);
    for name in ["logits_tail", "step_logits"] {
        let Some(got) = record.tensors.get(name) else { continue };
        difference = report.close(name, got, expected.logits(name)?, &limit)?;
        step_logits = Some(got);
    }
    if precision == Precision::F32 {
        let answer = answer(model, prompt, forced.len(), precision)?;
        report.equal("greedy_ids", &answer, expected.greedy_ids());
        report.compared(forced.len(), forced.len());
    } else if let (Some(got), Some(difference)) = (step_logits, difference) {
        let steps = [got.to_vec2()?, expected.logits("step_logits")?.to_vec2()?];
        tokens(&steps, expected.chosen_ids(), difference.max_abs, report);
    }
    Ok(())
}

/// The most likely token of each step, where the reference leads by more than numbers differ. Its own answer
/// (`chosen`), if these are its steps, must be what its logits say.
fn tokens([got, reference]: &[Vec<Vec<f32>>; 2], chosen: Option<&[u32]>, largest: f32, report: &mut Report) {
    let (mut sure, mut off) = (0, None);
    for (step, (got, reference)) in got.iter().zip(reference).enumerate() {
        // Logits that are not finite are off already.
        let greedy = Sampling::default();
        let (Ok(token), Ok(best)) = (choose(got, &greedy, 0.0), choose(reference, &greedy, 0.0)) else { continue };
        let judgement = judge(token, reference, largest);
        sure += usize::from(judgement == Judgement::Equal);
        let stated = chosen.and_then(|ids| ids.get(step).copied()).unwrap_or(best);
        if judgement == Judgement::Wrong || judge(stated, reference, 0.0) == Judgement::Wrong {
            off.get_or_insert_with(|| format!("number {step} is {token}, and the reference has {stated}"));
        }
    }
    report.judged("greedy_ids", got.len(), off);
    report.compared(sure, got.len());
}

/// The tiles of all pictures, `[tiles, 3, side, side]`; `None` without pictures.
fn pixels(images: &[Arc<PreparedImage>]) -> Computed<Option<Tensor>> {
    let Some(first) = images.first() else { return Ok(None) };
    let tiles: usize = images.iter().map(|image| image.tiles).sum();
    let values: Vec<f32> = images.iter().flat_map(|image| image.pixels.values().into_owned()).collect();
    Tensor::from_vec(values, (tiles, 3, first.height, first.width), &Device::Cpu).map(Some)
}

/// `images` with the values of `pixels`, which has as many tiles.
fn with_pixels(images: &[Arc<PreparedImage>], pixels: &Tensor) -> Computed<Vec<Arc<PreparedImage>>> {
    let mut first = 0;
    let with = |image: &Arc<PreparedImage>| {
        let values: Vec<f32> = pixels.narrow(0, first, image.tiles)?.flatten_all()?.to_vec1()?;
        first += image.tiles;
        let key = ImageKey::of_pixels(&values);
        Ok(Arc::new(PreparedImage { pixels: values.into(), key, ..PreparedImage::clone(image) }))
    };
    images.iter().map(with).collect()
}
