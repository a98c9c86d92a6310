//! Where the weights of a model are: the parsed form of `spec.model.uri` and of `--uri`. The one parser of
//! it, for the operator and the runtime alike; reads nothing from there.

use std::{fmt, str::FromStr};

/// Longest part of the name of a repository, as the hub has it.
const NAME_MAX: usize = 96;

/// Where a checkpoint is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ModelUri {
    /// `hf://ORGANISATION/NAME`.
    Hub(Repository),
    /// `pvc://CLAIM/PATH`.
    Claim(Claim),
}

/// `hf://ORGANISATION/NAME`: a repository of models on the Hugging Face hub or a mirror of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Repository {
    organisation: String,
    name: String,
}

/// `pvc://CLAIM/PATH`: a directory on a `PersistentVolumeClaim` of the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Claim {
    /// Name of the claim.
    pub claim: String,
    /// Relative path inside the volume, without `.` and `..`.
    pub path: String,
}

/// Why a URI is unusable. The API server refuses the same ones when it has the current definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UriError {
    /// What was given.
    pub uri: String,
}

impl fmt::Display for UriError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cut: String = self.uri.chars().take(200).collect();
        write!(f, "{cut:?} is of none of the forms hf://ORGANISATION/NAME and pvc://CLAIM/PATH")
    }
}

impl std::error::Error for UriError {}

impl ModelUri {
    /// The claim, if it is on one.
    pub const fn claim(&self) -> Option<&Claim> {
        match self {
            Self::Claim(claim) => Some(claim),
            Self::Hub(_) => None,
        }
    }
}

impl FromStr for ModelUri {
    type Err = UriError;

    fn from_str(uri: &str) -> Result<Self, UriError> {
        let parsed = match uri.split_once("://") {
            Some(("hf", rest)) => Repository::parse(rest).map(Self::Hub),
            Some(("pvc", rest)) => Claim::parse(rest).map(Self::Claim),
            _ => None,
        };
        parsed.ok_or_else(|| UriError { uri: uri.to_owned() })
    }
}

impl fmt::Display for ModelUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hub(repository) => write!(f, "hf://{repository}"),
            Self::Claim(Claim { claim, path }) => write!(f, "pvc://{claim}/{path}"),
        }
    }
}

impl Repository {
    fn parse(text: &str) -> Option<Self> {
        let (organisation, name) = text.split_once('/')?;
        let part_ok = |part: &str| {
            (1..=NAME_MAX).contains(&part.len())
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
                && !part.starts_with(['.', '-'])
                && !part.ends_with(['.', '-'])
                && !part.contains("..")
        };
        (part_ok(organisation) && part_ok(name))
            .then(|| Self { organisation: organisation.to_owned(), name: name.to_owned() })
    }

    /// The part behind the slash.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for Repository {
    /// As it stands in addresses: `ORGANISATION/NAME`, of letters, digits, `_`, `.` and `-`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.organisation, self.name)
    }
}

impl Claim {
    fn parse(text: &str) -> Option<Self> {
        let (claim, path) = text.split_once('/')?;
        let claim_ok = !claim.is_empty()
            && claim.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.');
        let segment_ok = |segment: &str| {
            !matches!(segment, "" | "." | "..")
                && segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"_@+=.-".contains(&b))
        };
        (claim_ok && path.split('/').all(segment_ok)).then(|| Self { claim: claim.to_owned(), path: path.to_owned() })
    }
}

/// Whether `text` may name a revision: a branch, a tag or a commit. Slashes are part of some branches' names;
/// what could climb out of an address is not.
pub fn is_revision(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_./-".contains(&b))
        && !text.starts_with(['/', '.', '-'])
        && !text.ends_with('/')
        && !text.contains("..")
        && !text.contains("//")
}

/// Whether `text` is a commit: 40 small hexadecimal digits. It names the same files for ever.
pub fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claim_and_path_are_taken_apart() {
        let uri: ModelUri = "pvc://weights/llava/v1.5-7b".parse().unwrap();
        let claim = uri.claim().unwrap();
        assert_eq!((claim.claim.as_str(), claim.path.as_str()), ("weights", "llava/v1.5-7b"));
        assert_eq!(uri.to_string(), "pvc://weights/llava/v1.5-7b");
    }

    #[test]
    fn a_repository_is_an_organisation_and_a_name() {
        let uri: ModelUri = "hf://llava-hf/llava-1.5-7b-hf".parse().unwrap();
        let ModelUri::Hub(repository) = &uri else { panic!("{uri:?}") };
        assert_eq!(
            (repository.to_string().as_str(), repository.name()),
            ("llava-hf/llava-1.5-7b-hf", "llava-1.5-7b-hf")
        );
        assert_eq!(uri.to_string(), "hf://llava-hf/llava-1.5-7b-hf");
        assert_eq!(uri.claim(), None);
    }

    #[test]
    fn what_leaves_the_volume_or_names_no_path_is_refused() {
        for uri in [
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

    #[test]
    fn what_is_no_repository_is_refused() {
        let long = format!("hf://a/{}", "b".repeat(97));
        for uri in [
            "hf://",
            "hf://a",
            "hf://a/",
            "hf:///b",
            "hf://a/b/c",
            "hf://../b",
            "hf://a/..",
            "hf://a/b..c",
            "hf://-a/b",
            "hf://a/.b",
            "hf://a/b?x=1",
            "hf://a/b#c",
            "hf://a/b c",
            "hf://a%2fb/c",
            "hf://é/b",
            "http://a/b",
            "a/b",
            "",
            &long,
        ] {
            let error = uri.parse::<ModelUri>().unwrap_err();
            assert!(error.to_string().len() < 400, "{error}");
        }
    }

    #[test]
    fn a_revision_cannot_climb_out_of_an_address() {
        for good in ["main", "v1.0", "refs/pr/3", "feature/a_b-c", "0123456789abcdef0123456789abcdef01234567"] {
            assert!(is_revision(good), "{good}");
        }
        for bad in
            ["", "/main", "main/", "../main", "a/../b", "a..b", "a//b", "-x", ".x", "a b", "a?b", "a#b", "a%2e", "é"]
        {
            assert!(!is_revision(bad), "{bad}");
        }
    }

    #[test]
    fn only_forty_hexadecimal_digits_are_a_commit() {
        assert!(is_commit("0123456789abcdef0123456789abcdef01234567"));
        for other in ["main", "0123456789ABCDEF0123456789abcdef01234567", "0123456", ""] {
            assert!(!is_commit(other), "{other}");
        }
    }
}
