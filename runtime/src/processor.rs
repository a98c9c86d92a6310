//! Everything between the parts of a chat message and the input of the engine: pictures, chat
//! template, token ids, and text out of generated ids. Immutable; used from blocking threads.

use std::sync::Arc;

use serde::Deserialize;
use vlm_catalog::architecture::raw::OneOrMany;

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::image::{ImageAspect, ImageError, ImageLimits, PreparedImage, Preprocessing, TileBudget};
use crate::prompt::{self, Template};
pub use crate::prompt::{Prompt, PromptError, PromptMessage, PromptPart, PromptRole};
pub use crate::tokenizer::Detokenizer;
use crate::tokenizer::Tokenizer;

/// Prepares requests for one checkpoint.
pub struct Processor {
    preprocessing: Preprocessing,
    tokenizer: Tokenizer,
    template: Template,
    image_token: u32,
    stop_ids: Vec<u32>,
    max_model_len: usize,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct GenerationConfig {
    eos_token_id: Option<OneOrMany>,
}

impl Processor {
    /// Reads tokenizer, chat template and preprocessing of `checkpoint`.
    ///
    /// # Errors
    /// A file that is missing or malformed, or asks for what is not served.
    pub fn open(checkpoint: &Checkpoint) -> Result<Self, CheckpointError> {
        let tokenizer = Tokenizer::open(checkpoint)?;
        let config = checkpoint.config();
        let image_token = config.image_token_id.unwrap_or_default();
        let image_string = tokenizer.token(image_token).ok_or_else(|| CheckpointError::Unsupported {
            file: "config.json",
            what: format!("image_token_index {image_token}, which tokenizer.json lacks"),
            supported: "the id of a token of tokenizer.json",
        })?;
        let (bos, eos) = (tokenizer.bos().unwrap_or(""), tokenizer.eos().unwrap_or(""));
        Ok(Self {
            preprocessing: Preprocessing::open(checkpoint)?,
            template: Template::open(checkpoint, &image_string, bos, eos)?,
            stop_ids: stop_ids(checkpoint, &tokenizer)?,
            tokenizer,
            image_token,
            max_model_len: config.text.max_positions,
        })
    }

    /// With pictures padded or cropped as `aspect` says; `None` when the model does neither.
    pub fn with_image_aspect(self, aspect: ImageAspect) -> Option<Self> {
        Some(Self { preprocessing: self.preprocessing.with_aspect(aspect)?, ..self })
    }

    /// Decodes, resizes and normalises one picture. Heavy on the CPU.
    ///
    /// # Errors
    /// A picture that is broken, of no known format, or beyond `limits`.
    pub fn prepare_image(&self, bytes: &[u8], limits: &ImageLimits) -> Result<PreparedImage, ImageError> {
        self.preprocessing.prepare(bytes, limits, TileBudget::default())
    }

    /// Renders the chat template, tokenises it and makes room for the pictures.
    ///
    /// # Errors
    /// When the template refuses the conversation or does not place every picture.
    pub fn prompt(&self, messages: &[PromptMessage]) -> Result<Prompt, PromptError> {
        prompt::build(&self.template, &self.tokenizer, self.image_token, messages)
    }

    /// A prompt of a text that is templated already and trusted: special tokens in it are special tokens, and each
    /// `<image>` is the next of `images`. BOS is added as to any prompt.
    ///
    /// # Errors
    /// When the text is empty, or marks another number of pictures than there are.
    pub fn raw_prompt(&self, text: &str, images: &[Arc<PreparedImage>]) -> Result<Prompt, PromptError> {
        prompt::raw(&self.tokenizer, self.image_token, text, images)
    }

    /// A detokenizer for one answer.
    pub fn detokenizer(&self) -> Detokenizer {
        self.tokenizer.detokenizer()
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

/// Every id that one of the checkpoint's files says ends a text.
fn stop_ids(checkpoint: &Checkpoint, tokenizer: &Tokenizer) -> Result<Vec<u32>, CheckpointError> {
    let generation: GenerationConfig = checkpoint.json("generation_config.json")?.unwrap_or_default();
    let generation =
        generation.eos_token_id.iter().flat_map(OneOrMany::values).filter_map(|id| u32::try_from(*id).ok());
    let mut ids: Vec<u32> = generation.chain(checkpoint.config().text.eos_token_ids.iter().copied()).collect();
    ids.extend(tokenizer.eos().and_then(|eos| tokenizer.id(eos)));
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

const _: fn() = || {
    fn shared<T: Send + Sync>() {}
    shared::<Processor>();
};
