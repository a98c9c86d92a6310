//! Weights and caches in 16 bits, and quantised: logits near those of f32, what is held and what is refused.

use std::collections::HashMap;

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{DType, Device, Tensor};
use vlm_catalog::kv_cache::KvCacheDtype;
use vlm_catalog::quantization::{LinearRole, Quantization};
use vlm_contract::diagnosis::Cause;
use vlm_runtime::checkpoint::{Checkpoint, CheckpointError};
use vlm_runtime::models::VisionLanguage;
use vlm_runtime::ops::{Batch, Segment, nth_table, room_for};
use vlm_runtime::precision::Precision;
use vlm_runtime::tolerance::{Difference, decoded, quantized_logits};

use crate::cases::{CASES, Case};
use crate::fixture::{POSITIONS, difference, flat};
use crate::layouts::{tensors, write};

const fn precision(dtype: DType, quantization: Quantization) -> Precision {
    Precision { dtype, quantization, ..Precision::F32 }
}

/// Logits of the prompt's last 32 positions and of the reference's answer fed token by token, from the reference's
/// pixels on.
fn logits(case: &Case, model: &VisionLanguage) -> Tensor {
    let (language, long) = (model.language(), case.long());
    let prompt = case.prompt();
    let visual: Vec<Tensor> = prompt.images.iter().map(|image| model.see(image).unwrap()).collect();
    let embeds = model.embed(&prompt.ids, prompt.image_token, &visual).unwrap();
    let cache = model.kv_cache(room_for(1, POSITIONS)).unwrap();
    let total = embeds.dim(0).unwrap();
    let blocks = nth_table(0, POSITIONS);
    let batch = Batch::new(&[Segment { blocks: &blocks, start: 0, rows: total, long }]);
    let hidden = language.forward(&embeds, &batch, &cache).unwrap();
    let tail: Vec<u32> = (total as u32 - 32..total as u32).collect();
    let mut all = vec![language.logits(&hidden, &tail).unwrap()];
    let forced = &case.facts.greedy_ids;
    for (step, id) in forced[..forced.len() - 1].iter().enumerate() {
        let batch = Batch::new(&[Segment { blocks: &blocks, start: total + step, rows: 1, long }]);
        let hidden = language.forward(&language.embed(&[*id]).unwrap(), &batch, &cache).unwrap();
        all.push(language.logits(&hidden, batch.last_rows()).unwrap());
    }
    Tensor::cat(&all, 0).unwrap()
}

/// The reference's logits in the order of [`logits`].
fn expected(case: &Case) -> Tensor {
    let steps = case.expected("step_logits");
    let rest = steps.narrow(0, 1, steps.dim(0).unwrap() - 1).unwrap();
    Tensor::cat(&[case.expected("logits_tail"), &rest], 0).unwrap()
}

#[test]
fn logits_in_every_number_format_are_near_the_references() {
    let rows = [
        (DType::F16, Quantization::None),
        (DType::BF16, Quantization::None),
        (DType::F32, Quantization::Int8),
        (DType::F16, Quantization::Int8),
        (DType::F32, Quantization::Int4),
    ];
    let with_auto = rows.map(|(dtype, quantization)| precision(dtype, quantization));
    let in_8_bits = [KvCacheDtype::Int8, KvCacheDtype::Fp8].into_iter().flat_map(|kv_cache| {
        let rows = [precision(DType::F32, Quantization::None), with_auto[0], with_auto[1], with_auto[2], with_auto[4]];
        rows.map(|precision| Precision { kv_cache, ..precision })
    });
    let all: Vec<Precision> = with_auto.into_iter().chain(in_8_bits).collect();
    for case in &*CASES {
        let want = expected(case);
        for precision in &all {
            let model = VisionLanguage::load(&case.checkpoint, POSITIONS, *precision).unwrap();
            let got = logits(case, &model);
            let difference = Difference::between(&flat(&got), &flat(&want));
            let name = case.name;
            assert!(difference.max_abs > 1e-4, "{name}, {precision:?}: {difference:?}");
            assert_eq!(difference.beyond(&decoded(*precision, false)), None, "{name}, {precision:?}: {difference:?}");
        }
    }
}

