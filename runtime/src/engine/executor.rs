//! What the worker asks of a model, and the answer by the real one: slots of a KV cache, pictures
//! and prompts on their way into it.

use std::collections::{HashMap, HashSet};

use candle_core::Tensor;

use super::Failure;
use super::scheduler::{Decode, SequenceId};
use super::steps::Steps;
use crate::device;
use crate::models::{VisionLanguage, finite};
use crate::ops::Segment;
use crate::prompt::Prompt;

/// Runs steps. Errors fail the sequences of the call, not the engine.
pub trait Executor: Send {
    /// A sequence was accepted, which will have up to `tokens` tokens, prompt and answer.
    fn begin(&mut self, id: SequenceId, prompt: Prompt, tokens: usize);
    /// A sequence is gone.
    fn end(&mut self, id: SequenceId);
    /// Runs the vision tower on picture `image` of `id`.
    fn encode(&mut self, id: SequenceId, image: usize) -> Result<(), Failure>;
    /// Reads `rows` prompt tokens from `start`; the logits after the last one when it ends the prompt.
    fn prefill(
        &mut self,
        id: SequenceId,
        slot: usize,
        start: usize,
        rows: usize,
        last: bool,
    ) -> Result<Option<Vec<f32>>, Failure>;
    /// One more token for each; logits in the same order.
    fn decode(&mut self, rows: &[(Decode, u32)]) -> Result<Vec<Vec<f32>>, Failure>;
    /// Whether the device is gone for good, so that no later step can succeed. Asked after a step that failed.
    fn lost(&self) -> bool {
        false
    }
}

/// Model and KV cache.
pub struct ModelExecutor {
    steps: Steps,
    prompts: HashMap<SequenceId, Reading>,
    /// Sequences that take the rotary angles of long ones.
    long: HashSet<SequenceId>,
}

/// A prompt that is not wholly in the cache yet.
struct Reading {
    prompt: Prompt,
    visual: Vec<Tensor>,
    embeds: Option<Tensor>,
}

impl ModelExecutor {
    /// A model with a cache of `slots` sequences of `tokens` tokens.
    pub fn new(model: VisionLanguage, slots: usize, tokens: usize) -> candle_core::Result<Self> {
        let steps = Steps::new(model, slots, tokens)?;
        Ok(Self { steps, prompts: HashMap::new(), long: HashSet::new() })
    }

    fn reading(prompts: &mut HashMap<SequenceId, Reading>, id: SequenceId) -> Result<&mut Reading, Failure> {
        prompts.get_mut(&id).ok_or_else(|| Failure::Step("the prompt is not known".to_owned()))
    }
}

impl Executor for ModelExecutor {
    fn begin(&mut self, id: SequenceId, prompt: Prompt, tokens: usize) {
        if self.steps.model().language().is_long(tokens) {
            self.long.insert(id);
        }
        self.prompts.insert(id, Reading { prompt, visual: Vec::new(), embeds: None });
    }

    fn end(&mut self, id: SequenceId) {
        self.prompts.remove(&id);
        self.long.remove(&id);
    }

    fn encode(&mut self, id: SequenceId, image: usize) -> Result<(), Failure> {
        let reading = Self::reading(&mut self.prompts, id)?;
        let Some(image) = reading.prompt.images.get(image) else {
            return Err(Failure::Step(format!("the prompt has no image {image}")));
        };
        let rows = self.steps.model().see(image)?;
        if !finite(&rows)? {
            return Err(Failure::NotFinite);
        }
        reading.visual.push(rows);
        Ok(())
    }

    fn prefill(
        &mut self,
        id: SequenceId,
        slot: usize,
        start: usize,
        rows: usize,
        last: bool,
    ) -> Result<Option<Vec<f32>>, Failure> {
        let reading = Self::reading(&mut self.prompts, id)?;
        let embeds = match &reading.embeds {
            Some(embeds) => embeds,
            None => reading.embeds.insert(self.steps.model().embed(
                &reading.prompt.ids,
                reading.prompt.image_token,
                &reading.visual,
            )?),
        };
        let segment = Segment { slot, start, rows, long: self.long.contains(&id) };
        let hidden = self.steps.read(embeds, segment)?;
        if !last {
            return Ok(None);
        }
        self.prompts.remove(&id);
        let logits = self.steps.logits(&hidden, &[rows.saturating_sub(1) as u32])?;
        Ok(logits.to_vec2()?.pop())
    }

    fn decode(&mut self, rows: &[(Decode, u32)]) -> Result<Vec<Vec<f32>>, Failure> {
        let segment = |row: &Decode| {
            let long = self.long.contains(&row.id);
            Segment { slot: row.slot, start: row.position, rows: 1, long }
        };
        let rows: Vec<(Segment, u32)> = rows.iter().map(|(row, id)| (segment(row), *id)).collect();
        Ok(self.steps.next(&rows)?.to_vec2()?)
    }

    fn lost(&self) -> bool {
        device::is_lost(self.steps.model().device())
    }
}
