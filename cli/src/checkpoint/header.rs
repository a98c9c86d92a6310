//! Names and shapes out of the header of a safetensors file: eight bytes of length, then JSON.
//! <https://github.com/huggingface/safetensors#format>

use std::fmt;
use std::io::Read;

use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, Visitor};

/// Bytes that a header may have; those of the largest models have about one million.
const MAX_HEADER: u64 = 16 << 20;
const MAX_NAME: usize = 512;
const MAX_AXES: usize = 8;

/// The tensors of a file of `size` bytes.
///
/// # Errors
/// Why it is no such file.
pub(super) fn tensors(file: &mut impl Read, size: u64) -> Result<Vec<(String, Vec<usize>)>, String> {
    let mut length = [0; 8];
    file.read_exact(&mut length)
        .map_err(|_| format!("it has {size} bytes, not even the 8 that begin a safetensors file"))?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER.min(size) {
        return Err(format!(
            "it announces a header of {length} bytes; it has {size}, and {MAX_HEADER} are read at most"
        ));
    }
    let mut json = Vec::new();
    file.take(length).read_to_end(&mut json).map_err(|e| e.to_string())?;
    serde_json::from_slice::<Header>(&json).map(|header| header.0).map_err(|e| format!("its header: {e}"))
}

#[derive(Deserialize)]
struct Entry {
    shape: Vec<usize>,
}

struct Header(Vec<(String, Vec<usize>)>);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Entries)
    }
}

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
                continue;
            }
            let shape = map.next_value::<Entry>()?.shape;
            if name.len() > MAX_NAME || shape.len() > MAX_AXES {
                return Err(A::Error::custom(format!(
                    "a tensor has a name of {} bytes and {} axes",
                    name.len(),
                    shape.len()
                )));
            }
            entries.push((name, shape));
        }
        Ok(Header(entries))
    }
}
