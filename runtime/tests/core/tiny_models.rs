//! The trained example models against what transformers answered: prompts, ids, tensors, answers.

#[path = "../support/tiny_model.rs"]
mod tiny_model;

use std::sync::LazyLock;

use candle_core::Device;

use self::tiny_model::Example;

macro_rules! example {
    ($module:ident, $folder:literal) => {
        mod $module {
            use super::*;

            static EXAMPLE: LazyLock<Example> = LazyLock::new(|| Example::open($folder, &Device::Cpu));

            #[test]
            fn prompt_ids_equal_the_references() {
                EXAMPLE.prompts_are_equal();
            }

            #[test]
            fn tensors_are_within_tolerance() {
                EXAMPLE.tensors_are_close();
            }

            #[test]
            fn logits_in_16_bits_are_within_tolerance() {
                EXAMPLE.logits_in_16_bits_are_near();
            }

            #[tokio::test]
            async fn answers_equal_the_references_one_after_another() {
                EXAMPLE.answers_are_equal_one_after_another().await;
            }

            #[tokio::test]
            async fn answers_equal_the_references_all_at_once() {
                EXAMPLE.answers_are_equal_all_at_once().await;
            }
        }
    };
}

example!(llava, "tiny-llava");
example!(internvl, "tiny-internvl");

#[test]
fn int8_and_q4_k_are_near_the_reference_on_the_dequantised_weights() {
    Example::open("tiny-llava", &Device::Cpu).quantised_steps_are_near();
}
