//! `trace` writes what the reference's files have: names, shapes, numbers.

use candle_core::{DType, Tensor};
use vlm_runtime::tolerance::{self, Difference};

use crate::case::{NAMES, dir, images, json, tensors, trace};

fn difference(a: &Tensor, b: &Tensor) -> Difference {
    let flat = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    Difference::between(&flat(a), &flat(b))
}

#[test]
fn a_trace_has_the_names_shapes_and_numbers_of_the_reference() {
    for name in NAMES {
        let dir = dir(name);
        let expected = json(&dir.join("expected.json"));
        let steps = expected["greedy_ids"].as_array().unwrap().len();
        let (out, ended) = trace(&dir, expected["prompt"].as_str().unwrap(), &images(&dir), steps);
        assert_eq!(ended.code, 0, "{name}: {}", ended.error);
        let got = json(&out.path().join("trace.json"));
        for fact in [
            "prompt",
            "prompt_expanded",
            "input_ids",
            "greedy_ids",
            "image_token_id",
            "image_tokens",
            "grids_rows_cols",
        ] {
            if !expected[fact].is_null() {
                assert_eq!(got[fact], expected[fact], "{name}: {fact}");
            }
        }
        assert_eq!((got["dtype"].as_str(), got["quantization"].as_str()), (Some("f32"), Some("none")));
        let got = tensors(&out.path().join("trace.safetensors"));
        let expected = tensors(&dir.join("expected.safetensors"));
        assert_eq!(got.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{name}");
        for (key, expected) in &expected {
            let got = &got[key];
            assert_eq!((got.dims(), got.dtype()), (expected.dims(), DType::F32), "{name}: {key}");
            let limit = match key.as_str() {
                "pixel_values" => tolerance::PIXELS,
                "logits_tail" | "step_logits" => tolerance::logits(DType::F32),
                _ => tolerance::features(DType::F32),
            };
            assert_eq!(difference(got, expected).beyond(&limit), None, "{name}: {key}");
        }
    }
}

#[test]
fn a_short_prompt_without_pictures_has_short_logits_and_no_pictures() {
    let (out, ended) = trace(&dir(NAMES[0]), "Hi", &[], 1);
    assert_eq!(ended.code, 0, "{}", ended.error);
    let got = json(&out.path().join("trace.json"));
    let tokens = got["input_ids"].as_array().unwrap().len();
    assert!(tokens < 32 && got["image_tokens"].as_array().unwrap().is_empty());
    let got = tensors(&out.path().join("trace.safetensors"));
    assert_eq!(got.keys().collect::<Vec<_>>(), ["inputs_embeds", "logits_tail", "step_logits"]);
    assert_eq!(got["logits_tail"].dims(), [tokens, 320]);
    assert_eq!(got["step_logits"].dims(), [1, 320]);
}

/// Position 509 is read in the first step of 512 tokens and position 520 in the second.
#[test]
fn logits_of_the_last_positions_cross_the_engines_steps() {
    let text: String = "What is shown in this image? ".chars().cycle().take(529).collect();
    let (long, ended) = trace(&dir(NAMES[0]), &text, &[], 2);
    assert_eq!(ended.code, 0, "{}", ended.error);
    let long = tensors(&long.path().join("trace.safetensors"));
    assert_eq!(long["inputs_embeds"].dims()[1], 530);
    for last in [509, 520] {
        let (short, _) = trace(&dir(NAMES[0]), &text[..last], &[], 1);
        let short = tensors(&short.path().join("trace.safetensors"));
        assert_eq!(short["inputs_embeds"].dims()[1], last + 1);
        let row = long["logits_tail"].narrow(0, 32 - (530 - last), 1).unwrap();
        assert_eq!(difference(&row, &short["step_logits"]).beyond(&tolerance::BATCHED), None, "{last}");
    }
    let last = long["logits_tail"].narrow(0, 31, 1).unwrap();
    let first = long["step_logits"].narrow(0, 0, 1).unwrap();
    assert_eq!(difference(&last, &first).beyond(&tolerance::BATCHED), None);
}