/// The fixture's tensors with the decoder's linear layers as their quantised numbers say.
fn dequantised(quantization: Quantization) -> HashMap<String, Tensor> {
    let mut all = tensors();
    for (name, tensor) in &mut all {
        let role = if name.ends_with("lm_head.weight") { LinearRole::Head } else { LinearRole::Decoder };
        if !name.starts_with("language_model.") || !name.ends_with("_proj.weight") && role != LinearRole::Head {
            continue;
        }
        let format = quantization.format(role, tensor.dim(1).unwrap()).map(|format| format.to_string());
        let dtype = match format.as_deref() {
            Some("Q8_0") => GgmlDType::Q8_0,
            Some("Q4_0") => GgmlDType::Q4_0,
            Some(other) => panic!("no rows of the fixture are long enough for {other}"),
            None => continue,
        };
        *tensor = QTensor::quantize(tensor, dtype).unwrap().dequantize(&Device::Cpu).unwrap();
    }
    all
}

#[test]
fn quantised_logits_are_those_of_the_dequantised_weights() {
    let case = crate::cases::case("llava15_llama_hub");
    for quantization in [Quantization::Int8, Quantization::Int4] {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &dequantised(quantization));
        let checkpoint = Checkpoint::open(dir.path()).unwrap();
        let reference = VisionLanguage::load(&checkpoint, POSITIONS, Precision::F32).unwrap();
        let want = logits(case, &reference);
        let model = VisionLanguage::load(&case.checkpoint, POSITIONS, precision(DType::F32, quantization)).unwrap();
        let got = flat(&logits(case, &model));
        let (want, stored) = (flat(&want), flat(&expected(case)));
        let to_weights = Difference::between(&got, &want);
        let limit = quantized_logits(quantization, true).unwrap();
        assert_eq!(to_weights.beyond(&limit), None, "{quantization}: {to_weights:?}");
        // What is lost is lost by the weights.
        let (ours, weights) = (Difference::between(&got, &stored).cosine, Difference::between(&want, &stored).cosine);
        assert!(ours >= weights - 1e-3, "{quantization}: {ours}, but {weights} by the weights alone");
    }
}

#[test]
fn a_tied_head_is_quantised_from_the_embedding() {
    let case = crate::cases::case("llava15_llama_hub");
    let mut stored = tensors();
    let embedding = stored["language_model.model.embed_tokens.weight"].clone();
    let mut of = |head: Option<&Tensor>| {
        stored.remove("language_model.lm_head.weight");
        stored.extend(head.map(|head| ("language_model.lm_head.weight".to_owned(), head.clone())));
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &stored);
        let checkpoint = Checkpoint::open(dir.path()).unwrap();
        let model = VisionLanguage::load(&checkpoint, POSITIONS, precision(DType::BF16, Quantization::Int8)).unwrap();
        (logits(case, &model), model.weights().clone())
    };
    let (tied, tied_weights) = of(None);
    let (untied, untied_weights) = of(Some(&embedding));
    assert!(difference(&tied, &untied) == 0.0);
    assert_eq!(tied_weights, untied_weights);
}

