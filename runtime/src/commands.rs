//! What the binary can do: one module a subcommand, and how they open a checkpoint.

pub mod bench;
mod error;
pub mod fetch;
mod hub;
pub mod inspect;
pub mod serve;
pub mod trace;
pub mod verify;

use std::path::Path;
use std::sync::Arc;

pub use error::CommandError;

use crate::args::ModelArgs;
use crate::checkpoint::{Checkpoint, LoadProgress, OpenOptions};
use crate::diagnose::StartError;
use crate::processor::Processor;

/// Opens the checkpoint in `dir` and what prepares its requests, as `how` says.
fn open(dir: &Path, how: &ModelArgs) -> Result<(Checkpoint, Processor), StartError> {
    open_watched(dir, how, None)
}

/// Like [`open`]; `progress` is told of every tensor that is read.
fn open_watched(
    dir: &Path,
    how: &ModelArgs,
    progress: Option<Arc<LoadProgress>>,
) -> Result<(Checkpoint, Processor), StartError> {
    let checkpoint = Checkpoint::open_with(dir, &OpenOptions { vision_tower: how.vision_tower.clone(), progress })?;
    let mut processor = Processor::open_with(&checkpoint, how.chat_template.as_deref())?;
    if let Some(aspect) = how.image_aspect {
        processor = processor.with_image_aspect(aspect).ok_or_else(no_aspect)?;
    }
    Ok((checkpoint, processor))
}

fn no_aspect() -> StartError {
    StartError::Arguments("--image-aspect is for LLaVA-1.5, and this model cuts pictures into tiles".into())
}
