//! A trained example model against what transformers answered: prompts, ids, tensors, answers; on any device.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use serde::Deserialize;
use vlm_catalog::quantization::Quantization;
use vlm_runtime::checkpoint::Checkpoint;
use vlm_runtime::engine::{
    ENCODER_CACHE_BYTES, Engine, EngineOptions, Event, FinishReason, Request, Sampling, TokenStream,
};
use vlm_runtime::image::{ImageLimits, PreparedImage};
use vlm_runtime::models::VisionLanguage;
use vlm_runtime::ops::{Batch, Segment, nth_table, room_for};
use vlm_runtime::precision::Precision;
use vlm_runtime::processor::{Processor, Prompt, PromptMessage, PromptPart, PromptRole};
use vlm_runtime::tolerance::{self, Difference, Limit, PIXELS, decoded, quantized_logits};

const POSITIONS: usize = 512;

#[derive(Deserialize)]
struct References {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    picture: String,
    question: String,
    history: Vec<Turn>,
    input_ids: Vec<u32>,
    answer: String,
    greedy_ids: Vec<u32>,
}

#[derive(Deserialize)]
struct Turn {
    question: String,
    answer: String,
}

pub struct Example {
    dir: PathBuf,
    device: Device,
    checkpoint: Checkpoint,
    processor: Processor,
    model: VisionLanguage,
    cases: Vec<Case>,
    tensors: std::collections::HashMap<String, Tensor>,
}

