//! A vision-language model of any family: visual rows stand where the prompt has image tokens.

use std::ops::Range;

use candle_core::{Device, Result, Tensor, bail};
use vlm_catalog::architecture::{Family, ModelConfig};
use vlm_catalog::footprint::GPU_TILES_AT_A_TIME;

use super::packing::pack;
use super::{HeldWeights, Language, LoadTimes, Loading, Projector, VisionTower};
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::image::{ImageKey, Normaliser, Pixels, PreparedImage};
use crate::ops::{Batch, KvCache, KvFormat, Segment, finite, normalise, nth_table, room_for, upload};
use crate::precision::Precision;

/// Tower, projector and decoder.
pub struct VisionLanguage {
    config: ModelConfig,
    vision: VisionTower,
    projector: Projector,
    /// Ends each line of a grid of tiles (LLaVA-1.6).
    newline: Option<Tensor>,
    language: Language,
    kv_format: KvFormat,
    device: Device,
    weights: HeldWeights,
    load_times: LoadTimes,
}

impl VisionLanguage {
    /// Loads all weights into main memory, held as `precision` says; `positions` is the longest sequence that will be
    /// asked for.
    pub fn load(
        checkpoint: &Checkpoint,
        positions: usize,
        precision: Precision,
    ) -> std::result::Result<Self, CheckpointError> {
        Self::load_on(checkpoint, positions, precision, &Device::Cpu)
    }

    /// As [`Self::load`], into the memory of `device`, which then computes.
    pub fn load_on(
        checkpoint: &Checkpoint,
        positions: usize,
        precision: Precision,
        device: &Device,
    ) -> std::result::Result<Self, CheckpointError> {
        let config = checkpoint.config();
        let mut loading = Loading::new(precision, device);
        let newline = if config.family == Family::LlavaNext { Some(checkpoint.newline()?) } else { None };
        let newline = newline.map(|newline| loading.vector(&newline)).transpose()?;
        let vision = VisionTower::load(&checkpoint.tower(), &mut loading)?;
        let projector = Projector::load(&checkpoint.projector(), &mut loading)?;
        let language = Language::load(&checkpoint.decoder(), positions, &mut loading)?;
        checkpoint.check_all_read()?;
        let (weights, load_times) = loading.finish()?;
        weights.report(precision, load_times);
        let (config, kv_format, device) = (config.clone(), precision.kv_format(), device.clone());
        Ok(Self { config, vision, projector, newline, language, kv_format, device, weights, load_times })
    }

    /// What the model is.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The number formats and bytes of all weights.
    pub fn weights(&self) -> &HeldWeights {
        &self.weights
    }

    /// How long loading them took.
    pub fn load_times(&self) -> LoadTimes {
        self.load_times
    }

    /// What computes.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The decoder.
    pub fn language(&self) -> &Language {
        &self.language
    }

    /// A KV cache of `blocks` blocks, the dummy block among them.
    pub fn kv_cache(&self, blocks: usize) -> Result<KvCache> {
        let text = &self.config.text;
        KvCache::new(text.layers, blocks, text.kv_heads, text.head_dim, self.kv_format, &self.device)
    }

    /// The features of normalised pixels, the projector's input: `[tiles, rows, joined vision width]`.
    ///
    /// # Errors
    /// Tiles of another size than the tower's.
    pub fn vision_features(&self, image: &PreparedImage) -> Result<Tensor> {
        self.vision.forward(&self.pixels(&[(image, 0..image.tiles)])?)
    }

    /// The projected rows of some tiles of several pictures, which go through tower and projector together:
    /// `[tiles · rows, width]` each.
    ///
    /// # Errors
    /// As [`Self::vision_features`], and tiles that a picture does not have.
    pub fn project_tiles(&self, parts: &[(&PreparedImage, Range<usize>)]) -> Result<Vec<Tensor>> {
        let features = self.vision.forward(&self.pixels(parts)?)?;
        let (tiles, projected) = (features.dim(0)?, self.project(&features)?);
        let per_tile = projected.dim(0)? / tiles.max(1);
        let mut first = 0;
        let part = |(_, tiles): &(&PreparedImage, Range<usize>)| {
            let rows = projected.narrow(0, first, tiles.len() * per_tile);
            first += tiles.len() * per_tile;
            rows
        };
        parts.iter().map(part).collect()
    }

    /// Normalised pixels of some tiles, where the model is: `[tiles, 3, side, side]`.
    fn pixels(&self, parts: &[(&PreparedImage, Range<usize>)]) -> Result<Tensor> {
        let side = self.config.vision.image_size;
        let places = parts.iter().map(|(image, tiles)| of_tiles(image, tiles, side)).collect::<Result<Vec<_>>>()?;
        let shape = (parts.iter().map(|(_, tiles)| tiles.len()).sum::<usize>(), 3, side, side);
        if let Some((bytes, Normaliser { scale, offset, .. })) = all_bytes(parts, &places) {
            return normalise(&upload(&bytes, shape, &self.device)?, scale, offset);
        }
        let values = parts.iter().zip(places).filter_map(|((image, _), place)| image.pixels.some_values(place));
        Tensor::from_vec(values.collect::<Vec<_>>().concat(), shape, &self.device)
    }

    /// Rows of the decoder's width, tile by tile: `[tiles · rows, width]`.
    pub fn project(&self, features: &Tensor) -> Result<Tensor> {
        self.projector.forward(&features.flatten(0, 1)?)
    }

