//! The trained example model against what transformers answered: prompts, ids, tensors, answers.

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use candle_core::{Device, Tensor};
use serde::Deserialize;
use vlm_runtime::checkpoint::Checkpoint;
use vlm_runtime::engine::{Engine, EngineOptions, Event, FinishReason, Request, Sampling, TokenStream};
use vlm_runtime::image::{ImageLimits, PreparedImage};
use vlm_runtime::models::VisionLanguage;
use vlm_runtime::ops::{Batch, Segment};
use vlm_runtime::precision::Precision;
use vlm_runtime::processor::{Processor, Prompt, PromptMessage, PromptPart, PromptRole};

use crate::fixture::difference;

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

struct Example {
    dir: PathBuf,
    checkpoint: Checkpoint,
    processor: Processor,
    model: VisionLanguage,
    cases: Vec<Case>,
    tensors: std::collections::HashMap<String, Tensor>,
}

static EXAMPLE: LazyLock<Example> = LazyLock::new(|| {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/tiny-llava");
    let dir = root.join("references");
    let checkpoint = Checkpoint::open(&root.join("model")).unwrap();
    let references: References = serde_json::from_slice(&std::fs::read(dir.join("references.json")).unwrap()).unwrap();
    assert!(references.cases.len() >= 10);
    Example {
        processor: Processor::open(&checkpoint).unwrap(),
        model: VisionLanguage::load(&checkpoint, POSITIONS, Precision::F32).unwrap(),
        tensors: candle_core::safetensors::load(dir.join("references.safetensors"), &Device::Cpu).unwrap(),
        cases: references.cases,
        checkpoint,
        dir,
    }
});

impl Example {
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
            precision: Precision::F32,
        };
        Engine::start(&self.checkpoint, options).unwrap()
    }

    fn ask(&self, engine: &Engine, case: &Case) -> TokenStream {
        let request = Request {
            prompt: self.prompt(case),
            sampling: Sampling::default(),
            max_new_tokens: 96,
            stop_ids: self.processor.stop_ids().to_vec(),
        };
        engine.submit(request).unwrap()
    }

    async fn check_answer(&self, case: &Case, mut stream: TokenStream) {
        let mut detokenizer = self.processor.detokenizer();
        let (mut ids, mut text) = (Vec::new(), String::new());
        let end = loop {
            match stream.next().await.unwrap() {
                Event::Token { id } => {
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
}

#[test]
fn prompt_ids_equal_the_references() {
    for case in &EXAMPLE.cases {
        assert_eq!(EXAMPLE.prompt(case).ids, case.input_ids, "{}", case.name);
    }
}

#[test]
fn tensors_are_within_tolerance() {
    let mut compared = [0; 4];
    for case in &EXAMPLE.cases {
        let image = EXAMPLE.image(case);
        let reference = |name: &str| EXAMPLE.tensors.get(&format!("{}.{name}", case.name));
        let features = EXAMPLE.model.vision_features(&image).unwrap();
        let projected = EXAMPLE.model.project(&features).unwrap();
        if let Some(expected) = reference("pixel_values") {
            let pixels = Tensor::from_slice(&image.pixels, expected.dims(), &Device::Cpu).unwrap();
            assert!(difference(&pixels, expected) <= 1e-5, "{}", case.name);
            compared[0] += 1;
        }
        if let Some(expected) = reference("vision_features") {
            assert!(difference(&features, expected) <= 5e-4, "{}", case.name);
            compared[1] += 1;
        }
        if let Some(expected) = reference("projected") {
            assert!(difference(&projected.unsqueeze(0).unwrap(), expected) <= 5e-4, "{}", case.name);
            compared[2] += 1;
        }
        let embeds = EXAMPLE
            .model
            .embed(&case.input_ids, EXAMPLE.checkpoint.config().image_token_id.unwrap(), &[projected])
            .unwrap();
        let batch = Batch::new(&[Segment { slot: 0, start: 0, rows: case.input_ids.len(), long: false }]);
        let cache = EXAMPLE.model.kv_cache(1, POSITIONS).unwrap();
        let hidden = EXAMPLE.model.language().forward(&embeds, &batch, &cache).unwrap();
        let logits = EXAMPLE.model.language().logits(&hidden, batch.last_rows()).unwrap();
        let difference = difference(&logits.squeeze(0).unwrap(), reference("logits").unwrap());
        assert!(difference <= 2e-3, "{}: {difference}", case.name);
        compared[3] += 1;
    }
    assert!(compared[..3].iter().all(|n| *n >= 3) && compared[3] == EXAMPLE.cases.len(), "{compared:?}");
}

#[tokio::test]
async fn answers_equal_the_references_one_after_another() {
    let engine = EXAMPLE.engine(1);
    for case in &EXAMPLE.cases {
        EXAMPLE.check_answer(case, EXAMPLE.ask(&engine, case)).await;
    }
}

#[tokio::test]
async fn answers_equal_the_references_all_at_once() {
    let engine = EXAMPLE.engine(6);
    let streams: Vec<_> = EXAMPLE.cases.iter().map(|case| EXAMPLE.ask(&engine, case)).collect();
    for (case, stream) in EXAMPLE.cases.iter().zip(streams) {
        EXAMPLE.check_answer(case, stream).await;
    }
}
