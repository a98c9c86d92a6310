//! The engine on the GPU as its clients see it: many at once, and when memory is gone.

use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use vlm_runtime::checkpoint::Checkpoint;
use vlm_runtime::engine::{ENCODER_CACHE_BYTES, Engine, EngineOptions, Event, FinishReason, Request, TokenStream};
use vlm_runtime::image::{ImageKey, Normaliser, Pixels, PreparedImage};
use vlm_runtime::ops::{BLOCK_TOKENS, blocks_for};
use vlm_runtime::precision::Precision;
use vlm_runtime::prompt::Prompt;

use crate::gpu::gpu;

const LONGEST: usize = 200;
/// Of two tokens whose probabilities are nearer than this neither is for sure: sums have another order beside others.
const UNSURE: f32 = 2e-3;

fn open(case: &str) -> Checkpoint {
    Checkpoint::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(case)).unwrap()
}

fn engine(checkpoint: &Checkpoint, max_concurrency: usize, blocks: Option<usize>, gpu: &Device) -> Engine {
    let block = checkpoint.config().text.kv_bytes_per_token(4) * BLOCK_TOKENS as u64;
    let options = EngineOptions {
        max_tokens: LONGEST,
        max_concurrency,
        max_queue: 64,
        // One more, which no sequence owns.
        kv_bytes: blocks.map(|blocks| (blocks as u64 + 1) * block),
        encoder_cache_bytes: ENCODER_CACHE_BYTES,
        precision: Precision::F32,
    };
    Engine::start_on(checkpoint, options, gpu).unwrap()
}

/// A picture of bytes with `tiles` tiles, another for every `name`.
fn picture(checkpoint: &Checkpoint, tiles: usize, name: usize) -> Arc<PreparedImage> {
    let vision = &checkpoint.config().vision;
    let side = vision.image_size;
    let bytes: Vec<u8> = (0..tiles * 3 * side * side).map(|at| ((at * 31 + name * 77) % 251) as u8).collect();
    let normaliser = Normaliser { scale: [0.015; 3], offset: [-1.8; 3], colour: [0; 3] };
    let pixels = Pixels::Bytes { bytes, plane: side * side, normaliser };
    let (key, tokens) = (ImageKey::of_pixels(&[name as f32]), tiles * vision.tokens_per_tile());
    Arc::new(PreparedImage { tiles, height: side, width: side, pixels, tokens, kept: None, key })
}

/// The `n`-th prompt: texts of many lengths, two of three behind a picture that one other prompt has as well.
fn prompt(checkpoint: &Checkpoint, n: usize) -> Prompt {
    let config = checkpoint.config();
    let image_token = config.image_token_id.unwrap();
    let images: Vec<_> = if n.is_multiple_of(3) { vec![] } else { vec![picture(checkpoint, 1 + n / 2 % 2, n / 2)] };
    let mut ids = vec![n as u32 + 3];
    ids.extend(images.iter().flat_map(|image| std::iter::repeat_n(image_token, image.tokens)));
    ids.extend((0..3 + n * 11 % 60).map(|at| ((at * 17 + n * 5) % 200) as u32 + 3));
    Prompt { ids, image_token, images }
}

fn request(prompt: Prompt, max_new_tokens: usize, logprobs: Option<usize>) -> Request {
    Request { prompt, max_new_tokens, logprobs, ..Request::default() }
}

/// The tokens of an answer, and for each how much likelier it is than the next where that is told.
async fn answer(mut stream: TokenStream) -> (Vec<u32>, Vec<f32>, Event) {
    let (mut ids, mut leads) = (Vec::new(), Vec::new());
    loop {
        match stream.next().await.expect("the stream ends without saying why") {
            Event::Token { id, logprobs } => {
                ids.push(id);
                leads.extend(logprobs.map(|told| told.top[0].1 - told.top[1].1));
            }
            end => return (ids, leads, end),
        }
    }
}

