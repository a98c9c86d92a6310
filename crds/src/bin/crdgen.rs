//! Writes the `CustomResourceDefinition` as YAML.

fn main() {}
