//! The committed checkpoint with random weights, its pictures and reference tensors.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{Device, Tensor};
use vlm_runtime::checkpoint::Checkpoint;
use vlm_runtime::image::{ImageLimits, PreparedImage};
use vlm_runtime::models::VisionLanguage;
use vlm_runtime::precision::Precision;
use vlm_runtime::processor::{Processor, Prompt, PromptMessage, PromptPart, PromptRole};

pub const POSITIONS: usize = 300;
pub const QUESTION: &str = "What is shown in this image?";

pub fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/llava15_llama_hub")
}

pub struct Fixture {
    pub checkpoint: Checkpoint,
    pub processor: Processor,
    pub model: VisionLanguage,
    pub expected: HashMap<String, Tensor>,
    pub facts: serde_json::Value,
}

impl Fixture {
    pub fn open() -> Self {
        Self::open_at(&dir())
    }

    pub fn open_at(dir: &Path) -> Self {
        let checkpoint = Checkpoint::open(dir).unwrap();
        let reference = self::dir();
        Self {
            processor: Processor::open(&checkpoint).unwrap(),
            model: VisionLanguage::load(&checkpoint, POSITIONS, Precision::F32).unwrap(),
            expected: candle_core::safetensors::load(reference.join("expected.safetensors"), &Device::Cpu).unwrap(),
            facts: serde_json::from_slice(&std::fs::read(reference.join("expected.json")).unwrap()).unwrap(),
            checkpoint,
        }
    }

    pub fn expected(&self, name: &str) -> &Tensor {
        &self.expected[name]
    }

    pub fn ids(&self, name: &str) -> Vec<u32> {
        serde_json::from_value(self.facts[name].clone()).unwrap()
    }

    pub fn image(&self) -> Arc<PreparedImage> {
        let bytes = std::fs::read(dir().join("images/0.png")).unwrap();
        Arc::new(self.processor.prepare_image(&bytes, &ImageLimits::default()).unwrap())
    }

    pub fn prompt(&self) -> Prompt {
        self.ask(Some(self.image()), QUESTION)
    }

    pub fn ask(&self, image: Option<Arc<PreparedImage>>, text: &str) -> Prompt {
        let image = image.map(PromptPart::Image);
        let parts = image.into_iter().chain([PromptPart::Text(text.to_owned())]).collect();
        self.processor.prompt(&[PromptMessage { role: PromptRole::User, parts }]).unwrap()
    }

    /// Embeddings of a prompt with its pictures.
    pub fn embeds(&self, prompt: &Prompt) -> Tensor {
        let visual: Vec<Tensor> = prompt
            .images
            .iter()
            .map(|image| self.model.project(&self.model.vision_features(image).unwrap()).unwrap())
            .collect();
        self.model.embed(&prompt.ids, prompt.image_token, &visual).unwrap()
    }
}

/// Largest absolute difference; shapes must be equal.
pub fn difference(a: &Tensor, b: &Tensor) -> f32 {
    assert_eq!(a.dims(), b.dims());
    let (a, b) = (flat(a), flat(b));
    assert!(a.iter().chain(&b).all(|v| v.is_finite()));
    a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

pub fn flat(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}
