//! What a sequence consists of, and the hashes by which equal beginnings are found: each block's is that of its tokens,
//! of the pictures behind them and of everything before it. A repeated picture is thus neither seen nor read twice.

use std::ops::Range;
use std::sync::Arc;

use super::Failure;
use crate::image::{ImageKey, PreparedImage};
use crate::ops::BLOCK_TOKENS;
use crate::prompt::Prompt;

/// Hash (BLAKE3) of a full block and all before it.
pub type BlockHash = [u8; 32];

/// A picture in a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Its name.
    pub key: ImageKey,
    /// Tiles to compute.
    pub tiles: usize,
    /// Position of its first row.
    pub start: usize,
    /// Number of rows.
    pub rows: usize,
}

impl Picture {
    /// Position behind the last row.
    pub fn end(&self) -> usize {
        self.start + self.rows
    }
}

/// Some rows of a picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PictureRows {
    /// The picture.
    pub key: ImageKey,
    /// Where the first of them stands, among the tokens that were asked for.
    pub at: usize,
    /// Which of the picture's rows.
    pub rows: Range<usize>,
}

/// The known tokens of a sequence, prompt and answer, with their pictures.
#[derive(Clone, Debug)]
pub struct Content {
    ids: Vec<u32>,
    pictures: Vec<Picture>,
    long: bool,
    hashes: Vec<BlockHash>,
}

impl Content {
    /// That of a prompt, with a model of `vocabulary` tokens; `long` says whether the sequence takes the rotary angles
    /// of long ones.
    ///
    /// # Errors
    /// Ids that the vocabulary does not have, and pictures that do not fit their places.
    pub fn new(prompt: &mut Prompt, vocabulary: usize, long: bool) -> Result<Self, Failure> {
        let image_token = prompt.image_token;
        let pictures = pictures(prompt)?;
        let foreign = |id: &&u32| **id as usize >= vocabulary && **id != image_token;
        if let Some(id) = prompt.ids.iter().find(foreign) {
            return Err(Failure::Step(format!("the token {id} is beyond the model's vocabulary of {vocabulary}")));
        }
        let ids = std::mem::take(&mut prompt.ids);
        let mut content = Self { ids, pictures, long, hashes: Vec::new() };
        content.extend();
        Ok(content)
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Tokens at some positions.
    pub fn ids(&self, positions: Range<usize>) -> &[u32] {
        &self.ids[positions]
    }

    /// All pictures in order.
    pub fn pictures(&self) -> &[Picture] {
        &self.pictures
    }

    /// Whether the sequence takes the rotary angles of long ones.
    pub fn long(&self) -> bool {
        self.long
    }

    /// The hashes of all full blocks.
    pub fn hashes(&self) -> &[BlockHash] {
        &self.hashes
    }

    /// The rows of pictures at `positions`, in order.
    pub fn rows_at(&self, positions: &Range<usize>) -> impl Iterator<Item = PictureRows> {
        self.pictures.iter().filter_map(move |picture| {
            let start = picture.start.max(positions.start);
            let end = picture.end().min(positions.end);
            let rows = || start - picture.start..end - picture.start;
            (start < end).then(|| PictureRows { key: picture.key, at: start - positions.start, rows: rows() })
        })
    }

    /// Appends a generated token.
    pub fn push(&mut self, id: u32) {
        self.ids.push(id);
        self.extend();
    }

    fn extend(&mut self) {
        while (self.hashes.len() + 1) * BLOCK_TOKENS <= self.ids.len() {
            let hash = self.next_hash();
            self.hashes.push(hash);
        }
    }

    fn next_hash(&self) -> BlockHash {
        let start = self.hashes.len() * BLOCK_TOKENS;
        let positions = start..start + BLOCK_TOKENS;
        let mut hasher = blake3::Hasher::new();
        match self.hashes.last() {
            Some(before) => hasher.update(before),
            None => hasher.update(&[u8::from(self.long)]),
        };
        let mut bytes = [0; 4 * BLOCK_TOKENS];
        for (bytes, id) in bytes.chunks_exact_mut(4).zip(&self.ids[positions.clone()]) {
            bytes.copy_from_slice(&id.to_le_bytes());
        }
        hasher.update(&bytes);
        // Where a picture's rows are in the block is known from the ids, so that its name and its first row there do.
        for PictureRows { key, rows, .. } in self.rows_at(&positions) {
            hasher.update(key.bytes()).update(&(rows.start as u64).to_le_bytes());
        }
        hasher.finalize().into()
    }
}

/// The pictures of a prompt at the places of its image tokens.
fn pictures(prompt: &Prompt) -> Result<Vec<Picture>, Failure> {
    let mut places = (0..).zip(&prompt.ids).filter(|(_, id)| **id == prompt.image_token).map(|(place, _)| place);
    let (count, rows) = (places.clone().count(), prompt.image_tokens());
    if count != rows {
        let why = format!("the prompt has {count} image tokens, but its images have {rows} rows");
        return Err(Failure::Step(why));
    }
    let picture = |image: &Arc<PreparedImage>| {
        let (key, tiles, rows) = (image.key, image.tiles, image.tokens);
        let start = places.next();
        let last = places.by_ref().take(rows.saturating_sub(1)).last().or(start);
        match (start, last) {
            (Some(start), Some(last)) if rows > 0 && last + 1 - start == rows => {
                Ok(Picture { key, tiles, start, rows })
            }
            _ => Err(Failure::Step(format!("the {rows} rows of an image do not stand together in the prompt"))),
        }
    };
    prompt.images.iter().map(picture).collect()
}

#[cfg(test)]
mod tests;
