//! External programs: where they are, and running them.

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

/// Path of a program of the local cluster (`kubectl`, `helm`) or of its tests (`gitops-health`): from
/// `PATH`, else from the cache.
pub fn tool(name: &str) -> PathBuf {
    let on_path = std::env::var_os("PATH")
        .iter()
        .flat_map(std::env::split_paths)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file());
    let built = ["kube/bin", "tools/bin"].map(|folder| cache().join(folder).join(name));
    on_path.or_else(|| built.iter().find(|path| path.is_file()).cloned()).unwrap_or_else(|| PathBuf::from(name))
}

/// The project's cache folder.
pub fn cache() -> PathBuf {
    let base = std::env::var_os("XDG_CACHE_HOME").filter(|v| !v.is_empty()).map(PathBuf::from);
    let home = || PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache");
    base.unwrap_or_else(home).join("vlm-operator")
}

/// The project's root folder.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ stands in the root").to_path_buf()
}

/// The YAML documents of a text, empty ones left out.
pub fn documents(text: &str) -> Vec<Value> {
    serde_yaml::Deserializer::from_str(text)
        .map(|document| <Value as serde::Deserialize>::deserialize(document).expect("YAML"))
        .filter(|value| !value.is_null())
        .collect()
}

/// Runs a command to its end; its error output is the error.
pub fn run(command: &mut Command) -> Result<String, String> {
    let Output { status, stdout, stderr } = command.output().map_err(|e| format!("{command:?}: {e}"))?;
    if status.success() {
        return Ok(String::from_utf8_lossy(&stdout).into_owned());
    }
    Err(format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr)))
}
