//! Every published checkpoint of LLaVA-1.5 and 1.6 and InternVL 2, 2.5 and 3: its `config.json` as the hub has it
//! describes the model of its size. Phi-3's factors are stand-ins of the right number.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::Path;

use vlm_catalog::architecture::{Dialect, ModelConfig, describe};
use vlm_catalog::checkpoint::{CheckpointSize, Head, Part};
use vlm_catalog::quantization::Quantization;

/// A model's names, its billions of parameters, gigabytes at 16 bit, bytes of keys and values a token, and GiB
/// unquantised, in int8 and in int4.
type Row = (&'static [&'static str], &'static str, &'static str, u64, [&'static str; 3]);

const ROWS: [Row; 21] = [
    (&["llava-v1.5-7b", "llava-1.5-7b-hf"], "7.063", "14.13", 524_288, ["13.2", "7.4", "4.4"]),
    (&["llava-v1.6-vicuna-7b", "llava-v1.6-vicuna-7b-hf"], "7.063", "14.13", 524_288, ["13.2", "7.4", "4.4"]),
    // 13.65 GiB in int8, just below the half.
    (
        &["llava-v1.5-13b", "llava-1.5-13b-hf", "llava-v1.6-vicuna-13b", "llava-v1.6-vicuna-13b-hf"],
        "13.351",
        "26.70",
        819_200,
        ["24.9", "13.6", "7.7"],
    ),
    (&["llava-v1.6-mistral-7b"], "7.566", "15.13", 131_072, ["14.1", "7.9", "4.6"]),
    // 64 rows of vocabulary more, which here show in the last digit.
    (&["llava-v1.6-mistral-7b-hf"], "7.567", "15.13", 131_072, ["14.1", "7.9", "4.6"]),
    (&["llava-v1.6-34b"], "34.751", "69.50", 245_760, ["64.7", "35.1", "19.5"]),
    // 64 more rows of the vocabulary and of the head: 917 504 numbers.
    (&["llava-v1.6-34b-hf"], "34.752", "69.50", 245_760, ["64.7", "35.1", "19.5"]),
    (
        &["InternVL2-1B", "InternVL2_5-1B", "InternVL3-1B", "InternVL3-1B-hf"],
        "0.938",
        "1.88",
        12_288,
        ["1.75", "1.3", "1.15"],
    ),
    (&["InternVL2-2B", "InternVL2_5-2B"], "2.206", "4.41", 98_304, ["4.1", "2.6", "1.9"]),
    (&["InternVL2-4B"], "4.147", "8.29", 393_216, ["7.7", "4.5", "2.8"]),
    (&["InternVL2-8B", "InternVL2_5-8B"], "8.075", "16.15", 131_072, ["15.0", "8.6", "5.4"]),
    (&["InternVL2-26B", "InternVL2_5-26B"], "25.514", "51.03", 196_608, ["47.5", "30.7", "22.0"]),
    (&["InternVL2-40B"], "40.069", "80.14", 245_760, ["74.6", "45.0", "29.4"]),
    (&["InternVL2-Llama3-76B"], "76.262", "152.52", 327_680, ["142", "81", "49.5"]),
    (&["InternVL2_5-4B"], "3.713", "7.43", 36_864, ["6.9", "4.2", "2.9"]),
    // 29.05 GiB in int4, just below the half.
    (&["InternVL2_5-38B", "InternVL3-38B", "InternVL3-38B-hf"], "38.388", "76.78", 262_144, ["71.5", "43.6", "29.0"]),
    (&["InternVL2_5-78B", "InternVL3-78B", "InternVL3-78B-hf"], "78.408", "156.82", 327_680, ["146", "84", "51.0"]),
    (&["InternVL3-2B", "InternVL3-2B-hf"], "2.089", "4.18", 28_672, ["3.9", "2.5", "1.9"]),
    (&["InternVL3-8B", "InternVL3-8B-hf"], "7.944", "15.89", 57_344, ["14.8", "8.6", "5.6"]),
    // With 128512 rows of vocabulary; published counts of the rows differ.
    (&["InternVL3-9B", "InternVL3-9B-hf"], "9.142", "18.28", 49_152, ["17.0", "9.8", "6.2"]),
    (&["InternVL3-14B", "InternVL3-14B-hf"], "15.117", "30.23", 196_608, ["28.2", "15.9", "9.8"]),
];

fn model(name: &str) -> ModelConfig {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/models/{name}.json"));
    let text = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    describe(&serde_json::from_slice(&text).unwrap()).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Whether `value` is `expected` to as many decimals as that has.
fn assert_rounds(value: f64, expected: &str, what: &str) {
    let decimals = expected.split_once('.').map_or(0, |(_, decimals)| decimals.len());
    assert_eq!(format!("{value:.decimals$}"), expected, "{what}: {value}");
}

#[test]
fn sizes_are_the_published_ones() {
    for (names, billions, gigabytes, kv_bytes, gib) in ROWS {
        for name in names {
            let config = model(name);
            let size = CheckpointSize::of(&config, Head::Stored);
            assert_rounds(size.parameters() as f64 / 1e9, billions, &format!("{name}, parameters"));
            let bytes = |quantization| size.bytes(quantization) as f64;
            assert_rounds(bytes(Quantization::None) / 1e9, gigabytes, &format!("{name}, bytes"));
            assert_eq!(config.text.kv_bytes_per_token(2), kv_bytes, "{name}");
            for (quantization, expected) in Quantization::ALL.into_iter().zip(gib) {
                assert_rounds(bytes(quantization) / f64::from(1 << 30), expected, &format!("{name}, {quantization}"));
            }
        }
    }
}

#[test]
fn every_file_is_in_the_table() {
    let files = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models")).unwrap();
    let files = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut files: Vec<String> = files.map(|name| name.trim_end_matches(".json").to_owned()).collect();
    let mut named: Vec<&str> = ROWS.iter().flat_map(|row| row.0.iter().copied()).collect();
    files.sort_unstable();
    named.sort_unstable();
    assert_eq!(files, named);
    assert_eq!(files.len(), 40);
}

#[test]
fn towers_are_the_published_ones() {
    for (names, parameters, tokens) in [
        (["llava-1.5-7b-hf", "llava-v1.6-34b"], 303_507_456, 576),
        (["InternVL2-1B", "InternVL3-14B-hf"], 304_012_288, 256),
        (["InternVL2-26B", "InternVL3-78B-hf"], 5_536_496_000, 256),
    ] {
        for name in names {
            let config = model(name);
            assert_eq!(CheckpointSize::of(&config, Head::Stored).parameters_of(Part::Tower), parameters, "{name}");
            assert_eq!(config.vision.tokens_per_tile(), tokens, "{name}");
        }
    }
}

#[test]
fn both_conventions_of_a_model_differ_only_where_they_must() {
    for (names, ..) in ROWS {
        for name in names {
            let Some(original) = name.strip_suffix("-hf") else { continue };
            let original = original.replace("llava-1.5", "llava-v1.5");
            let (hub, mut own) = (model(name), model(&original));
            assert_eq!((hub.dialect, own.dialect), (Dialect::Transformers, Dialect::Original));
            assert_eq!((hub.family, hub.projector, &hub.vision), (own.family, own.projector, &own.vision), "{name}");
            own.text.vocab_size = hub.text.vocab_size;
            if name.starts_with("llava") {
                own.text.eos_token_ids.clone_from(&hub.text.eos_token_ids);
            }
            assert_eq!(hub.text, own.text, "{name}");
        }
    }
}

#[test]
fn longest_sequences_are_those_of_the_decoders() {
    for (name, positions) in [
        ("llava-1.5-7b-hf", 4096),
        ("llava-v1.6-mistral-7b", 32_768),
        ("llava-v1.6-mistral-7b-hf", 32_768),
        ("InternVL2-1B", 32_768),
        ("InternVL2-4B", 131_072),
        ("InternVL2-8B", 32_768),
        ("InternVL2-Llama3-76B", 8192),
        ("InternVL3-78B-hf", 32_768),
    ] {
        assert_eq!(model(name).text.max_positions, positions, "{name}");
    }
}

#[test]
fn a_tied_head_is_stored_once_and_quantised_beside_the_embedding() {
    let config = model("InternVL3-1B");
    let (stored, tied) = (CheckpointSize::of(&config, Head::Stored), CheckpointSize::of(&config, Head::Tied));
    let head = stored.parameters_of(Part::Head);
    assert_eq!(head, 151_674 * 896);
    assert_eq!(tied.parameters() + head, stored.parameters());
    assert_eq!(tied.bytes(Quantization::None) + 2 * head, stored.bytes(Quantization::None));
    for quantization in [Quantization::Int8, Quantization::Int4] {
        assert_eq!(tied.bytes(quantization), stored.bytes(quantization));
        assert_eq!(stored.bytes_of(Part::Head, quantization), head / 32 * 34);
        for part in [Part::Embedding, Part::Tower, Part::Projector, Part::DecoderNorm] {
            assert_eq!(stored.bytes_of(part, quantization), 2 * stored.parameters_of(part));
        }
    }
}
