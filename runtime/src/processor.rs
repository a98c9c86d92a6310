//! Everything between the parts of a chat message and the input of the engine: pictures, chat
//! template, token ids, and text out of generated ids. Immutable; used from blocking threads.

use std::sync::{Arc, OnceLock};

use image::RgbImage;
use serde::Deserialize;
use vlm_catalog::architecture::raw::OneOrMany;

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::guide::{Forms, GuideError};
use crate::image::{ImageAspect, ImageError, ImageKey, ImageLimits, PreparedImage, Preprocessing, TileBudget};
use crate::prompt::{self, Places, Template};
pub use crate::prompt::{Prompt, PromptError, PromptMessage, PromptPart, PromptRole};
use crate::tokenizer::Tokenizer;
pub use crate::tokenizer::{Detokenizer, Shown};

/// Prepares requests for one checkpoint.
pub struct Processor {
    preprocessing: Preprocessing,
    tokenizer: Tokenizer,
    template: Template,
    places: Places,
    stop_ids: Vec<u32>,
    max_model_len: usize,
    vocabulary: usize,
    forms: OnceLock<Result<Forms, GuideError>>,
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
        Self::open_with(checkpoint, None)
    }

    /// As [`Processor::open`], with another chat template than the checkpoint's: a name of [`Template::named`], or
    /// the path of a Jinja file.
    ///
    /// # Errors
    /// As [`Processor::open`]; [`CheckpointError::Options`] when `chat_template` is neither.
    pub fn open_with(checkpoint: &Checkpoint, chat_template: Option<&str>) -> Result<Self, CheckpointError> {
        let mut tokenizer = Tokenizer::open(checkpoint)?;
        let config = checkpoint.config();
        let places = Places::resolve(config, &tokenizer)?;
        tokenizer.reserve(places.reserved().map(str::to_owned));
        let template = Template::open(checkpoint, &tokenizer, chat_template)?;
        Ok(Self {
            preprocessing: Preprocessing::open(checkpoint)?,
            stop_ids: stop_ids(checkpoint, &tokenizer, &template)?,
            template,
            tokenizer,
            places,
            max_model_len: config.text.max_positions,
            vocabulary: config.text.vocab_size,
            forms: OnceLock::new(),
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
        self.prepare_image_within(bytes, limits, TileBudget::default())
    }

    /// As [`Processor::prepare_image`], with no more tiles than `budget` allows, where a picture has several.
    ///
    /// # Errors
    /// As [`Processor::prepare_image`].
    pub fn prepare_image_within(
        &self,
        bytes: &[u8],
        limits: &ImageLimits,
        budget: TileBudget,
    ) -> Result<PreparedImage, ImageError> {
        self.preprocessing.prepare(bytes, limits, budget)
    }

    /// What the picture in the file of this name will be known as; see [`Processor::cut_image`].
    pub fn image_key(&self, file: ImageKey, budget: TileBudget) -> ImageKey {
        self.preprocessing.key(file, budget)
    }

    /// What [`Processor::prepare_image_within`] does with the pixels of a picture whose key is known. Heavy on the CPU.
    pub fn cut_image(&self, pixels: &RgbImage, budget: TileBudget, key: ImageKey) -> PreparedImage {
        self.preprocessing.cut(pixels, budget, key)
    }

    /// The tiles that each picture of `prompt` may have so that together they have as many as one alone: what is
    /// left to try where several pictures leave no room for an answer within `max_tokens`. `None` where there is
    /// room, or fewer tiles are no help.
    pub fn smaller_tiles(&self, prompt: &Prompt, max_tokens: usize) -> Option<TileBudget> {
        let pictures = u32::try_from(prompt.images.len()).ok().filter(|pictures| *pictures > 1)?;
        let most = self.preprocessing.most_tiles()?;
        (prompt.ids.len() >= max_tokens).then(|| TileBudget(Some((most / pictures).max(1))))
    }

    /// Renders the chat template, tokenises it and makes room for the pictures.
    ///
    /// # Errors
    /// When the template refuses the conversation or does not place every picture.
    pub fn prompt(&self, messages: &[PromptMessage]) -> Result<Prompt, PromptError> {
        prompt::build(&self.template, &self.tokenizer, &self.places, messages)
    }

    /// A prompt of a text that is templated already and trusted: special tokens in it are special tokens, and each
    /// `<image>` is the next of `images`. BOS is added as to any prompt.
    ///
    /// # Errors
    /// When the text is empty, or marks another number of pictures than there are.
    pub fn raw_prompt(&self, text: &str, images: &[Arc<PreparedImage>]) -> Result<Prompt, PromptError> {
        prompt::raw(&self.tokenizer, &self.places, text, images)
    }

    /// A prompt of token ids, without pictures.
    ///
    /// # Errors
    /// When there are none, or one is beyond the vocabulary or stands for pictures.
    pub fn prompt_of_ids(&self, ids: Vec<u32>) -> Result<Prompt, PromptError> {
        let image_token = self.places.id();
        match ids.iter().find(|id| **id as usize >= self.vocabulary || **id == image_token) {
            Some(id) => Err(PromptError::Id { id: *id, vocabulary: self.vocabulary }),
            None if ids.is_empty() => Err(PromptError::EmptyText),
            None => Ok(Prompt { ids, image_token, images: Vec::new() }),
        }
    }

    /// Token ids of a text, in which special tokens are special tokens; `begins` says whether what stands before every
    /// text is added.
    ///
    /// # Errors
    /// When the tokenizer refuses the text.
    pub fn tokenize(&self, text: &str, begins: bool) -> Result<Vec<u32>, PromptError> {
        let nothing = self.tokenizer.protect();
        let ids =
            if begins { self.tokenizer.encode(text, &nothing) } else { self.tokenizer.encode_next(text, &nothing) };
        ids.map_err(|e| PromptError::Tokenize { reason: e.to_string() })
    }

    /// The string of a token as the vocabulary has it.
    pub fn token(&self, id: u32) -> Option<String> {
        self.tokenizer.token(id)
    }

    /// What a token stands for.
    pub fn shown(&self, id: u32) -> Option<Shown> {
        self.tokenizer.shown(id)
    }

    /// Forms that answers can be held to. Takes a moment the first time.
    ///
    /// # Errors
    /// When the vocabulary allows none.
    pub fn forms(&self) -> Result<&Forms, GuideError> {
        self.forms.get_or_init(|| Forms::new(&self.tokenizer, &self.stop_ids)).as_ref().map_err(Clone::clone)
    }

    /// A detokenizer for one answer.
    pub fn detokenizer(&self) -> Detokenizer {
        self.tokenizer.detokenizer()
    }

    /// Ids that end an answer.
    pub fn stop_ids(&self) -> &[u32] {
        &self.stop_ids
    }

    /// What ends an answer even when the model spells it in other tokens than that of [`Processor::stop_ids`].
    pub fn stop_string(&self) -> Option<&'static str> {
        self.template.stop_string()
    }

    /// Longest sequence that the model can take, in tokens.
    pub fn max_model_len(&self) -> usize {
        self.max_model_len
    }
}

/// Every id that one of the checkpoint's files, or the template, says ends a text.
fn stop_ids(checkpoint: &Checkpoint, tokenizer: &Tokenizer, template: &Template) -> Result<Vec<u32>, CheckpointError> {
    let generation: GenerationConfig = checkpoint.json("generation_config.json")?.unwrap_or_default();
    let generation =
        generation.eos_token_id.iter().flat_map(OneOrMany::values).filter_map(|id| u32::try_from(*id).ok());
    let mut ids: Vec<u32> = generation.chain(checkpoint.config().text.eos_token_ids.iter().copied()).collect();
    ids.extend(tokenizer.eos().and_then(|eos| tokenizer.id(eos)));
    ids.extend(template.separators().into_iter().filter_map(|token| tokenizer.id(token)));
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

const _: fn() = || {
    fn shared<T: Send + Sync>() {}
    shared::<Processor>();
};
