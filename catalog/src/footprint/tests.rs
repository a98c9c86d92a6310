//! Defaults, devices without a limit, and the words; verdicts and sizes are tested over the whole registry.

use super::*;
use crate::architecture::describe;
use crate::architecture::raw::RawConfig;
use crate::checkpoint::Head;

fn with<T>(name: &str, test: impl FnOnce(Model<'_>) -> T) -> T {
    let path = format!("{}/tests/models/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let raw: RawConfig = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let config = describe(&raw).unwrap();
    let size = CheckpointSize::of(&config, Head::Stored);
    test(Model { config: &config, size: &size })
}

const L4: Device = Device::Gpu { memory_bytes: 23_034 << 20 };

#[test]
fn the_largest_picture_is_counted_as_each_family_cuts_it() {
    for (name, tiles, tokens) in [
        ("llava-1.5-7b-hf", 1, 576),
        ("llava-v1.6-34b-hf", 5, 2928),
        ("llava-v1.6-mistral-7b", 5, 2928),
        ("InternVL3-8B", 13, 3328),
        ("InternVL2-26B", 13, 3328),
    ] {
        with(name, |model| {
            let config = model.config;
            assert_eq!((config.largest_image_tiles(), config.largest_image_tokens()), (tiles, tokens), "{name}");
        });
    }
}

#[test]
fn keys_and_values_get_all_that_is_left() {
    let fit = with("llava-1.5-7b-hf", |model| fit(model, Wish::default(), L4)).unwrap();
    let available = (23_034 << 20) / 100 * 92 + (23_034 << 20) % 100 * 92 / 100;
    assert_eq!(fit.available_bytes, Some(available));
    assert_eq!(fit.kv_bytes, available - fit.breakdown.fixed_bytes());
    assert_eq!((fit.verdict, fit.max_tokens), (Verdict::Fits, 4096));
    assert_eq!(fit.full_length_sequences, fit.kv_bytes / (4096 * 524_288));
    // A request with a picture takes 576 + 512 tokens.
    assert_eq!(fit.typical_requests, fit.kv_bytes / (1088 * 524_288));
    assert_eq!(fit.max_concurrency, fit.typical_requests);
}

#[test]
fn what_a_server_keeps_of_pictures_is_counted() {
    // Much more than what lives while the one tile of a picture is read.
    let none = Wish { quantization: QuantizationChoice::Fixed(Quantization::None), ..Wish::default() };
    with("llava-1.5-7b-hf", |model| {
        let gpu = fit(model, none, L4).unwrap();
        // The server's own default, which the fit does not change there.
        assert_eq!(gpu.picture_cache_bytes, None);
        assert!(gpu.breakdown.image_bytes > PICTURE_CACHE_BYTES, "{:?}", gpu.breakdown);
        let cpu = fit(model, none, Device::Cpu { memory_bytes: Some(64 << 30) }).unwrap();
        assert!(cpu.breakdown.image_bytes > cpu.picture_cache_bytes.unwrap(), "{:?}", cpu.breakdown);
    });
}

#[test]
fn without_a_wish_the_context_is_the_longest_that_fits() {
    let wish = Wish { quantization: QuantizationChoice::Fixed(Quantization::None), ..Wish::default() };
    with("InternVL2-4B", |model| {
        let fitted = fit(model, wish, L4).unwrap();
        assert!(fitted.max_tokens < 131_072 && fitted.max_tokens.is_multiple_of(32), "{}", fitted.max_tokens);
        assert_eq!(fitted.full_length_sequences, 1);
        let longer = Wish { max_tokens: Some(fitted.max_tokens + 32), ..wish };
        assert_eq!(fit(model, longer, L4).unwrap().verdict, Verdict::DoesNotFit);
    });
}

#[test]
fn a_context_that_the_model_does_not_take_is_refused() {
    let wish = Wish { max_tokens: Some(4097), ..Wish::default() };
    let error = with("llava-1.5-7b-hf", |model| fit(model, wish, L4)).unwrap_err().to_string();
    assert_eq!(error, "context.maxTokens is 4097, but the model takes at most 4096 tokens");
}

#[test]
fn on_processors_numbers_have_32_bit_and_the_limit_is_the_containers() {
    with("InternVL3-2B", |model| {
        let cpu = |gib: u64| Device::Cpu { memory_bytes: Some(gib << 30) };
        let none = Wish { quantization: QuantizationChoice::Fixed(Quantization::None), ..Wish::default() };
        let fitted = fit(model, none, cpu(64)).unwrap();
        assert_eq!(fitted.breakdown.weight_bytes(), 4 * model.size.parameters());
        assert_eq!(fitted.breakdown.kv_bytes_per_token, 2 * 28_672);
        assert_eq!(fit(model, none, cpu(8)).unwrap().verdict, Verdict::DoesNotFit);
        let fitted = fit(model, Wish::default(), cpu(8)).unwrap();
        assert_eq!((fitted.verdict, fitted.quantization), (Verdict::Fits, Quantization::Int8));
    });
}

#[test]
fn without_a_limit_every_request_gets_its_full_length() {
    let device = Device::Cpu { memory_bytes: None };
    let wish = Wish { max_concurrency: Some(3), ..Wish::default() };
    let fit = with("InternVL3-8B", |model| fit(model, wish, device)).unwrap();
    assert_eq!((fit.verdict, fit.quantization, fit.max_tokens), (Verdict::NoLimit, Quantization::None, 8192));
    assert_eq!(fit.kv_bytes, 3 * 8192 * 2 * 57_344);
    assert_eq!((fit.full_length_sequences, fit.max_concurrency, fit.available_bytes), (3, 3, None));
    assert!(fit.may_start() && fit.in_words(device).contains("no memory limit"));
}

#[test]
fn auto_heeds_the_wished_concurrency() {
    with("llava-1.5-7b-hf", |model| {
        let chosen = |max_concurrency| {
            let fit = fit(model, Wish { max_concurrency: Some(max_concurrency), ..Wish::default() }, L4).unwrap();
            (fit.quantization, fit.chosen_because.unwrap())
        };
        assert_eq!(chosen(4).0, Quantization::None);
        let (quantization, because) = chosen(20);
        assert_eq!(quantization, Quantization::Int8, "{because}");
        assert!(because.contains("20 at a time") && because.contains("not with none"), "{because}");
        let (quantization, because) = chosen(256);
        assert_eq!(quantization, Quantization::Int4, "{because}");
        assert!(because.contains("none of them"), "{because}");
    });
}

#[test]
fn words_say_what_is_needed_and_what_there_is() {
    let wish = Wish { quantization: QuantizationChoice::Fixed(Quantization::None), ..Wish::default() };
    let words = with("llava-1.5-13b-hf", |model| fit(model, wish, L4)).unwrap().in_words(L4);
    for part in ["does not fit", "1088 tokens", "20.7 GiB", "92 %", "GPU's 22.5 GiB"] {
        assert!(words.contains(part), "{words:?} lacks {part:?}");
    }
    assert_eq!(bytes_in_words(1), "1 MiB");
    assert_eq!(bytes_in_words(3 << 29), "1.5 GiB");
}
