//! What a reference gave: `expected.json`, `expected.safetensors` and the pictures, and where the decoder is
//! quantised the logits of the reference on the same quantised weights, if they are there.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use vlm_catalog::architecture::ModelConfig;
use vlm_catalog::quantization::Quantization;

use crate::commands::CommandError;

const MEND: &str = "docs/verify.md says how to make it";

/// A reference's values.
#[derive(Debug)]
pub struct Expected {
    json: PathBuf,
    facts: Facts,
    inputs: Tensors,
    images: Vec<PathBuf>,
    /// Of a run on dequantised weights.
    quantized: Option<(Answer, Tensors)>,
}

#[derive(Debug, Deserialize)]
struct Facts {
    prompt: String,
    input_ids: Vec<u32>,
    image_token_id: Option<u32>,
    #[serde(default)]
    image_tokens: Vec<usize>,
    #[serde(flatten)]
    answer: Answer,
}

#[derive(Debug, Deserialize)]
struct Answer {
    greedy_ids: Vec<u32>,
    /// What was fed, where that is not the answer: logits of quantised weights follow the answer of the others.
    forced_ids: Option<Vec<u32>>,
}

#[derive(Debug)]
struct Tensors {
    path: PathBuf,
    by_name: HashMap<String, Tensor>,
}

impl Expected {
    /// Reads `dir`.
    ///
    /// # Errors
    /// A missing or malformed file, or one that says what cannot be.
    pub fn read(dir: &Path, quantization: Quantization) -> Result<Self, CommandError> {
        std::fs::read_dir(dir).map_err(|source| unreadable(dir, source))?;
        let json = dir.join("expected.json");
        let facts: Facts = read_json(&json)?;
        let quantized = match quantization {
            Quantization::None => None,
            some => quantized(dir, some)?,
        };
        let read = Self {
            inputs: Tensors::read(dir.join("expected.safetensors"))?,
            images: images(dir)?,
            json,
            facts,
            quantized,
        };
        if read.facts.input_ids.is_empty() || read.greedy_ids().is_empty() {
            return Err(CommandError::expected(&read.json, "input_ids and greedy_ids must not be empty"));
        }
        if read.forced_ids().len() != read.greedy_ids().len() {
            return Err(CommandError::expected(read.source(), "its forced_ids and greedy_ids differ in number"));
        }
        Ok(read)
    }

    /// Path of `expected.json`.
    pub fn json(&self) -> &Path {
        &self.json
    }

    /// The prompt as it is, in which `<image>` stands where a picture goes.
    pub fn prompt(&self) -> &str {
        &self.facts.prompt
    }

    /// The pictures in order.
    pub fn images(&self) -> &[PathBuf] {
        &self.images
    }

    /// Tokens that each picture takes.
    pub fn image_tokens(&self) -> &[usize] {
        &self.facts.image_tokens
    }

    /// The prompt's ids, with `image_token` for the rows of pictures whatever the reference has for them.
    pub fn input_ids(&self, image_token: u32) -> Vec<u32> {
        let own = |id: &u32| if Some(*id) == self.facts.image_token_id { image_token } else { *id };
        self.facts.input_ids.iter().map(own).collect()
    }

    /// The reference's answer: of the run on the same weights where there is one.
    pub fn greedy_ids(&self) -> &[u32] {
        &self.quantized.as_ref().map_or(&self.facts.answer, |(answer, _)| answer).greedy_ids
    }

    /// The tokens after which `step_logits` were taken.
    pub fn forced_ids(&self) -> &[u32] {
        let own = self.quantized.as_ref().map_or(&self.facts.answer, |(answer, _)| answer);
        own.forced_ids.as_ref().unwrap_or(&own.greedy_ids)
    }

    /// The answer, where `step_logits` are those from which it was chosen.
    pub fn chosen_ids(&self) -> Option<&[u32]> {
        (self.forced_ids() == self.greedy_ids()).then(|| self.greedy_ids())
    }