#[test]
fn weights_and_cache_take_the_bytes_of_their_formats() {
    let case = crate::cases::case("llava15_llama_hub");
    let load = |dtype, quantization| {
        VisionLanguage::load(&case.checkpoint, POSITIONS, precision(dtype, quantization)).unwrap()
    };
    let f32 = load(DType::F32, Quantization::None);
    assert_eq!(f32.weights().bytes, 4 * f32.weights().parameters);
    for dtype in [DType::F16, DType::BF16] {
        let model = load(dtype, Quantization::None);
        let cache = model.kv_cache(3).unwrap();
        assert_eq!(cache.layer(0).dtype(), dtype);
        assert_eq!(cache.bytes(), 3 * 32 * model.config().text.kv_bytes_per_token(2));
        assert_eq!(model.weights().parameters, f32.weights().parameters);
        let bits = model.weights().bits_per_weight();
        assert!((16.0..17.0).contains(&bits), "{bits}");
        assert!(model.weights().fallbacks.is_empty());
    }
    for kv_cache in [KvCacheDtype::Int8, KvCacheDtype::Fp8] {
        let model =
            VisionLanguage::load(&case.checkpoint, POSITIONS, Precision { kv_cache, ..Precision::F32 }).unwrap();
        let cache = model.kv_cache(3).unwrap();
        assert_eq!(cache.bytes(), 3 * 32 * kv_cache.bytes_per_token(&model.config().text, 4));
        // Per layer two heads of 16 keys and values in 8 bits, with a scale in f32.
        assert_eq!(cache.bytes(), 3 * 32 * 2 * 2 * 2 * (16 + 4));
    }
    // Per layer 64 x 64, 32 x 64 twice, 64 x 64, and gate and up of 112 x 64; rows of 112 are no whole blocks.
    let linears = 2 * (2 * 64 * 64 + 2 * 32 * 64 + 2 * 112 * 64);
    let head = 320 * 64;
    let down = "language_model.model.layers.*.mlp.down_proj.weight";
    let int8 = load(DType::F16, Quantization::Int8);
    let weights = int8.weights();
    assert_eq!((weights.quantised_parameters, weights.quantised_bytes), (linears + head, (linears + head) / 32 * 34));
    assert_eq!(weights.fallbacks.iter().collect::<Vec<_>>(), [&format!("{down} (f16)")]);
    let int4 = load(DType::BF16, Quantization::Int4);
    let weights = int4.weights();
    assert_eq!(weights.quantised_bytes, linears / 32 * 18 + head / 32 * 34);
    assert!(weights.fallbacks.contains(&format!("{down} (bf16)")), "{:?}", weights.fallbacks);
    let out = "language_model.model.layers.*.self_attn.o_proj.weight (Q4_0)";
    assert!(weights.fallbacks.contains(out), "{:?}", weights.fallbacks);
}

/// What loading says when the largest number of `name` is `value`.
fn refusal(name: &str, value: f32, stored: DType, precision: Precision) -> CheckpointError {
    let mut harmed = tensors();
    let tensor = harmed[name].clone();
    let mut values = flat(&tensor);
    values[7] = value;
    let values = Tensor::from_vec(values, tensor.dims(), &Device::Cpu).unwrap();
    harmed.insert(name.to_owned(), values.to_dtype(stored).unwrap());
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &harmed);
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    VisionLanguage::load(&checkpoint, POSITIONS, precision).map(|_| ()).expect_err("the number is held")
}

#[test]
fn numbers_that_a_format_cannot_hold_are_refused_by_name() {
    let name = "language_model.model.layers.1.mlp.up_proj.weight";
    let tower = "vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight";
    let f16 = precision(DType::F16, Quantization::None);
    for (name, precision) in [(name, precision(DType::F32, Quantization::Int8)), (name, f16), (tower, f16)] {
        let error = refusal(name, -7e4, DType::F32, precision);
        let text = error.to_string();
        assert!(text.contains(name) && text.contains("70000") && text.contains("65504"), "{text}");
        assert_eq!(error.cause(), Cause::InvalidArguments);
        for value in [f32::NAN, f32::NEG_INFINITY] {
            for stored in [DType::F32, DType::F16] {
                let error = refusal(name, value, stored, precision);
                assert!(error.to_string().contains(name) && error.to_string().contains("not finite"), "{error}");
                assert_eq!(error.cause(), Cause::WeightsCorrupt);
            }
        }
    }
}
