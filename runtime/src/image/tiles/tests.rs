//! Tiles, tokens and pixels against the reference's: every fixture, and the tables of sizes.

use std::path::{Path, PathBuf};

use candle_core::Device;
use image::Rgb;
use serde_json::Value;
use vlm_catalog::architecture::{Activation, Dialect, Family, ProjectorConfig, TextConfig, Tower, VisionConfig};

use super::*;

const PINPOINTS: [(u32, u32); 5] = [(336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008)];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures")
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// A model of which only what concerns pictures matters.
fn model(family: Family, dialect: Dialect, tiling: Tiling, image_size: usize, patch_size: usize) -> ModelConfig {
    let clip = family != Family::InternVl;
    ModelConfig {
        family,
        dialect,
        text: TextConfig {
            vocab_size: 1,
            hidden_size: 1,
            intermediate_size: 1,
            layers: 1,
            heads: 1,
            kv_heads: 1,
            head_dim: 2,
            rope_theta: 1e4,
            long_rope: None,
            rms_norm_eps: 1e-5,
            max_positions: 1,
            qkv_bias: false,
            eos_token_ids: Vec::new(),
        },
        vision: VisionConfig {
            tower: Tower::Clip,
            hidden_size: 1,
            intermediate_size: 1,
            layers: 1,
            heads: 1,
            image_size,
            patch_size,
            layer_norm_eps: 1e-5,
            activation: Activation::Gelu,
            layers_used: 1,
            drop_class_token: true,
            shuffle: if clip { 1 } else { 2 },
        },
        projector: ProjectorConfig { norm: false, activation: Activation::Gelu, bias: true },
        tiling,
        image_token_id: None,
        template: None,
        system_message: None,
        stored_dtype: None,
    }
}

fn preprocessing(family: Family, dialect: Dialect, tiling: Tiling) -> Preprocessing {
    let side = if family == Family::InternVl { 448 } else { 336 };
    Preprocessing::new(&model(family, dialect, tiling, side, 14), &Settings::default()).unwrap()
}

fn llava(pad: bool) -> Preprocessing {
    preprocessing(Family::Llava, Dialect::Original, Tiling::One { pad: Some(pad) })
}

fn next(dialect: Dialect) -> Preprocessing {
    let turned = |(a, b): (u32, u32)| if dialect == Dialect::Original { (b, a) } else { (a, b) };
    let pinpoints = PINPOINTS.into_iter().map(turned).collect();
    preprocessing(Family::LlavaNext, dialect, Tiling::AnyRes { pinpoints })
}

fn internvl(max: u32) -> Preprocessing {
    preprocessing(Family::InternVl, Dialect::Original, Tiling::Dynamic { min: 1, max, thumbnail: true })
}

/// The model of a fixture and the settings of its file.
fn fixture(dir: &Path) -> Preprocessing {
    let (config, facts) = (json(&dir.join("config.json")), json(&dir.join("expected.json")));
    let name = dir.file_name().unwrap().to_str().unwrap();
    let original = name.ends_with("_orig") || name.ends_with("_chat");
    let dialect = if original { Dialect::Original } else { Dialect::Transformers };
    let (family, tiling) = match facts["image_mode"].as_str().unwrap() {
        "crop" | "pad" => (Family::Llava, Tiling::One { pad: (name.ends_with("_orig")).then_some(true) }),
        "anyres" => {
            let pinpoints: Vec<(u32, u32)> = serde_json::from_value(config["image_grid_pinpoints"].clone()).unwrap();
            let turned = |(a, b): (u32, u32)| if original { (b, a) } else { (a, b) };
            (Family::LlavaNext, Tiling::AnyRes { pinpoints: pinpoints.into_iter().map(turned).collect() })
        }
        _ => {
            let max = config["max_dynamic_patch"].as_u64().unwrap_or(12) as u32;
            (Family::InternVl, Tiling::Dynamic { min: 1, max, thumbnail: true })
        }
    };
    let settings = match dialect {
        Dialect::Transformers => std::fs::read(dir.join("preprocessor_config.json")).unwrap(),
        Dialect::Original => b"{}".to_vec(),
    };
    let config = model(family, dialect, tiling, 28, 7);
    Preprocessing::new(&config, &serde_json::from_slice(&settings).unwrap()).unwrap()
}