impl Example {
    /// The model in this folder of `examples`, in f32.
    pub fn open(name: &str, device: &Device) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name);
        let dir = root.join("references");
        let checkpoint = Checkpoint::open(&root.join("model")).unwrap();
        let references: References =
            serde_json::from_slice(&std::fs::read(dir.join("references.json")).unwrap()).unwrap();
        assert!(references.cases.len() >= 10);
        Self {
            processor: Processor::open(&checkpoint).unwrap(),
            model: VisionLanguage::load_on(&checkpoint, POSITIONS, Precision::F32, device).unwrap(),
            tensors: candle_core::safetensors::load(dir.join("references.safetensors"), &Device::Cpu).unwrap(),
            cases: references.cases,
            checkpoint,
            dir,
            device: device.clone(),
        }
    }

    fn image(&self, case: &Case) -> Arc<PreparedImage> {
        let bytes = std::fs::read(self.dir.join(&case.picture)).unwrap();
        Arc::new(self.processor.prepare_image(&bytes, &ImageLimits::default()).unwrap())
    }

    fn prompt(&self, case: &Case) -> Prompt {
        let mut image = Some(PromptPart::Image(self.image(case)));
        let mut messages = Vec::new();
        let mut says = |role, text: &str| {
            let parts = image.take().into_iter().chain([PromptPart::Text(text.to_owned())]).collect();
            messages.push(PromptMessage { role, parts });
        };
        for turn in &case.history {
            says(PromptRole::User, &turn.question);
            says(PromptRole::Assistant, &turn.answer);
        }
        says(PromptRole::User, &case.question);
        self.processor.prompt(&messages).unwrap()
    }

    fn engine(&self, max_concurrency: usize) -> Engine {
        let options = EngineOptions {
            max_tokens: POSITIONS,
            max_concurrency,
            max_queue: 64,
            kv_bytes: None,
            encoder_cache_bytes: ENCODER_CACHE_BYTES,
            precision: Precision::F32,
        };
        Engine::start_on(&self.checkpoint, options, &self.device).unwrap()
    }

    fn ask(&self, engine: &Engine, case: &Case) -> TokenStream {
        let request = Request {
            prompt: self.prompt(case),
            sampling: Sampling::default(),
            max_new_tokens: 96,
            stop_ids: self.processor.stop_ids().to_vec(),
            ..Request::default()
        };
        engine.submit(request).unwrap()
    }

    async fn check_answer(&self, case: &Case, mut stream: TokenStream) {
        let mut detokenizer = self.processor.detokenizer();
        let (mut ids, mut text) = (Vec::new(), String::new());
        let end = loop {
            match stream.next().await.unwrap() {
                Event::Token { id, .. } => {
                    ids.push(id);
                    text += &detokenizer.push(id);
                }
                end => break end,
            }
        };
        text += &detokenizer.finish();
        let (eos, expected) = case.greedy_ids.split_last().unwrap();
        assert!(self.processor.stop_ids().contains(eos));
        assert_eq!(end, Event::Finished(FinishReason::Stop), "{}", case.name);
        assert_eq!(ids, expected, "{}", case.name);
        assert_eq!(text, case.answer, "{}", case.name);
    }

    pub fn prompts_are_equal(&self) {
        for case in &self.cases {
            assert_eq!(self.prompt(case).ids, case.input_ids, "{}", case.name);
        }
    }

    pub fn tensors_are_close(&self) {
        let mut compared = [0; 3];
        for case in &self.cases {
            let image = self.image(case);
            let features = self.model.vision_features(&image).unwrap();
            let projected = self.model.project(&features).unwrap();
            let pixels = Tensor::new(&image.pixels.values()[..], &Device::Cpu).unwrap();
            let parts = [
                ("pixel_values", &pixels, PIXELS),
                ("vision_features", &features, tolerance::features(DType::F32)),
                ("projected", &projected, tolerance::features(DType::F32)),
            ];
            for (n, (name, tensor, limit)) in parts.into_iter().enumerate() {
                if let Some(expected) = self.tensors.get(&format!("{}.{name}", case.name)) {
                    assert_within(tensor, expected, &limit, &format!("{} {name}", case.name));
                    compared[n] += 1;
                }
            }
            let (logits, expected) =
                (self.logits(&self.model, case, projected), &self.tensors[&format!("{}.logits", case.name)]);
            assert_within(&logits, expected, &tolerance::logits(DType::F32), &format!("{} logits", case.name));
        }
        assert!(compared.iter().all(|n| *n >= 3), "{compared:?}");
    }

    /// By the table of tolerances.
    pub fn logits_in_16_bits_are_near(&self) {
        for dtype in [DType::F16, DType::BF16] {
            let precision = Precision { dtype, ..Precision::F32 };
            let model = VisionLanguage::load_on(&self.checkpoint, POSITIONS, precision, &self.device).unwrap();
            for case in &self.cases {
                let logits = self.logits(&model, case, model.see(&self.image(case)).unwrap());
                let expected = &self.tensors[&format!("{}.logits", case.name)];
                assert_within(&logits, expected, &decoded(precision, true), &format!("{} {dtype:?}", case.name));
            }
        }
    }

    /// At the last position of the prompt.
    fn logits(&self, model: &VisionLanguage, case: &Case, visual: Tensor) -> Tensor {
        let prompt = self.prompt(case);
        let embeds = model.embed(&case.input_ids, prompt.image_token, &[visual]).unwrap();
        let blocks = nth_table(0, POSITIONS);
        let batch = Batch::new(&[Segment { blocks: &blocks, start: 0, rows: case.input_ids.len(), long: false }]);
        let cache = model.kv_cache(room_for(1, POSITIONS)).unwrap();
        let hidden = model.language().forward(&embeds, &batch, &cache).unwrap();
        model.language().logits(&hidden, batch.last_rows()).unwrap().squeeze(0).unwrap()
    }

    /// Of each step of the known answer, fed to the model.
    fn step_logits(&self, model: &VisionLanguage, case: &Case) -> Tensor {
        let prompt = self.prompt(case);
        let forced = [&case.input_ids[..], &case.greedy_ids[..case.greedy_ids.len() - 1]].concat();
        let visual = model.see(&self.image(case)).unwrap();
        let embeds = model.embed(&forced, prompt.image_token, &[visual]).unwrap();
        let blocks = nth_table(0, POSITIONS);
        let batch = Batch::new(&[Segment { blocks: &blocks, start: 0, rows: forced.len(), long: false }]);
        let cache = model.kv_cache(room_for(1, POSITIONS)).unwrap();
        let hidden = model.language().forward(&embeds, &batch, &cache).unwrap();
        let steps: Vec<u32> = (case.input_ids.len() as u32 - 1..forced.len() as u32).collect();
        model.language().logits(&hidden, &steps).unwrap()
    }

    /// Against the reference on the dequantised weights, which tells the formats apart.
    pub fn quantised_steps_are_near(&self) {
        let stored = candle_core::safetensors::load(self.dir.join("quantized.safetensors"), &Device::Cpu).unwrap();
        let mut compared = 0;
        for quantization in [Quantization::Int8, Quantization::Int4] {
            let precision = Precision { quantization, ..Precision::F32 };
            let model = VisionLanguage::load_on(&self.checkpoint, POSITIONS, precision, &self.device).unwrap();
            for case in &self.cases {
                let Some(expected) = stored.get(&format!("{}.{}.step_logits", case.name, quantization.name())) else {
                    continue;
                };
                let limit = quantized_logits(quantization, true).unwrap();
                assert_within(
                    &self.step_logits(&model, case),
                    expected,
                    &limit,
                    &format!("{} {quantization}", case.name),
                );
                compared += 1;
            }
        }
        assert_eq!(compared, stored.len());
    }

    pub async fn answers_are_equal_one_after_another(&self) {
        let engine = self.engine(1);
        for case in &self.cases {
            self.check_answer(case, self.ask(&engine, case)).await;
        }
    }

    pub async fn answers_are_equal_all_at_once(&self) {
        let engine = self.engine(6);
        let streams: Vec<_> = self.cases.iter().map(|case| self.ask(&engine, case)).collect();
        for (case, stream) in self.cases.iter().zip(streams) {
            self.check_answer(case, stream).await;
        }
    }
}

/// Asserts that two tensors of as many numbers are as near as the table of tolerances asks.
#[track_caller]
fn assert_within(got: &Tensor, expected: &Tensor, limit: &Limit, what: &str) {
    let [got, expected] = [got, expected].map(|tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap());
    assert_eq!(got.len(), expected.len(), "{what}");
    assert_eq!(Difference::between(&got, &expected).beyond(limit), None, "{what}");
}
