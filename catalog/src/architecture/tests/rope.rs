//! Rotary scaling and sliding windows: what is served up to which length.

use super::*;

fn with(fields: &[(&str, Value)]) -> Result<TextConfig, ArchitectureError> {
    let mut json = tiny();
    for (name, value) in fields {
        json["text_config"][*name] = value.clone();
    }
    read(&json).map(|config| config.text)
}

fn factors(kind: &str) -> Value {
    json!({"type": kind, "short_factor": vec![1.5; 8], "long_factor": vec![4.0; 8]})
}

#[test]
fn dynamic_scaling_is_the_default_up_to_the_longest_sequence() {
    let plain = with(&[]).unwrap();
    for scaling in [
        json!(null),
        json!({"type": "default"}),
        json!({"type": "dynamic", "factor": 2.0}),
        json!({"rope_type": "dynamic", "type": "dynamic", "factor": 2.0}),
        json!({"rope_type": "dynamic", "factor": 2.0, "original_max_position_embeddings": 4096}),
    ] {
        assert_eq!(with(&[("rope_scaling", scaling.clone())]), Ok(plain.clone()), "{scaling}");
    }
    let extended = json!({"rope_type": "dynamic", "original_max_position_embeddings": 256});
    assert_eq!(with(&[("rope_scaling", extended)]).unwrap().max_positions, 256);
}

#[test]
fn phi3_factors_come_with_the_attention_factor_of_the_extension() {
    for kind in ["su", "longrope"] {
        let text = with(&[
            ("rope_scaling", factors(kind)),
            ("max_position_embeddings", 131_072.into()),
            ("original_max_position_embeddings", 4096.into()),
        ])
        .unwrap();
        let rope = text.long_rope.unwrap();
        assert!((rope.attention_factor - 1.190_238).abs() < 1e-6, "{}", rope.attention_factor);
        assert_eq!((rope.short, rope.long, rope.original_positions), (vec![1.5; 8], vec![4.0; 8], 4096));
        assert_eq!(text.max_positions, 131_072);
    }
    let mut newer = factors("longrope");
    newer["original_max_position_embeddings"] = 32.into();
    newer["attention_factor"] = 1.25.into();
    newer["rope_theta"] = 5000.0.into();
    let text = with(&[("rope_parameters", newer)]).unwrap();
    let rope = text.long_rope.unwrap();
    assert!((rope.attention_factor - 1.25).abs() < 1e-12 && (text.rope_theta - 5000.0).abs() < 1e-9);
    assert_eq!(rope.original_positions, 32);
    let short = with(&[("rope_scaling", factors("su")), ("original_max_position_embeddings", 2048.into())]).unwrap();
    assert!((short.long_rope.unwrap().attention_factor - 1.0).abs() < 1e-12, "shorter than it was before");
}

#[test]
fn factors_that_make_no_angles_are_refused() {
    let refused = |field: &str, value: Value| {
        let mut scaling = factors("su");
        scaling[field] = value;
        let error = with(&[("rope_scaling", scaling)]).unwrap_err().to_string();
        assert!(error.contains(&format!("text_config.rope_scaling.{field}")), "{error}");
    };
    refused("short_factor", json!(null));
    refused("short_factor", json!(vec![1.0; 7]));
    refused("long_factor", json!(vec![0.0; 8]));
    refused("long_factor", json!(vec![-1.0; 8]));
    refused("long_factor", json!(vec![1e300; 8]));
    refused("attention_factor", json!(0.0));
    refused("attention_factor", json!(1e300));
    for original in [0, 1, -1] {
        let fields = [("rope_scaling", factors("su")), ("original_max_position_embeddings", original.into())];
        assert!(with(&fields).unwrap_err().to_string().contains("original_max_position_embeddings"));
    }
}

