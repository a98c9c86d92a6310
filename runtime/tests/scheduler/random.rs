//! Numbers from a seed, and scenarios made of them.

use std::sync::Arc;

use vlm_runtime::engine::scheduler::{Budget, Limits};
use vlm_runtime::image::{ImageKey, PreparedImage};
use vlm_runtime::ops::blocks_for;
use vlm_runtime::prompt::Prompt;

/// Ids of text are below this; it stands for rows of pictures.
pub const IMAGE_TOKEN: u32 = 1000;

/// `SplitMix64`.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64, run: u64) -> Self {
        Self(mix(seed, run))
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0, 0)
    }

    /// A number of `low..=high`.
    pub fn within(&mut self, low: usize, high: usize) -> usize {
        low + (self.next() % (high - low + 1) as u64) as usize
    }

    /// True once in `n` times.
    pub fn once_in(&mut self, n: u64) -> bool {
        self.next().is_multiple_of(n)
    }
}

pub fn mix(a: u64, b: u64) -> u64 {
    let mut z = a ^ b.wrapping_mul(0xD6E8_FEB8_6659_FD93).rotate_left(31);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A request and when it comes.
#[derive(Clone)]
pub struct Arrival {
    pub step: usize,
    pub prompt: Prompt,
    pub long: bool,
    pub new_tokens: usize,
}

/// One run: sizes, and the requests in the order of their arrival.
#[derive(Clone)]
pub struct Scenario {
    pub limits: Limits,
    pub arrivals: Vec<Arrival>,
    /// Whether pictures never wait for each other's room.
    pub roomy: bool,
    /// Whether tokens of steps that only decode are told one step late.
    pub behind: bool,
}

impl Scenario {
    pub fn random(random: &mut Random, most_requests: usize) -> Self {
        let max_tokens = random.within(20, 200);
        let roomy = random.once_in(2);
        let limits = Limits {
            sequences: random.within(1, 6),
            blocks: blocks_for(max_tokens) + random.within(0, 8),
            while_decoding: Budget { tokens: random.within(1, 48), tiles: random.within(1, 4) },
            alone: Budget { tokens: random.within(1, 128), tiles: random.within(1, 8) },
            reading: Budget { tokens: random.within(32, 600), tiles: random.within(1, 40) },
            encoder_bytes: if roomy { 1 << 20 } else { random.within(0, 80) as u64 },
            row_bytes: 1,
        };
        let pictures: Vec<Arc<PreparedImage>> = (0..4).map(|_| picture(random)).collect();
        let bases: Vec<Prompt> = (0..3).map(|_| base(random, &pictures, max_tokens)).collect();
        let mut step = 0;
        let arrivals = (0..random.within(1, most_requests)).map(|_| {
            step += if random.once_in(3) { random.within(0, 20) } else { 0 };
            let prompt = variation(random, &bases, max_tokens);
            let new_tokens = random.within(1, max_tokens - prompt.ids.len());
            Arrival { step, prompt, long: random.once_in(5), new_tokens }
        });
        let arrivals = arrivals.collect();
        Self { limits, arrivals, roomy, behind: random.once_in(2) }
    }
}

fn picture(random: &mut Random) -> Arc<PreparedImage> {
    let key = ImageKey::of_pixels(&[random.next() as f32]);
    let (tiles, tokens) = (random.within(1, 13), random.within(1, 30));
    Arc::new(PreparedImage { tiles, height: 1, width: 1, pixels: Vec::new().into(), tokens, kept: None, key })
}

/// A prompt with which others begin too.
fn base(random: &mut Random, pictures: &[Arc<PreparedImage>], max_tokens: usize) -> Prompt {
    let mut prompt = Prompt { ids: Vec::new(), image_token: IMAGE_TOKEN, images: Vec::new() };
    let length = random.within(1, max_tokens - 1);
    while prompt.ids.len() < length {
        let image = &pictures[random.within(0, pictures.len() - 1)];
        if random.once_in(3) && prompt.ids.len() + image.tokens < max_tokens {
            prompt.ids.extend(std::iter::repeat_n(IMAGE_TOKEN, image.tokens));
            prompt.images.push(Arc::clone(image));
        } else {
            let text = random.within(1, 20).min(length - prompt.ids.len());
            prompt.ids.extend((0..text).map(|_| (random.next() % 3) as u32));
        }
    }
    prompt
}

/// The beginning of a base, cut outside of pictures, and some text of its own.
fn variation(random: &mut Random, bases: &[Prompt], max_tokens: usize) -> Prompt {
    let mut prompt = bases[random.within(0, bases.len() - 1)].clone();
    if random.once_in(2) {
        let mut cut = random.within(1, prompt.ids.len());
        while cut < prompt.ids.len() && prompt.ids[cut] == IMAGE_TOKEN {
            cut += 1;
        }
        prompt.ids.truncate(cut);
        let (mut rows, mut images) = (prompt.ids.iter().filter(|id| **id == IMAGE_TOKEN).count(), 0);
        while rows > 0 {
            rows -= prompt.images[images].tokens;
            images += 1;
        }
        prompt.images.truncate(images);
        let own = random.within(0, (max_tokens - 1 - prompt.ids.len()).min(40));
        prompt.ids.extend((0..own).map(|_| 100 + (random.next() % 800) as u32));
    }
    prompt
}
