//! The trained example models on the GPU against what transformers answered.

#[path = "../support/tiny_model.rs"]
mod tiny_model;

use self::tiny_model::Example;
use crate::gpu::gpu;

const FOLDERS: [&str; 2] = ["tiny-llava", "tiny-internvl"];

#[test]
fn prompts_and_tensors_of_trained_models_are_those_of_the_references() {
    let Some(gpu) = gpu() else { return };
    for folder in FOLDERS {
        let example = Example::open(folder, &gpu);
        example.prompts_are_equal();
        example.tensors_are_close();
        example.logits_in_16_bits_are_near();
    }
}

#[test]
fn quantised_steps_of_a_trained_model_are_near_the_references() {
    let Some(gpu) = gpu() else { return };
    Example::open("tiny-llava", &gpu).quantised_steps_are_near();
}

#[tokio::test]
async fn answers_of_trained_models_are_those_of_the_references() {
    let Some(gpu) = gpu() else { return };
    for folder in FOLDERS {
        let example = Example::open(folder, &gpu);
        example.answers_are_equal_one_after_another().await;
        example.answers_are_equal_all_at_once().await;
    }
}
