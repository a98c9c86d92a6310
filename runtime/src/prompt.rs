//! Chat messages to token ids: the checkpoint's template, then the tokenizer, then room for pictures.

mod template;

use std::sync::Arc;

use thiserror::Error;

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
    /// The id that stands for rows of pictures.
    pub image_token: u32,
    /// The pictures in the order of their tokens.
    pub images: Vec<Arc<PreparedImage>>,
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
    /// The tokenizer failed.
    #[error("the text cannot be tokenised: {reason}")]
    Tokenize {
        /// What the tokenizer said.
        reason: String,
    },
}

/// Renders `messages`, tokenises the text and repeats each picture's token as often as it has rows.
///
/// # Errors
/// When the template refuses, or does not place every picture.
pub fn build(
    template: &Template,
    tokenizer: &Tokenizer,
    image_token: u32,
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
    let ids = tokenizer.encode(&text, &protected).map_err(|e| PromptError::Tokenize { reason: e.to_string() })?;
    let places = ids.iter().filter(|id| **id == image_token).count();
    if places != images.len() {
        return Err(PromptError::ImageCount { images: images.len(), places });
    }
    Ok(Prompt { ids: expand(&ids, image_token, &images), image_token, images })
}

/// Makes ids of a text that is a prompt already: special tokens in it are special tokens, and each `<image>` is
/// the next of `images`.
///
/// # Errors
/// When the text is empty, or marks another number of pictures.
pub fn raw(
    tokenizer: &Tokenizer,
    image_token: u32,
    text: &str,
    images: &[Arc<PreparedImage>],
) -> Result<Prompt, PromptError> {
    if text.is_empty() {
        return Err(PromptError::EmptyText);
    }
    let ids =
        tokenizer.encode(text, &tokenizer.protect()).map_err(|e| PromptError::Tokenize { reason: e.to_string() })?;
    let places = ids.iter().filter(|id| **id == image_token).count();
    if places != images.len() {
        return Err(PromptError::MarkCount { images: images.len(), places });
    }
    Ok(Prompt { ids: expand(&ids, image_token, images), image_token, images: images.to_vec() })
}

fn expand(ids: &[u32], image_token: u32, images: &[Arc<PreparedImage>]) -> Vec<u32> {
    let mut rows = images.iter().map(|image| image.tokens);
    ids.iter()
        .flat_map(|id| {
            let times = if *id == image_token { rows.next().unwrap_or(0) } else { 1 };
            std::iter::repeat_n(*id, times)
        })
        .collect()
}

#[cfg(test)]
mod tests;
