//! Which files of a repository a checkpoint needs: settings, templates and tokenizer, and one kind of weights.

use crate::HubError;
use crate::hf::RemoteFile;
use crate::index::{CANDIDATES, Candidate, MAX_BYTES};

/// The file without which there is no model.
pub const CONFIG: &str = "config.json";
/// Bytes of a tokenizer or of tables for one.
const MAX_TOKENIZER_BYTES: u64 = 256 << 20;

/// Small files that are read when they are there, and how many bytes they may have.
const BESIDE: [(&str, u64); 14] = [
    (CONFIG, MAX_BYTES),
    ("generation_config.json", MAX_BYTES),
    ("preprocessor_config.json", MAX_BYTES),
    ("processor_config.json", MAX_BYTES),
    ("chat_template.json", MAX_BYTES),
    ("chat_template.jinja", MAX_BYTES),
    ("tokenizer_config.json", MAX_BYTES),
    ("special_tokens_map.json", MAX_BYTES),
    ("added_tokens.json", MAX_BYTES),
    ("tokenizer.json", MAX_TOKENIZER_BYTES),
    ("tokenizer.model", MAX_TOKENIZER_BYTES),
    ("vocab.json", MAX_TOKENIZER_BYTES),
    ("merges.txt", MAX_TOKENIZER_BYTES),
    ("LICENSE", MAX_BYTES),
];

/// The weights of a repository that has files of these names: which kind, and whether an index lists them.
pub fn weights(has: impl Fn(&str) -> bool) -> Option<(Candidate, bool)> {
    CANDIDATES.into_iter().find_map(|candidate| {
        let indexed = has(candidate.index);
        (indexed || has(candidate.single)).then_some((candidate, indexed))
    })
}

/// The listed files that are settings, templates or tokenizer.
///
/// # Errors
/// When there is no configuration, or one of them is larger than is read.
pub fn beside<'a>(files: &'a [RemoteFile], place: &str) -> Result<Vec<&'a RemoteFile>, HubError> {
    let mut found = Vec::new();
    for (name, limit) in BESIDE {
        match files.iter().find(|file| file.name == name) {
            Some(file) if file.size > limit => {
                return Err(HubError::TooLarge { what: format!("{name} of {place}"), limit });
            }
            Some(file) => found.push(file),
            None if name == CONFIG => {
                return Err(HubError::NotFound { what: format!("{CONFIG} of {place}"), said: String::new() });
            }
            None => {}
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::index::Kind;

    fn file(name: &str, size: u64) -> RemoteFile {
        RemoteFile { name: name.to_owned(), size, digest: Digest::GitBlob(String::new()) }
    }

    #[test]
    fn safetensors_win_over_pickles_and_an_index_over_one_file() {
        let of = |names: &[&str]| weights(|name| names.contains(&name)).map(|(c, indexed)| (c.kind, indexed));
        assert_eq!(of(&["pytorch_model.bin", "model.safetensors"]), Some((Kind::Safetensors, false)));
        assert_eq!(of(&["pytorch_model.bin.index.json", "pytorch_model.bin"]), Some((Kind::Torch, true)));
        assert_eq!(
            of(&["model.safetensors", "model.safetensors.index.json", "pytorch_model.bin.index.json"]),
            Some((Kind::Safetensors, true))
        );
        assert_eq!(of(&["model.gguf"]), None);
    }

    #[test]
    fn only_what_is_read_is_needed_and_nothing_without_a_configuration() {
        let files = [file("README.md", 9), file("tokenizer.json", 9), file("config.json", 9), file("training.bin", 9)];
        let names: Vec<_> = beside(&files, "a/b").unwrap().iter().map(|f| f.name.as_str()).collect();
        assert_eq!(names, ["config.json", "tokenizer.json"]);
        let error = beside(&files[..2], "a/b").unwrap_err().to_string();
        assert!(error.contains("config.json") && error.contains("a/b"), "{error}");
        let error = beside(&[file("config.json", 5 << 20)], "a/b").unwrap_err().to_string();
        assert!(error.contains("config.json") && error.contains("4194304"), "{error}");
    }
}
