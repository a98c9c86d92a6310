//! Pictures and text into the engine's input, away from the async threads. At most one picture per
//! core is decoded at a time; a request whose client has gone is given up at its next picture.

use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Instant;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::admission::BodyRoom;
use super::app::{App, Loaded};
use super::call::{Call, Picture, Turn, TurnPart, Upload};
use super::data_url;
use super::error::ApiError;
use crate::image::{PreparedImage, TileBudget};
use crate::processor::Processor;
use crate::prompt::{Prompt, PromptMessage, PromptPart};

/// No tokenizer has a token of more bytes, so that a text of more than this many times the context
/// cannot fit and need not be tokenised to find out.
const LONGEST_TOKEN: usize = 512;

/// Bounds the decoding of pictures.
#[derive(Debug)]
pub struct MediaPool {
    cores: Arc<Semaphore>,
}

impl Default for MediaPool {
    fn default() -> Self {
        Self::new()
    }
}

impl MediaPool {
    /// As many as there are cores.
    pub fn new() -> Self {
        let cores = available_parallelism().map_or(1, usize::from);
        Self { cores: Arc::new(Semaphore::new(cores)) }
    }
}

/// Decodes the pictures of a request and makes its prompt. `room` is given back when the bodies'
/// bytes are gone.
pub async fn prepare(app: &Arc<App>, model: &Loaded, call: &mut Call, room: BodyRoom) -> Result<Prompt, ApiError> {
    fits(call.text_bytes(), model.max_tokens, "messages")?;
    let core = if call.has_images() {
        let core = Arc::clone(&app.media.cores).acquire_owned().await;
        Some(core.map_err(|_| ApiError::Internal)?)
    } else {
        None
    };
    let gone = CancellationToken::new();
    let _gone_on_drop = gone.clone().drop_guard();
    let job = Job { app: Arc::clone(app), processor: Arc::clone(&model.processor), max_tokens: model.max_tokens, gone };
    let turns = std::mem::take(&mut call.turns);
    let work = tokio::task::spawn_blocking(move || {
        let prompt = job.run(&turns);
        drop(turns);
        drop((core, room));
        prompt
    });
    work.await.unwrap_or_else(|error| {
        tracing::error!(%error, "preparing a request panicked");
        Err(ApiError::Internal)
    })
}

/// Refuses texts of so many bytes that no tokenizer could make as few as `most` tokens of them.
pub fn fits(bytes: usize, most: usize, param: &'static str) -> Result<(), ApiError> {
    if bytes / LONGEST_TOKEN <= most {
        return Ok(());
    }
    let message =
        format!("{param}: {bytes} bytes of text are more than {most} tokens can hold, the context; shorten the text");
    Err(ApiError::ContextLength { param, message })
}

/// The blocking part.
struct Job {
    app: Arc<App>,
    processor: Arc<Processor>,
    max_tokens: usize,
    gone: CancellationToken,
}

impl Job {
    /// Several pictures share the tiles of one where otherwise there would be no room for an answer.
    fn run(&self, turns: &[Turn]) -> Result<Prompt, ApiError> {
        let prompt = self.prompt(turns, TileBudget::default())?;
        match self.processor.smaller_tiles(&prompt, self.max_tokens) {
            Some(budget) => {
                drop(prompt);
                self.prompt(turns, budget)
            }
            None => Ok(prompt),
        }
    }

    fn prompt(&self, turns: &[Turn], budget: TileBudget) -> Result<Prompt, ApiError> {
        let mut messages = Vec::with_capacity(turns.len());
        for turn in turns {
            let parts = turn.parts.iter().map(|part| self.part(part, budget));
            messages.push(PromptMessage { role: turn.role, parts: parts.collect::<Result<_, _>>()? });
        }
        Ok(self.processor.prompt(&messages)?)
    }

    fn part(&self, part: &TurnPart, budget: TileBudget) -> Result<PromptPart, ApiError> {
        match part {
            TurnPart::Text(text) => Ok(PromptPart::Text(text.clone())),
            TurnPart::Image(_) if self.gone.is_cancelled() => Err(ApiError::Aborted),
            TurnPart::Image(upload) => self.image(upload, budget).map(Arc::new).map(PromptPart::Image),
        }
    }

    fn image(&self, upload: &Upload, budget: TileBudget) -> Result<PreparedImage, ApiError> {
        let Upload { param, picture } = upload;
        let limits = &self.app.limits.image;
        let begun = Instant::now();
        let bytes = match picture {
            Picture::File(bytes) => bytes.clone(),
            Picture::DataUrl(url) => {
                let data = data_url::base64_of(url, param)?;
                data_url::decode(data, limits.max_bytes, param)?.into()
            }
        };
        let prepared = self.processor.prepare_image_within(&bytes, limits, budget);
        self.app.metrics.decoded(begun.elapsed());
        prepared.map_err(|source| ApiError::Image { param: param.clone(), source })
    }
}
