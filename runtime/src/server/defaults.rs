//! Sampling when a request does not say: what the checkpoint's `generation_config.json` says.
//!
//! `OpenAI`'s own default is temperature 1. A vision model describes best greedily, its authors
//! publish it so, and reference outputs are made so; hence, as in transformers, an answer is greedy
//! unless `do_sample` is true there.

use std::path::Path;

use serde::Deserialize;

/// Values for absent parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SamplingDefaults {
    /// 0 is greedy.
    pub temperature: f32,
    /// 1 is all.
    pub top_p: f32,
    /// 0 is all.
    pub top_k: u32,
}

impl Default for SamplingDefaults {
    fn default() -> Self {
        Self { temperature: 0.0, top_p: 1.0, top_k: 0 }
    }
}

#[derive(Deserialize)]
struct GenerationConfig {
    do_sample: Option<bool>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    top_k: Option<u32>,
}

impl SamplingDefaults {
    /// Reads them from a checkpoint directory; a file that is absent or unreadable, or a value out
    /// of range, counts as not given.
    pub fn read(directory: &Path) -> Self {
        let config = std::fs::read(directory.join("generation_config.json"));
        config.map_or_else(|_| Self::default(), |json| Self::parse(&json))
    }

    fn parse(json: &[u8]) -> Self {
        match serde_json::from_slice::<GenerationConfig>(json) {
            Ok(config) if config.do_sample == Some(true) => Self {
                temperature: config.temperature.filter(|t| (0.0..=2.0).contains(t)).unwrap_or(1.0),
                top_p: config.top_p.filter(|p| *p > 0.0 && *p <= 1.0).unwrap_or(1.0),
                top_k: config.top_k.unwrap_or(0),
            },
            _ => Self::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_greedy_unless_the_checkpoint_samples() {
        let greedy = SamplingDefaults::default();
        assert_eq!(SamplingDefaults::parse(b"{\"temperature\": 0.7}"), greedy);
        assert_eq!(SamplingDefaults::parse(b"not json"), greedy);
        assert_eq!(SamplingDefaults::read(Path::new("/nonexistent")), greedy);
        let sampled = SamplingDefaults::parse(b"{\"do_sample\": true, \"top_p\": 0.9, \"top_k\": 50}");
        assert_eq!(sampled, SamplingDefaults { temperature: 1.0, top_p: 0.9, top_k: 50 });
        let absurd = SamplingDefaults::parse(b"{\"do_sample\": true, \"top_p\": 7}");
        assert!((absurd.top_p - 1.0).abs() < f32::EPSILON);
    }
}
