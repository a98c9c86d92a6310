//! The hub's token. It is read here, sent by [`crate::hf`], and shown to nobody.

use std::{fmt, fs::File, io::Read, path::Path};

use crate::HubError;

/// Bytes that a token may have; those of the hub have 37.
const MAX_BYTES: usize = 4096;

/// A secret that opens private and gated repositories.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// A token out of `text`; white space around it does not count.
    ///
    /// # Errors
    /// [`HubError::Settings`] when it is empty, too long or could not stand in a header. The error does not quote it.
    pub fn parse(text: &str) -> Result<Self, HubError> {
        let text = text.trim();
        if text.is_empty() || text.len() > MAX_BYTES || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(HubError::Settings(format!(
                "the token for the hub is not 1 to {MAX_BYTES} printable ASCII characters without spaces"
            )));
        }
        Ok(Self(text.to_owned()))
    }

    /// A token out of a file.
    ///
    /// # Errors
    /// As [`Self::parse`], and when the file cannot be read.
    pub fn read(path: &Path) -> Result<Self, HubError> {
        let unreadable =
            |e: std::io::Error| HubError::Settings(format!("the token file {} cannot be read: {e}", path.display()));
        let (mut text, file) = (String::new(), File::open(path).map_err(unreadable)?);
        file.take(2 * MAX_BYTES as u64).read_to_string(&mut text).map_err(unreadable)?;
        Self::parse(&text)
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_trimmed_and_never_shown() {
        let token = Token::parse(" hf_secret\n").unwrap();
        assert_eq!(token.expose(), "hf_secret");
        assert!(!format!("{token:?}").contains("secret"));
    }

    #[test]
    fn an_unusable_token_is_refused_without_quoting_it() {
        for text in ["", " \n", "hf secret", "hf_secret\r\nX: y", "hf_secrét", &"secret".repeat(1000)] {
            let error = Token::parse(text).unwrap_err().to_string();
            assert!(error.contains("token") && !error.contains("secr"), "{error}");
        }
    }

    #[test]
    fn a_file_that_is_missing_is_named() {
        let error = Token::read(Path::new("/nonexistent/token")).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/token"), "{error}");
    }
}
