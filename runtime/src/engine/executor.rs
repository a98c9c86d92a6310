//! What the worker asks of a model, and the answer by the real one: a KV cache of blocks, pictures and tokens on their
//! way into it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use candle_core::Tensor;
use vlm_catalog::footprint::{GPU_PREFILL_TOKENS, GPU_TILES_AT_A_TIME};

use super::Failure;
use super::prefix::PictureRows;
use super::scheduler::{Budget, SequenceId, Tiles};
use super::steps::{CHUNK, Steps};
use crate::device;
use crate::image::{ImageKey, PreparedImage};
use crate::models::VisionLanguage;
use crate::ops::{Choice, Segment, choose, finite};

/// Work besides decoding in one step of a processor, while other sequences decode and while none does: a fraction of a
/// second each.
const ON_CPU: [Budget; 2] = [Budget { tokens: 128, tiles: 1 }, Budget { tokens: CHUNK, tiles: 4 }];
/// The same on a GPU: about as long as a step of those that decode takes, and some tens of milliseconds.
const ON_GPU: [Budget; 2] = [Budget { tokens: CHUNK / 2, tiles: 2 }, MOST_ON_GPU];
/// As much as a fit counts.
const MOST_ON_GPU: Budget = Budget { tokens: GPU_PREFILL_TOKENS as usize, tiles: GPU_TILES_AT_A_TIME as usize };

/// What follows from a row of a step.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// Its logits, of which the caller chooses.
    Logits(Vec<f32>),
    /// A token, where nothing else is wanted; none where a logit is not finite.
    Token(Option<u32>),
}

/// Part of a prompt, or of one that is read again with what was generated.
#[derive(Clone, Debug)]
pub struct Reading<'a> {
    /// Where the rows go.
    pub segment: Segment<'a>,
    /// The sequence.
    pub id: SequenceId,
    /// The rows' tokens.
    pub ids: &'a [u32],
    /// The rows of pictures among them, in order.
    pub pictures: Vec<PictureRows>,
    /// Whether what follows from the last row is wanted.
    pub last: bool,
    /// How a token is chosen, where that is enough.
    pub choice: Option<Choice>,
}

/// One more token of a sequence.
#[derive(Clone, Copy, Debug)]
pub struct Feeding<'a> {
    /// Where its one row goes.
    pub segment: Segment<'a>,
    /// The sequence.
    pub id: SequenceId,
    /// The token that is fed.
    pub token: u32,
    /// How a token is chosen, where that is enough.
    pub choice: Option<Choice>,
}

