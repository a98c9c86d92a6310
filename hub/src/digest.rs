//! Checksums as the hub lists them: SHA-256 of large files, and git's name of the content of small ones.

use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};

/// What a file's content must come to, in small hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Digest {
    /// SHA-256 of the bytes.
    Sha256(String),
    /// SHA-1 of git's blob: `blob SIZE`, a zero byte and the bytes. It guards against accidents, and against
    /// whoever cannot change the list.
    GitBlob(String),
}

impl Digest {
    /// A listed checksum of `digits` hexadecimal digits.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        if !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        match text.len() {
            64 => Some(Self::Sha256(text)),
            40 => Some(Self::GitBlob(text)),
            _ => None,
        }
    }

    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Sha256(_) => "SHA-256",
            Self::GitBlob(_) => "git blob name",
        }
    }

    pub(crate) fn expected(&self) -> &str {
        match self {
            Self::Sha256(digits) | Self::GitBlob(digits) => digits,
        }
    }

    /// Begins to compute this kind of checksum of `size` bytes.
    pub(crate) fn begin(&self, size: u64) -> Context {
        match self {
            Self::Sha256(_) => Context::new(&SHA256),
            Self::GitBlob(_) => {
                let mut context = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
                context.update(format!("blob {size}\0").as_bytes());
                context
            }
        }
    }
}

/// The digits of a checksum that is complete.
pub(crate) fn digits(context: Context) -> String {
    use std::fmt::Write as _;
    context.finish().as_ref().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksums_are_the_published_ones() {
        let of = |digest: &Digest, bytes: &[u8]| {
            let mut context = digest.begin(bytes.len() as u64);
            context.update(bytes);
            digits(context)
        };
        // FIPS 180-2, and what `git hash-object` says of a file with "hello\n".
        let sha256 = Digest::parse("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad").unwrap();
        assert_eq!(of(&sha256, b"abc"), sha256.expected());
        let blob = Digest::parse("CE013625030BA8DBA906F756967F9E9CA394464A").unwrap();
        assert_eq!(of(&blob, b"hello\n"), blob.expected());
        for text in ["", "abc", "zz013625030ba8dba906f756967f9e9ca394464a"] {
            assert_eq!(Digest::parse(text), None, "{text}");
        }
    }
}
