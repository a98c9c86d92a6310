//! `verify` agrees with every reference, whatever names the checkpoint has.

use crate::case::{NAMES, copy, dir, edit, verify};

#[test]
fn every_case_agrees_with_its_reference() {
    for name in NAMES {
        let ended = verify(&dir(name), &["--dtype", "f32"]);
        assert_eq!(ended.code, 0, "{name}: {}{}", ended.out, ended.error);
        for quantity in ["image_tokens", "input_ids", "pixel_values", "vision_features", "projected", "inputs_embeds"] {
            assert!(ended.out.contains(quantity), "{name}: {}", ended.out);
        }
        let packed = name.starts_with("llava_next");
        assert_eq!(ended.out.contains("packed"), packed, "{name}: {}", ended.out);
        for quantity in ["logits_tail", "step_logits", "greedy_ids"] {
            assert!(ended.out.contains(quantity), "{name}: {}", ended.out);
        }
        assert!(ended.out.contains("tokens compared: 12 of 12") && !ended.out.contains("OFF"), "{name}: {}", ended.out);
        assert_eq!(ended.error, "");
    }
}

#[test]
fn every_case_agrees_in_every_number_format() {
    for name in NAMES {
        for format in [["--dtype", "f16"], ["--dtype", "bf16"], ["--quantization", "int8"], ["--quantization", "int4"]]
        {
            let ended = verify(&dir(name), &format);
            assert_eq!(ended.code, 0, "{name} {format:?}: {}{}", ended.out, ended.error);
            assert!(!ended.out.contains("25 %"), "{name} {format:?}: {}", ended.out);
            let reference =
                if format[0] == "--dtype" { "expected.safetensors" } else { &format!("expected.{}.", format[1]) };
            assert!(ended.out.lines().next().unwrap().contains(reference), "{name} {format:?}: {}", ended.out);
        }
    }
}

#[test]
fn without_a_reference_on_the_same_weights_quantised_logits_are_held_against_the_others() {
    let copy = copy(NAMES[0]);
    std::fs::remove_file(copy.path().join("expected.int8.safetensors")).unwrap();
    let ended = verify(copy.path(), &["--quantization", "int8"]);
    assert_eq!(ended.code, 0, "{}{}", ended.out, ended.error);
    assert!(ended.out.contains("cos 0.998 "), "{}", ended.out);
}

#[test]
fn a_checkpoint_of_other_names_agrees_with_the_reference_of_its_twin() {
    let model = dir("llava15_llama_v5names");
    let ended = verify(&dir("llava15_llama_hub"), &["--model", model.to_str().unwrap()]);
    assert_eq!(ended.code, 0, "{}{}", ended.out, ended.error);
}

#[test]
fn pictures_are_taken_in_the_order_of_their_numbers() {
    let copy = copy("llava_next_mistral_hub");
    for (from, to) in [("0.png", "9.png"), ("1.png", "10.png")] {
        std::fs::rename(copy.path().join("images").join(from), copy.path().join("images").join(to)).unwrap();
    }
    let ended = verify(copy.path(), &[]);
    assert_eq!(ended.code, 0, "{}{}", ended.out, ended.error);
}

#[test]
fn a_prompt_for_other_pictures_than_the_references_is_not_run() {
    let copy = copy(NAMES[0]);
    std::fs::copy(dir(NAMES[0]).join("../tables/resize_0_src.png"), copy.path().join("images/1.png")).unwrap();
    edit(&copy.path().join("expected.json"), |json| {
        json["prompt"] = format!("<image>{}", json["prompt"].as_str().unwrap()).into();
    });
    let ended = verify(copy.path(), &[]);
    assert_eq!(ended.code, 1);
    assert!(ended.error.contains("image_tokens is off: there are 2, and the reference has 1"), "{}", ended.error);
    assert!(ended.out.contains("the model was not run"), "{}", ended.out);
}
