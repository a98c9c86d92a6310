//! The `config.json` of every checkpoint describes the model of its published size.

use std::path::Path;

use vlm_catalog::architecture::Dialect;
use vlm_catalog::checkpoint::{CheckpointSize, Head, Part};
use vlm_catalog::quantization::Quantization;

use crate::table::{ROWS, model};

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