#[tokio::test]
async fn requests_at_once_get_what_each_gets_alone() {
    let Some(gpu) = gpu() else { return };
    for case in ["llava15_llama_hub", "internvl3_qwen2_hub"] {
        let checkpoint = open(case);
        let new_tokens = |n: usize| 20 + n * 7 % 40;
        let (mut alone, one) = (Vec::new(), engine(&checkpoint, 1, None, &gpu));
        for n in 0..14 {
            let asked = request(prompt(&checkpoint, n), new_tokens(n), Some(2));
            let (ids, leads, end) = answer(one.submit(asked).unwrap()).await;
            assert_eq!(end, Event::Finished(FinishReason::Length), "{case} {n} alone");
            alone.push((ids, leads));
        }
        // Far less than six sequences take, so that some give way and are read again.
        let engine = engine(&checkpoint, 6, Some(blocks_for(LONGEST) + 1), &gpu);
        // All are made before the first is sent: else it may be answered before the last comes, and nobody gives way.
        let asked: Vec<Request> = (0..14).map(|n| request(prompt(&checkpoint, n), new_tokens(n), None)).collect();
        let streams: Vec<TokenStream> = asked.into_iter().map(|request| engine.submit(request).unwrap()).collect();
        let (mut compared, mut all) = (0, 0);
        for (n, (stream, (want, leads))) in streams.into_iter().zip(&alone).enumerate() {
            let (got, _, end) = answer(stream).await;
            assert_eq!(end, Event::Finished(FinishReason::Length), "{case} {n}");
            let sure = leads.iter().position(|lead| *lead < UNSURE).unwrap_or(leads.len());
            assert_eq!(got[..sure], want[..sure], "{case} {n}");
            (compared, all) = (compared + sure, all + want.len());
        }
        assert!(compared * 2 > all, "{case}: the model is sure of {compared} of {all} tokens");
        engine.idle().await;
        let counts = engine.snapshot().counts;
        assert!(counts.preemptions > 0 && counts.graph_hits > 0 && counts.tiles > 0, "{case}: {counts:?}");
        // What was asked last is found again.
        for _ in 0..2 {
            let again = answer(engine.submit(request(prompt(&checkpoint, 5), new_tokens(5), None)).unwrap()).await;
            let sure = alone[5].1.iter().position(|lead| *lead < UNSURE).unwrap_or(again.0.len());
            assert_eq!(again.0[..sure], alone[5].0[..sure], "{case}");
        }
        engine.idle().await;
        assert!(engine.snapshot().counts.found_tokens > counts.found_tokens, "{case}");
    }
}

/// Takes all memory that can be had, down to the smallest pieces.
fn fill(gpu: &Device) -> Vec<Tensor> {
    let mut held = Vec::new();
    for power in (9..=30).rev() {
        while let Ok(piece) = Tensor::zeros(1usize << power, DType::U8, gpu) {
            held.push(piece);
        }
    }
    held
}

#[tokio::test]
async fn memory_that_is_gone_fails_a_request_and_not_the_engine() {
    let Some(gpu) = gpu() else { return };
    let checkpoint = open("llava15_llama_hub");
    let engine = engine(&checkpoint, 2, None, &gpu);
    // Text, and a picture.
    for n in [0, 1] {
        let ask = || engine.submit(request(prompt(&checkpoint, n), 30, None)).unwrap();
        let (want, _, end) = answer(ask()).await;
        assert_eq!((want.len(), end), (30, Event::Finished(FinishReason::Length)));
        let held = fill(&gpu);
        let mut gone = prompt(&checkpoint, 6 + n);
        gone.images = gone.images.iter().map(|_| picture(&checkpoint, 1 + n % 2, 100 + n)).collect();
        let (got, _, end) = answer(engine.submit(request(gone, 30, None)).unwrap()).await;
        assert!(
            got.is_empty() && matches!(&end, Event::Failed(why) if why.to_string().contains("no memory left")),
            "{end:?}"
        );
        drop(held);
        // What was given back is the driver's again once everything before has run.
        gpu.synchronize().unwrap();
        let (again, _, end) = answer(ask()).await;
        assert_eq!((again, end), (want, Event::Finished(FinishReason::Length)));
        assert!(!engine.snapshot().stopped);
    }
    engine.idle().await;
    assert_eq!(engine.snapshot().running, 0);
}
