//! Everything between the parts of a chat message and the input of the engine: pictures, chat
//! template, token ids, and text out of generated ids. Immutable; used from blocking threads.

use std::sync::Arc;

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::image::{ImageError, ImageLimits, PreparedImage};
pub use crate::prompt::{Prompt, PromptError, PromptMessage, PromptPart, PromptRole};
pub use crate::tokenizer::Detokenizer;

/// Prepares requests for one checkpoint.
pub struct Processor {
    stop_ids: Vec<u32>,
    max_model_len: usize,
}

impl Processor {
    /// Reads tokenizer, chat template and preprocessing of `checkpoint`.
    pub fn open(checkpoint: &Checkpoint) -> Result<Self, CheckpointError> {
        let _ = checkpoint;
        todo!()
    }

    /// Decodes, resizes and normalises one picture. Heavy on the CPU.
    pub fn prepare_image(&self, bytes: &[u8], limits: &ImageLimits) -> Result<PreparedImage, ImageError> {
        let _ = (bytes, limits);
        todo!()
    }

    /// Renders the chat template, tokenises it and makes room for the pictures.
    pub fn prompt(&self, messages: &[PromptMessage]) -> Result<Prompt, PromptError> {
        let _ = messages;
        todo!()
    }

    /// A detokenizer for one answer.
    pub fn detokenizer(&self) -> Detokenizer {
        todo!()
    }

    /// Ids that end an answer.
    pub fn stop_ids(&self) -> &[u32] {
        &self.stop_ids
    }

    /// Longest sequence that the model can take, in tokens.
    pub fn max_model_len(&self) -> usize {
        self.max_model_len
    }
}

const _: fn() = || {
    fn shared<T: Send + Sync>() {}
    shared::<Processor>();
    shared::<Arc<PreparedImage>>();
};
