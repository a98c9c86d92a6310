//! Mutated configurations: a description or an error, never a panic, and never more than the bounds.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::Path;
use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::{Value, json};
use vlm_catalog::architecture::raw::{RawConfig, RawTower};
use vlm_catalog::architecture::{ModelConfig, Tiling, TowerShapes, describe, describe_tower, tower_from_tensors};
use vlm_catalog::checkpoint::{CheckpointSize, Head};
use vlm_catalog::footprint::{Device, Model, Verdict, Wish, fit, suggest};
use vlm_catalog::gpu::GpuTypes;
use vlm_catalog::quantization::Quantization;

/// One of each family, convention and decoder.
static CONFIGS: LazyLock<Vec<Value>> = LazyLock::new(|| {
    let read = |name: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/models/{name}.json"));
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    };
    [
        "llava-1.5-7b-hf",
        "llava-v1.6-mistral-7b-hf",
        "llava-v1.5-13b",
        "llava-v1.6-34b",
        "llava-v1.6-mistral-7b",
        "InternVL2-1B",
        "InternVL2-4B",
        "InternVL2-26B",
        "InternVL2-Llama3-76B",
        "InternVL3-9B-hf",
    ]
    .map(read)
    .into()
});

fn values() -> impl Strategy<Value = Value> {
    let numbers = [0, 1, -1, 2, 3, 7, 63, 64, 1 << 10, 1 << 16, 1 << 18, 1 << 22, i64::MAX, i64::MIN];
    prop_oneof![
        prop::sample::select(numbers.to_vec()).prop_map(Value::from),
        (-100_000i64..100_000).prop_map(Value::from),
        prop::sample::select(vec![0.0, -0.5, 0.25, 1e-300, 1e300, 0.999]).prop_map(Value::from),
        prop::sample::select(vec![
            json!(null),
            json!(true),
            json!(false),
            json!(""),
            json!("名".repeat(5000)),
            json!([]),
            json!({}),
            json!([1, 2]),
            json!([[1, 2], [3]]),
            json!("v1"),
            json!("mistral"),
            json!("phi3"),
            json!("longrope"),
            json!("full"),
            json!(u64::MAX),
        ]),
    ]
}

/// Paths of everything in `value`.
fn paths(value: &Value, at: &str, all: &mut Vec<String>) {
    let mut below = |name: &str, value: &Value| {
        let path = format!("{at}/{name}");
        all.push(path.clone());
        paths(value, &path, all);
    };
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| below(name, value)),
        Value::Array(items) => items.iter().take(2).enumerate().for_each(|(n, value)| below(&n.to_string(), value)),
        _ => {}
    }
}

/// Some configuration with up to six of its values replaced or removed.
fn mutated() -> impl Strategy<Value = Value> {
    let mutation = (any::<prop::sample::Index>(), prop::option::weighted(0.8, values()));
    let mutations = prop::collection::vec(mutation, 0..6);
    (prop::sample::select(CONFIGS.clone()), mutations).prop_map(|(mut config, mutations)| {
        for (index, value) in mutations {
            let mut all = Vec::new();
            paths(&config, "", &mut all);
            if all.is_empty() {
                break;
            }
            let path = index.get(&all);
            match (value, path.rsplit_once('/')) {
                (Some(value), _) => *config.pointer_mut(path).unwrap() = value,
                (None, Some((parent, name))) => match config.pointer_mut(parent).unwrap() {
                    Value::Object(fields) => drop(fields.remove(name)),
                    Value::Array(items) => drop(items.pop()),
                    _ => {}
                },
                (None, None) => {}
            }
        }
        config
    })
}

/// The size of a described model.
fn assert_size(config: &ModelConfig) {
    for head in [Head::Stored, Head::Tied] {
        let size = CheckpointSize::of(config, head);
        assert!(size.parameters() <= 1 << 40);
        let bytes = Quantization::ALL.map(|quantization| size.bytes(quantization));
        assert!(bytes.iter().all(|bytes| *bytes <= 1 << 41));
    }
}

