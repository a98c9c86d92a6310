//! Step by step from pixels to greedy tokens in every case, each step against the reference's own input.

use candle_core::{DType, Tensor};
use vlm_runtime::engine::{ENCODER_CACHE_BYTES, Engine, EngineOptions, Event, FinishReason, Request, Sampling};
use vlm_runtime::ops::{Batch, Segment, nth_table, room_for};
use vlm_runtime::precision::Precision;
use vlm_runtime::tolerance::{self, Limit};

use crate::cases::{CASES, Case, case};
use crate::fixture::{Fixture, POSITIONS, difference};

fn within(difference: f32, limit: Limit) -> bool {
    limit.max_abs.is_some_and(|most| difference <= most)
}

#[test]
fn prompt_ids_equal_the_references() {
    let fixture = Fixture::open();
    let prompt = fixture.prompt();
    assert_eq!(prompt.ids, fixture.ids("input_ids"));
    assert_eq!(prompt.images.len(), 1);
}

#[test]
fn pixels_equal_the_references() {
    let fixture = Fixture::open();
    let image = fixture.image();
    let shape = (image.tiles, 3, image.height, image.width);
    let pixels = Tensor::from_slice(&image.pixels.values(), shape, &candle_core::Device::Cpu).unwrap();
    let difference = difference(&pixels, fixture.expected("pixel_values"));
    assert!(within(difference, tolerance::PIXELS), "{difference}");
}

#[test]
fn features_of_every_tower_are_within_tolerance() {
    for case in &*CASES {
        let features: Vec<_> = case.images().iter().map(|image| case.model.vision_features(image).unwrap()).collect();
        let difference = difference(&Tensor::cat(&features, 0).unwrap(), case.expected("vision_features"));
        assert!(within(difference, tolerance::features(DType::F32)), "{}: {difference}", case.name);
    }
}

#[test]
fn projections_are_within_tolerance() {
    for case in &*CASES {
        let expected = case.expected("projected");
        let projected = case.model.project(case.expected("vision_features")).unwrap();
        let difference = difference(&projected.reshape(expected.dims()).unwrap(), expected);
        assert!(within(difference, tolerance::features(DType::F32)), "{}: {difference}", case.name);
    }
}

/// The rows of each picture, from the reference's projections.
fn packed(case: &Case) -> Vec<Tensor> {
    let projected = case.expected("projected");
    let mut first = 0;
    let pack = |image: &vlm_runtime::image::PreparedImage| {
        let rows = projected.narrow(0, first, image.tiles).unwrap().flatten(0, 1).unwrap();
        first += image.tiles;
        case.model.pack(&rows, image).unwrap()
    };
    case.images().iter().map(pack).collect()
}

#[test]
fn image_rows_stand_where_the_image_tokens_are() {
    for case in &*CASES {
        let (ids, token) = (&case.facts.input_ids, case.facts.image_token_id);
        let rows = packed(case);
        let first = &rows[0];
        let short = first.narrow(0, 0, first.dim(0).unwrap() - 1).unwrap();
        for wrong in [vec![], [rows.clone(), rows.clone()].concat(), [vec![short], rows[1..].to_vec()].concat()] {
            assert!(case.model.embed(ids, token, &wrong).is_err(), "{}: {} pictures fit", case.name, wrong.len());
        }
        let embeds = case.model.embed(ids, token, &rows).unwrap().unsqueeze(0).unwrap();
        let difference = difference(&embeds, case.expected("inputs_embeds"));
        assert!(within(difference, tolerance::features(DType::F32)), "{}: {difference}", case.name);
    }
}

#[test]
fn logits_of_prompt_and_steps_are_within_tolerance() {
    for case in &*CASES {
        let embeds = case.expected("inputs_embeds").squeeze(0).unwrap();
        let (tail, steps) = logits(case, &embeds);
        for (got, name) in [(tail, "logits_tail"), (steps, "step_logits")] {
            let difference = difference(&got, case.expected(name));
            assert!(within(difference, tolerance::logits(DType::F32)), "{}, {name}: {difference}", case.name);
        }
    }
}

/// Logits of the prompt's last 32 positions, and of the reference's answer fed token by token.
fn logits(case: &Case, embeds: &Tensor) -> (Tensor, Tensor) {
    let (language, long) = (case.model.language(), case.long());
    let cache = case.model.kv_cache(room_for(2, POSITIONS)).unwrap();
    let total = embeds.dim(0).unwrap();
    let blocks = nth_table(1, POSITIONS);
    let batch = Batch::new(&[Segment { blocks: &blocks, start: 0, rows: total, long }]);
    let hidden = language.forward(embeds, &batch, &cache).unwrap();
    let tail: Vec<u32> = (total as u32 - 32..total as u32).collect();
    let tail = language.logits(&hidden, &tail).unwrap();
    let mut steps = vec![tail.narrow(0, 31, 1).unwrap()];
    let forced = &case.facts.greedy_ids;
    for (step, id) in forced[..forced.len() - 1].iter().enumerate() {
        let batch = Batch::new(&[Segment { blocks: &blocks, start: total + step, rows: 1, long }]);
        let hidden = language.forward(&language.embed(&[*id]).unwrap(), &batch, &cache).unwrap();
        steps.push(language.logits(&hidden, batch.last_rows()).unwrap());
    }
    (tail, Tensor::cat(&steps, 0).unwrap())
}

#[test]
fn pairs_of_namings_give_the_same_logits_from_pixels_on() {
    for (a, b) in [
        ("llava15_llama_hub", "llava15_llama_v5names"),
        ("llava_next_llama_hub", "llava_next_llama_orig"),
        ("internvl3_qwen2_hub", "internvl3_qwen2_chat"),
    ] {
        let [(tail_a, steps_a), (tail_b, steps_b)] =
            [a, b].map(|name| logits(case(name), &case(name).embeds(&case(name).prompt())));
        assert!(difference(&tail_a, &tail_b) <= 1e-5 && difference(&steps_a, &steps_b) <= 1e-5, "{a} and {b}");
    }
}

#[tokio::test]
async fn greedy_tokens_equal_the_references() {
    for case in &*CASES {
        let options = EngineOptions {
            max_tokens: 300,
            max_concurrency: 2,
            max_queue: 0,
            kv_bytes: None,
            encoder_cache_bytes: ENCODER_CACHE_BYTES,
            precision: Precision::F32,
        };
        let engine = Engine::start(&case.checkpoint, options).unwrap();
        let request = Request {
            prompt: case.prompt(),
            sampling: Sampling::default(),
            max_new_tokens: case.facts.greedy_ids.len(),
            stop_ids: Vec::new(),
            ..Request::default()
        };
        let mut stream = engine.submit(request).unwrap();
        let mut got = Vec::new();
        loop {
            match stream.next().await.unwrap() {
                Event::Token { id, .. } => got.push(id),
                end => {
                    assert_eq!(end, Event::Finished(FinishReason::Length), "{}", case.name);
                    break;
                }
            }
        }
        assert_eq!(got, case.facts.greedy_ids, "{}", case.name);
        assert_eq!(stream.next().await, None);
    }
}
