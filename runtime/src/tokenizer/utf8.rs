//! Bytes to text as they come: a character is given when it is whole, and bytes that join to nothing
//! as replacement characters as soon as that is certain.

/// Holds at most the three bytes that a character can have before its last.
#[derive(Debug, Default)]
pub struct Utf8Stream {
    held: Vec<u8>,
    each_byte: bool,
}

impl Utf8Stream {
    /// One replacement character for each run that could have begun a character, as the Unicode standard
    /// advises and byte-level decoders do.
    pub fn each_run() -> Self {
        Self::default()
    }

    /// One replacement character for each byte, as `SentencePiece` does.
    pub fn each_byte() -> Self {
        Self { each_byte: true, ..Self::default() }
    }

    /// Appends to `out` what became certain with `bytes`.
    pub fn push(&mut self, bytes: &[u8], out: &mut String) {
        self.held.extend_from_slice(bytes);
        let held = std::mem::take(&mut self.held);
        let mut rest = &held[..];
        while !rest.is_empty() {
            let (valid, broken) = match std::str::from_utf8(rest) {
                Ok(text) => (text, None),
                Err(e) => {
                    let (valid, _) = rest.split_at(e.valid_up_to());
                    (std::str::from_utf8(valid).unwrap_or_default(), Some(e.error_len()))
                }
            };
            out.push_str(valid);
            rest = &rest[valid.len()..];
            match broken {
                None => break,
                // What is left may still become a character.
                Some(None) => {
                    self.held = rest.to_vec();
                    break;
                }
                Some(Some(len)) => {
                    let len = if self.each_byte { 1 } else { len };
                    out.push(char::REPLACEMENT_CHARACTER);
                    rest = &rest[len..];
                }
            }
        }
    }

    /// Appends what was held back: nothing follows that could complete it.
    pub fn finish(&mut self, out: &mut String) {
        if self.held.is_empty() {
            return;
        }
        let times = if self.each_byte { self.held.len() } else { 1 };
        out.extend(std::iter::repeat_n(char::REPLACEMENT_CHARACTER, times));
        self.held.clear();
    }
}