    /// The file with the logits.
    pub fn source(&self) -> &Path {
        self.quantized.as_ref().map_or(&self.inputs.path, |(_, tensors)| &tensors.path)
    }

    /// Whether the logits are of the weights that quantisation leaves.
    pub fn dequantized(&self) -> bool {
        self.quantized.is_some()
    }

    /// A tensor up to the decoder's input.
    ///
    /// # Errors
    /// When it is not there.
    pub fn input(&self, name: &str) -> Result<&Tensor, CommandError> {
        self.inputs.get(name)
    }

    /// Logits: `logits_tail` or `step_logits`.
    ///
    /// # Errors
    /// When they are not there.
    pub fn logits(&self, name: &str) -> Result<&Tensor, CommandError> {
        self.quantized.as_ref().map_or(&self.inputs, |(_, tensors)| tensors).get(name)
    }

    /// Whether every id is in the vocabulary of `model`.
    ///
    /// # Errors
    /// Naming the first that is not.
    pub fn check_ids(&self, model: &ModelConfig, image_token: u32) -> Result<(), CommandError> {
        let size = model.text.vocab_size;
        let ids = self.input_ids(image_token);
        let text = ids.iter().filter(|id| **id != image_token);
        let Some(id) = text.chain(self.forced_ids()).find(|id| **id as usize >= size) else { return Ok(()) };
        let reason = format!("it has the token {id}, and the vocabulary of the model has {size}");
        Err(CommandError::expected(&self.json, reason))
    }
}

impl Tensors {
    fn read(path: PathBuf) -> Result<Self, CommandError> {
        // Read here first, so that a missing file is told from a malformed one.
        let bytes = std::fs::read(&path).map_err(|source| unreadable(&path, source))?;
        let wrong = |error: candle_core::Error| CommandError::expected(&path, error.to_string());
        let mut by_name = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).map_err(wrong)?;
        for tensor in by_name.values_mut() {
            *tensor = tensor.to_dtype(DType::F32).map_err(wrong)?;
        }
        Ok(Self { path, by_name })
    }

    fn get(&self, name: &str) -> Result<&Tensor, CommandError> {
        let missing = || CommandError::expected(&self.path, format!("it has no tensor {name}"));
        self.by_name.get(name).ok_or_else(missing)
    }
}

/// The reference on dequantised weights, if `dir` has its files.
fn quantized(dir: &Path, quantization: Quantization) -> Result<Option<(Answer, Tensors)>, CommandError> {
    let tensors = dir.join(format!("expected.{quantization}.safetensors"));
    if !tensors.exists() {
        return Ok(None);
    }
    let answer = read_json(&dir.join(format!("expected.{quantization}.json")))?;
    Ok(Some((answer, Tensors::read(tensors)?)))
}

/// The files `images/N.png` in the order of their numbers; none where there is no such directory.
fn images(dir: &Path) -> Result<Vec<PathBuf>, CommandError> {
    let dir = dir.join("images");
    let entries = match std::fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(unreadable(&dir, source)),
    };
    let mut numbered = Vec::new();
    for entry in entries {
        let path = entry.map_err(|source| unreadable(&dir, source))?.path();
        if path.extension().is_none_or(|extension| extension != "png") {
            continue;
        }
        let number = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse::<u64>().ok());
        let unnumbered = || {
            CommandError::expected(&path, "its name is no number, and pictures are taken in the order of their numbers")
        };
        numbered.push((number.ok_or_else(unnumbered)?, path));
    }
    numbered.sort();
    Ok(numbered.into_iter().map(|(_, path)| path).collect())
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, CommandError> {
    let bytes = std::fs::read(path).map_err(|source| unreadable(path, source))?;
    serde_json::from_slice(&bytes).map_err(|error| CommandError::expected(path, error.to_string()))
}

fn unreadable(path: &Path, source: std::io::Error) -> CommandError {
    CommandError::Read { path: path.to_owned(), source, mend: MEND }
}