/// A fit on devices of any memory.
fn assert_fits(config: &ModelConfig, memory_bytes: u64, tokens: Option<u64>, requests: Option<u64>) {
    let size = CheckpointSize::of(config, Head::Stored);
    let model = Model { config, size: &size };
    let wish = Wish { max_tokens: tokens, max_concurrency: requests, ..Wish::default() };
    for device in [
        Device::Gpu { memory_bytes },
        Device::Cpu { memory_bytes: Some(memory_bytes) },
        Device::Cpu { memory_bytes: None },
    ] {
        let Ok(fitted) = fit(model, wish, device) else {
            assert!(tokens.is_some_and(|tokens| tokens > config.text.max_positions as u64));
            continue;
        };
        if fitted.verdict == Verdict::DoesNotFit {
            let suggestion = suggest(model, wish, device, &GpuTypes::default());
            assert!(suggestion.in_words(device).len() < 500 && fitted.in_words(device).len() < 500);
        } else {
            assert!(fitted.kv_bytes >= fitted.breakdown.kv_bytes && fitted.full_length_sequences >= 1);
        }
    }
}

/// Everything else that later code allocates by.
fn assert_bounded(config: &ModelConfig) {
    let (text, vision) = (&config.text, &config.vision);
    assert!(text.kv_bytes_per_token(4) <= 1 << 36 && (1..=1 << 22).contains(&text.max_positions));
    assert!((1..=(256 * 256) + 1).contains(&vision.tokens_per_tile()));
    assert!(vision.layers_used <= vision.layers && vision.hidden_size.is_multiple_of(vision.heads));
    assert!(text.heads.is_multiple_of(text.kv_heads) && text.head_dim.is_multiple_of(2));
    if let Some(rope) = &text.long_rope {
        assert_eq!((rope.short.len(), rope.long.len()), (text.head_dim / 2, text.head_dim / 2));
        assert!(rope.attention_factor.is_finite() && rope.original_positions >= 2);
    }
    match &config.tiling {
        Tiling::One { .. } => {}
        Tiling::AnyRes { pinpoints } => assert!((1..=64).contains(&pinpoints.len())),
        Tiling::Dynamic { min, max, .. } => assert!(1 <= *min && min <= max && *max < 64),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn mutated_configurations_are_described_within_bounds_or_refused(
        json in mutated(),
        memory in prop::sample::select(vec![0, 1, 99, 1 << 30, 80 << 30, u64::MAX]),
        tokens in prop::option::of(prop::sample::select(vec![0, 1, 4096, 1 << 22, u64::MAX])),
        requests in prop::option::of(prop::sample::select(vec![0, 1, 256, u64::MAX])),
    ) {
        let Ok(raw) = serde_json::from_value::<RawConfig>(json) else { return Ok(()) };
        match describe(&raw) {
            Ok(config) => {
                assert_size(&config);
                assert_bounded(&config);
                assert_fits(&config, memory, tokens, requests);
            }
            Err(error) => {
                let text = error.to_string();
                prop_assert!(text.len() < 2000 && !text.ends_with('.'), "{}", text);
            }
        }
    }

    #[test]
    fn towers_of_any_shape_are_described_within_bounds_or_refused(
        sides in prop::array::uniform6(prop::sample::select(vec![0, 1, 3, 4, 17, 32, 64, 577, 1024, 1 << 20, usize::MAX])),
        width in prop::sample::select(vec![0, 1, 32, 768, 1024, usize::MAX]),
        layers in prop::sample::select(vec![0, 1, 3, 24, 1 << 20, usize::MAX]),
        heads in values(),
    ) {
        let shapes = TowerShapes {
            class: vec![width],
            patches: vec![width, sides[0], sides[1], sides[1]],
            positions: vec![sides[2], width],
            fc1: vec![sides[3], width],
            layers,
        };
        let mut config = CONFIGS[2].clone();
        config["vision_config"] = json!({"num_attention_heads": heads.clone()});
        let Ok(raw) = serde_json::from_value::<RawConfig>(config) else { return Ok(()) };
        if let (Ok(model), Ok(found)) = (describe(&raw), tower_from_tensors(&raw, &shapes, None)) {
            assert_bounded(&ModelConfig { vision: found.config, ..model });
        }
        let Ok(tower) = serde_json::from_value::<RawTower>(json!({"vision_config": {"num_attention_heads": heads}})) else {
            return Ok(());
        };
        let _ = describe_tower(&raw, &tower);
    }
}
