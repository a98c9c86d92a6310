//! Chat messages to token ids: the checkpoint's template, then the tokenizer, then room for pictures.

mod places;
mod template;

use std::sync::Arc;

use thiserror::Error;

pub use places::{BEGIN, END, MARK, Places, ROW};
pub use template::Template;

use crate::image::PreparedImage;
use crate::tokenizer::Tokenizer;

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PromptRole {
    /// Instructions to the model.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
}

/// One piece of a message.
#[derive(Clone, Debug)]
pub enum PromptPart {
    /// Plain text; never read as special tokens.
    Text(String),
    /// A picture.
    Image(Arc<PreparedImage>),
}

/// One turn of a conversation.
#[derive(Clone, Debug)]
pub struct PromptMessage {
    /// Who speaks.
    pub role: PromptRole,
    /// What, in order.
    pub parts: Vec<PromptPart>,
}

/// Input of the engine.
#[derive(Clone, Debug, Default)]
pub struct Prompt {
    /// Token ids; a picture stands as its number of `image_token`s.
    pub ids: Vec<u32>,
    /// The id that stands for rows of pictures; no text has it.
    pub image_token: u32,
    /// The pictures in the order of their tokens.
    pub images: Vec<Arc<PreparedImage>>,
}

impl Prompt {
    /// Tokens that are rows of pictures.
    pub fn image_tokens(&self) -> usize {
        self.images.iter().map(|image| image.tokens).sum()
    }

    /// All other tokens.
    pub fn text_tokens(&self) -> usize {
        self.ids.len().saturating_sub(self.image_tokens())
    }
}

/// Why messages make no prompt, as a sentence for the client.
#[derive(Debug, Error)]
pub enum PromptError {
    /// No messages.
    #[error("messages is empty; send at least one message")]
    Empty,
    /// The template refused the conversation.
    #[error("the chat template of this model refuses the conversation: {reason}")]
    Template {
        /// What the template said.
        reason: String,
    },
    /// The template does not show every picture to the model.
    #[error(
        "{images} images were sent but the chat template of this model places {places}; send images in user messages only"
    )]
    ImageCount {
        /// Pictures in the messages.
        images: usize,
        /// Places in the prompt.
        places: usize,
    },
    /// A text without characters.
    #[error("the prompt is empty; give at least one character")]
    EmptyText,
    /// A text that is a prompt already marks another number of pictures than there are.
    #[error(
        "the prompt marks {places} pictures with <image>, but {images} images were given; give one image for each <image>"
    )]
    MarkCount {
        /// Pictures that were given.
        images: usize,
        /// Marks in the text.
        places: usize,
    },
    /// A token id that no text has.
    #[error("the token {id} is none of the {vocabulary} of the vocabulary that a text has")]
    Id {
        /// The id.
        id: u32,
        /// Size of the vocabulary.
        vocabulary: usize,
    },
    /// The tokenizer failed.
    #[error("the text cannot be tokenised: {reason}")]
    Tokenize {
        /// What the tokenizer said.
        reason: String,
    },
}

/// Renders `messages` and makes ids of them, with room for their pictures.
///
/// # Errors
/// When the template refuses, or does not place every picture.
pub fn build(
    template: &Template,
    tokenizer: &Tokenizer,
    places: &Places,
    messages: &[PromptMessage],
) -> Result<Prompt, PromptError> {
    if messages.is_empty() {
        return Err(PromptError::Empty);
    }
    let images: Vec<Arc<PreparedImage>> = messages
        .iter()
        .flat_map(|message| &message.parts)
        .filter_map(|part| match part {
            PromptPart::Image(image) => Some(Arc::clone(image)),
            PromptPart::Text(_) => None,
        })
        .collect();
    let mut protected = tokenizer.protect();
    let text = template.render(messages, &mut protected).map_err(|reason| PromptError::Template { reason })?;
    let ids = places.encode(tokenizer, &text, &protected, &images)?;
    Ok(Prompt { ids, image_token: places.id(), images })
}

/// Makes ids of a text that is a prompt already: special tokens in it are special tokens, and each `<image>` is
/// the next of `images`.
///
/// # Errors
/// When the text is empty, or marks another number of pictures.
pub fn raw(
    tokenizer: &Tokenizer,
    places: &Places,
    text: &str,
    images: &[Arc<PreparedImage>],
) -> Result<Prompt, PromptError> {
    if text.is_empty() {
        return Err(PromptError::EmptyText);
    }
    let ids = places.encode(tokenizer, text, &tokenizer.protect(), images).map_err(|error| match error {
        PromptError::ImageCount { images, places } => PromptError::MarkCount { images, places },
        other => other,
    })?;
    Ok(Prompt { ids, image_token: places.id(), images: images.to_vec() })
}

#[cfg(test)]
mod tests;
