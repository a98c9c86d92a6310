//! Sequences computed together give what each gives alone, however their prompts are cut.

use candle_core::Tensor;
use vlm_runtime::ops::{Batch, KvCache, Segment};
use vlm_runtime::processor::Prompt;
use vlm_runtime::tolerance;

use crate::fixture::{Fixture, POSITIONS, difference};

const TOLERANCE: f32 = match tolerance::BATCHED.max_abs {
    Some(most) => most,
    None => 0.0,
};

fn prompts(fixture: &Fixture) -> Vec<Prompt> {
    let long = "Describe everything in this picture, from left to right and from top to bottom. ".repeat(2);
    vec![
        fixture.prompt(),
        fixture.ask(None, "Hi"),
        fixture.ask(None, &long),
        fixture.ask(Some(fixture.image()), "颜色?"),
        fixture.ask(None, "Two plus two?"),
    ]
}

/// Feeds `rows` of `embeds` from `start` and gives the logits after the last.
fn read(fixture: &Fixture, cache: &KvCache, slot: usize, embeds: &Tensor, start: usize, rows: usize) -> Tensor {
    let batch = Batch::new(&[Segment { slot, start, rows, long: false }]);
    let chunk = embeds.narrow(0, start, rows).unwrap().contiguous().unwrap();
    let hidden = fixture.model.language().forward(&chunk, &batch, cache).unwrap();
    fixture.model.language().logits(&hidden, batch.last_rows()).unwrap()
}

fn next(fixture: &Fixture, cache: &KvCache, rows: &[(usize, usize, u32)]) -> Tensor {
    let segments: Vec<Segment> =
        rows.iter().map(|&(slot, start, _)| Segment { slot, start, rows: 1, long: false }).collect();
    let ids: Vec<u32> = rows.iter().map(|(_, _, id)| *id).collect();
    let (batch, language) = (Batch::new(&segments), fixture.model.language());
    let hidden = language.forward(&language.embed(&ids).unwrap(), &batch, cache).unwrap();
    language.logits(&hidden, batch.last_rows()).unwrap()
}

#[test]
fn decoded_together_is_decoded_alone() {
    let fixture = Fixture::open();
    let prompts = prompts(&fixture);
    let together = fixture.model.kv_cache(prompts.len(), POSITIONS).unwrap();
    let mut lengths = Vec::new();
    let mut alone = Vec::new();
    for (slot, prompt) in prompts.iter().enumerate() {
        let embeds = fixture.embeds(prompt);
        let cache = fixture.model.kv_cache(1, POSITIONS).unwrap();
        let rows = prompt.ids.len();
        let a = read(&fixture, &cache, 0, &embeds, 0, rows);
        let b = read(&fixture, &together, slot, &embeds, 0, rows);
        assert!(difference(&a, &b) <= TOLERANCE);
        lengths.push(rows);
        alone.push(cache);
    }
    for step in 0..6u32 {
        let id = |slot: usize| (7 * step + 13 * slot as u32) % 250 + 3;
        let rows: Vec<_> = (0..prompts.len()).map(|slot| (slot, lengths[slot] + step as usize, id(slot))).collect();
        let batched = next(&fixture, &together, &rows);
        for (slot, (_, position, id)) in rows.iter().enumerate() {
            let single = next(&fixture, &alone[slot], &[(0, *position, *id)]);
            let difference = difference(&batched.narrow(0, slot, 1).unwrap(), &single);
            assert!(difference <= TOLERANCE, "sequence {slot}, step {step}: {difference}");
        }
    }
}

#[test]
fn a_prompt_in_chunks_is_the_prompt_at_once() {
    let fixture = Fixture::open();
    let prompt = fixture.prompt();
    let embeds = fixture.embeds(&prompt);
    let total = prompt.ids.len();
    let cache = fixture.model.kv_cache(2, POSITIONS).unwrap();
    let whole = read(&fixture, &cache, 0, &embeds, 0, total);
    for chunk in [1, 7, 16, 40] {
        let mut last = None;
        for start in (0..total).step_by(chunk) {
            last = Some(read(&fixture, &cache, 1, &embeds, start, chunk.min(total - start)));
        }
        let difference = difference(&whole, &last.unwrap());
        assert!(difference <= TOLERANCE, "chunks of {chunk}: {difference}");
    }
}

#[test]
fn a_slot_used_before_gives_the_same_again() {
    let fixture = Fixture::open();
    let prompts = prompts(&fixture);
    let cache = fixture.model.kv_cache(1, POSITIONS).unwrap();
    let embeds: Vec<Tensor> = prompts.iter().map(|prompt| fixture.embeds(prompt)).collect();
    let first = read(&fixture, &cache, 0, &embeds[0], 0, prompts[0].ids.len());
    read(&fixture, &cache, 0, &embeds[2], 0, prompts[2].ids.len());
    let again = read(&fixture, &cache, 0, &embeds[0], 0, prompts[0].ids.len());
    assert!(difference(&first, &again) == 0.0);
}