#[test]
fn pixels_tiles_and_tokens_of_every_fixture_equal_the_references() {
    let mut cases = 0;
    for entry in std::fs::read_dir(fixtures()).unwrap() {
        let dir = entry.unwrap().path();
        if !dir.join("expected.safetensors").exists() {
            continue;
        }
        let (preprocessing, facts) = (fixture(&dir), json(&dir.join("expected.json")));
        let expected = candle_core::safetensors::load(dir.join("expected.safetensors"), &Device::Cpu).unwrap();
        let expected = expected["pixel_values"].flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let count = facts["image_tokens"].as_array().unwrap().len();
        let images: Vec<PreparedImage> = (0..count)
            .map(|i| {
                let bytes = std::fs::read(dir.join(format!("images/{i}.png"))).unwrap();
                preprocessing.prepare(&bytes, &ImageLimits::default(), TileBudget::default()).unwrap()
            })
            .collect();
        let tokens: Vec<usize> = images.iter().map(|image| image.tokens).collect();
        assert_eq!(serde_json::to_value(tokens).unwrap(), facts["image_tokens"], "{dir:?}");
        if let Some(tiles) = facts.get("tiles_per_image") {
            let got: Vec<usize> = images.iter().map(|image| image.tiles).collect();
            assert_eq!(serde_json::to_value(got).unwrap(), *tiles, "{dir:?}");
        }
        let pixels: Vec<f32> = images.into_iter().flat_map(|image| image.pixels.values().into_owned()).collect();
        assert_eq!(pixels.len(), expected.len(), "{dir:?}");
        let worst = pixels.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst <= 1e-5, "{dir:?}: {worst}");
        cases += 1;
    }
    assert!(cases >= 12, "{cases} cases");
}

#[test]
fn tiles_and_tokens_of_all_sizes_equal_the_references() {
    let rows = json(&fixtures().join("tables/token_counts.json"));
    let rows = rows.as_array().unwrap();
    assert_eq!(rows.len(), 416);
    let number = |value: &Value| value.as_u64().unwrap() as u32;
    let internvl = [1, 6, 12, 24].map(|max| (max.to_string(), internvl(max)));
    let next = [("llava_next_hf", next(Dialect::Transformers)), ("llava_next_orig", next(Dialect::Original))];
    for row in rows {
        let size = (number(&row["w"]), number(&row["h"]));
        for (key, preprocessing) in &next {
            let (want, plan) = (&row[*key], preprocessing.plan(size, TileBudget::default()));
            let kept = plan.kept.unwrap();
            let grid = (kept.tile_rows as u32, kept.tile_columns as u32);
            assert_eq!(grid, (number(&want["rows"]), number(&want["cols"])), "{key} {size:?}");
            let features = [kept.height, kept.width];
            assert_eq!(serde_json::json!(features), want["unpadded_hw"], "{key} {size:?}");
            assert_eq!(plan.tiles as u32, number(&want["tiles"]), "{key} {size:?}");
            assert_eq!(plan.tokens as u32, number(&want["tokens"]), "{key} {size:?}");
        }
        for (max, preprocessing) in &internvl {
            let (want, plan) = (&row["internvl"][max], preprocessing.plan(size, TileBudget::default()));
            assert_eq!(plan.views[0].tiles, (number(&want["cols"]), number(&want["rows"])), "max {max} {size:?}");
            assert_eq!(plan.tiles as u32, number(&want["tiles"]), "max {max} {size:?}");
            assert_eq!(plan.tokens, 256 * plan.tiles);
        }
    }
}

#[test]
fn the_dialects_differ_where_their_codes_do() {
    for (size, transformers, original) in [
        ((251, 94), 1458, 776),
        ((55, 88), 984, 1526),
        ((352, 748), 1876, 1826),
        ((792, 1408), 1968, 1872),
        ((300, 1000), 2232, 2232),
        ((10_000, 100), 576, 576),
    ] {
        let tokens = |dialect| next(dialect).plan(size, TileBudget::default()).tokens;
        assert_eq!(tokens(Dialect::Transformers), transformers, "{size:?}");
        assert_eq!(tokens(Dialect::Original), original, "{size:?}");
    }
}

#[test]
fn a_budget_takes_tiles_away_but_never_all() {
    let tiles = |most| internvl(12).plan((4000, 3000), TileBudget(most)).tiles;
    assert_eq!([None, Some(100), Some(6), Some(1), Some(0)].map(tiles), [13, 13, 7, 1, 1]);
    let plan = |budget| next(Dialect::Transformers).plan((4000, 3000), budget);
    assert_eq!(plan(TileBudget(Some(2))), plan(TileBudget::default()));
    // The whole picture alone, which is the first tile of any plan.
    let (low, all) = (plan(TileBudget(Some(1))), plan(TileBudget::default()));
    assert_eq!((low.tiles, low.tokens, low.kept, &low.views[..]), (1, 576, None, &all.views[..1]));
}

#[test]
fn extreme_pictures_are_cut_by_every_family() {
    for size in [(1, 1), (10_000, 100), (10, 5000), (1, 700), (700, 1)] {
        let image = RgbImage::from_pixel(size.0, size.1, Rgb([9, 8, 7]));
        for preprocessing in [llava(true), llava(false), next(Dialect::Original), internvl(12)] {
            let prepared = preprocessing.cut(&image, TileBudget::default(), ImageKey::default());
            assert_eq!(prepared.pixels.len(), prepared.tiles * 3 * prepared.height * prepared.width);
            assert!(prepared.pixels.values().iter().all(|value| value.is_finite() && value.abs() < 3.0));
        }
    }
}

