//! The vision tower of the original LLaVA, of which the configuration says nothing but the name. LLaVA-1.5 was
//! published without it: it is found in a folder of its own (as openai/clip-vit-large-patch14-336 is) and taken in
//! under the names that the checkpoint would have.

use std::path::{Path, PathBuf};

use vlm_catalog::architecture::raw::{RawConfig, RawTower};
use vlm_catalog::architecture::{TowerShapes, VisionConfig, tower_from_tensors};

use super::{CheckpointError, Weights, read_json};

/// A tensor that every CLIP tower has, behind what may stand before its names.
const KEY: &str = "embeddings.class_embedding";
const PREFIXES: [&str; 2] = ["vision_model.", ""];
/// What a whole CLIP model has beside the tower.
const BESIDE: [&str; 4] = ["text_model.", "text_projection.", "visual_projection.", "logit_scale"];

/// Where to look for a tower.
pub(super) struct Search<'a> {
    /// The checkpoint.
    pub dir: &'a Path,
    /// The folder that the user named.
    pub given: Option<&'a Path>,
    /// What the configuration calls the tower, for example `openai/clip-vit-large-patch14-336`.
    pub tower: Option<&'a str>,
}

/// What the tower is whose tensors have `prefix` before their names, after [`attach`].
///
/// # Errors
/// As [`attach`], and shapes that make no CLIP tower.
pub(super) fn find(
    weights: &mut Weights,
    prefix: &str,
    raw: &RawConfig,
    search: &Search<'_>,
) -> Result<Option<VisionConfig>, CheckpointError> {
    let described = match attach(weights, prefix, search)? {
        Some(folder) => read_json::<RawTower>(&folder.join("config.json"))?,
        None => None,
    };
    let Some(shapes) = shapes(weights, prefix) else { return Ok(None) };
    let found = tower_from_tensors(raw, &shapes, described.as_ref())?;
    if found.heads_guessed {
        let heads = found.config.heads;
        tracing::warn!(heads, "no file gives the vision tower's attention heads: taken from the decoder");
    }
    Ok(Some(found.config))
}

/// Shapes of the tower; `None` when a tensor is missing that loading will name.
fn shapes(weights: &Weights, prefix: &str) -> Option<TowerShapes> {
    let shape = |name: &str| weights.shape(&format!("{prefix}{name}"));
    let stored = |n: &usize| weights.contains(&format!("{prefix}encoder.layers.{n}.mlp.fc1.weight"));
    Some(TowerShapes {
        class: shape(KEY)?,
        patches: shape("embeddings.patch_embedding.weight")?,
        positions: shape("embeddings.position_embedding.weight")?,
        fc1: shape("encoder.layers.0.mlp.fc1.weight")?,
        layers: (0..1 << 10).take_while(stored).count(),
    })
}

/// Puts the tower into `weights` with `prefix` before its names, unless it is there already. The folder that it
/// came from.
///
/// # Errors
/// When there is none, it is no CLIP tower, or the user named one beside that of the checkpoint.
fn attach(weights: &mut Weights, prefix: &str, search: &Search<'_>) -> Result<Option<PathBuf>, CheckpointError> {
    if weights.names().any(|name| name.starts_with(prefix)) {
        return match search.given {
            Some(given) => Err(CheckpointError::Options(format!(
                "--vision-tower names {}, but {} has a vision tower of its own",
                given.display(),
                search.dir.display()
            ))),
            None => Ok(None),
        };
    }
    let folder = search.folder()?;
    let tower = Weights::open(&folder)?;
    let not_clip = |what| CheckpointError::VisionTower { dir: folder.clone(), what };
    let Some(before) = PREFIXES.into_iter().find(|before| tower.contains(&format!("{before}{KEY}"))) else {
        return Err(not_clip(format!("its weights have neither vision_model.{KEY} nor {KEY}")));
    };
    let beside = |name: &str| BESIDE.into_iter().any(|beside| name.starts_with(beside));
    if let Some(other) = tower.names().filter(|name| !name.starts_with(before) && !beside(name)).min() {
        return Err(not_clip(format!("its weights have the tensor {other}")));
    }
    weights.join(
        tower,
        |name| if beside(name) { None } else { Some(format!("{prefix}{}", name.strip_prefix(before)?)) },
    )?;
    Ok(Some(folder))
}

impl Search<'_> {
    /// The folder that the user named, or the first that is there.
    fn folder(&self) -> Result<PathBuf, CheckpointError> {
        if let Some(given) = self.given {
            std::fs::read_dir(given).map_err(|e| CheckpointError::not_found(given, e))?;
            return Ok(given.to_owned());
        }
        let tried = self.candidates();
        let Some(folder) = tried.iter().find(|folder| folder.is_dir()) else {
            let tower = self.tower.unwrap_or("openai/clip-vit-large-patch14-336").to_owned();
            return Err(CheckpointError::NoVisionTower { tower, tried });
        };
        Ok(folder.clone())
    }

    fn candidates(&self) -> Vec<PathBuf> {
        let name = self.tower.and_then(|tower| tower.trim_end_matches('/').rsplit('/').next());
        // A name that leads elsewhere is none.
        let name = name.filter(|name| !matches!(*name, "" | "." | "..") && !name.contains(['\\', '\0']));
        let own = name.map(|name| self.dir.join(name));
        let beside = name.map(|name| self.dir.join("..").join(name));
        own.into_iter().chain([self.dir.join("vision_tower")]).chain(beside).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(tower: Option<&str>) -> Vec<String> {
        let search = Search { dir: Path::new("/models/llava"), given: None, tower };
        search.candidates().iter().map(|dir| dir.display().to_string()).collect()
    }

    #[test]
    fn a_tower_is_looked_for_under_the_last_part_of_its_name() {
        let all = ["/models/llava/clip", "/models/llava/vision_tower", "/models/llava/../clip"];
        for name in ["openai/clip", "clip", "/somewhere/else/clip/"] {
            assert_eq!(candidates(Some(name)), all);
        }
        for name in [None, Some(""), Some("a/.."), Some("/"), Some("a/.")] {
            assert_eq!(candidates(name), ["/models/llava/vision_tower"]);
        }
    }
}
