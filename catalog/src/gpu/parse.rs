//! Reads the catalogue's file and bounds all that is in it: it comes from a `ConfigMap` that people edit.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde_yaml::{Mapping, Value};

use super::{GpuType, GpuTypes, LEAST_COMPUTE_CAPABILITY, NodeLabels, Toleration};

/// Bytes that the file may have; a `ConfigMap` has no more.
const MAX_BYTES: usize = 1 << 20;
const MAX_TYPES: usize = 256;
const MAX_ENTRIES: usize = 64;
/// Longest name of a type, and longest value of a label.
const MAX_NAME: usize = 63;
/// Longest key of a label or a resource: a DNS subdomain, a slash and a name.
const MAX_KEY: usize = 317;
const MAX_TEXT: usize = 512;
const MEMORY_BYTES: std::ops::RangeInclusive<u64> = 1 << 30..=1 << 42;

/// Why the catalogue cannot be used; without a full stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CatalogueError {
    /// It is no YAML, or no mapping from names to types.
    Malformed {
        /// Why.
        reason: String,
    },
    /// One type is not what it must be.
    Type {
        /// Its name.
        name: String,
        /// Which field, and what is wrong with it.
        reason: String,
    },
}

impl fmt::Display for CatalogueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed { reason } => write!(f, "the GPU catalogue cannot be read: {reason}"),
            Self::Type { name, reason } => write!(f, "the GPU type {name:?} of the catalogue: {reason}"),
        }
    }
}

impl std::error::Error for CatalogueError {}

impl GpuTypes {
    /// Reads the catalogue: a mapping from names to types.
    ///
    /// # Errors
    /// [`CatalogueError`] names the type and the field that is wrong.
    pub fn parse(yaml: &str) -> Result<Self, CatalogueError> {
        let malformed = |reason: String| CatalogueError::Malformed { reason: shortened(&reason) };
        if yaml.len() > MAX_BYTES {
            return Err(malformed(format!("it has {} bytes, more than the {MAX_BYTES} that are read", yaml.len())));
        }
        // As a mapping first: it refuses a name that stands there twice.
        let entries = Option::<Mapping>::deserialize(serde_yaml::Deserializer::from_str(yaml));
        let entries = entries.map_err(|error| malformed(error.to_string()))?.unwrap_or_default();
        if entries.len() > MAX_TYPES {
            return Err(malformed(format!("it has {} types, more than {MAX_TYPES}", entries.len())));
        }
        entries.into_iter().map(entry).collect::<Result<BTreeMap<_, _>, _>>().map(Self)
    }
}

fn entry((name, value): (Value, Value)) -> Result<(String, GpuType), CatalogueError> {
    let Value::String(name) = name else {
        return Err(CatalogueError::Malformed { reason: "the name of a type is no text".to_owned() });
    };
    let wrong = |reason: String| CatalogueError::Type { name: shortened(&name), reason: shortened(&reason) };
    if !is_name(&name) {
        return Err(wrong(format!("its name must be 1 to {MAX_NAME} small letters, digits, dots and hyphens")));
    }
    let gpu = GpuType::deserialize(value).map_err(|error| wrong(error.to_string()))?;
    check(&gpu).map_err(wrong)?;
    Ok((name, gpu))
}

fn check(gpu: &GpuType) -> Result<(), String> {
    if !MEMORY_BYTES.contains(&gpu.memory_bytes) {
        let (least, most) = (MEMORY_BYTES.start(), MEMORY_BYTES.end());
        return Err(format!("memoryBytes is {}, but must be between {least} and {most}", gpu.memory_bytes));
    }
    if gpu.compute_capability < LEAST_COMPUTE_CAPABILITY {
        let (its, least) = (gpu.compute_capability, LEAST_COMPUTE_CAPABILITY);
        return Err(format!("computeCapability is {its}, but the kernels need {least} or later"));
    }
    if !is_key(&gpu.resource) || !gpu.resource.contains('/') {
        return Err("resource must be the name of an extended resource, such as nvidia.com/gpu".to_owned());
    }
    if let Some(class) = &gpu.runtime_class_name
        && !is_name(class)
    {
        return Err("runtimeClassName must be the name of a RuntimeClass".to_owned());
    }
    nodes(&gpu.nodes)?;
    few("tolerations", gpu.tolerations.len())?;
    gpu.tolerations.iter().try_for_each(toleration)?;
    if let Some(price) = &gpu.price {
        between("price.usdPerHour", price.usd_per_hour, 0.0, 10_000.0)?;
        if price.source.is_empty() || price.source.len() > MAX_TEXT {
            return Err(format!("price.source must say in 1 to {MAX_TEXT} bytes whose price it is"));
        }
    }
    if let Some(speed) = &gpu.speed {
        between("speed.memoryBytesPerSecond", speed.memory_bytes_per_second, 1e9, 1e15)?;
        between("speed.tensorFlopsPerSecond", speed.tensor_flops_per_second, 1e12, 1e18)?;
    }
    Ok(())
}

fn nodes(terms: &[NodeLabels]) -> Result<(), String> {
    few("nodes", terms.len())?;
    for labels in terms {
        if labels.is_empty() {
            return Err("an entry of nodes has no labels: it would match every node".to_owned());
        }
        few("an entry of nodes", labels.len())?;
        for (key, values) in labels {
            few("the values of a label", values.len())?;
            if !is_key(key) || !values.iter().all(|value| is_label_value(value)) {
                return Err(format!("nodes has a label that is none: {}", shortened(key)));
            }
        }
    }
    Ok(())
}

fn toleration(toleration: &Toleration) -> Result<(), String> {
    let Toleration { key, operator, value, effect } = toleration;
    if !is_key(key) {
        return Err("the key of a toleration must be that of a taint, such as nvidia.com/gpu".to_owned());
    }
    match (operator.as_str(), value) {
        ("Exists", None) => {}
        ("Equal", Some(value)) if is_label_value(value) => {}
        _ => return Err("a toleration has the operator Exists and no value, or Equal and a value".to_owned()),
    }
    match effect.as_str() {
        "NoSchedule" | "PreferNoSchedule" | "NoExecute" => Ok(()),
        _ => Err("the effect of a toleration is NoSchedule, PreferNoSchedule or NoExecute".to_owned()),
    }
}

fn few(what: &str, count: usize) -> Result<(), String> {
    if count > MAX_ENTRIES { Err(format!("{what} has {count} entries, more than {MAX_ENTRIES}")) } else { Ok(()) }
}

fn between(field: &str, value: f64, least: f64, most: f64) -> Result<(), String> {
    // What is no number is not in the range either.
    if (least..=most).contains(&value) {
        Ok(())
    } else {
        Err(format!("{field} is {value}, but must be between {least} and {most}"))
    }
}

fn is_name(name: &str) -> bool {
    let byte = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(byte) && ends_well(name)
}

fn is_label_value(value: &str) -> bool {
    let byte = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    value.len() <= MAX_NAME && value.bytes().all(byte) && (value.is_empty() || ends_well(value))
}

fn is_key(key: &str) -> bool {
    let byte = |b: u8| b.is_ascii_alphanumeric() || b"-._/".contains(&b);
    (1..=MAX_KEY).contains(&key.len()) && key.bytes().all(byte) && ends_well(key) && key.matches('/').count() <= 1
}

fn ends_well(text: &str) -> bool {
    let end = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    end(text.bytes().next()) && end(text.bytes().next_back())
}

fn shortened(text: &str) -> String {
    text.chars().take(300).collect()
}
