//! What holds of every fit, over the whole registry and devices of any size: more of something never needs less, and
//! the numbers of one fit agree with each other.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::Path;
use std::sync::LazyLock;

use proptest::prelude::*;
use vlm_catalog::architecture::{ModelConfig, describe};
use vlm_catalog::checkpoint::{CheckpointSize, Head};
use vlm_catalog::footprint::{Device, Fit, KV_BLOCK_TOKENS, Model, Verdict, Wish, fit, suggest};
use vlm_catalog::gpu::GpuTypes;
use vlm_catalog::kv_cache::KvCacheDtype;
use vlm_catalog::quantization::{Quantization, QuantizationChoice};

static MODELS: LazyLock<Vec<(ModelConfig, CheckpointSize)>> = LazyLock::new(|| {
    let files = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models")).unwrap();
    let mut paths: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    paths.sort_unstable();
    let read = |path: &Path| {
        let config = describe(&serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()).unwrap();
        let size = CheckpointSize::of(&config, Head::Stored);
        (config, size)
    };
    paths.iter().map(|path| read(path)).collect()
});

static TYPES: LazyLock<GpuTypes> =
    LazyLock::new(|| GpuTypes::parse(include_str!("../../charts/vlm-operator/gpu-types.yaml")).unwrap());

fn model(index: prop::sample::Index) -> Model<'static> {
    let (config, size) = index.get(&MODELS);
    Model { config, size }
}

fn devices() -> impl Strategy<Value = Device> {
    let memory = 1_u64 << 30..300 << 30;
    prop_oneof![
        memory.clone().prop_map(|memory_bytes| Device::Gpu { memory_bytes }),
        memory.prop_map(|memory_bytes| Device::Cpu { memory_bytes: Some(memory_bytes) }),
    ]
}

fn choices() -> impl Strategy<Value = QuantizationChoice> {
    let fixed = prop::sample::select(Quantization::ALL.to_vec()).prop_map(QuantizationChoice::Fixed);
    prop_oneof![Just(QuantizationChoice::Auto), fixed]
}

fn wishes() -> impl Strategy<Value = Wish> {
    let tokens = prop::option::of(1_u64..4096);
    let kept = prop::sample::select(KvCacheDtype::ALL.to_vec());
    (choices(), tokens, prop::option::of(1_u64..256), kept).prop_map(
        |(quantization, max_tokens, max_concurrency, kv_cache_dtype)| Wish {
            quantization,
            max_tokens,
            max_concurrency,
            kv_cache_dtype,
        },
    )
}

fn with_memory(device: Device, bytes: u64) -> Device {
    match device {
        Device::Gpu { .. } => Device::Gpu { memory_bytes: bytes },
        Device::Cpu { .. } => Device::Cpu { memory_bytes: Some(bytes) },
    }
}

fn larger(device: Device, more: u64) -> Device {
    let (Device::Gpu { memory_bytes } | Device::Cpu { memory_bytes: Some(memory_bytes) }) = device else {
        return device;
    };
    with_memory(device, memory_bytes + more)
}

fn fixed(quantization: Quantization, wish: Wish) -> Wish {
    Wish { quantization: QuantizationChoice::Fixed(quantization), ..wish }
}

