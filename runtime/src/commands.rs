//! What the binary can do: one module a subcommand, and how they open a checkpoint.

mod error;
pub mod serve;
pub mod trace;
pub mod verify;

use std::path::Path;

pub use error::CommandError;

use crate::checkpoint::Checkpoint;
use crate::diagnose::StartError;
use crate::image::ImageAspect;
use crate::processor::Processor;

/// Opens the checkpoint in `dir` and what prepares its requests, with pictures padded or cropped as asked.
fn open(dir: &Path, aspect: Option<ImageAspect>) -> Result<(Checkpoint, Processor), StartError> {
    let checkpoint = Checkpoint::open(dir)?;
    let mut processor = Processor::open(&checkpoint)?;
    if let Some(aspect) = aspect {
        processor = processor.with_image_aspect(aspect).ok_or_else(|| {
            StartError::Arguments("--image-aspect is for LLaVA-1.5, and this model cuts pictures into tiles".into())
        })?;
    }
    Ok((checkpoint, processor))
}
