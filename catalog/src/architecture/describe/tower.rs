//! The vision tower of the original LLaVA, whose configuration says nothing of it: from the tower's own
//! `config.json`, or from the shapes of its tensors.

use super::super::raw::{OneOrMany, RawConfig, RawTower, RawVision};
use super::super::{ArchitectureError, VisionConfig};
use super::fields::invalid;
use super::{original, vision};

/// Heads of the CLIP towers that `OpenAI` published, by their width: ViT-B and ViT-L.
const PUBLISHED: [(usize, i64); 2] = [(768, 12), (1024, 16)];
/// Narrower towers than this one were never published.
const NARROW: usize = 512;

/// Shapes of a CLIP tower's tensors, as they are stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TowerShapes {
    /// `embeddings.class_embedding`: `[width]`.
    pub class: Vec<usize>,
    /// `embeddings.patch_embedding.weight`: `[width, 3, patch, patch]`.
    pub patches: Vec<usize>,
    /// `embeddings.position_embedding.weight`: `[1 + patches, width]`.
    pub positions: Vec<usize>,
    /// `encoder.layers.0.mlp.fc1.weight`: `[inner, width]`.
    pub fc1: Vec<usize>,
    /// How many `encoder.layers.N` there are.
    pub layers: usize,
}

/// A tower that was found in tensors.
#[derive(Clone, Debug, PartialEq)]
pub struct FoundTower {
    /// The tower.
    pub config: VisionConfig,
    /// Whether the number of heads, which no shape shows, is only a guess: that of the decoder. The caller
    /// should warn. Never the case for a published tower.
    pub heads_guessed: bool,
}

/// The vision tower of the original LLaVA model `raw`, from the `config.json` of the tower's own repository.
///
/// # Errors
/// As [`super::describe`].
pub fn describe_tower(raw: &RawConfig, tower: &RawTower) -> Result<VisionConfig, ArchitectureError> {
    vision::clip(tower.vision(), &original::features(raw)?)
}

/// The vision tower of the original LLaVA model `raw` from the shapes of its tensors. What shapes do not show
/// comes from `tower`, the `config.json` of the tower's own repository, where there is one: heads, epsilon
/// and activation. Without it the heads are those of the published tower of this width, and those of the
/// decoder for the narrow towers of tests.
///
/// # Errors
/// [`ArchitectureError::Tensor`] for shapes that make no CLIP tower, [`ArchitectureError::Invalid`] when the
/// number of heads cannot be known.
pub fn tower_from_tensors(
    raw: &RawConfig,
    shapes: &TowerShapes,
    tower: Option<&RawTower>,
) -> Result<FoundTower, ArchitectureError> {
    let stated = tower.map(RawTower::vision).or(raw.vision_config.as_ref()).cloned().unwrap_or_default();
    let width = match *shapes.class {
        [width] if width > 0 => width,
        _ => return Err(misshapen("embeddings.class_embedding", &shapes.class, "[width]")),
    };
    let patch = match *shapes.patches {
        [rows, 3, height, side] if rows == width && height == side && side > 0 => side,
        _ => {
            let expected = format!("[{width}, 3, patch, patch]");
            return Err(misshapen("embeddings.patch_embedding.weight", &shapes.patches, &expected));
        }
    };
    let square = |rows: usize| rows.checked_sub(1).map(usize::isqrt).filter(|side| side * side + 1 == rows);
    let grid = match *shapes.positions {
        [rows, columns] if columns == width => square(rows).filter(|grid| *grid > 0),
        _ => None,
    };
    let grid = grid.ok_or_else(|| {
        let expected = format!("[1 + a square number, {width}]");
        misshapen("embeddings.position_embedding.weight", &shapes.positions, &expected)
    })?;
    let inner = match *shapes.fc1 {
        [inner, columns] if columns == width => inner,
        _ => return Err(misshapen("encoder.layers.0.mlp.fc1.weight", &shapes.fc1, &format!("[inner, {width}]"))),
    };
    let (heads, heads_guessed) = heads(raw, &stated, width)?;
    let number = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
    let found = RawVision {
        hidden_size: Some(number(width)),
        intermediate_size: Some(number(inner)),
        num_hidden_layers: Some(number(shapes.layers)),
        num_attention_heads: Some(heads),
        num_channels: Some(3),
        image_size: Some(OneOrMany::One(number(grid).saturating_mul(number(patch)))),
        patch_size: Some(OneOrMany::One(number(patch))),
        ..stated
    };
    Ok(FoundTower { config: vision::clip(&found, &original::features(raw)?)?, heads_guessed })
}

/// The number of heads, and whether it is a guess.
fn heads(raw: &RawConfig, stated: &RawVision, width: usize) -> Result<(i64, bool), ArchitectureError> {
    if let Some(heads) = stated.num_attention_heads {
        return Ok((heads, false));
    }
    if let Some((_, heads)) = PUBLISHED.iter().find(|(published, _)| *published == width) {
        return Ok((*heads, false));
    }
    let fits = |heads: &i64| width < NARROW && usize::try_from(*heads).is_ok_and(|n| n > 0 && width.is_multiple_of(n));
    raw.num_attention_heads.filter(fits).map(|heads| (heads, true)).ok_or_else(|| {
        let expected = format!("given for a tower of the width {width}, by the tower's own config.json");
        invalid("vision_config.num_attention_heads", &"missing", &expected)
    })
}

fn misshapen(name: &str, shape: &[usize], expected: &str) -> ArchitectureError {
    ArchitectureError::Tensor { name: name.to_owned(), shape: shape.to_vec(), expected: expected.to_owned() }
}
