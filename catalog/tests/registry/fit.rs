//! Every checkpoint in every number format on every GPU type of the chart, against the published figures: weights and
//! keys and values to the last digit given, the verdict by the rule that beside them 1 to 2 GiB are needed.

use vlm_catalog::checkpoint::{CheckpointSize, Head};
use vlm_catalog::footprint::{Device, Fit, Model, Verdict, Wish, fit, gib, suggest};
use vlm_catalog::gpu::GpuTypes;
use vlm_catalog::quantization::{Quantization, QuantizationChoice};

use crate::table::{ROWS, model};

const TYPES: &str = include_str!("../../../charts/vlm-operator/gpu-types.yaml");

/// GiB of keys and values of 4096 tokens, for all of the same bytes a token.
const KV_AT_4096: [(u64, &str); 14] = [
    (524_288, "2.00"),
    (819_200, "3.12"),
    (131_072, "0.50"),
    (245_760, "0.94"),
    (12_288, "0.05"),
    (98_304, "0.38"),
    (28_672, "0.11"),
    (393_216, "1.50"),
    (36_864, "0.14"),
    (57_344, "0.22"),
    (49_152, "0.19"),
    (196_608, "0.75"),
    (262_144, "1.00"),
    (327_680, "1.25"),
];

/// GiB that no model takes beside weights, keys and values: up to 26 billion parameters less was measured, above that it
/// is reckoned for a tower of six billion parameters with 16 tiles at a time and a decoder of 78 billion with 4096 rows.
fn most_beside(stored_weights_gib: f64) -> f64 {
    if stored_weights_gib < 30.0 { 3.2 } else { 8.0 }
}

/// Verdicts that people ask for first: a model, its number format, a GPU type, whether it fits at 4096 tokens.
const ASKED: [(&str, Quantization, &str, bool); 24] = [
    ("llava-1.5-7b-hf", Quantization::None, "nvidia-l4", true),
    ("InternVL3-8B", Quantization::None, "nvidia-l4", true),
    ("InternVL2-8B", Quantization::None, "nvidia-a10g", true),
    ("llava-1.5-13b-hf", Quantization::None, "nvidia-l4", false),
    ("llava-1.5-13b-hf", Quantization::Int8, "nvidia-l4", true),
    ("llava-1.5-13b-hf", Quantization::Int4, "nvidia-l4", true),
    ("InternVL2-26B", Quantization::Int4, "nvidia-l4", false),
    ("InternVL2-26B", Quantization::Int4, "nvidia-rtx-4090", false),
    ("InternVL2-26B", Quantization::Int4, "nvidia-l40s", true),
    ("InternVL2-26B", Quantization::Int8, "nvidia-l40s", true),
    ("InternVL2-26B", Quantization::None, "nvidia-a100-80gb", true),
    ("llava-v1.6-34b-hf", Quantization::None, "nvidia-a100-80gb", true),
    ("llava-v1.6-34b-hf", Quantization::Int4, "nvidia-l4", false),
    ("llava-v1.6-34b-hf", Quantization::Int4, "nvidia-a100-40gb", true),
    ("InternVL2-40B", Quantization::Int8, "nvidia-h100", true),
    ("InternVL2-40B", Quantization::None, "nvidia-h100", false),
    ("InternVL2-40B", Quantization::None, "nvidia-h100-nvl", true),
    ("InternVL3-38B", Quantization::None, "nvidia-h200", true),
    ("InternVL3-38B", Quantization::Int4, "nvidia-a100-40gb", true),
    ("InternVL3-78B", Quantization::None, "nvidia-h200", false),
    ("InternVL3-78B", Quantization::None, "nvidia-b200", true),
    ("InternVL3-78B", Quantization::Int8, "nvidia-h200", true),
    ("InternVL3-78B", Quantization::Int4, "nvidia-h100", true),
    ("InternVL2-1B", Quantization::None, "nvidia-a100-80gb-mig-1g.10gb", true),
];

fn at_4096(name: &str, quantization: Quantization, memory_bytes: u64) -> Fit {
    let config = model(name);
    let size = CheckpointSize::of(&config, Head::Stored);
    let wish = Wish {
        quantization: QuantizationChoice::Fixed(quantization),
        max_tokens: Some(4096),
        max_concurrency: Some(1),
        ..Wish::default()
    };
    fit(Model { config: &config, size: &size }, wish, Device::Gpu { memory_bytes }).unwrap()
}

/// Whether `value` is `expected` to as many decimals as that has.
fn rounds(value: f64, expected: &str) -> bool {
    let decimals = expected.split_once('.').map_or(0, |(_, decimals)| decimals.len());
    format!("{value:.decimals$}") == expected
}

#[test]
fn weights_and_kv_are_the_published_ones_and_verdicts_follow_from_them() {
    let types = GpuTypes::parse(TYPES).unwrap();
    let (mut checked, mut between) = (0, 0);
    for (names, _, _, kv_bytes, weights) in ROWS {
        let most = most_beside(weights[0].parse().unwrap());
        let kv = KV_AT_4096.iter().find(|(bytes, _)| *bytes == kv_bytes).unwrap().1;
        for (name, (quantization, weights)) in
            names.iter().flat_map(|name| Quantization::ALL.into_iter().zip(weights).map(move |row| (name, row)))
        {
            for (gpu_name, gpu) in types.iter() {
                let what = format!("{name}, {quantization}, {gpu_name}");
                let fit = at_4096(name, quantization, gpu.memory_bytes);
                let breakdown = &fit.breakdown;
                assert!(rounds(gib(breakdown.weight_bytes()), weights), "{what}: weights");
                assert_eq!(breakdown.kv_bytes, 4096 * kv_bytes, "{what}");
                assert!(rounds(gib(breakdown.kv_bytes), kv), "{what}: {}", gib(breakdown.kv_bytes));
                let beside = gib(fit.required_bytes - breakdown.weight_bytes() - breakdown.kv_bytes);
                assert!((0.6..most).contains(&beside), "{what}: {beside} GiB beside weights and KV");
                let known = gib(breakdown.weight_bytes() + breakdown.kv_bytes);
                let available = 0.92 * gib(gpu.memory_bytes);
                checked += 1;
                match fit.verdict {
                    Verdict::Fits => assert!(known + 0.6 <= available, "{what} must not fit"),
                    _ => assert!(known + most > available, "{what} must fit"),
                }
                between += u32::from(known + 0.6 <= available && known + most > available);
            }
        }
    }
    assert_eq!(checked, 40 * 3 * 20);
    assert!(between < checked / 10, "{between} of {checked} verdicts are not decided by the published figures");
}

