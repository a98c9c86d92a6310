//! The vision tower: CLIP or InternViT, which layer's output is taken, and its bounds.

use super::super::raw::RawVision;
use super::super::{ArchitectureError, Tower, VisionConfig};
use super::fields::{Fields, bounded, invalid, unsupported};

/// Most patches along one side of a tile.
const MOST_PATCHES: usize = 256;
const AT: Fields = Fields { prefix: "vision_config." };

/// What a family takes from its tower.
pub struct Features {
    /// Name of the field that says which layer's output is taken.
    pub field: &'static str,
    /// That layer: 0 is the embedding, n the output of layer n; negative counts from the last.
    pub layer: i64,
    /// Whether the class token is dropped.
    pub drop_class_token: bool,
    /// Squares of this many patches a side are joined.
    pub shuffle: usize,
}

impl Features {
    /// How many of `layers` layers run.
    fn layers_used(&self, layers: usize) -> Result<usize, ArchitectureError> {
        let last = i64::try_from(layers).unwrap_or(i64::MAX - 1);
        let index = if self.layer < 0 { self.layer.saturating_add(last + 1) } else { self.layer };
        if (0..=last).contains(&index) {
            Ok(index as usize)
        } else {
            Err(invalid(self.field, &self.layer, &format!("between {} and {last}", -last - 1)))
        }
    }
}

/// Whether the strategy or feature `raw` drops the class token.
pub fn drops_class_token(field: &str, raw: Option<&str>) -> Result<bool, ArchitectureError> {
    match raw.unwrap_or("default") {
        "default" | "patch" => Ok(true),
        "full" | "cls_patch" => Ok(false),
        other => Err(invalid(field, &format!("{other:?}"), "default or patch, or full or cls_patch")),
    }
}

/// A CLIP tower; what is left out is that of CLIP ViT-L/14 at 336 pixels.
pub fn clip(raw: &RawVision, features: &Features) -> Result<VisionConfig, ArchitectureError> {
    match raw.model_type.as_deref() {
        None | Some("clip_vision_model" | "clip") => {}
        Some(other) => return Err(unsupported(&format!("the vision tower {other:?}"), "clip_vision_model")),
    }
    let defaults = Defaults { hidden: 1024, inner: 4096, layers: 24, heads: 16, side: 336, eps: 1e-5 };
    tower(raw, Tower::Clip, &defaults, "quick_gelu", features)
}

/// An InternViT under the transformers library's names.
pub fn intern_vit(raw: &RawVision, features: &Features) -> Result<VisionConfig, ArchitectureError> {
    match raw.model_type.as_deref() {
        None | Some("internvl_vision") => {}
        Some(other) => return Err(unsupported(&format!("the vision tower {other:?}"), "internvl_vision")),
    }
    AT.set("use_absolute_position_embeddings", raw.use_absolute_position_embeddings, "position embeddings")?;
    AT.set("use_mean_pooling", raw.use_mean_pooling, "a tower without a norm at its end")?;
    let kind = Tower::InternVit {
        rms_norm: rms_norm(raw, "layer_norm")?,
        qk_norm: raw.use_qk_norm.unwrap_or(false),
        qkv_bias: raw.attention_bias.unwrap_or(false),
    };
    let defaults = Defaults { hidden: 1024, inner: 4096, layers: 24, heads: 16, side: 448, eps: 1e-6 };
    tower(raw, kind, &defaults, "gelu", features)
}

/// An InternViT of InternVL chat whose tiles have `forced` pixels a side, when that is said.
pub fn intern_vit_chat(
    raw: &RawVision,
    forced: Option<i64>,
    features: &Features,
) -> Result<VisionConfig, ArchitectureError> {
    match raw.model_type.as_deref() {
        None | Some("intern_vit_6b" | "intern_vit_300m") => {}
        Some(other) => return Err(unsupported(&format!("the vision tower {other:?}"), "intern_vit_6b")),
    }
    let kind = Tower::InternVit {
        rms_norm: rms_norm(raw, "rms_norm")?,
        qk_norm: raw.qk_normalization.unwrap_or(true),
        qkv_bias: raw.qkv_bias.unwrap_or(false),
    };
    let side = forced.unwrap_or(224);
    let defaults = Defaults { hidden: 3200, inner: 12_800, layers: 48, heads: 25, side, eps: 1e-6 };
    let config = tower(raw, kind, &defaults, "gelu", features)?;
    match forced {
        // Another size than that of the stored positions would have them interpolated.
        Some(forced) if i64::try_from(config.image_size) != Ok(forced) => {
            Err(invalid("force_image_size", &forced, &format!("vision_config.image_size ({})", config.image_size)))
        }
        _ => Ok(config),
    }
}

fn rms_norm(raw: &RawVision, default: &str) -> Result<bool, ArchitectureError> {
    match raw.norm_type.as_deref().unwrap_or(default) {
        "rms_norm" => Ok(true),
        "layer_norm" => Ok(false),
        other => Err(unsupported(&format!("the norm {other:?} ({})", AT.path("norm_type")), "layer_norm, rms_norm")),
    }
}

struct Defaults {
    hidden: i64,
    inner: i64,
    layers: i64,
    heads: i64,
    side: i64,
    eps: f64,
}

fn tower(
    raw: &RawVision,
    kind: Tower,
    defaults: &Defaults,
    act: &str,
    features: &Features,
) -> Result<VisionConfig, ArchitectureError> {
    bounded(&AT.path("num_channels"), raw.num_channels.unwrap_or(3), 3, 3)?;
    let hidden_size = AT.number("hidden_size", raw.hidden_size, defaults.hidden, 1 << 14)?;
    let heads = AT.number("num_attention_heads", raw.num_attention_heads, defaults.heads, 1 << 10)?;
    AT.divides("num_attention_heads", heads, "hidden_size", hidden_size)?;
    let image_size = AT.side("image_size", raw.image_size.as_ref())?;
    let image_size = AT.number("image_size", image_size, defaults.side, 1 << 12)?;
    let patch_size = AT.side("patch_size", raw.patch_size.as_ref())?;
    let patch_size = AT.number("patch_size", patch_size, 14, 1 << 8)?;
    AT.divides("patch_size", patch_size, "image_size", image_size)?;
    let layers = AT.number("num_hidden_layers", raw.num_hidden_layers, defaults.layers, 1 << 10)?;
    let config = VisionConfig {
        tower: kind,
        hidden_size,
        intermediate_size: AT.number("intermediate_size", raw.intermediate_size, defaults.inner, 1 << 18)?,
        layers,
        heads,
        image_size,
        patch_size,
        layer_norm_eps: AT.epsilon("layer_norm_eps", raw.layer_norm_eps, defaults.eps)?,
        activation: AT.activation("hidden_act", raw.hidden_act.as_deref(), act)?,
        layers_used: features.layers_used(layers)?,
        drop_class_token: features.drop_class_token,
        shuffle: features.shuffle,
    };
    if config.grid() > MOST_PATCHES {
        let expected = format!("at most {MOST_PATCHES} times patch_size ({patch_size})");
        return Err(invalid(&AT.path("image_size"), &image_size, &expected));
    }
    if !config.grid().is_multiple_of(config.shuffle) {
        let expected = format!("a multiple of {} patches of {patch_size}", config.shuffle);
        return Err(invalid(&AT.path("image_size"), &image_size, &expected));
    }
    Ok(config)
}
