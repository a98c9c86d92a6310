//! The files of a trace: `trace.json` and `trace.safetensors`, named and shaped as a reference's `expected.*`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use candle_core::Tensor;
use serde::Serialize;
use vlm_catalog::architecture::Family;

use super::Record;
use crate::commands::CommandError;
use crate::image::{KeptGrid, PreparedImage};
use crate::precision::Precision;
use crate::prompt::{BEGIN, END, MARK, Prompt, ROW};

/// What `trace.json` says.
#[derive(Debug, Serialize)]
pub struct Facts<'a> {
    prompt: &'a str,
    /// With the model's own text in every picture's place, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_expanded: Option<String>,
    input_ids: &'a [u32],
    greedy_ids: &'a [u32],
    image_token_id: u32,
    image_tokens: Vec<usize>,
    tiles_per_image: Vec<usize>,
    /// Of each picture's tiles beside the whole one (LLaVA-1.6).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    grids_rows_cols: Vec<[usize; 2]>,
    dtype: &'static str,
    quantization: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kv_cache_dtype: Option<&'static str>,
    runtime: &'static str,
}

impl<'a> Facts<'a> {
    /// Of one run of a model of `family`.
    pub fn of(family: Family, text: &'a str, prompt: &'a Prompt, record: &'a Record, precision: Precision) -> Self {
        let images = || prompt.images.iter();
        let grid = |kept: &KeptGrid| [kept.tile_rows, kept.tile_columns];
        Self {
            prompt: text,
            prompt_expanded: expanded(family, text, prompt),
            input_ids: &prompt.ids,
            greedy_ids: &record.ids,
            image_token_id: prompt.image_token,
            image_tokens: images().map(|image| image.tokens).collect(),
            tiles_per_image: images().map(|image| image.tiles).collect(),
            grids_rows_cols: images().filter_map(|image| image.kept.as_ref().map(grid)).collect(),
            dtype: precision.dtype.as_str(),
            quantization: precision.quantization.name(),
            kv_cache_dtype: precision.own_kv_cache_dtype(),
            runtime: concat!("vlm-runtime ", env!("CARGO_PKG_VERSION")),
        }
    }
}

/// `text` with what stands for each picture (`InternVL`); the other families have no such text.
fn expanded(family: Family, text: &str, prompt: &Prompt) -> Option<String> {
    let rows = |text: String, image: &Arc<PreparedImage>| {
        text.replacen(MARK, &format!("{BEGIN}{}{END}", ROW.repeat(image.tokens)), 1)
    };
    (family == Family::InternVl).then(|| prompt.images.iter().fold(text.to_owned(), rows))
}

/// Writes both files into `out`.
pub fn write(out: &Path, facts: &Facts<'_>, tensors: &BTreeMap<&'static str, Tensor>) -> Result<(), CommandError> {
    let path = out.join("trace.json");
    let json = serde_json::to_vec_pretty(facts).map_err(std::io::Error::other);
    json.and_then(|json| std::fs::write(&path, json)).map_err(|error| CommandError::write(&path, &error))?;
    let path = out.join("trace.safetensors");
    safetensors::serialize_to_file(tensors, None, &path).map_err(|error| CommandError::write(&path, &error))
}
