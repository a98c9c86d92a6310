//! `SentencePiece`'s compiled replacement rules (`precompiled_charsmap`): a double-array trie from byte
//! strings to offsets into a block of NUL-terminated replacements.

/// Bytes that one replacement may have; the longest of NFKC has 33.
const MAX_REPLACEMENT: usize = 256;
/// Matches that are looked at, as the reference does.
const MAX_MATCHES: usize = 32;

/// The rules; none for identity.
#[derive(Debug, Default)]
pub struct Charsmap {
    units: Vec<u32>,
    replacements: String,
}

impl Charsmap {
    /// Reads `precompiled_charsmap`: length of the trie, trie, replacements; all little-endian.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(blob: &[u8]) -> Result<Self, String> {
        if blob.is_empty() {
            return Ok(Self::default());
        }
        let (len, rest) = blob.split_first_chunk::<4>().ok_or("precompiled_charsmap is cut short")?;
        let len = u32::from_le_bytes(*len) as usize;
        let (trie, replacements) = rest.split_at_checked(len).ok_or("precompiled_charsmap is cut short")?;
        let (units, []) = trie.as_chunks::<4>() else {
            return Err("the trie of precompiled_charsmap is not of whole units".to_owned());
        };
        if replacements.split(|byte| *byte == 0).any(|text| text.len() > MAX_REPLACEMENT) {
            return Err(format!("a replacement of precompiled_charsmap is longer than {MAX_REPLACEMENT} bytes"));
        }
        let replacements = std::str::from_utf8(replacements)
            .map_err(|e| format!("the replacements of precompiled_charsmap are not UTF-8: {e}"))?;
        Ok(Self {
            units: units.iter().map(|unit| u32::from_le_bytes(*unit)).collect(),
            replacements: replacements.to_owned(),
        })
    }

    /// The longest rule that matches at the start of `text`: bytes it consumes, what it puts there.
    pub fn replace(&self, text: &str) -> Option<(usize, &str)> {
        let mut node = offset(*self.units.first()?);
        let (mut longest, mut matches) = (None, 0);
        for (place, byte) in text.bytes().enumerate() {
            node ^= u32::from(byte);
            let Some(unit) = self.units.get(node as usize) else { break };
            if label(*unit) != u32::from(byte) {
                break;
            }
            node ^= offset(*unit);
            if unit >> 8 & 1 == 1 {
                let Some(leaf) = self.units.get(node as usize) else { break };
                longest = Some((place + 1, leaf & 0x7FFF_FFFF));
                matches += 1;
                if matches == MAX_MATCHES {
                    break;
                }
            }
        }
        let (len, start) = longest.filter(|(len, _)| text.is_char_boundary(*len))?;
        let tail = self.replacements.get(start as usize..)?;
        Some((len, tail.split_once('\0').map_or(tail, |(replacement, _)| replacement)))
    }
}

fn offset(unit: u32) -> u32 {
    unit >> 10 << ((unit & 1 << 9) >> 6)
}

/// The byte that leads to this unit; leaves have a bit that no byte has.
fn label(unit: u32) -> u32 {
    unit & (1 << 31 | 0xFF)
}
