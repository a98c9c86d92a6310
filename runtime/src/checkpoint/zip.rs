//! The directory of a zip file whose entries are stored as they are, with sizes beyond 4 GiB (zip64).
//! Finds places in the file; unpacks nothing. <https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT>

use std::collections::HashMap;
use std::ops::Range;

use super::cursor::Cursor;
use super::stored::Fault;

const LOCAL: u32 = 0x0403_4b50;
const CENTRAL: u32 = 0x0201_4b50;
const END: u32 = 0x0605_4b50;
const END_64: u32 = 0x0606_4b50;
const LOCATOR_64: u32 = 0x0706_4b50;
const END_BYTES: usize = 22;
const LOCATOR_BYTES: usize = 20;
/// Entries that are read: one for each tensor, and a few more.
const MAX_ENTRIES: u64 = 1 << 17;

/// The entries of a zip file.
pub(super) struct Archive<'a> {
    file: &'a [u8],
    entries: HashMap<&'a str, Entry>,
}

struct Entry {
    header: usize,
    size: usize,
    stored: bool,
    encrypted: bool,
}

/// Where the directory is.
struct Directory {
    start: usize,
    size: usize,
    entries: u64,
}

impl<'a> Archive<'a> {
    /// Reads the directory at the end of `file`.
    pub fn open(file: &'a [u8]) -> Result<Self, Fault> {
        let directory = Directory::find(file).ok_or_else(|| {
            Fault::malformed("the record that ends a zip file is not at its end; it is cut short or not fully written")
        })?;
        if directory.entries > MAX_ENTRIES {
            let reason = format!("it has {} entries, more than the {MAX_ENTRIES} that are read", directory.entries);
            return Err(Fault::malformed(reason));
        }
        let end = directory.start.checked_add(directory.size);
        let bytes = end.and_then(|end| file.get(directory.start..end));
        let mut cursor = Cursor::new(bytes.ok_or_else(|| Fault::malformed("its directory lies outside of it"))?);
        let mut entries = HashMap::new();
        for n in 0..directory.entries {
            let (name, entry) = central(&mut cursor)
                .ok_or_else(|| Fault::malformed(format!("entry {n} of its directory is garbled")))?;
            if entries.insert(name, entry).is_some() {
                return Err(Fault::malformed(format!("its directory has the entry {name:?} twice")));
            }
        }
        Ok(Self { file, entries })
    }

    /// Names of all entries.
    pub fn names(&self) -> impl Iterator<Item = &'a str> {
        self.entries.keys().copied()
    }

    /// Where the contents of the entry `name` lie; `None` when there is no such entry.
    pub fn find(&self, name: &str) -> Result<Option<Range<usize>>, Fault> {
        let Some(entry) = self.entries.get(name) else { return Ok(None) };
        if entry.encrypted {
            return Err(Fault::unsupported(format!("its entry {name:?} is encrypted")));
        }
        if !entry.stored {
            return Err(Fault::unsupported(format!("its entry {name:?} is compressed")));
        }
        let range = self.contents(entry).ok_or_else(|| {
            Fault::malformed(format!("its entry {name:?} of {} bytes is not where its directory says", entry.size))
        })?;
        Ok(Some(range))
    }

    /// Behind the entry's own header, whose padding the directory does not know.
    fn contents(&self, entry: &Entry) -> Option<Range<usize>> {
        let mut cursor = Cursor::at(self.file, entry.header);
        let signature = cursor.u32()?;
        cursor.take(22)?;
        let (name, extra) = (cursor.u16()?, cursor.u16()?);
        let start = entry.header.checked_add(30 + usize::from(name) + usize::from(extra))?;
        let end = start.checked_add(entry.size)?;
        (signature == LOCAL && end <= self.file.len()).then_some(start..end)
    }
}

impl Directory {
    fn find(file: &[u8]) -> Option<Self> {
        let end = file.len().checked_sub(END_BYTES)?;
        let mut cursor = Cursor::at(file, end);
        if cursor.u32()? != END {
            return None;
        }
        cursor.take(6)?;
        let (entries, size, start) = (cursor.u16()?, cursor.u32()?, cursor.u32()?);
        if entries == u16::MAX || size == u32::MAX || start == u32::MAX {
            return Self::find_64(file, end);
        }
        Some(Self { start: start as usize, size: size as usize, entries: entries.into() })
    }

    fn find_64(file: &[u8], end: usize) -> Option<Self> {
        let mut cursor = Cursor::at(file, end.checked_sub(LOCATOR_BYTES)?);
        if cursor.u32()? != LOCATOR_64 {
            return None;
        }
        cursor.take(4)?;
        let mut cursor = Cursor::at(file, usize::try_from(cursor.u64()?).ok()?);
        if cursor.u32()? != END_64 {
            return None;
        }
        cursor.take(28)?;
        let (entries, size, start) = (cursor.u64()?, cursor.u64()?, cursor.u64()?);
        Some(Self { start: usize::try_from(start).ok()?, size: usize::try_from(size).ok()?, entries })
    }
}

/// One entry of the directory.
fn central<'a>(cursor: &mut Cursor<'a>) -> Option<(&'a str, Entry)> {
    if cursor.u32()? != CENTRAL {
        return None;
    }
    cursor.take(4)?;
    let (flags, method) = (cursor.u16()?, cursor.u16()?);
    cursor.take(8)?;
    let (packed, size) = (cursor.u32()?, cursor.u32()?);
    let (name, extra, comment) = (cursor.u16()?, cursor.u16()?, cursor.u16()?);
    cursor.take(8)?;
    let header = cursor.u32()?;
    let name = str::from_utf8(cursor.take(name.into())?).ok()?;
    let mut wide = wide(Cursor::new(cursor.take(extra.into())?));
    cursor.take(comment.into())?;
    // In this order, and only those that do not fit.
    let mut widen = |narrow: u32| {
        let value = if narrow == u32::MAX { wide.u64()? } else { narrow.into() };
        usize::try_from(value).ok()
    };
    let (size, packed, header) = (widen(size)?, widen(packed)?, widen(header)?);
    Some((name, Entry { header, size, stored: method == 0 && packed == size, encrypted: flags & 1 == 1 }))
}

/// The extra field that has what does not fit into 32 bits.
fn wide(mut extra: Cursor<'_>) -> Cursor<'_> {
    while let (Some(id), Some(size)) = (extra.u16(), extra.u16()) {
        let Some(field) = extra.take(size.into()) else { break };
        if id == 1 {
            return Cursor::new(field);
        }
    }
    Cursor::new(&[])
}

#[cfg(test)]
mod tests;
