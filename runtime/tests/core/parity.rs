//! Step by step from pixels to greedy tokens, each against the reference's own input.

use candle_core::Tensor;
use vlm_runtime::engine::{Engine, EngineOptions, Event, FinishReason, Request, Sampling};
use vlm_runtime::ops::{Batch, Segment};

use crate::fixture::{Fixture, POSITIONS, difference};

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
    let pixels = Tensor::from_slice(&image.pixels, shape, &candle_core::Device::Cpu).unwrap();
    let difference = difference(&pixels, fixture.expected("pixel_values"));
    assert!(difference <= 1e-5, "{difference}");
}

#[test]
fn features_and_projection_are_within_tolerance() {
    let fixture = Fixture::open();
    let features = fixture.model.vision_features(&fixture.reference_image()).unwrap();
    assert!(difference(&features, fixture.expected("vision_features")) <= 5e-4);
    let projected = fixture.model.project(fixture.expected("vision_features")).unwrap().unsqueeze(0).unwrap();
    assert!(difference(&projected, fixture.expected("projected")) <= 5e-4);
}

#[test]
fn image_rows_stand_where_the_image_tokens_are() {
    let fixture = Fixture::open();
    let projected = fixture.expected("projected").squeeze(0).unwrap();
    let ids = fixture.ids("input_ids");
    for wrong in [vec![], vec![projected.clone(), projected.clone()], vec![projected.narrow(0, 0, 15).unwrap()]] {
        assert!(fixture.model.embed(&ids, &wrong).is_err(), "{} pictures fit", wrong.len());
    }
    let embeds = fixture.model.embed(&ids, &[projected]).unwrap();
    assert!(difference(&embeds.unsqueeze(0).unwrap(), fixture.expected("inputs_embeds")) <= 5e-4);
}

#[test]
fn logits_of_prompt_and_steps_are_within_tolerance() {
    let fixture = Fixture::open();
    let language = fixture.model.language();
    let cache = fixture.model.kv_cache(2, POSITIONS).unwrap();
    let embeds = fixture.expected("inputs_embeds").squeeze(0).unwrap();
    let total = embeds.dim(0).unwrap();
    let batch = Batch::new(&[Segment { slot: 1, start: 0, rows: total }]);
    let hidden = language.forward(&embeds, &batch, &cache).unwrap();
    let tail: Vec<u32> = (total as u32 - 32..total as u32).collect();
    let logits = language.logits(&hidden, &tail).unwrap();
    assert!(difference(&logits, fixture.expected("logits_tail")) <= 2e-3);

    let steps = fixture.expected("step_logits");
    assert!(difference(&logits.narrow(0, 31, 1).unwrap(), &steps.narrow(0, 0, 1).unwrap()) <= 2e-3);
    let forced = fixture.ids("greedy_ids");
    for (step, id) in forced[..forced.len() - 1].iter().enumerate() {
        let batch = Batch::new(&[Segment { slot: 1, start: total + step, rows: 1 }]);
        let hidden = language.forward(&language.embed(&[*id]).unwrap(), &batch, &cache).unwrap();
        let logits = language.logits(&hidden, batch.last_rows()).unwrap();
        let difference = difference(&logits, &steps.narrow(0, step + 1, 1).unwrap());
        assert!(difference <= 2e-3, "step {step}: {difference}");
    }
}

#[tokio::test]
async fn greedy_tokens_equal_the_references() {
    let fixture = Fixture::open();
    let options = EngineOptions { max_tokens: POSITIONS, max_concurrency: 2, max_queue: 0, kv_bytes: None };
    let engine = Engine::start(&fixture.checkpoint, options).unwrap();
    let expected = fixture.ids("greedy_ids");
    let request = Request {
        prompt: fixture.prompt(),
        sampling: Sampling::default(),
        max_new_tokens: expected.len(),
        stop_ids: Vec::new(),
    };
    let mut stream = engine.submit(request).unwrap();
    let mut got = Vec::new();
    loop {
        match stream.next().await.unwrap() {
            Event::Token { id } => got.push(id),
            end => {
                assert_eq!(end, Event::Finished(FinishReason::Length));
                break;
            }
        }
    }
    assert_eq!(got, expected);
    assert_eq!(stream.next().await, None);
}
