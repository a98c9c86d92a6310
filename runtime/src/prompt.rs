//! Chat messages to token ids: the checkpoint's template, then the tokenizer, then room for pictures.

use std::sync::Arc;

use thiserror::Error;

use crate::image::PreparedImage;

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
#[derive(Clone, Debug)]
pub struct Prompt {
    /// Token ids; a picture stands as its number of image tokens.
    pub ids: Vec<u32>,
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
    #[error("{images} images were sent but the chat template of this model places {places}; send images in user messages only")]
    ImageCount {
        /// Pictures in the messages.
        images: usize,
        /// Places in the prompt.
        places: usize,
    },
    /// The tokenizer failed.
    #[error("the text cannot be tokenised: {reason}")]
    Tokenize {
        /// What the tokenizer said.
        reason: String,
    },
}