/// Runs steps. What a call cannot compute changes nothing that another call sees: the same may be asked again in parts.
pub trait Executor: Send {
    /// A sequence was accepted, which has these pictures.
    fn begin(&mut self, id: SequenceId, images: Vec<Arc<PreparedImage>>);
    /// A sequence is gone.
    fn end(&mut self, id: SequenceId);
    /// The rows of a picture are not needed any more.
    fn drop_picture(&mut self, key: &ImageKey);
    /// Runs the vision tower on tiles, and keeps the rows of the pictures that are thereby complete.
    fn encode(&mut self, tiles: &[Tiles]) -> Result<Vec<()>, Failure>;
    /// Reads parts of prompts; for each what follows from its last row, where wanted.
    fn prefill(&mut self, readings: &[Reading<'_>]) -> Result<Vec<Option<Next>>, Failure>;
    /// One more token for each; what follows in the same order.
    fn decode(&mut self, feedings: &[Feeding<'_>]) -> Result<Vec<Next>, Failure>;
    /// Whether more tokens can be begun before it is known what follows from those that were.
    fn runs_ahead(&self) -> bool {
        false
    }
    /// Begins one more token for each, all of which say how it is chosen, and waits for nothing. Each is fed its token
    /// or, where `follows` is given, what follows from that row of what was begun last.
    fn begin_decode(&mut self, _: &[Feeding<'_>], _: Option<&[usize]>) -> Result<(), Failure> {
        Err(Failure::Step("this device begins no step ahead".to_owned()))
    }
    /// Waits for what follows from the rows that were begun first and not asked for.
    fn begun(&mut self) -> Result<Vec<Next>, Failure> {
        Err(Failure::Step("no step has been begun".to_owned()))
    }
    /// Most work besides decoding in one step: beside sequences that decoded before, and beside none.
    fn budgets(&self) -> [Budget; 2] {
        ON_CPU
    }
    /// Whether sequences that decode are better read beside parts of prompts, in one pass over the weights.
    fn mixes(&self) -> bool {
        false
    }
    /// Decode steps so far that were replayed from a recorded graph, and those on a GPU that no graph was for.
    fn graphs(&self) -> (u64, u64) {
        (0, 0)
    }
    /// Whether the device is gone for good, so that no later step can succeed. Asked after a step that failed.
    fn lost(&self) -> bool {
        false
    }
    /// The thread ends.
    fn leave(self)
    where
        Self: Sized,
    {
    }
}

/// Model, KV cache and rows of pictures.
pub struct ModelExecutor {
    steps: Steps,
    images: HashMap<SequenceId, Vec<Arc<PreparedImage>>>,
    pictures: HashMap<ImageKey, Rows>,
}

/// What the tower has made of a picture.
enum Rows {
    /// The projected rows of the first tiles.
    Some(Vec<Tensor>),
    /// The rows that stand in a prompt.
    All(Tensor),
}

impl ModelExecutor {
    /// A model with a cache of `blocks` blocks, the dummy block among them.
    pub fn new(model: VisionLanguage, blocks: usize) -> candle_core::Result<Self> {
        Ok(Self { steps: Steps::new(model, blocks)?, images: HashMap::new(), pictures: HashMap::new() })
    }

    /// Makes the steps of up to `sequences` sequences of up to `tokens` tokens ready, where that takes time.
    pub fn prepare(&self, sequences: usize, tokens: usize) -> candle_core::Result<()> {
        self.steps.prepare(sequences, tokens)
    }

    fn image(&self, tiles: &Tiles) -> Result<&PreparedImage, Failure> {
        let image = self.images.get(&tiles.id).and_then(|images| images.get(tiles.image));
        image.map(Arc::as_ref).ok_or_else(|| Failure::Step(format!("the prompt has no image {}", tiles.image)))
    }

    /// The rows of a picture with `new` ones behind those that are there.
    fn rows(&self, tiles: &Tiles, new: Tensor) -> Result<Rows, Failure> {
        let image = self.image(tiles)?;
        let mut parts = match self.pictures.get(&tiles.key) {
            Some(Rows::Some(parts)) if tiles.first > 0 => parts.clone(),
            _ => Vec::new(),
        };
        parts.push(new);
        if tiles.first + tiles.count < image.tiles {
            return Ok(Rows::Some(parts));
        }
        let rows = self.steps.model().pack(&Tensor::cat(&parts, 0)?, image)?;
        if rows.dim(0)? != image.tokens {
            let (got, want) = (rows.dim(0)?, image.tokens);
            return Err(Failure::Step(format!("an image has {got} rows, and {want} places in the prompt")));
        }
        Ok(Rows::All(rows))
    }

    /// The decoder's input, of all `readings` one after another: text from the vocabulary, rows of pictures from the tower.
    fn embed(&self, readings: &[Reading<'_>]) -> Result<Tensor, Failure> {
        let (mut ids, mut pictures) = (Vec::new(), Vec::new());
        for reading in readings {
            for PictureRows { key, at, rows } in &reading.pictures {
                let Some(Rows::All(all)) = self.pictures.get(key) else {
                    return Err(Failure::Step("an image of the prompt has not been computed".to_owned()));
                };
                pictures.push((ids.len() + at, all.narrow(0, rows.start, rows.len())?));
            }
            ids.extend_from_slice(reading.ids);
        }
        Ok(self.steps.model().embed_around(&ids, &pictures)?)
    }
}

impl Executor for ModelExecutor {
    fn begin(&mut self, id: SequenceId, images: Vec<Arc<PreparedImage>>) {
        self.images.insert(id, images);
    }

    fn end(&mut self, id: SequenceId) {
        self.images.remove(&id);
    }

    fn drop_picture(&mut self, key: &ImageKey) {
        self.pictures.remove(key);
    }

    fn encode(&mut self, tiles: &[Tiles]) -> Result<Vec<()>, Failure> {
        let part = |tiles: &Tiles| Ok((self.image(tiles)?, tiles.first..tiles.first + tiles.count));
        let parts = tiles.iter().map(part).collect::<Result<Vec<_>, Failure>>()?;
        let begun = Instant::now();
        let projected = self.steps.model().project_tiles(&parts)?;
        let launched = begun.elapsed();
        if !finite(&Tensor::cat(&projected, 0)?)? {
            return Err(Failure::NotFinite);
        }
        let (mut done, alone) = (Vec::with_capacity(tiles.len()), projected.len() == 1);
        for (tiles, new) in tiles.iter().zip(projected) {
            // Part of a larger tensor, which would be kept as long as the picture's rows are.
            let new = if alone { new } else { new.force_contiguous()? };
            done.push((tiles.key, self.rows(tiles, new)?));
        }
        self.pictures.extend(done);
        let count: usize = tiles.iter().map(|tiles| tiles.count).sum();
        tracing::trace!(tiles = count, ?launched, all = ?begun.elapsed(), "encoded");
        Ok(vec![(); tiles.len()])
    }

    fn prefill(&mut self, readings: &[Reading<'_>]) -> Result<Vec<Option<Next>>, Failure> {
        let begun = Instant::now();
        let embeds = self.embed(readings)?;
        let segments: Vec<Segment<'_>> = readings.iter().map(|reading| reading.segment).collect();
        let (mut end, mut wanted) = (0, Vec::new());
        for reading in readings {
            end += reading.segment.rows as u32;
            wanted.extend(reading.last.then(|| end.saturating_sub(1)));
        }
        let hidden = self.steps.read(&embeds, &segments, &wanted)?;
        if wanted.is_empty() {
            return Ok(vec![None; readings.len()]);
        }
        let choices = readings.iter().filter(|reading| reading.last).map(|reading| reading.choice).collect();
        let (logits, launched) = (self.steps.logits(&hidden)?, begun.elapsed());
        let mut follows = following(&logits, choices)?.into_iter();
        tracing::trace!(rows = end, sequences = readings.len(), ?launched, all = ?begun.elapsed(), "read");
        Ok(readings.iter().map(|reading| if reading.last { follows.next() } else { None }).collect())
    }

    fn decode(&mut self, feedings: &[Feeding<'_>]) -> Result<Vec<Next>, Failure> {
        let rows: Vec<(Segment<'_>, u32)> = feedings.iter().map(|feeding| (feeding.segment, feeding.token)).collect();
        let begun = Instant::now();
        let next = following(&self.steps.next(&rows)?, feedings.iter().map(|feeding| feeding.choice).collect());
        tracing::trace!(rows = rows.len(), all = ?begun.elapsed(), "decoded");
        next
    }

    fn runs_ahead(&self) -> bool {
        !self.steps.model().device().is_cpu()
    }

    fn begin_decode(&mut self, feedings: &[Feeding<'_>], follows: Option<&[usize]>) -> Result<(), Failure> {
        let rows: Vec<(Segment<'_>, u32)> = feedings.iter().map(|feeding| (feeding.segment, feeding.token)).collect();
        let Some(choices) = feedings.iter().map(|feeding| feeding.choice).collect::<Option<Vec<_>>>() else {
            return Err(Failure::Step("a token that is begun ahead is chosen where it is".to_owned()));
        };
        Ok(self.steps.begin(&rows, &choices, follows)?)
    }

    fn begun(&mut self) -> Result<Vec<Next>, Failure> {
        let begun = Instant::now();
        let next: Vec<Next> = self.steps.begun()?.into_iter().map(Next::Token).collect();
        tracing::trace!(rows = next.len(), waited = ?begun.elapsed(), "decoded");
        Ok(next)
    }

    fn budgets(&self) -> [Budget; 2] {
        if self.steps.model().device().is_cpu() { ON_CPU } else { ON_GPU }
    }

    fn mixes(&self) -> bool {
        // A processor has other products for few rows, and for quantised weights more exact ones for many.
        !self.steps.model().device().is_cpu()
    }

    fn graphs(&self) -> (u64, u64) {
        self.steps.graphs()
    }

    fn lost(&self) -> bool {
        device::is_lost(self.steps.model().device())
    }

    fn leave(self) {
        // The process, which has one engine, may be ending too, and the driver with it: nothing on a GPU is freed then.
        if !self.steps.model().device().is_cpu() {
            std::mem::forget(self);
        }
    }
}

/// What follows from each row of `logits`. Where all are chosen of them, the logits stay where they are.
fn following(logits: &Tensor, choices: Option<Vec<Choice>>) -> Result<Vec<Next>, Failure> {
    match choices {
        Some(choices) => Ok(choose(logits, &choices)?.into_iter().map(Next::Token).collect()),
        None => Ok(logits.to_vec2()?.into_iter().map(Next::Logits).collect()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use candle_core::Storage;

    use super::*;
    use crate::checkpoint::Checkpoint;
    use crate::ops::room_for;
    use crate::precision::Precision;

    fn executor(case: &str) -> ModelExecutor {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(case);
        let model = VisionLanguage::load(&Checkpoint::open(&dir).unwrap(), 64, Precision::F32).unwrap();
        ModelExecutor::new(model, room_for(1, 64)).unwrap()
    }

    /// A picture of so many tiles for the model of `executor`.
    fn picture(executor: &ModelExecutor, tiles: usize, name: f32) -> Arc<PreparedImage> {
        let vision = &executor.steps.model().config().vision;
        let side = vision.image_size;
        let pixels = vec![name; tiles * 3 * side * side];
        let (key, tokens) = (ImageKey::of_pixels(&pixels), tiles * vision.tokens_per_tile());
        Arc::new(PreparedImage { tiles, height: side, width: side, pixels: pixels.into(), tokens, kept: None, key })
    }

    /// Numbers of the memory behind a tensor.
    fn held(tensor: &Tensor) -> usize {
        let (storage, _) = tensor.storage_and_layout();
        let Storage::Cpu(storage) = &*storage else { panic!("it was computed on the CPU") };
        storage.as_slice::<f32>().unwrap().len()
    }

    /// The encoder cache counts the rows of each picture, so that nothing else may be kept with them.
    #[test]
    fn rows_of_a_picture_that_was_seen_with_others_hold_none_of_theirs() {
        for case in ["llava15_llama_hub", "internvl3_qwen2_hub"] {
            let mut executor = executor(case);
            let images: Vec<_> =
                [1, 3, 1].iter().zip(1..).map(|(n, name)| picture(&executor, *n, name as f32)).collect();
            executor.begin(0, images.clone());
            let tiles = |image: usize, first, count| Tiles { id: 0, image, key: images[image].key, first, count };
            executor.encode(&[tiles(0, 0, 1), tiles(1, 0, 2), tiles(2, 0, 1)]).unwrap();
            executor.encode(&[tiles(1, 2, 1)]).unwrap();
            for image in &images {
                let Some(Rows::All(rows)) = executor.pictures.get(&image.key) else { panic!("{case}: not complete") };
                assert_eq!((held(rows), rows.dim(0).unwrap()), (rows.elem_count(), image.tokens), "{case}");
                let alone = executor.steps.model().see(image).unwrap();
                let difference = (rows - alone).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
                assert!(difference < 1e-4, "{case}: {difference}");
            }
        }
    }
}
