//! What is asked, and which pods there are.

use crate::measured::{NEW_PICTURE, STEP, TOKENS};

/// One request.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    /// In milliseconds.
    pub at: f64,
    pub picture: u32,
    pub text: u32,
}

/// How often each picture is asked about.
#[derive(Clone, Copy, Debug)]
enum Mix {
    /// The nth most popular of so many has a share of `n^-0.7`.
    Popular(u32),
    /// The same, but one picture has this share of all.
    Favourite(u32, f64),
    /// Each once.
    New,
}

pub struct Trace {
    pub name: &'static str,
    pub pods: usize,
    /// Pictures that a pod keeps.
    pub room: usize,
    /// A pod goes and another comes at the end of each of these, in milliseconds.
    pub change_every: Option<f64>,
    mix: Mix,
    /// Of what all pods do when every picture is new to them.
    load: f64,
}

const QUESTIONS: usize = 20_000;
/// Texts that are asked about every picture.
pub const TEXTS: u32 = 40;

impl Trace {
    pub fn all() -> Vec<Self> {
        let plain = |name, load, mix| Self { name, pods: 6, room: 32, change_every: None, mix, load };
        let popular = Mix::Popular(120);
        vec![
            plain("120 pictures, half loaded", 0.5, popular),
            plain("120 pictures, loaded 1.5 times", 1.5, popular),
            plain("120 pictures, loaded 3 times", 3.0, popular),
            Self { change_every: Some(20_000.0), ..plain("the same, pods come and go every 20 s", 1.5, popular) },
            Self { room: 128, ..plain("120 pictures that fit every pod, loaded 1.5 times", 1.5, popular) },
            plain("a third about one picture, loaded 1.5 times", 1.5, Mix::Favourite(120, 0.33)),
            plain("each picture new, loaded 0.8 times", 0.8, Mix::New),
        ]
    }

    /// The questions, by a generator of its own.
    pub fn questions(&self, seed: u64) -> Vec<Question> {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let busy = NEW_PICTURE + f64::from(TOKENS) * (STEP.1 + STEP.0 / 4.0);
        let apart = busy / (self.pods as f64 * self.load);
        let mut now = 0.0;
        let weights: Vec<f64> = match self.mix {
            Mix::Popular(count) | Mix::Favourite(count, _) => (1..=count).map(|n| f64::from(n).powf(-0.7)).collect(),
            Mix::New => Vec::new(),
        };
        let all: f64 = weights.iter().sum();
        (0..QUESTIONS)
            .map(|number| {
                now -= apart * random.share().ln();
                let picture = match self.mix {
                    Mix::New => number as u32,
                    Mix::Favourite(_, share) if random.share() < share => u32::MAX,
                    Mix::Popular(_) | Mix::Favourite(..) => {
                        let mut left = random.share() * all;
                        let at = weights.iter().position(|weight| {
                            left -= weight;
                            left <= 0.0
                        });
                        at.unwrap_or(0) as u32
                    }
                };
                Question { at: now, picture, text: (random.share() * f64::from(TEXTS)) as u32 }
            })
            .collect()
    }
}

/// Marsaglia's xorshift, 64 bit.
pub struct Random(pub u64);

impl Random {
    /// Evenly in (0, 1].
    pub fn share(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 11) as f64 + 1.0) / (1_u64 << 53) as f64
    }
}
