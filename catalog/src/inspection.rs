//! What a look at a checkpoint tells whoever plans where it fits: its description and what its tensors weigh as they
//! are stored. It travels as the termination message of a pod, which holds 4096 bytes.

use serde::{Deserialize, Serialize};

use crate::architecture::ModelConfig;
use crate::checkpoint::{Head, Part};

/// A tensor as a header lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredTensor<'a> {
    /// Its name.
    pub name: &'a str,
    /// How many axes it has.
    pub axes: usize,
    /// Bytes, as stored.
    pub bytes: u64,
}

/// What is known of a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Inspection {
    /// The commit, of a repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// The model, without what says nothing of its size and may be long: factors of its rotary positions, the name
    /// of its template and its system message.
    pub config: ModelConfig,
    /// Bytes of all weight files.
    pub weight_bytes: u64,
    /// What the headers tell; absent where the kind of weight files has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored: Option<Stored>,
}

/// Bytes of the tensors by part, as they are stored; those that are never read belong to none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stored {
    /// How many tensors there are.
    pub tensors: u64,
    /// Rows of the vocabulary.
    pub embedding_bytes: u64,
    /// Linear layers of the decoder, without their biases.
    pub decoder_linear_bytes: u64,
    /// Norms and biases of the decoder.
    pub decoder_norm_bytes: u64,
    /// The output head; 0 when it is tied to the embedding.
    pub head_bytes: u64,
    /// The vision tower.
    pub tower_bytes: u64,
    /// The projector.
    pub projector_bytes: u64,
    /// The row that ends each row of a grid of tiles.
    pub newline_bytes: u64,
}

impl Inspection {
    /// Of a model and its tensors.
    pub fn new<'a>(
        config: ModelConfig,
        revision: Option<String>,
        weight_bytes: u64,
        tensors: Option<impl IntoIterator<Item = StoredTensor<'a>>>,
    ) -> Self {
        let mut config = config;
        config.text.long_rope = None;
        config.template = None;
        config.system_message = None;
        Self { revision, config, weight_bytes, stored: tensors.map(Stored::of) }
    }

    /// Where the output head is; `None` when no header tells.
    pub fn head(&self) -> Option<Head> {
        self.stored.map(|stored| if stored.head_bytes > 0 { Head::Stored } else { Head::Tied })
    }
}

impl Stored {
    fn of<'a>(tensors: impl IntoIterator<Item = StoredTensor<'a>>) -> Self {
        let mut sums = Self::default();
        for tensor in tensors {
            sums.tensors += 1;
            if let Some(part) = Part::of_tensor(tensor.name, tensor.axes) {
                *sums.sum(part) += tensor.bytes;
            }
        }
        sums
    }

    fn sum(&mut self, part: Part) -> &mut u64 {
        match part {
            Part::Embedding => &mut self.embedding_bytes,
            Part::DecoderLinear => &mut self.decoder_linear_bytes,
            Part::DecoderNorm => &mut self.decoder_norm_bytes,
            Part::Head => &mut self.head_bytes,
            Part::Tower => &mut self.tower_bytes,
            Part::Projector => &mut self.projector_bytes,
            Part::Newline => &mut self.newline_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_summed_by_part_and_what_is_never_read_counts_for_none() {
        let of = |name, axes, bytes| StoredTensor { name, axes, bytes };
        let tensors = [
            of("model.embed_tokens.weight", 2, 1),
            of("model.layers.0.mlp.down_proj.weight", 2, 2),
            of("model.layers.1.mlp.down_proj.weight", 2, 4),
            of("model.norm.weight", 1, 8),
            of("lm_head.weight", 2, 16),
            of("vision_tower.vision_model.embeddings.class_embedding", 1, 32),
            of("multi_modal_projector.linear_1.weight", 2, 64),
            of("image_newline", 1, 128),
            of("vision_tower.vision_model.embeddings.position_ids", 2, 256),
        ];
        let expected = Stored {
            tensors: 9,
            embedding_bytes: 1,
            decoder_linear_bytes: 6,
            decoder_norm_bytes: 8,
            head_bytes: 16,
            tower_bytes: 32,
            projector_bytes: 64,
            newline_bytes: 128,
        };
        assert_eq!(Stored::of(tensors), expected);
    }
}
