//! Where the weights of a model are: the parsed form of `spec.model.uri`.

use std::{fmt, str::FromStr};

/// `pvc://CLAIM/PATH`: a directory on a `PersistentVolumeClaim` of the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ModelUri {
    /// Name of the claim.
    pub claim: String,
    /// Relative path inside the volume, without `.` and `..`.
    pub path: String,
}

/// Why a URI is unusable. The API server refuses the same ones when it has the current definition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("spec.model.uri {uri:?} is not of the form pvc://CLAIM/PATH")]
pub struct UriError {
    /// What was given.
    pub uri: String,
}

impl FromStr for ModelUri {
    type Err = UriError;

    fn from_str(uri: &str) -> Result<Self, UriError> {
        let error = || UriError { uri: uri.to_owned() };
        let (claim, path) = uri.strip_prefix("pvc://").and_then(|rest| rest.split_once('/')).ok_or_else(error)?;
        let claim_ok = !claim.is_empty()
            && claim.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.');
        let segment_ok = |segment: &str| {
            !matches!(segment, "" | "." | "..")
                && segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"_@+=.-".contains(&b))
        };
        if !claim_ok || !path.split('/').all(segment_ok) {
            return Err(error());
        }
        Ok(Self { claim: claim.to_owned(), path: path.to_owned() })
    }
}

impl fmt::Display for ModelUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pvc://{}/{}", self.claim, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claim_and_path_are_taken_apart() {
        let uri: ModelUri = "pvc://weights/llava/v1.5-7b".parse().unwrap();
        assert_eq!((uri.claim.as_str(), uri.path.as_str()), ("weights", "llava/v1.5-7b"));
        assert_eq!(uri.to_string(), "pvc://weights/llava/v1.5-7b");
    }

    #[test]
    fn what_leaves_the_volume_or_names_no_path_is_refused() {
        for uri in [
            "hf://a/b",
            "pvc://",
            "pvc://claim",
            "pvc://claim/",
            "pvc:///x",
            "pvc://c//x",
            "pvc://c/x/",
            "pvc://c/../x",
            "pvc://c/x/..",
            "pvc://c/./x",
            "pvc://c/.",
            "pvc://C/x",
            "pvc://c/a b",
            "pvc://c/é",
        ] {
            assert!(uri.parse::<ModelUri>().is_err(), "{uri}");
        }
    }
}
