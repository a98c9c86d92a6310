//! Tensors that no part of a loaded model asked for: harmless ones that published files have, and others, which
//! mean that `config.json` describes another model.

use vlm_catalog::architecture::{Tower, VisionConfig};

use super::{Checkpoint, CheckpointError};

impl Checkpoint {
    /// Names and shapes of the tensors that the model must not have and that nothing has read, in the order of
    /// their names.
    pub fn unread(&self) -> Vec<(&str, &[usize])> {
        let mut unread = self.weights().unread();
        unread.retain(|(name, _)| !harmless(name, self.layout().tower(), &self.config().vision));
        unread
    }

    /// To be called when the whole model is loaded.
    ///
    /// # Errors
    /// [`CheckpointError::ExtraTensor`] when the files hold more than the model.
    pub fn check_all_read(&self) -> Result<(), CheckpointError> {
        match self.unread().as_slice() {
            [] => Ok(()),
            [(name, shape), others @ ..] => Err(CheckpointError::ExtraTensor {
                name: (*name).to_owned(),
                shape: shape.to_vec(),
                others: others.len(),
            }),
        }
    }
}

/// What published files have beside the model: constants that libraries once saved, and what of a vision tower
/// lies behind the features.
fn harmless(name: &str, tower: &str, vision: &VisionConfig) -> bool {
    if name.ends_with(".rotary_emb.inv_freq") || name.ends_with(".position_ids") {
        return true;
    }
    let Some(part) = name.strip_prefix(tower) else { return false };
    if vision.tower == Tower::Clip && part.starts_with("post_layernorm.") {
        return true;
    }
    let layers = part.strip_prefix("encoder.layers.").or_else(|| part.strip_prefix("encoder.layer."));
    let layer = layers.and_then(|rest| rest.split_once('.')?.0.parse().ok());
    layer.is_some_and(|layer: usize| (vision.layers_used..vision.layers).contains(&layer))
}
