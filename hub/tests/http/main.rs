//! The hub's client against a real HTTP server: what it asks, what it believes, and what it leaves on the disk.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::missing_panics_doc, missing_docs)]

mod asking;
mod downloads;
mod headers;
mod hostile;
mod publishing;

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use vlm_contract::uri::{self, ModelUri};
use vlm_hub::patience::Patience;
use vlm_hub::{Hub, Settings, Token};
use vlm_test_hub::{Repository, TestHub};

/// The repository of these tests.
pub const NAME: &str = "org/tiny";
/// Patience of tests: a silent server is given up soon.
pub const PATIENCE: Patience = Patience {
    attempts: 3,
    first_pause: Duration::from_millis(5),
    longest_pause: Duration::from_millis(40),
    connect_timeout: Duration::from_secs(5),
    read_timeout: Duration::from_secs(2),
    answer_timeout: Duration::from_secs(30),
};

pub fn name() -> uri::Repository {
    repository_of(NAME)
}

pub fn repository_of(name: &str) -> uri::Repository {
    match format!("hf://{name}").parse().unwrap() {
        ModelUri::Hub(repository) => repository,
        other @ ModelUri::Claim(_) => panic!("{other:?}"),
    }
}

pub fn client(server: &TestHub) -> Hub {
    client_at(&server.endpoint, None)
}

pub fn client_at(endpoint: &str, token: Option<&str>) -> Hub {
    let token = token.map(|token| Token::parse(token).unwrap());
    Hub::new(&Settings { endpoint: endpoint.to_owned(), token, patience: PATIENCE }).unwrap()
}

/// A file of safetensors with one tensor of `numbers` bytes, all different from their neighbours.
pub fn safetensors(name: &str, numbers: usize) -> Bytes {
    let header = json!({name: {"dtype": "U8", "shape": [numbers], "data_offsets": [0, numbers]}}).to_string();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.into_bytes());
    file.extend((0..numbers).map(|n| (n * 31 + n / 256) as u8));
    Bytes::from(file)
}

/// A checkpoint in two shards, and files that no checkpoint needs.
pub fn tiny() -> Repository {
    let index = json!({"metadata": {}, "weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}});
    let files = [
        ("config.json", Bytes::from_static(br#"{"model_type": "llava"}"#)),
        ("tokenizer.json", Bytes::from_static(b"{}")),
        ("README.md", Bytes::from_static(b"# Tiny")),
        ("model.safetensors.index.json", Bytes::from(index.to_string())),
        ("model-1.safetensors", safetensors("a", 3_000_000)),
        ("model-2.safetensors", safetensors("b", 1000)),
        ("pytorch_model.bin", Bytes::from_static(b"pickle")),
    ];
    Repository {
        name: NAME.to_owned(),
        files: files.into_iter().map(|(name, content)| (name.to_owned(), content)).collect(),
        ..Repository::default()
    }
}

pub fn with_file(mut repository: Repository, name: &str, content: impl Into<Bytes>) -> Repository {
    repository.files.insert(name.to_owned(), content.into());
    repository
}

/// Names of the files of a directory, in order.
pub fn listing(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
