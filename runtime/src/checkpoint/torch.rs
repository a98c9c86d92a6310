//! Files of `torch.save` (since torch 1.6): a zip file with a pickled state dict, and an entry of raw numbers
//! for each storage. <https://docs.pytorch.org/docs/stable/notes/serialization.html>

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::Range;

use super::pickle::{self, Pickled, Storage};
use super::stored::{Fault, Stored, contiguous, elements, extent};
use super::zip::Archive;

const PICKLE: &str = "/data.pkl";
/// How files begin that torch wrote before 1.6: a pickle of a long number.
const LEGACY: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";

/// The tensors of a file by their names.
pub(super) fn tensors(file: &[u8]) -> Result<Vec<(String, Stored)>, Fault> {
    if file.starts_with(LEGACY) {
        return Err(Fault::unsupported("it is of the kind that torch wrote before version 1.6"));
    }
    if !file.starts_with(b"PK") {
        return Err(Fault::malformed("it does not begin as a zip file, which torch.save makes"));
    }
    let archive = Archive::open(file)?;
    let mut pickles = archive.names().filter(|name| name.ends_with(PICKLE));
    let (Some(name), None) = (pickles.next(), pickles.next()) else {
        return Err(Fault::unsupported("it is a zip file, but not one with one data.pkl as torch.save makes"));
    };
    let folder = name.strip_suffix(PICKLE).unwrap_or_default();
    if let Some(order) = archive.find(&format!("{folder}/byteorder"))? {
        let order = file.get(order).unwrap_or_default();
        if order != b"little" {
            let order = String::from_utf8_lossy(order.get(..order.len().min(20)).unwrap_or_default()).into_owned();
            return Err(Fault::unsupported(format!("its byte order is {order:?}, not \"little\"")));
        }
    }
    let pickle = archive.find(name)?.and_then(|range| file.get(range)).unwrap_or_default();
    let mut storages = Storages { archive: &archive, folder, found: HashMap::new() };
    pickle::state_dict(pickle)?
        .into_iter()
        .map(|(name, pickled)| {
            let bytes = storages.bytes(&pickled.storage)?;
            Ok((name.to_owned(), view(name, pickled, &bytes)?))
        })
        .collect()
}

/// Where the storages lie; several tensors may be views of one.
struct Storages<'a> {
    archive: &'a Archive<'a>,
    folder: &'a str,
    found: HashMap<&'a str, Range<usize>>,
}

impl<'a> Storages<'a> {
    fn bytes(&mut self, storage: &Storage<'a>) -> Result<Range<usize>, Fault> {
        let range = match self.found.entry(storage.key) {
            Entry::Occupied(found) => found.get().clone(),
            Entry::Vacant(place) => {
                let name = format!("{}/data/{}", self.folder, storage.key);
                let missing = || Fault::malformed(format!("it has no entry {name:?}, which its pickle refers to"));
                place.insert(self.archive.find(&name)?.ok_or_else(missing)?).clone()
            }
        };
        let size = storage.dtype.bitsize() / 8;
        if storage.numbers.checked_mul(size).is_none_or(|bytes| bytes > range.len()) {
            return Err(Fault::malformed(format!(
                "its entry data/{} has {} bytes, too few for the {} numbers ({}) of its pickle",
                storage.key,
                range.len(),
                storage.numbers,
                storage.dtype
            )));
        }
        Ok(range)
    }
}

/// The part of a storage that a tensor is.
fn view(name: &str, pickled: Pickled<'_>, storage: &Range<usize>) -> Result<Stored, Fault> {
    let Pickled { storage: Storage { dtype, numbers, .. }, offset, shape, strides } = pickled;
    let end = extent(&shape, &strides).and_then(|extent| offset.checked_add(extent));
    let Some(end) = end.filter(|end| *end <= numbers) else {
        return Err(Fault::malformed(format!(
            "the tensor {name} of shape {shape:?} at {offset} does not lie within the {numbers} numbers of its storage"
        )));
    };
    let strides = if contiguous(&shape, &strides) { None } else { Some(strides) };
    // A view that repeats numbers could be far larger than the file.
    if strides.is_some() && elements(&shape).is_none_or(|count| count > numbers) {
        return Err(Fault::unsupported(format!(
            "the tensor {name} of shape {shape:?} repeats the numbers of its storage"
        )));
    }
    let size = dtype.bitsize() / 8;
    Ok(Stored { dtype, shape, strides, bytes: storage.start + offset * size..storage.start + end * size })
}

#[cfg(test)]
mod tests;