#[test]
fn padding_centres_the_picture_on_the_mean_colour() {
    let image = RgbImage::from_pixel(168, 336, Rgb([1, 2, 3]));
    let prepared = llava(true).cut(&image, TileBudget::default(), ImageKey::default());
    let normaliser = llava(true).normaliser;
    let value = |channel: usize, byte: u8| f32::from(byte) * normaliser.scale[channel] + normaliser.offset[channel];
    for (channel, plane) in prepared.pixels.values().chunks(336 * 336).enumerate() {
        for (x, got) in plane[336 * 100..][..336].iter().enumerate() {
            let byte = if (84..252).contains(&x) { [1, 2, 3] } else { [122, 116, 104] }[channel];
            assert!((got - value(channel, byte)).abs() < 1e-6, "{channel} {x}");
        }
    }
}

#[test]
fn only_one_tile_has_an_aspect() {
    let padded = llava(false).with_aspect(ImageAspect::Pad);
    assert_eq!(padded, Some(llava(true)));
    assert_eq!(padded.unwrap().with_aspect(ImageAspect::Crop), Some(llava(false)));
    assert_eq!(internvl(12).with_aspect(ImageAspect::Pad), None);
    assert_eq!(next(Dialect::Original).with_aspect(ImageAspect::Crop), None);
}

#[test]
fn values_are_normalised_as_the_family_was_trained() {
    let white = RgbImage::from_pixel(4, 4, Rgb([255, 0, 128]));
    let first = |preprocessing: Preprocessing| {
        let prepared = preprocessing.cut(&white, TileBudget::default(), ImageKey::default());
        let plane = prepared.height * prepared.width;
        [0, plane, 2 * plane].map(|at| prepared.pixels.values()[at])
    };
    let near = |got: [f32; 3], want: [f32; 3]| got.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-5);
    assert!(near(first(llava(false)), [1.930_336, -1.752_097, 0.339_948_7]), "{:?}", first(llava(false)));
    assert!(near(first(internvl(1)), [2.248_908_3, -2.035_714_3, 0.426_492_4]), "{:?}", first(internvl(1)));
}

#[test]
fn files_that_ask_for_something_else_are_refused() {
    let clip = model(Family::Llava, Dialect::Transformers, Tiling::One { pad: None }, 336, 14);
    let dynamic = Tiling::Dynamic { min: 1, max: 12, thumbnail: true };
    let internvl = model(Family::InternVl, Dialect::Transformers, dynamic, 448, 14);
    let pinpoints = PINPOINTS.to_vec();
    let next = model(Family::LlavaNext, Dialect::Transformers, Tiling::AnyRes { pinpoints }, 336, 14);
    for (config, file, word) in [
        (&clip, r#"{"do_resize": false}"#, "do_resize"),
        (&clip, r#"{"do_center_crop": false}"#, "do_center_crop"),
        (&clip, r#"{"resample": 2}"#, "resampl"),
        (&clip, r#"{"crop_size": 224}"#, "crop_size"),
        (&clip, r#"{"size": {"shortest_edge": 224}}"#, "size"),
        (&clip, r#"{"image_std": [0.0, 1.0, 1.0]}"#, "deviation"),
        (&next, r#"{"size": {"shortest_edge": 448}}"#, "size"),
        (&next, r#"{"image_grid_pinpoints": [[336, 500]]}"#, "image_grid_pinpoints"),
        (&next, r#"{"image_grid_pinpoints": []}"#, "image_grid_pinpoints"),
        (&next, r#"{"image_grid_pinpoints": [[336, 4294967040]]}"#, "image_grid_pinpoints"),
        (&internvl, r#"{"size": {"height": 224, "width": 224}}"#, "size"),
        (&internvl, r#"{"max_patches": 4000000000}"#, "tiles"),
        (&internvl, r#"{"min_patches": 0}"#, "tiles"),
    ] {
        let error = Preprocessing::new(config, &serde_json::from_str(file).unwrap()).unwrap_err().to_string();
        assert!(error.contains(word), "{file}: {error}");
    }
    for (config, file) in [
        (&clip, r#"{"size": {"shortest_edge": 384}, "crop_size": {"height": 336, "width": 336}, "do_pad": true}"#),
        (&next, r#"{"image_grid_pinpoints": [[336, 672]], "do_pad": true}"#),
        (&internvl, r#"{"crop_to_patches": false, "max_patches": 6, "size": {"height": 448, "width": 448}}"#),
        (&internvl, r#"{"do_center_crop": false, "crop_size": {"height": 1, "width": 2}}"#),
    ] {
        Preprocessing::new(config, &serde_json::from_str(file).unwrap()).unwrap();
    }
}
