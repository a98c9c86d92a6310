//! The header of a safetensors file: eight bytes of length, then JSON that says where each tensor lies.
//! <https://github.com/huggingface/safetensors#format>

use std::fmt;

use ::safetensors::Dtype;
use serde::Deserialize;
use serde::de::{Error, IgnoredAny, MapAccess, Visitor};

use super::cursor::Cursor;
use super::stored::{Fault, MAX_AXES, MAX_NAME, Stored, elements};

/// Bytes that a header may have; those of the largest models have about one million.
const MAX_HEADER: usize = 16 << 20;

/// The tensors of a file by their names.
pub(super) fn tensors(file: &[u8]) -> Result<Vec<(String, Stored)>, Fault> {
    let mut cursor = Cursor::new(file);
    let length = cursor.u64().ok_or_else(|| {
        Fault::malformed(format!("it has {} bytes, not even the 8 that give its header's length", file.len()))
    })?;
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if length > cursor.len() {
        let (stated, left) = (length, cursor.len());
        return Err(Fault::malformed(format!(
            "its first 8 bytes announce a header of {stated} bytes, but {left} follow"
        )));
    }
    if length > MAX_HEADER {
        let reason = format!("its header has {length} bytes, more than the {MAX_HEADER} that are read");
        return Err(Fault::malformed(reason));
    }
    let header: Header = parse(cursor.take(length).unwrap_or_default())?;
    place(header.0, 8 + length, cursor.len())
}

fn parse(json: &[u8]) -> Result<Header, Fault> {
    let malformed = |e: &dyn fmt::Display| Fault::malformed(format!("its header is not what it must be: {e}"));
    let mut json = serde_json::Deserializer::from_slice(json);
    let header = serde_path_to_error::deserialize(&mut json).map_err(|e| malformed(&e))?;
    json.end().map_err(|e| malformed(&e))?;
    Ok(header)
}

/// Checks that the tensors fill the `size` bytes behind the header without gap or overlap.
fn place(mut entries: Vec<(String, Entry)>, start: usize, size: usize) -> Result<Vec<(String, Stored)>, Fault> {
    entries.sort_by(|a, b| (a.1.data_offsets, &a.0).cmp(&(b.1.data_offsets, &b.0)));
    let mut end = 0;
    let mut tensors = Vec::with_capacity(entries.len());
    for (name, Entry { dtype, shape, data_offsets: [from, to] }) in entries {
        if from != end || to < from {
            return Err(Fault::malformed(format!(
                "the tensor {name} lies at {from}..{to}, but {end} is where it must begin"
            )));
        }
        if to > size {
            return Err(Fault::malformed(format!(
                "the tensor {name} ends at byte {to} of the data, of which the file has {size}; it is cut short"
            )));
        }
        let bits = elements(&shape).and_then(|count| count.checked_mul(dtype.bitsize()));
        if bits != (to - from).checked_mul(8) {
            let reason =
                format!("the tensor {name} of {shape:?} numbers ({dtype}) does not fill its {} bytes", to - from);
            return Err(Fault::malformed(reason));
        }
        end = to;
        tensors.push((name, Stored { dtype, shape, strides: None, bytes: start + from..start + to }));
    }
    if end != size {
        return Err(Fault::malformed(format!("its header describes {end} bytes of tensors, but {size} follow it")));
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