#[test]
fn verdicts_that_people_ask_for_are_as_known() {
    let types = GpuTypes::parse(TYPES).unwrap();
    for (name, quantization, gpu, fits) in ASKED {
        let fit = at_4096(name, quantization, types.get(gpu).unwrap().memory_bytes);
        assert_eq!(fit.verdict == Verdict::Fits, fits, "{name}, {quantization}, {gpu}: {fit:?}");
    }
}

#[test]
fn auto_takes_the_largest_format_with_ample_context() {
    let types = GpuTypes::parse(TYPES).unwrap();
    for (name, gpu, expected) in [
        ("llava-1.5-7b-hf", "nvidia-l4", Quantization::None),
        ("llava-1.5-13b-hf", "nvidia-l4", Quantization::Int8),
        ("llava-1.5-13b-hf", "nvidia-a100-40gb", Quantization::None),
        ("InternVL3-8B", "nvidia-l4", Quantization::None),
        ("InternVL3-14B", "nvidia-l4", Quantization::Int8),
        ("InternVL2-26B", "nvidia-l40s", Quantization::Int8),
        ("InternVL3-38B", "nvidia-l40s", Quantization::Int4),
        ("InternVL3-38B", "nvidia-h200", Quantization::None),
        ("InternVL3-78B", "nvidia-h200", Quantization::Int8),
        ("InternVL3-78B", "nvidia-l40s", Quantization::Int4),
        ("InternVL3-8B-hf", "nvidia-a100-80gb-mig-1g.10gb", Quantization::Int4),
    ] {
        let config = model(name);
        let size = CheckpointSize::of(&config, Head::Stored);
        let memory_bytes = types.get(gpu).unwrap().memory_bytes;
        let fit = fit(Model { config: &config, size: &size }, Wish::default(), Device::Gpu { memory_bytes }).unwrap();
        assert_eq!(fit.quantization, expected, "{name}, {gpu}: {:?}", fit.chosen_because);
        assert!(fit.chosen_because.is_some());
    }
}

#[test]
fn what_is_suggested_is_what_would_fit() {
    let types = GpuTypes::parse(TYPES).unwrap();
    let config = model("llava-1.5-13b-hf");
    let size = CheckpointSize::of(&config, Head::Stored);
    let model_13b = Model { config: &config, size: &size };
    let wish = Wish { quantization: QuantizationChoice::Fixed(Quantization::None), ..Wish::default() };
    let l4 = Device::Gpu { memory_bytes: types.get("nvidia-l4").unwrap().memory_bytes };
    let suggestion = suggest(model_13b, wish, l4, &types);
    assert_eq!(suggestion.quantization, Some(Quantization::Int8));
    assert_eq!(suggestion.gpu_type.as_deref(), Some("nvidia-a100-80gb-mig-3g.40gb"), "the cheapest with 27 GiB");
    assert_eq!(suggestion.max_tokens, None, "the weights alone are too much");
    let words = suggestion.in_words(l4);
    assert!(
        words.contains("quantization: int8") && words.contains("gpu.type: nvidia-a100-80gb-mig-3g.40gb"),
        "{words}"
    );

    // Too long a context: a shorter one is the way out, and it is the longest that fits.
    let wish = Wish {
        quantization: QuantizationChoice::Fixed(Quantization::None),
        max_tokens: Some(32_768),
        ..Wish::default()
    };
    let config = model("InternVL3-14B");
    let size = CheckpointSize::of(&config, Head::Stored);
    let model_14b = Model { config: &config, size: &size };
    let device = Device::Gpu { memory_bytes: 35 << 30 };
    assert_eq!(fit(model_14b, wish, device).unwrap().verdict, Verdict::DoesNotFit);
    let tokens = suggest(model_14b, wish, device, &types).max_tokens.unwrap();
    let verdict = |tokens| fit(model_14b, Wish { max_tokens: Some(tokens), ..wish }, device).unwrap().verdict;
    assert_eq!((verdict(tokens), verdict(tokens + 32)), (Verdict::Fits, Verdict::DoesNotFit), "{tokens}");

    // More than any GPU has.
    let config = model("InternVL3-78B");
    let size = CheckpointSize::of(&config, Head::Stored);
    let only = GpuTypes::parse("h200: {memoryBytes: 150754820096, computeCapability: '9.0'}").unwrap();
    let wish = Wish { max_tokens: None, ..wish };
    let device = Device::Gpu { memory_bytes: 150_754_820_096 };
    let suggestion = suggest(Model { config: &config, size: &size }, wish, device, &only);
    assert_eq!((suggestion.gpu_type.as_ref(), suggestion.quantization), (None, Some(Quantization::Int8)));
    let words = suggestion.in_words(device);
    assert!(words.contains("a replica uses one GPU") && words.contains("quantization: int8"), "{words}");
}
