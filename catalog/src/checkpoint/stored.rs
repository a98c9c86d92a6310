//! The size of a checkpoint from the names and shapes of its stored tensors, as the headers of its files give them.

use std::collections::BTreeMap;
use std::fmt;

use super::{CheckpointSize, Head, Part, Tensors};
use crate::architecture::ModelConfig;

/// Numbers in a whole model; as many as a description may have.
const MOST_PARAMETERS: u64 = 1 << 40;
/// Shapes that differ; published checkpoints have about 40.
const MOST_SHAPES: usize = 4096;

/// Why stored tensors make no model; without a full stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoredError {
    /// A tensor, or all together, have more numbers than any model.
    TooLarge {
        /// The tensor with which it became too large.
        tensor: String,
    },
    /// Too many shapes that differ.
    TooVaried,
    /// A part has no tensors at all.
    Missing {
        /// Which part.
        part: &'static str,
    },
    /// The embedding has another shape than `config.json` says.
    Embedding {
        /// Rows and width of the stored one.
        stored: (u64, u64),
        /// Rows and width by `config.json`.
        described: (u64, u64),
    },
}

impl fmt::Display for StoredError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { tensor } => {
                write!(f, "the tensors up to {tensor} have more than the {MOST_PARAMETERS} numbers of any model")
            }
            Self::TooVaried => write!(f, "the tensors have more than {MOST_SHAPES} different shapes"),
            Self::Missing { part } => write!(f, "no tensor of {part} is stored"),
            Self::Embedding { stored: (rows, width), described } => write!(
                f,
                "the stored embedding is [{rows}, {width}], but config.json describes [{}, {}]",
                described.0, described.1
            ),
        }
    }
}

impl std::error::Error for StoredError {}

impl CheckpointSize {
    /// Of the tensors that are stored of the model `config`, each as its name and shape. The vision tower of the
    /// original LLaVA-1.5, which is published elsewhere, is added as described.
    ///
    /// # Errors
    /// [`StoredError`] when they are too many, or are not those of a model of this kind.
    pub fn of_stored<'a>(
        config: &ModelConfig,
        stored: impl IntoIterator<Item = (&'a str, &'a [usize])>,
    ) -> Result<Self, StoredError> {
        Self::of_tensors(config, group(stored)?)
    }

    /// Of groups of stored tensors, as [`group`] makes them.
    ///
    /// # Errors
    /// As [`Self::of_stored`].
    pub fn of_tensors(config: &ModelConfig, tensors: Vec<Tensors>) -> Result<Self, StoredError> {
        let add = |sum: u64, tensors: &Tensors| {
            let numbers = tensors.count.checked_mul(tensors.rows)?.checked_mul(tensors.row_length)?;
            sum.checked_add(numbers).filter(|sum| *sum <= MOST_PARAMETERS)
        };
        match tensors.iter().try_fold(0, add) {
            Some(_) => Self::complete(config, tensors),
            None => Err(StoredError::TooLarge { tensor: "the last".to_owned() }),
        }
    }

    /// Checks that no part is missing, and adds a tower that is published elsewhere.
    fn complete(config: &ModelConfig, mut tensors: Vec<Tensors>) -> Result<Self, StoredError> {
        let has = |tensors: &[Tensors], part| tensors.iter().any(|tensors| tensors.part == part);
        for (part, name) in [
            (Part::Embedding, "the embedding"),
            (Part::DecoderLinear, "the decoder"),
            (Part::Projector, "the projector"),
        ] {
            if !has(&tensors, part) {
                return Err(StoredError::Missing { part: name });
            }
        }
        let described = Self::of(config, Head::Stored);
        let found = tensors.iter().find(|tensors| tensors.part == Part::Embedding);
        let shape = |tensors: &Tensors| (tensors.rows, tensors.row_length);
        if let Some(stored) = found.map(shape)
            && stored != shape(&described.head)
        {
            return Err(StoredError::Embedding { stored, described: shape(&described.head) });
        }
        if !has(&tensors, Part::Tower) {
            tensors.extend(described.of_part(Part::Tower));
        }
        let stored_head = has(&tensors, Part::Head);
        Ok(Self { tensors, head: described.head, stored_head })
    }
}

/// Tensors, each as its name and shape, as groups of equal ones of a part; those that are never read are left out.
///
/// # Errors
/// [`StoredError::TooLarge`] and [`StoredError::TooVaried`].
pub fn group<'a>(stored: impl IntoIterator<Item = (&'a str, &'a [usize])>) -> Result<Vec<Tensors>, StoredError> {
    let mut groups: BTreeMap<(Part, u64, u64), u64> = BTreeMap::new();
    let mut parameters = 0_u64;
    for (name, shape) in stored {
        let Some(part) = Part::of_tensor(name, shape.len()) else { continue };
        let too_large = || StoredError::TooLarge { tensor: name.chars().take(256).collect() };
        let (rows, row_length) = matrix(shape).ok_or_else(too_large)?;
        parameters = rows.checked_mul(row_length).and_then(|n| n.checked_add(parameters)).ok_or_else(too_large)?;
        if parameters > MOST_PARAMETERS {
            return Err(too_large());
        }
        *groups.entry((part, rows, row_length)).or_default() += 1;
        if groups.len() > MOST_SHAPES {
            return Err(StoredError::TooVaried);
        }
    }
    let one = |((part, rows, row_length), count)| Tensors { part, count, rows, row_length };
    Ok(groups.into_iter().map(one).collect())
}

/// Rows, and the numbers in each: a convolution's kernel is one row for each of its outputs.
fn matrix(shape: &[usize]) -> Option<(u64, u64)> {
    let product =
        |sides: &[usize]| sides.iter().try_fold(1_u64, |product, side| product.checked_mul(u64::try_from(*side).ok()?));
    match shape {
        [] => Some((1, 1)),
        [numbers] => Some((1, *numbers as u64)),
        [rows, rest @ ..] => Some((*rows as u64, product(rest)?)),
    }
}

impl Part {
    /// The part that a tensor belongs to by its name, in every layout of the registry; `None` for those that are never
    /// read.
    pub fn of_tensor(name: &str, axes: usize) -> Option<Self> {
        if name.ends_with("rotary_emb.inv_freq") || name.ends_with("position_ids") {
            return None;
        }
        let bare = name.strip_prefix("model.").unwrap_or(name);
        let begins = |prefixes: &[&str]| prefixes.iter().any(|prefix| bare.starts_with(prefix));
        if begins(&["vision_tower.", "vision_model."]) {
            return Some(Self::Tower);
        }
        if begins(&["multi_modal_projector.", "mm_projector.", "mlp1."]) {
            return Some(Self::Projector);
        }
        Some(match bare {
            "image_newline" => Self::Newline,
            _ if bare.ends_with("embed_tokens.weight") || bare.ends_with("tok_embeddings.weight") => Self::Embedding,
            _ if bare.ends_with("lm_head.weight") || bare == "language_model.output.weight" => Self::Head,
            _ if axes == 2 && bare.ends_with(".weight") => Self::DecoderLinear,
            _ => Self::DecoderNorm,
        })
    }
}

#[cfg(test)]
mod tests;
