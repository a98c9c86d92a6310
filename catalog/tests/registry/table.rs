//! What is published of every checkpoint, and its `config.json` as the hub has it. Phi-3's factors are stand-ins of the
//! right number.

use std::path::Path;

use vlm_catalog::architecture::{ModelConfig, describe};

/// A model's names, its billions of parameters, gigabytes at 16 bit, bytes of keys and values a token, and GiB
/// unquantised, in int8 and in int4.
pub type Row = (&'static [&'static str], &'static str, &'static str, u64, [&'static str; 3]);

/// Every checkpoint of the registry.
pub const ROWS: [Row; 21] = [
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

/// The description of a model.
pub fn model(name: &str) -> ModelConfig {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/models/{name}.json"));
    let text = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    describe(&serde_json::from_slice(&text).unwrap()).unwrap_or_else(|error| panic!("{name}: {error}"))
}
