//! The reference cases of every family: checkpoints with random weights, and the reference's tensors.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use candle_core::{Device, Tensor};
use serde::Deserialize;
use vlm_runtime::checkpoint::Checkpoint;
use vlm_runtime::image::{ImageKey, KeptGrid, PreparedImage};
use vlm_runtime::models::VisionLanguage;
use vlm_runtime::precision::Precision;
use vlm_runtime::processor::Prompt;

use crate::fixture::POSITIONS;

/// Every case, each in one of the namings and with one of the decoders.
pub const NAMES: [&str; 12] = [
    "llava15_llama_hub",
    "llava15_llama_v5names",
    "llava15_llama_orig",
    "llava_next_mistral_hub",
    "llava_next_llama_hub",
    "llava_next_llama_orig",
    "internvl3_qwen2_hub",
    "internvl3_qwen2_chat",
    "internvl2_internlm2_chat",
    "internvl2_llama_chat",
    "internvl2_phi3_short_chat",
    "internvl2_phi3_long_chat",
];

pub static CASES: LazyLock<Vec<Case>> = LazyLock::new(|| NAMES.iter().map(|name| Case::open(name)).collect());

pub fn case(name: &str) -> &'static Case {
    CASES.iter().find(|case| case.name == name).unwrap()
}

pub fn dir(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(name)
}

pub struct Case {
    pub name: &'static str,
    pub checkpoint: Checkpoint,
    pub model: VisionLanguage,
    pub facts: Facts,
    pub expected: HashMap<String, Tensor>,
}

#[derive(Deserialize)]
pub struct Facts {
    pub input_ids: Vec<u32>,
    pub greedy_ids: Vec<u32>,
    pub image_token_id: u32,
    image_tokens: Vec<usize>,
    /// One each where it is not said.
    tiles_per_image: Option<Vec<usize>>,
    grids_rows_cols: Option<Vec<(usize, usize)>>,
    image_sizes_wh: Option<Vec<(usize, usize)>>,
}

impl Case {
    pub fn open(name: &'static str) -> Self {
        let dir = dir(name);
        let checkpoint = Checkpoint::open(&dir).unwrap();
        Self {
            name,
            model: VisionLanguage::load(&checkpoint, POSITIONS, Precision::F32).unwrap(),
            facts: serde_json::from_slice(&std::fs::read(dir.join("expected.json")).unwrap()).unwrap(),
            expected: candle_core::safetensors::load(dir.join("expected.safetensors"), &Device::Cpu).unwrap(),
            checkpoint,
        }
    }

    pub fn expected(&self, name: &str) -> &Tensor {
        &self.expected[name]
    }

    /// The prompt with the reference's own ids and pixels, so that the model is tested apart from what
    /// prepares its input.
    pub fn prompt(&self) -> Prompt {
        let images = self.images().into_iter().map(Arc::new).collect();
        Prompt { ids: self.facts.input_ids.clone(), image_token: self.facts.image_token_id, images }
    }

    pub fn images(&self) -> Vec<PreparedImage> {
        let pixels = self.expected("pixel_values");
        let (_, _, height, width) = pixels.dims4().unwrap();
        let mut first = 0;
        let image = |(index, &tiles): (usize, &usize)| {
            let of_image = pixels.narrow(0, first, tiles).unwrap();
            first += tiles;
            let pixels: Vec<f32> = of_image.flatten_all().unwrap().to_vec1().unwrap();
            let key = ImageKey::of_pixels(&pixels);
            let (tokens, kept) = (self.facts.image_tokens[index], self.kept(index));
            PreparedImage { tiles, height, width, pixels: pixels.into(), tokens, kept, key }
        };
        let tiles = self.facts.tiles_per_image.clone().unwrap_or_else(|| vec![1; self.facts.image_tokens.len()]);
        let images: Vec<_> = tiles.iter().enumerate().map(image).collect();
        assert_eq!(first, pixels.dim(0).unwrap());
        images
    }

    /// By the rule of the reference, written a second time.
    fn kept(&self, index: usize) -> Option<KeptGrid> {
        let (tile_rows, tile_columns) = self.facts.grids_rows_cols.as_ref()?[index];
        let (w, h) = self.facts.image_sizes_wh.as_ref()?[index];
        let side = self.checkpoint.config().vision.grid();
        let (rows, columns) = (tile_rows * side, tile_columns * side);
        let (w, h) = (w as f64, h as f64);
        let (mut top, mut left) = (0, 0);
        if w / h > columns as f64 / rows as f64 {
            top = (rows - (h * (columns as f64 / w)) as usize) / 2;
        } else {
            left = (columns - (w * (rows as f64 / h)) as usize) / 2;
        }
        let (height, width) = (rows - 2 * top, columns - 2 * left);
        Some(KeptGrid { tile_rows, tile_columns, top, left, height, width })
    }

    /// The decoder's input for this prompt: `[tokens, width]`.
    pub fn embeds(&self, prompt: &Prompt) -> Tensor {
        let visual: Vec<Tensor> = prompt.images.iter().map(|image| self.model.see(image).unwrap()).collect();
        self.model.embed(&prompt.ids, prompt.image_token, &visual).unwrap()
    }

    /// Whether a sequence of this case's length takes the rotary angles of long ones.
    pub fn long(&self) -> bool {
        self.model.language().is_long(self.facts.input_ids.len() + self.facts.greedy_ids.len())
    }
}