#[test]
fn other_scalings_are_refused_by_name() {
    for kind in ["linear", "yarn", "llama3", "mrope"] {
        let error = with(&[("rope_scaling", json!({"rope_type": kind}))]).unwrap_err().to_string();
        assert!(error.contains(kind) && error.contains("default, dynamic, longrope, su"), "{error}");
    }
    let error = with(&[("partial_rotary_factor", 0.5.into())]).unwrap_err().to_string();
    assert!(error.contains("partial_rotary_factor = 0.5"), "{error}");
    assert!(with(&[("partial_rotary_factor", 1.0.into())]).is_ok());
    for theta in [0.0, -1.0, 1.0, 1e300] {
        assert!(with(&[("rope_theta", theta.into())]).unwrap_err().to_string().contains("rope_theta"));
    }
}

#[test]
fn a_sliding_window_caps_the_longest_sequence_where_it_acts() {
    let longest = |fields: &[(&str, Value)]| {
        let all = [&[("max_position_embeddings", 32_768.into())], fields].concat();
        with(&all).unwrap().max_positions
    };
    let (kind, window, on) = ("model_type", "sliding_window", "use_sliding_window");
    assert_eq!(longest(&[(window, 100.into())]), 32_768, "Llama knows no window");
    assert_eq!(longest(&[(kind, "mistral".into())]), 4096, "left out");
    assert_eq!(longest(&[(kind, "mistral".into()), (window, json!(null))]), 32_768);
    assert_eq!(longest(&[(kind, "mistral".into()), (window, 100.into())]), 100);
    assert_eq!(longest(&[(kind, "mistral".into()), (window, 262_144.into())]), 32_768);
    assert_eq!(longest(&[(kind, "qwen2".into()), (window, 100.into())]), 32_768);
    assert_eq!(longest(&[(kind, "qwen2".into()), (window, 100.into()), (on, false.into())]), 32_768);
    assert_eq!(longest(&[(kind, "qwen2".into()), (window, 100.into()), (on, true.into())]), 100);
    assert_eq!(longest(&[(kind, "phi3".into()), (window, 2047.into())]), 2047);
    assert_eq!(longest(&[(kind, "phi3".into())]), 32_768);
    for wrong in [0, -1, i64::MAX] {
        let error = with(&[(kind, "mistral".into()), (window, wrong.into())]).unwrap_err().to_string();
        assert!(error.contains("sliding_window"), "{error}");
    }
}

#[test]
fn each_decoder_fills_in_what_its_own_class_would() {
    let of = |kind: &str| {
        let json = json!({"model_type": "llava", "image_token_index": 0, "text_config": {"model_type": kind}});
        let text = read(&json).unwrap().text;
        (text.vocab_size, text.hidden_size, text.intermediate_size, text.kv_heads, text.max_positions)
    };
    assert_eq!(of("llama"), (32_000, 4096, 11_008, 32, 2048));
    assert_eq!(of("mistral"), (32_000, 4096, 14_336, 8, 4096));
    assert_eq!(of("qwen2"), (151_936, 4096, 22_016, 32, 32_768));
    assert_eq!(of("internlm2"), (103_168, 4096, 11_008, 32, 2048));
    assert_eq!(of("internlm3"), (128_512, 4096, 11_008, 32, 32_768));
    assert_eq!(of("phi3"), (32_064, 3072, 8192, 32, 4096));
}

#[test]
fn biases_of_queries_keys_and_values_are_those_of_the_decoder() {
    let bias = |fields: &[(&str, Value)]| with(fields).map(|text| text.qkv_bias);
    let kind = |name: &str| ("model_type", Value::from(name));
    assert_eq!(bias(&[kind("qwen2")]), Ok(true));
    assert_eq!(bias(&[kind("mistral")]), Ok(false));
    assert_eq!(bias(&[kind("internlm3"), ("qkv_bias", true.into())]), Ok(true));
    assert_eq!(bias(&[kind("internlm3")]), Ok(false));
    for name in ["internlm2", "internlm3"] {
        assert!(bias(&[kind(name), ("bias", true.into())]).unwrap_err().to_string().contains("text_config.bias"));
    }
}
