//! A mapped safetensors file: its header, read and checked as of every source, as places of tensors.

use vlm_hub::header::{self, HeaderError, PREFIX_BYTES};

use super::stored::{Fault, Stored};

/// The tensors of a file by their names.
pub(super) fn tensors(file: &[u8]) -> Result<Vec<(String, Stored)>, Fault> {
    let malformed = |error: HeaderError| Fault::malformed(error.to_string());
    let length = header::length(file, file.len() as u64).map_err(malformed)?;
    let json = file.get(PREFIX_BYTES..PREFIX_BYTES + length).unwrap_or_default();
    let places = header::parse(json, file.len() as u64).map_err(malformed)?;
    let stored = |place: header::TensorPlace| {
        let header::TensorPlace { name, dtype, shape, bytes } = place;
        (name, Stored { dtype, shape, strides: None, bytes })
    };
    Ok(places.into_iter().map(stored).collect())
}
