//! `trace`: runs one prompt as it is through the product's own path and writes what every part gave. Reads as that
//! list; `record` runs, `file` writes.

mod file;
mod record;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::Device;
use futures::executor::block_on;

pub(super) use record::{Answer, Record, record};

use super::CommandError;
use crate::args::TraceArgs;
use crate::checkpoint::Checkpoint;
use crate::device::{self, Demand};
use crate::engine::{Engine, EngineOptions, Event, Request, Sampling};
use crate::image::ImageLimits;
use crate::models::VisionLanguage;
use crate::precision::Precision;
use crate::processor::{Processor, Prompt};

/// Runs the prompt and writes `trace.json` and `trace.safetensors`.
///
/// # Errors
/// Files, pictures, a prompt or a model that cannot be used, and an engine whose answer is not that of the recorded
/// steps.
pub fn run(args: &TraceArgs) -> Result<(), CommandError> {
    let device = device::open(args.how.device)?;
    let text = read_text(&args.prompt_file)?;
    std::fs::create_dir_all(&args.out).map_err(|error| CommandError::write(&args.out, &error))?;
    let (checkpoint, processor) = super::open(&args.model, &args.how)?;
    let prompt = prepare(&processor, &text, &args.prompt_file, &args.image)?;
    let (tokens, precision) = (args.max_tokens as usize, args.how.precision.on(&device, checkpoint.stored()));
    let positions = positions(&processor, &prompt, tokens)?;
    let model = load(&checkpoint, positions, precision, &device)?;
    let (record, model) = record(model, &prompt, Answer::Greedy(tokens))?;
    let answer = answer(model, &prompt, tokens, precision)?;
    if answer != record.ids {
        return Err(CommandError::Off(format!(
            "greedy_ids is off: the engine answers {answer:?}, and its recorded steps {:?}",
            record.ids
        )));
    }
    let facts = file::Facts::of(checkpoint.config().family, &text, &prompt, &record, precision);
    file::write(&args.out, &facts, &record.tensors)?;
    let pictures: usize = prompt.images.iter().map(|image| image.tokens).sum();
    println!(
        "wrote {}: {} prompt tokens, {pictures} of them of {} pictures, and {tokens} generated",
        args.out.display(),
        prompt.ids.len(),
        prompt.images.len()
    );
    Ok(())
}

/// The model for one sequence of `positions` tokens, if `device` has room for it.
pub(super) fn load(
    checkpoint: &Checkpoint,
    positions: usize,
    precision: Precision,
    device: &Device,
) -> Result<VisionLanguage, CommandError> {
    device::check_memory(device, Demand::of(checkpoint, precision, positions, 1))?;
    Ok(VisionLanguage::load_on(checkpoint, positions, precision, device)?)
}

/// The prompt with its pictures, from their files.
pub(super) fn prepare(
    processor: &Processor,
    text: &str,
    text_path: &Path,
    images: &[PathBuf],
) -> Result<Prompt, CommandError> {
    let images = images.iter().map(|path| {
        let bytes = std::fs::read(path).map_err(|source| unreadable(path, source))?;
        let image = processor.prepare_image(&bytes, &ImageLimits::default());
        image.map(Arc::new).map_err(|source| CommandError::Image { path: path.clone(), source })
    });
    let images = images.collect::<Result<Vec<_>, _>>()?;
    let prompt = processor.raw_prompt(text, &images);
    prompt.map_err(|source| CommandError::Prompt { path: text_path.to_owned(), source })
}

/// Positions that the prompt and `tokens` more take.
pub(super) fn positions(processor: &Processor, prompt: &Prompt, tokens: usize) -> Result<usize, CommandError> {
    let (read, limit) = (prompt.ids.len(), processor.max_model_len());
    if read.saturating_add(tokens) > limit {
        return Err(CommandError::TooLong { prompt: read, answer: tokens, limit });
    }
    Ok(read + tokens)
}

/// The most likely `tokens` tokens, from the engine as it serves.
pub(super) fn answer(
    model: VisionLanguage,
    prompt: &Prompt,
    tokens: usize,
    precision: Precision,
) -> Result<Vec<u32>, CommandError> {
    let max_tokens = prompt.ids.len() + tokens;
    let (max_concurrency, max_queue, kv_bytes, encoder_cache_bytes) = (1, 0, None, 0);
    let options = EngineOptions { max_tokens, max_concurrency, max_queue, kv_bytes, encoder_cache_bytes, precision };
    let engine = Engine::over(model, options)?;
    let sampling = Sampling { temperature: 0.0, ..Sampling::default() };
    let request = Request {
        prompt: prompt.clone(),
        sampling,
        max_new_tokens: tokens,
        stop_ids: Vec::new(),
        ..Request::default()
    };
    let mut stream = engine.submit(request).map_err(|error| CommandError::Compute(error.to_string()))?;
    let mut ids = Vec::with_capacity(tokens);
    loop {
        match block_on(stream.next()) {
            Some(Event::Token { id, .. }) => ids.push(id),
            Some(Event::Finished(_)) => return Ok(ids),
            Some(Event::Failed(failure)) => return Err(CommandError::Compute(failure.to_string())),
            None => return Err(CommandError::Compute("the engine gave no end of the answer".to_owned())),
        }
    }
}

fn read_text(path: &Path) -> Result<String, CommandError> {
    std::fs::read_to_string(path).map_err(|source| unreadable(path, source))
}

fn unreadable(path: &Path, source: std::io::Error) -> CommandError {
    CommandError::Read { path: path.to_owned(), source, mend: "name a file that can be read" }
}