    /// The rows that stand in the prompt: those of `projected`, or what LLaVA-1.6 makes of them.
    pub fn pack(&self, projected: &Tensor, image: &PreparedImage) -> Result<Tensor> {
        match (&self.newline, &image.kept) {
            (Some(newline), Some(kept)) => pack(projected, kept, newline, self.config.vision.grid()),
            _ => Ok(projected.clone()),
        }
    }

    /// From a picture to its rows in the prompt: `[tokens, width]`.
    ///
    /// # Errors
    /// As [`Self::vision_features`].
    pub fn see(&self, image: &PreparedImage) -> Result<Tensor> {
        self.pack(&self.project(&self.vision_features(image)?)?, image)
    }

    /// Embeddings of a prompt: text rows from the vocabulary, the rows of `image_token` from `images` in order.
    pub fn embed(&self, ids: &[u32], image_token: u32, images: &[Tensor]) -> Result<Tensor> {
        let places = ids.iter().filter(|id| **id == image_token).count();
        let rows = images.iter().map(|image| image.dim(0)).sum::<Result<usize>>()?;
        if places != rows {
            bail!("the prompt has {places} image tokens, but its images have {rows} rows")
        }
        if images.is_empty() {
            return self.language.embed(ids);
        }
        let visual = Tensor::cat(images, 0)?;
        let (mut pictures, mut used, mut start) = (Vec::new(), 0, 0);
        for run in ids.chunk_by(|a, b| (*a == image_token) == (*b == image_token)) {
            if run.first() == Some(&image_token) {
                pictures.push((start, visual.narrow(0, used, run.len())?));
                used += run.len();
            }
            start += run.len();
        }
        self.embed_around(ids, &pictures)
    }

    /// Embeddings of `ids`, but for the rows of pictures, each from an index of `ids` on, in order. An id of image
    /// tokens that stands elsewhere is text, as where the model generated it.
    pub fn embed_around(&self, ids: &[u32], pictures: &[(usize, Tensor)]) -> Result<Tensor> {
        let (mut parts, mut used) = (Vec::new(), 0);
        for (start, rows) in pictures {
            match ids.get(used..*start) {
                Some([]) => {}
                Some(text) => parts.push(self.language.embed(text)?),
                None => bail!("the rows of a picture at {start} are not among {} tokens, or overlap others", ids.len()),
            }
            used = start + rows.dim(0)?;
            parts.push(rows.clone());
        }
        match ids.get(used..) {
            Some([]) => {}
            Some(text) => parts.push(self.language.embed(text)?),
            None => bail!("the rows of a picture end at {used}, behind {} tokens", ids.len()),
        }
        Tensor::cat(&parts, 0)
    }

    /// Runs a blank tile and one token through everything, and on a GPU every number of tiles through the first layer.
    /// Whether all numbers were finite.
    pub fn warm_up(&self) -> Result<bool> {
        let visual = self.project(&self.vision_features(&self.blank(1))?)?;
        if !self.device.is_cpu() {
            // Kernels are chosen by the number of rows, and loaded on their first use.
            for tiles in 1..=GPU_TILES_AT_A_TIME as usize {
                let pixels = self.pixels(&[(&self.blank(tiles), 0..tiles)])?;
                self.project(&self.vision.first_layer(&pixels)?)?;
            }
        }
        let batch = Batch::new(&[Segment { blocks: &nth_table(0, 1), start: 0, rows: 1, long: false }]);
        let cache = self.kv_cache(room_for(1, 1))?;
        let hidden = self.language.forward(&self.language.embed(&[0])?, &batch, &cache)?;
        let logits = self.language.logits(&hidden, batch.last_rows())?;
        Ok(finite(&visual)? && finite(&logits)?)
    }

    /// A black picture.
    fn blank(&self, tiles: usize) -> PreparedImage {
        let side = self.config.vision.image_size;
        let (bytes, normaliser) = (vec![0; tiles * 3 * side * side], Normaliser::default());
        let pixels = Pixels::Bytes { bytes, plane: side * side, normaliser };
        PreparedImage { tiles, height: side, width: side, pixels, tokens: 0, kept: None, key: ImageKey::default() }
    }
}

/// Where the pixels of some tiles of `side` by `side` are in `image`.
fn of_tiles(image: &PreparedImage, tiles: &Range<usize>, side: usize) -> Result<Range<usize>> {
    let PreparedImage { height, width, ref pixels, .. } = *image;
    if (height, width) != (side, side) || tiles.is_empty() {
        bail!("{} tiles of {width}x{height} pixels do not fit a vision tower of {side}x{side}", tiles.len())
    }
    let tile = 3 * side * side;
    if tiles.end * tile > pixels.len() {
        bail!("a picture of {} tiles has no tiles {tiles:?}", image.tiles)
    }
    Ok(tiles.start * tile..tiles.end * tile)
}

/// The bytes of all parts at their places, where all are bytes of one kind.
fn all_bytes<'a>(
    parts: &[(&'a PreparedImage, Range<usize>)],
    places: &[Range<usize>],
) -> Option<(Vec<&'a [u8]>, Normaliser)> {
    let bytes = |image: &'a PreparedImage| match &image.pixels {
        Pixels::Bytes { bytes, normaliser, .. } => Some((&bytes[..], *normaliser)),
        Pixels::Numbers(_) => None,
    };
    let (_, kind) = bytes(parts.first()?.0)?;
    let part = |((image, _), place): (&(&'a PreparedImage, Range<usize>), &Range<usize>)| {
        let (bytes, normaliser) = bytes(image)?;
        bytes.get(place.clone()).filter(|_| normaliser == kind)
    };
    Some((parts.iter().zip(places).map(part).collect::<Option<_>>()?, kind))
}
