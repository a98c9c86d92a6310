//! What must not pass: one weight a twentieth too large, another base of the rotary angles, a turned picture, one
//! other token. The quantity that is off is named.

use std::path::Path;

use candle_core::{DType, Tensor};
use vlm_runtime::args::{Command, parse};
use vlm_runtime::commands::verify::{Report, verify as compare};

use crate::case::{FAMILIES, NAMES, copy, dir, edit, tensors, verify};

type Change = fn(&mut serde_json::Value);

/// Whether nothing depends on the tensor: layers behind the one whose output is used, and biases of keys, which
/// move all scores of a query alike where keys are not rotated.
fn unused(name: &str) -> bool {
    let tower = name.contains("vision");
    tower && (name.contains("layers.2.") || name.contains("post_layernorm") || name.contains("k_proj.bias"))
}

/// In this process: a checkpoint in `model` against the reference in `expected`.
fn first_off(expected: &Path, model: &Path) -> Option<String> {
    let words = ["vlm-runtime", "verify", expected.to_str().unwrap(), "--model", model.to_str().unwrap()];
    let Command::Verify(args) = parse(&words.map(Into::into)).unwrap().command else { panic!("another command") };
    let mut report = Report::default();
    compare(&args, &mut report).unwrap();
    report.first_off()
}

fn save(dir: &Path, tensors: impl IntoIterator<Item = (String, Tensor)>) {
    let all = tensors.into_iter().collect();
    candle_core::safetensors::save(&all, dir.join("model.safetensors")).unwrap();
}

#[test]
fn a_weight_that_is_a_twentieth_too_large_is_found_wherever_it_is() {
    for name in FAMILIES {
        let copy = copy(name);
        let all = tensors(&copy.path().join("model.safetensors"));
        let mut missed = Vec::new();
        for harmed in all.keys() {
            if all[harmed].dtype() != DType::F32 {
                continue;
            }
            let with = |(key, tensor): (&String, &Tensor)| {
                let scale = if key == harmed { 1.05 } else { 1.0 };
                (key.clone(), tensor.affine(scale, 0.0).unwrap())
            };
            save(copy.path(), all.iter().map(with));
            if first_off(&dir(name), copy.path()).is_none() != unused(harmed) {
                missed.push(harmed.clone());
            }
        }
        assert_eq!(missed, Vec::<String>::new(), "{name}");
    }
}

#[test]
fn the_binary_names_what_a_wrong_weight_puts_off() {
    for name in FAMILIES {
        for (part, quantity) in [("layers.0.mlp", ""), ("multi_modal_projector", "projected"), ("mlp1.1", "projected")]
        {
            let copy = copy(name);
            let all = tensors(&copy.path().join("model.safetensors"));
            let Some(harmed) = all.keys().find(|key| key.contains(part) && key.ends_with("weight")) else { continue };
            let with = |(key, tensor): (&String, &Tensor)| {
                (key.clone(), tensor.affine(if key == harmed { 1.05 } else { 1.0 }, 0.0).unwrap())
            };
            save(copy.path(), all.iter().map(with));
            let ended = verify(copy.path(), &[]);
            assert_eq!(ended.code, 1, "{name}: {}{}", ended.out, ended.error);
            assert!(ended.error.contains("is off: the largest difference is"), "{}", ended.error);
            assert!(ended.error.starts_with(quantity), "{name}, {harmed}: {}", ended.error);
            assert_eq!(ended.error.lines().count(), 1, "{}", ended.error);
        }
    }
}

#[test]
fn another_base_of_the_rotary_angles_is_found() {
    for name in FAMILIES {
        let copy = copy(name);
        edit(&copy.path().join("config.json"), |json| {
            let key = if json.get("llm_config").is_some() { "llm_config" } else { "text_config" };
            let text = &mut json[key];
            let parameters = text.get("rope_parameters").and_then(|rope| rope["rope_theta"].as_f64());
            let theta = text.get("rope_theta").and_then(serde_json::Value::as_f64).or(parameters).unwrap_or(10_000.0);
            text["rope_theta"] = (2.0 * theta).into();
            if parameters.is_some() {
                text["rope_parameters"]["rope_theta"] = (2.0 * theta).into();
            }
        });
        let ended = verify(copy.path(), &[]);
        assert_eq!(ended.code, 1, "{name}: {}{}", ended.out, ended.error);
        assert!(ended.error.starts_with("logits_tail is off"), "{name}: {}", ended.error);
    }
}

#[test]
fn a_turned_picture_is_found() {
    for name in FAMILIES {
        for turn in [image::DynamicImage::rotate90, image::DynamicImage::rotate180, image::DynamicImage::fliph] {
            let copy = copy(name);
            let path = copy.path().join("images/0.png");
            turn(&image::open(&path).unwrap()).save(&path).unwrap();
            let ended = verify(copy.path(), &[]);
            assert_eq!(ended.code, 1, "{name}: {}{}", ended.out, ended.error);
            let named = ["pixel_values", "image_tokens"].iter().any(|quantity| ended.error.starts_with(quantity));
            assert!(named, "{name}: {}", ended.error);
        }
    }
}

#[test]
fn one_other_token_is_found_in_every_number_format() {
    for format in [["--dtype", "f16"], ["--dtype", "bf16"]] {
        let copy = copy(NAMES[0]);
        edit(&copy.path().join("expected.json"), |json| json["greedy_ids"][11] = 77.into());
        let ended = verify(copy.path(), &format);
        assert_eq!(ended.code, 1, "{format:?}: {}{}", ended.out, ended.error);
        assert!(ended.error.starts_with("greedy_ids is off: number 11"), "{format:?}: {}", ended.error);
    }
}

#[test]
fn one_other_token_is_found() {
    for name in NAMES {
        let changes: [(&str, Change); 4] = [
            ("input_ids", |json| json["input_ids"][1] = 77.into()),
            ("input_ids", |json| {
                let prompt = json["prompt"].as_str().unwrap();
                json["prompt"] = prompt.replacen('\n', "\t", 1).into();
            }),
            ("step_logits", |json| json["greedy_ids"][5] = 77.into()),
            ("greedy_ids", |json| json["greedy_ids"][11] = 77.into()),
        ];
        for (quantity, change) in changes {
            let copy = copy(name);
            edit(&copy.path().join("expected.json"), change);
            let ended = verify(copy.path(), &[]);
            assert_eq!(ended.code, 1, "{name}: {}{}", ended.out, ended.error);
            assert!(ended.error.starts_with(&format!("{quantity} is off")), "{name}: {}", ended.error);
        }
    }
}
