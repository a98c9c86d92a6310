//! Sequences computed together give what each gives alone, however their prompts are cut.

use std::sync::Arc;

use candle_core::Tensor;
use vlm_runtime::image::{ImageKey, PreparedImage};
use vlm_runtime::ops::{Batch, KvCache, Segment, nth_table, room_for};
use vlm_runtime::processor::Prompt;
use vlm_runtime::tolerance;

use crate::cases::{CASES, Case};
use crate::fixture::{Fixture, POSITIONS, difference};

const TOLERANCE: f32 = match tolerance::BATCHED.max_abs {
    Some(most) => most,
    None => 0.0,
};
const STEPS: u32 = 6;

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
fn read(fixture: &Fixture, cache: &KvCache, n: usize, embeds: &Tensor, start: usize, rows: usize) -> Tensor {
    let blocks = nth_table(n, POSITIONS);
    let batch = Batch::new(&[Segment { blocks: &blocks, start, rows, long: false }]);
    let chunk = embeds.narrow(0, start, rows).unwrap().contiguous().unwrap();
    let hidden = fixture.model.language().forward(&chunk, &batch, cache).unwrap();
    fixture.model.language().logits(&hidden, batch.last_rows()).unwrap()
}

/// What the decoder reads of a sequence, and whether it takes the angles of long ones.
struct Sequence {
    embeds: Tensor,
    long: bool,
}

/// The case's prompt, the same with other pictures, and texts of other lengths.
fn sequences(case: &Case) -> Vec<Sequence> {
    let mut other = case.prompt();
    for image in &mut other.images {
        let pixels: Vec<f32> = image.pixels.values().iter().rev().copied().collect();
        let key = ImageKey::of_pixels(&pixels);
        *image = Arc::new(PreparedImage { pixels: pixels.into(), key, ..(**image).clone() });
    }
    let text = |len: u32| {
        let ids: Vec<u32> = (0..len).map(|i| (29 * i + len) % 250 + 3).collect();
        case.model.language().embed(&ids).unwrap()
    };
    [case.embeds(&case.prompt()), text(1), case.embeds(&other), text(40), text(17)]
        .into_iter()
        .map(|embeds| {
            let long = case.model.language().is_long(embeds.dim(0).unwrap() + STEPS as usize);
            Sequence { embeds, long }
        })
        .collect()
}

/// The logits after each segment's last row.
fn step(case: &Case, cache: &KvCache, segments: &[Segment<'_>], embeds: &Tensor) -> Tensor {
    let (batch, language) = (Batch::new(segments), case.model.language());
    let hidden = language.forward(embeds, &batch, cache).unwrap();
    language.logits(&hidden, batch.last_rows()).unwrap()
}

#[test]
fn computed_together_is_computed_alone_in_every_case() {
    for case in &*CASES {
        let sequences = sequences(case);
        let lengths: Vec<usize> = sequences.iter().map(|sequence| sequence.embeds.dim(0).unwrap()).collect();
        let together = case.model.kv_cache(room_for(sequences.len(), POSITIONS)).unwrap();
        let alone: Vec<KvCache> =
            sequences.iter().map(|_| case.model.kv_cache(room_for(1, POSITIONS)).unwrap()).collect();
        let tables: Vec<Vec<u32>> = (0..sequences.len()).map(|n| nth_table(n, POSITIONS)).collect();
        let compare = |segments: &[Segment<'_>], embeds: &[Tensor], step_name: &str| {
            let batched = step(case, &together, segments, &Tensor::cat(embeds, 0).unwrap());
            for (slot, (segment, embeds)) in segments.iter().zip(embeds).enumerate() {
                let single = step(case, &alone[slot], &[Segment { blocks: &tables[0], ..*segment }], embeds);
                let difference = difference(&batched.narrow(0, slot, 1).unwrap(), &single);
                assert!(difference <= TOLERANCE, "{}, sequence {slot}, {step_name}: {difference}", case.name);
            }
        };
        let segment = |n: usize, start: usize, rows: usize| {
            let (blocks, long) = (&tables[n][..], sequences[n].long);
            Segment { blocks, start, rows, long }
        };
        let prompts: Vec<Segment<'_>> =
            lengths.iter().enumerate().map(|(slot, rows)| segment(slot, 0, *rows)).collect();
        let embeds: Vec<Tensor> = sequences.iter().map(|sequence| sequence.embeds.clone()).collect();
        compare(&prompts, &embeds, "prompt");
        for step in 0..STEPS {
            let id = |slot: usize| (7 * step + 13 * slot as u32) % 250 + 3;
            let segments: Vec<Segment<'_>> =
                lengths.iter().enumerate().map(|(slot, rows)| segment(slot, rows + step as usize, 1)).collect();
            let embeds: Vec<Tensor> =
                (0..lengths.len()).map(|slot| case.model.language().embed(&[id(slot)]).unwrap()).collect();
            compare(&segments, &embeds, &format!("step {step}"));
        }
    }
}

#[test]
fn a_prompt_in_chunks_is_the_prompt_at_once() {
    let fixture = Fixture::open();
    let prompt = fixture.prompt();
    let embeds = fixture.embeds(&prompt);
    let total = prompt.ids.len();
    let cache = fixture.model.kv_cache(room_for(2, POSITIONS)).unwrap();
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
fn blocks_used_before_give_the_same_again() {
    let fixture = Fixture::open();
    let prompts = prompts(&fixture);
    let cache = fixture.model.kv_cache(room_for(1, POSITIONS)).unwrap();
    let embeds: Vec<Tensor> = prompts.iter().map(|prompt| fixture.embeds(prompt)).collect();
    let first = read(&fixture, &cache, 0, &embeds[0], 0, prompts[0].ids.len());
    read(&fixture, &cache, 0, &embeds[2], 0, prompts[2].ids.len());
    let again = read(&fixture, &cache, 0, &embeds[0], 0, prompts[0].ids.len());
    assert!(difference(&first, &again) == 0.0);
}
