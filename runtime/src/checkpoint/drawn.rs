//! Weights that nobody trained, for measurements of speed and memory: random numbers of the shapes that `config.json`
//! describes, drawn where they will be computed with. No file of weights is read.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

use candle_core::{DType, Device, Result, Tensor};
use vlm_catalog::architecture::{ModelConfig, Tower};

use super::{CONFIG, Checkpoint, CheckpointError, Layout, Weights};

/// Standard deviation of linear layers' weights, as those of decoders are set before training.
const SPREAD: f32 = 0.02;

/// Draws tensors.
pub(super) struct Drawn {
    /// Where.
    pub device: Device,
    /// In which number format.
    pub dtype: DType,
}

impl Drawn {
    /// Random numbers, never zero for long: a GPU computes faster with zeros. Norms are around one, so that all stays
    /// finite.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let norm = shape.len() == 1 && name.ends_with("weight");
        let drawn = Tensor::randn(f32::from(u8::from(norm)), SPREAD, shape, &self.device)?;
        drawn.to_dtype(self.dtype)
    }

    /// For who draws the tensor `name` in a format of his own: the standard deviation, and what sets it apart from others.
    pub fn spread_and_seed(name: &str) -> (f32, u64) {
        let mut seed = DefaultHasher::new();
        name.hash(&mut seed);
        (SPREAD, seed.finish())
    }
}

impl Checkpoint {
    /// A model of the description at `path`, a file or the `config.json` of a directory that need hold nothing else, with
    /// weights that are drawn in the memory of `device`.
    ///
    /// # Errors
    /// A description that is missing, malformed or of a model that is not served.
    pub fn drawn(path: &Path, device: &Device) -> std::result::Result<Self, CheckpointError> {
        let file = if path.is_dir() { path.join(CONFIG) } else { path.to_owned() };
        let (_, config) = Self::describe(&file)?;
        let dir = file.parent().unwrap_or(path).to_owned();
        let dtype = match config.stored_dtype.as_deref() {
            Some("float32") => DType::F32,
            Some("float16") => DType::F16,
            _ => DType::BF16,
        };
        let layout = Layout::probe(|name| is_there(name, &config)).ok_or(CheckpointError::UnknownLayout)?;
        let weights = Weights::drawn(Drawn { device: device.clone(), dtype });
        Ok(Self { dir, config, weights, layout })
    }
}

/// The keys of the transformers library's first layout.
fn is_there(name: &str, config: &ModelConfig) -> bool {
    let tower = match config.vision.tower {
        Tower::Clip => "vision_tower.vision_model.embeddings.class_embedding",
        Tower::InternVit { .. } => "vision_tower.embeddings.cls_token",
    };
    ["multi_modal_projector.linear_1.weight", "language_model.lm_head.weight", tower].contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Preprocessing;
    use crate::models::VisionLanguage;
    use crate::precision::Precision;
    use vlm_catalog::checkpoint::{CheckpointSize, Head};
    use vlm_catalog::quantization::Quantization;

    #[test]
    fn every_family_runs_from_its_description_alone_and_weighs_what_the_catalogue_says() {
        for case in ["llava15_llama_hub", "llava_next_mistral_hub", "internvl3_qwen2_chat", "internvl2_phi3_long_chat"]
        {
            let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(case).join("config.json");
            let alone = tempfile::tempdir().unwrap();
            std::fs::copy(config, alone.path().join("config.json")).unwrap();
            let checkpoint = Checkpoint::drawn(alone.path(), &Device::Cpu).unwrap();
            for quantization in [Quantization::None, Quantization::Int8] {
                let precision = Precision { quantization, ..Precision::F32 };
                let model = VisionLanguage::load(&checkpoint, 64, precision).unwrap();
                assert!(model.warm_up().unwrap(), "{case} is not finite");
                let size = CheckpointSize::of(checkpoint.config(), Head::Stored);
                let held = |tensors: &vlm_catalog::checkpoint::Tensors| tensors.held_bytes(quantization, 4);
                let predicted: u64 = size.tensors().iter().map(held).sum();
                // The catalogue counts what of the tower does not run.
                assert!(model.weights().bytes <= predicted && model.weights().bytes > predicted / 2, "{case}");
            }
        }
    }

    #[test]
    fn every_description_of_the_registry_is_taken_as_the_file_that_it_is() {
        let registry = Path::new(env!("CARGO_MANIFEST_DIR")).join("../catalog/tests/models");
        let files: Vec<_> = std::fs::read_dir(registry).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(files.len() >= 40, "{}", files.len());
        for file in files {
            let checkpoint =
                Checkpoint::drawn(&file, &Device::Cpu).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
            Preprocessing::open(&checkpoint).unwrap();
            let last = checkpoint.config().text.layers - 1;
            let norm = checkpoint.decoder().layer(last).input_norm().unwrap();
            assert_eq!(norm.dims(), [checkpoint.config().text.hidden_size], "{}", file.display());
        }
    }

    #[test]
    fn drawn_weights_differ_and_are_not_zero() {
        let drawn = Drawn { device: Device::Cpu, dtype: DType::F32 };
        let values =
            |name, shape: &[usize]| drawn.tensor(name, shape).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let linear = values("a.weight", &[64, 64]);
        assert!(linear.iter().filter(|value| value.abs() > 1e-4).count() > 4000);
        assert!(linear.iter().all(|value| value.abs() < 0.2));
        assert!(values("norm.weight", &[64]).iter().all(|value| (value - 1.0).abs() < 0.2));
        assert_ne!(linear, values("a.weight", &[64, 64]));
    }
}
