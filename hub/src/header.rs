//! The header of a safetensors file: eight bytes of length, then JSON that says where each tensor lies.
//! <https://github.com/huggingface/safetensors#format>

use std::{fmt, ops::Range};

use ::safetensors::Dtype;
use serde::Deserialize;
use serde::de::{Error, IgnoredAny, MapAccess, Visitor};

/// Bytes before the header, which give its length.
pub const PREFIX_BYTES: usize = 8;
/// Bytes that a header may have; those of the largest models have about one million.
pub const MAX_BYTES: u64 = 16 << 20;
/// Axes that a tensor may have.
pub const MAX_AXES: usize = 8;
/// Bytes that its name may have.
pub const MAX_NAME: usize = 512;

/// What is wrong with a header, without a full stop.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct HeaderError(String);

/// A tensor of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorPlace {
    /// Its name.
    pub name: String,
    /// Number format.
    pub dtype: Dtype,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Bytes of the file, from the first element to the last.
    pub bytes: Range<usize>,
}

/// The length of the header in bytes, out of the first bytes of a file of `file_bytes` bytes.
///
/// # Errors
/// When the file is shorter than that, or the header longer than is read.
pub fn length(begin: &[u8], file_bytes: u64) -> Result<usize, HeaderError> {
    let Some(prefix) = begin.first_chunk::<PREFIX_BYTES>() else {
        let reason = format!("it has {} bytes, not even the 8 that give its header's length", begin.len());
        return Err(HeaderError(reason));
    };
    let (stated, left) = (u64::from_le_bytes(*prefix), file_bytes.saturating_sub(PREFIX_BYTES as u64));
    if stated > left {
        let reason = format!("its first 8 bytes announce a header of {stated} bytes, but {left} follow");
        return Err(HeaderError(reason));
    }
    if stated > MAX_BYTES {
        let reason = format!("its header has {stated} bytes, more than the {MAX_BYTES} that are read");
        return Err(HeaderError(reason));
    }
    usize::try_from(stated).map_err(|e| HeaderError(e.to_string()))
}

/// The tensors of a file of `file_bytes` bytes by its header, in the order in which they lie there.
///
/// # Errors
/// When the header is not what it must be, or the tensors do not fill the bytes behind it without gap or overlap.
pub fn parse(json: &[u8], file_bytes: u64) -> Result<Vec<TensorPlace>, HeaderError> {
    let malformed = |e: &dyn fmt::Display| HeaderError(format!("its header is not what it must be: {e}"));
    let mut reader = serde_json::Deserializer::from_slice(json);
    let header: Header = serde_path_to_error::deserialize(&mut reader).map_err(|e| malformed(&e))?;
    reader.end().map_err(|e| malformed(&e))?;
    let start = PREFIX_BYTES + json.len();
    let size = usize::try_from(file_bytes).unwrap_or(usize::MAX).saturating_sub(start);
    place(header.0, start, size).map_err(HeaderError)
}

/// Numbers of a tensor; `None` beyond what a machine can count.
pub fn elements(shape: &[usize]) -> Option<usize> {
    if shape.contains(&0) {
        return Some(0);
    }
    shape.iter().try_fold(1usize, |product, side| product.checked_mul(*side))
}

fn place(mut entries: Vec<(String, Entry)>, start: usize, size: usize) -> Result<Vec<TensorPlace>, String> {
    entries.sort_by(|a, b| (a.1.data_offsets, &a.0).cmp(&(b.1.data_offsets, &b.0)));
    let mut end = 0;
    let mut tensors = Vec::with_capacity(entries.len());
    for (name, Entry { dtype, shape, data_offsets: [from, to] }) in entries {
        if from != end || to < from {
            return Err(format!("the tensor {name} lies at {from}..{to}, but {end} is where it must begin"));
        }
        if to > size {
            return Err(format!(
                "the tensor {name} ends at byte {to} of the data, of which the file has {size}; it is cut short"
            ));
        }
        let bits = elements(&shape).and_then(|count| count.checked_mul(dtype.bitsize()));
        if bits != (to - from).checked_mul(8) {
            return Err(format!(
                "the tensor {name} of {shape:?} numbers ({dtype}) does not fill its {} bytes",
                to - from
            ));
        }
        end = to;
        tensors.push(TensorPlace { name, dtype, shape, bytes: start + from..start + to });
    }
    if end != size {
        return Err(format!("its header describes {end} bytes of tensors, but {size} follow it"));
    }
    Ok(tensors)
}

#[derive(Deserialize)]
struct Entry {
    dtype: Dtype,
    shape: Vec<usize>,
    data_offsets: [usize; 2],
}

struct Header(Vec<(String, Entry)>);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Entries)
    }
}

/// Reads entry by entry: what is not kept takes no memory.
struct Entries;

impl<'de> Visitor<'de> for Entries {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
        let mut entries = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                map.next_value::<IgnoredAny>()?;
            } else {
                let entry: Entry = map.next_value()?;
                if name.len() > MAX_NAME || entry.shape.len() > MAX_AXES {
                    let (name, axes) = (name.len(), entry.shape.len());
                    return Err(A::Error::custom(format!("a tensor has a name of {name} bytes and {axes} axes")));
                }
                entries.push((name, entry));
            }
        }
        if entries.is_empty() {
            return Err(A::Error::custom("it names no tensors"));
        }
        Ok(Header(entries))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const JSON: &[u8] =
        br#"{"__metadata__": {"format": "pt"}, "b": {"dtype": "F16", "shape": [2], "data_offsets": [8, 12]},
             "a": {"dtype": "F32", "shape": [1, 2], "data_offsets": [0, 8]}}"#;

    #[test]
    fn tensors_are_told_in_the_order_of_the_file() {
        let file_bytes = (8 + JSON.len() + 12) as u64;
        let tensors = parse(JSON, file_bytes).unwrap();
        assert_eq!(tensors[0].name, "a");
        assert_eq!((tensors[1].dtype, tensors[1].shape.as_slice()), (Dtype::F16, &[2][..]));
        assert_eq!(tensors[1].bytes.end as u64, file_bytes);
        assert!(parse(JSON, file_bytes - 1).unwrap_err().to_string().contains("cut short"));
        assert!(parse(JSON, file_bytes + 1).unwrap_err().to_string().contains("13 follow"));
    }

    #[test]
    fn a_hostile_length_is_refused_before_anything_is_read() {
        let says = |stated: u64, file: u64| length(&stated.to_le_bytes(), file).unwrap_err().to_string();
        assert!(says(u64::MAX, 1 << 40).contains("announce"));
        assert!(says(MAX_BYTES + 1, 1 << 40).contains("more than"));
        assert!(says(100, 50).contains("42 follow"));
        assert!(length(&[1, 2], 2).unwrap_err().to_string().contains("2 bytes"));
        assert_eq!(length(&100_u64.to_le_bytes(), 200), Ok(100));
    }

    proptest! {
        #[test]
        fn no_header_breaks_the_parser(json in "[\\[\\]{}\":,a-z0-9_]{0,200}", size in any::<u64>()) {
            let _ = parse(json.as_bytes(), size);
        }
    }
}