fn fits(fit: &Fit) -> bool {
    fit.verdict == Verdict::Fits
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn kv_holds_a_full_sequence_exactly_when_it_fits(index: prop::sample::Index, wish in wishes(), device in devices()) {
        let fit = fit(model(index), wish, device).unwrap();
        let available = device.available_bytes().unwrap();
        let breakdown = &fit.breakdown;
        prop_assert_eq!(fits(&fit), fit.required_bytes <= available);
        prop_assert_eq!(fits(&fit), fit.kv_bytes >= breakdown.kv_bytes);
        prop_assert_eq!(fit.kv_bytes, if fits(&fit) { available - breakdown.fixed_bytes() } else { 0 });
        prop_assert_eq!(fit.required_bytes, breakdown.fixed_bytes() + breakdown.kv_bytes);
        prop_assert_eq!(fit.full_length_sequences, fit.kv_bytes / breakdown.kv_bytes);
        prop_assert!(breakdown.kv_bytes >= fit.max_tokens * breakdown.kv_bytes_per_token);
        prop_assert!(fit.typical_requests >= fit.full_length_sequences);
        prop_assert!((1..=256).contains(&fit.max_concurrency));
    }

    #[test]
    fn more_memory_never_takes_a_fit_away(
        index: prop::sample::Index, wish in wishes(), device in devices(), more in 0_u64..64 << 30,
    ) {
        let (less, more) = (fit(model(index), wish, device).unwrap(), fit(model(index), wish, larger(device, more)).unwrap());
        prop_assert!(!fits(&less) || fits(&more));
        if less.quantization == more.quantization && fits(&less) {
            prop_assert!(less.max_tokens <= more.max_tokens && less.kv_bytes <= more.kv_bytes);
        }
        // auto never goes to fewer bits when there is more room.
        if fits(&less) && wish.max_tokens.is_some() {
            let rank = |fit: &Fit| Quantization::ALL.iter().position(|other| *other == fit.quantization);
            prop_assert!(rank(&less) >= rank(&more), "{:?} {:?}", less, more);
        }
    }

    #[test]
    fn longer_contexts_need_more(
        index: prop::sample::Index, wish in wishes(), device in devices(), tokens in 1_u64..2048, more in 0_u64..2048,
    ) {
        let with = |tokens| fit(model(index), fixed(Quantization::None, Wish { max_tokens: Some(tokens), ..wish }), device).unwrap();
        let (short, long) = (with(tokens), with(tokens + more));
        prop_assert!(short.required_bytes <= long.required_bytes);
        prop_assert!(fits(&short) || !fits(&long));
        prop_assert!(short.full_length_sequences >= long.full_length_sequences);
    }

    #[test]
    fn fewer_bits_are_smaller_weights_and_auto_fits_where_any_does(index: prop::sample::Index, wish in wishes(), device in devices()) {
        let wish = Wish { max_tokens: Some(wish.max_tokens.unwrap_or(1024)), ..wish };
        let [none, int8, int4] = Quantization::ALL.map(|quantization| fit(model(index), fixed(quantization, wish), device).unwrap());
        let [a, b, c] = [&int4, &int8, &none].map(|fit| fit.breakdown.weight_bytes());
        prop_assert!(a < b && b < c, "{} {} {}", a, b, c);
        let auto = fit(model(index), Wish { quantization: QuantizationChoice::Auto, ..wish }, device).unwrap();
        prop_assert_eq!(fits(&auto), [none, int8, int4].iter().any(fits));
    }

    #[test]
    fn suggestions_keep_their_word(
        index: prop::sample::Index, wish in wishes(), device in devices(), percent in 1_u64..100,
    ) {
        let model = model(index);
        let device = with_memory(device, fit(model, wish, device).unwrap().required_bytes / 100 * percent);
        if fits(&fit(model, wish, device).unwrap()) {
            // auto found a smaller format.
            return Ok(());
        }
        let suggestion = suggest(model, wish, device, &TYPES);
        let fits = |wish, device| fit(model, wish, device).unwrap().verdict == Verdict::Fits;
        if let Some(tokens) = suggestion.max_tokens {
            let of = |tokens| fits(Wish { max_tokens: Some(tokens), ..wish }, device);
            prop_assert!(of(tokens) && !of(tokens + KV_BLOCK_TOKENS), "{}", tokens);
        }
        if let Some(quantization) = suggestion.quantization {
            prop_assert!(fits(fixed(quantization, wish), device));
        }
        if let Some(name) = &suggestion.gpu_type {
            let memory_bytes = TYPES.get(name).unwrap().memory_bytes;
            let gpu = Device::Gpu { memory_bytes };
            prop_assert!(fits(wish, gpu), "{}", name);
        }
        prop_assert!(fits(wish, with_memory(device, suggestion.memory_bytes)));
        prop_assert!(!fits(wish, with_memory(device, suggestion.memory_bytes - 1)));
    }

    #[test]
    fn catalogues_of_any_text_are_read_or_refused(text in "\\PC{0,200}", lines in prop::collection::vec("[a-z0-9:{}\\[\\]&*!|>'\" -]{0,30}", 0..12)) {
        for yaml in [text, lines.join("\n"), format!("mine:\n  {}", lines.join("\n  "))] {
            if let Err(error) = GpuTypes::parse(&yaml) {
                prop_assert!(error.to_string().len() < 2000);
            }
        }
    }
}
