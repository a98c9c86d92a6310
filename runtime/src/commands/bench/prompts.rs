//! The prompts of a measurement: random text with random pictures, each as often cut as one of its size is.

use std::sync::Arc;

use image::RgbImage;

use crate::args::BenchArgs;
use crate::checkpoint::Checkpoint;
use crate::diagnose::StartError;
use crate::engine::uniform;
use crate::image::{ImageKey, PreparedImage, Preprocessing, TileBudget};
use crate::prompt::Prompt;

/// Makes the prompts.
pub struct Prompts {
    seed: u64,
    vocabulary: usize,
    /// Stands for rows of pictures.
    image_token: u32,
    text: usize,
    /// One picture, of which each is a copy with a name of its own.
    picture: PreparedImage,
    images: usize,
    /// Whether every prompt has the same pictures.
    same: bool,
}

impl Prompts {
    /// For the model of `checkpoint`.
    ///
    /// # Errors
    /// Preprocessing that is not served, or for another model.
    pub fn new(checkpoint: &Checkpoint, args: &BenchArgs) -> Result<Self, StartError> {
        let config = checkpoint.config();
        let mut preprocessing = Preprocessing::open(checkpoint)?;
        if let Some(aspect) = args.how.image_aspect {
            preprocessing = preprocessing.with_aspect(aspect).ok_or_else(crate::commands::no_aspect)?;
        }
        let (width, height) = args.image_size;
        let noise = (0..u64::from(width) * u64::from(height) * 3).map(|n| (uniform(args.seed, n) * 256.0) as u8);
        let noise = RgbImage::from_raw(width, height, noise.collect()).unwrap_or_default();
        let picture = preprocessing.cut(&noise, TileBudget::default(), ImageKey::default());
        Ok(Self {
            seed: args.seed,
            vocabulary: config.text.vocab_size,
            image_token: config.image_token_id.unwrap_or(config.text.vocab_size as u32),
            text: args.prompt_tokens as usize,
            picture,
            images: args.images as usize,
            same: args.same_images,
        })
    }

    /// Tokens of a prompt.
    pub fn tokens(&self) -> usize {
        self.text + self.image_tokens()
    }

    /// Those of its pictures.
    pub fn image_tokens(&self) -> usize {
        self.images * self.picture.tokens
    }

    /// Tiles of all pictures of a prompt.
    pub fn tiles(&self) -> usize {
        self.images * self.picture.tiles
    }

    /// The `n`-th prompt: a token of text, the pictures, the rest of the text. No two begin alike, unless in pictures
    /// that are to be found again.
    pub fn nth(&self, n: usize) -> Prompt {
        let text = |at: usize| {
            let draw = uniform(self.seed ^ (n as u64) << 20, at as u64);
            let id = (draw * self.vocabulary as f64) as u32;
            if id == self.image_token { id.saturating_sub(1) } else { id }
        };
        let first = if self.same { self.vocabulary as u32 / 2 } else { text(0) };
        let mut ids = vec![first];
        ids.resize(1 + self.image_tokens(), self.image_token);
        ids.extend((1..self.text).map(text));
        let picture = |which: usize| {
            let prompt = if self.same { 0 } else { n };
            // Twenty bits at a time, which a number holds exactly.
            let name = [prompt >> 40, prompt >> 20 & 0xf_ffff, prompt & 0xf_ffff, which].map(|part| part as f32);
            let key = ImageKey::of_pixels(&name);
            Arc::new(PreparedImage { key, ..self.picture.clone() })
        };
        Prompt { ids, image_token: self.image_token, images: (0..self.images).map(picture).collect() }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::ffi::OsString;
    use std::path::Path;

    use candle_core::Device;

    use super::*;
    use crate::args::{Command, parse};

    fn prompts(case: &str, words: &[&str]) -> Prompts {
        let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(case).join("config.json");
        let line = ["vlm-runtime", "bench", "--model", "x"].iter().chain(words).map(OsString::from);
        let Command::Bench(args) = parse(&line.collect::<Vec<_>>()).unwrap().command else { panic!() };
        Prompts::new(&Checkpoint::drawn(&config, &Device::Cpu).unwrap(), &args).unwrap()
    }

    #[test]
    fn the_same_seed_gives_the_same_prompts_and_no_two_of_them_are_alike() {
        let of = |seed: &str| prompts("llava15_llama_hub", &["--seed", seed, "--images", "2", "--prompt-tokens", "40"]);
        let (one, again, other) = (of("1"), of("1"), of("2"));
        let ids = |prompts: &Prompts| (0..50).map(|n| prompts.nth(n).ids).collect::<Vec<_>>();
        assert_eq!(ids(&one), ids(&again));
        assert_eq!(ids(&one).iter().zip(ids(&other)).filter(|(one, other)| *one == other).count(), 0);
        assert_eq!(ids(&one).into_iter().collect::<HashSet<_>>().len(), 50);
        let keys: HashSet<_> = (0..50).flat_map(|n| one.nth(n).images).map(|image| image.key).collect();
        assert_eq!(keys.len(), 100);
        let far: HashSet<_> = (0..50).flat_map(|n| one.nth(n + (3 << 40)).images).map(|image| image.key).collect();
        assert_eq!((far.len(), far.intersection(&keys).count()), (100, 0));
        assert_eq!(one.picture.pixels, again.picture.pixels);
        assert_ne!(one.picture.pixels, other.picture.pixels);
    }

    #[test]
    fn the_same_pictures_come_behind_the_same_token_and_before_other_text() {
        let prompts = prompts("internvl3_qwen2_chat", &["--same-images", "--prompt-tokens", "20"]);
        let (a, b) = (prompts.nth(0), prompts.nth(1));
        let begin = 1 + prompts.image_tokens();
        assert!(a.ids[..begin] == b.ids[..begin] && a.ids[begin..] != b.ids[begin..]);
        assert_eq!(a.images[0].key, b.images[0].key);
        assert_eq!((a.ids.len(), a.image_tokens()), (prompts.tokens(), prompts.image_tokens()));
        assert!(prompts.tiles() > 1);
        assert_eq!(a.ids.iter().filter(|id| **id == a.image_token).count(), prompts.image_tokens());
    }
}
