//! The requests of a soak: short and long text, no picture, a small one, a large one, one that was seen before; some
//! whose client leaves. Which one a number gets, follows from the seed.

use super::load::Ask;
use super::prompts::Prompts;
use crate::args::BenchArgs;
use crate::checkpoint::Checkpoint;
use crate::diagnose::StartError;
use crate::engine::uniform;

/// Times that the text of a long request is longer.
const LONG: u32 = 8;
/// Of all requests, those whose client leaves.
const CANCELLED: f64 = 0.1;
/// First numbers of what is sent beside the mix.
const LARGE: usize = 3 << 40;
const SHORTEST: usize = 4 << 40;
/// Shares of the kinds, in the order of [`Kind`]; the last has the rest.
const SHARES: [f64; 4] = [0.3, 0.3, 0.15, 0.15];

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Short,
    Small,
    Large,
    Repeated,
    Long,
}

/// Makes them.
pub struct Mix {
    seed: u64,
    output: usize,
    short: Prompts,
    long: Prompts,
    small: Prompts,
    large: Prompts,
    repeated: Prompts,
}

impl Mix {
    /// For the model of `checkpoint`. The large pictures are those of `args`, the small ones are one tile of the tower.
    ///
    /// # Errors
    /// Preprocessing that is not served, or for another model.
    pub fn new(checkpoint: &Checkpoint, args: &BenchArgs) -> Result<Self, StartError> {
        let side = checkpoint.config().vision.image_size as u32;
        let text = BenchArgs { images: 0, same_images: false, ..args.clone() };
        let pictures = BenchArgs { images: 1, same_images: false, ..args.clone() };
        Ok(Self {
            seed: args.seed,
            output: args.output_tokens as usize,
            long: Prompts::new(checkpoint, &BenchArgs { prompt_tokens: LONG * args.prompt_tokens, ..text.clone() })?,
            short: Prompts::new(checkpoint, &text)?,
            small: Prompts::new(checkpoint, &BenchArgs { image_size: (side, side), ..pictures.clone() })?,
            repeated: Prompts::new(checkpoint, &BenchArgs { same_images: true, ..pictures.clone() })?,
            large: Prompts::new(checkpoint, &pictures)?,
        })
    }

    /// Tokens of the longest prompt and its answer.
    pub fn longest(&self) -> usize {
        self.large.tokens().max(self.long.tokens()).max(self.small.tokens()) + self.output
    }

    /// Tiles of a large picture.
    pub fn large_tiles(&self) -> usize {
        self.large.tiles()
    }

    /// The request of a number.
    pub fn nth(&self, n: usize) -> Ask {
        let draw = |which: u64| uniform(self.seed ^ 0x5eed, 4 * n as u64 + which);
        let prompts = self.prompts(kind(draw(0)));
        let output_tokens = 1 + (draw(1) * self.output as f64) as usize;
        let cancel_after = (draw(2) < CANCELLED).then(|| (draw(3) * output_tokens as f64) as usize);
        Ask { prompt: prompts.nth(n), output_tokens, cancel_after }
    }

    /// A stream of text alone: a whole answer.
    pub fn stream(&self, n: usize) -> Ask {
        Ask { prompt: self.short.nth(n), output_tokens: self.output, cancel_after: None }
    }

    /// A large picture that nobody has sent before, with the shortest answer.
    pub fn large(&self, n: usize) -> Ask {
        Ask { prompt: self.large.nth(LARGE + n), output_tokens: 1, cancel_after: None }
    }

    /// The same short request each time.
    pub fn shortest(&self) -> Ask {
        Ask { prompt: self.short.nth(SHORTEST), output_tokens: 2, cancel_after: None }
    }

    fn prompts(&self, kind: Kind) -> &Prompts {
        match kind {
            Kind::Short => &self.short,
            Kind::Small => &self.small,
            Kind::Large => &self.large,
            Kind::Repeated => &self.repeated,
            Kind::Long => &self.long,
        }
    }
}

/// The kind of a number from 0 to 1.
fn kind(mut draw: f64) -> Kind {
    for (kind, share) in [Kind::Short, Kind::Small, Kind::Large, Kind::Repeated].into_iter().zip(SHARES) {
        if draw < share {
            return kind;
        }
        draw -= share;
    }
    Kind::Long
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn every_kind_has_its_share() {
        let mut counts: HashMap<Kind, usize> = HashMap::new();
        (0..10_000).for_each(|n| *counts.entry(kind(uniform(1, n))).or_default() += 1);
        for (kind, share) in [Kind::Short, Kind::Small, Kind::Large, Kind::Repeated, Kind::Long]
            .into_iter()
            .zip([SHARES.as_slice(), &[0.1]].concat())
        {
            assert!((counts[&kind] as f64 / 1e4 - share).abs() < 0.02, "{kind:?}: {counts:?}");
        }
    }
}
