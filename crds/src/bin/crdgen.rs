//! Writes the `CustomResourceDefinition` as YAML.

use std::io::Write;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let yaml = serde_yaml::to_string(&vlm_crds::definition())?;
    std::io::stdout().lock().write_all(yaml.as_bytes())?;
    Ok(())
}
