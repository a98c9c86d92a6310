//! GPU types as the catalogue describes them: memory, compute capability, what a pod asks for, which nodes have one,
//! what it costs. Knows no Kubernetes types; the file is the chart's `gpu-types.yaml`.

mod nearest;
mod parse;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use parse::CatalogueError;

/// The oldest GPUs that the kernels are compiled for: Ampere.
pub const LEAST_COMPUTE_CAPABILITY: ComputeCapability = ComputeCapability { major: 8, minor: 0 };

/// All known types by their names.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GpuTypes(BTreeMap<String, GpuType>);

/// One type of GPU, or of a slice of one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GpuType {
    /// All its memory, as `nvidia-smi` and the label `nvidia.com/gpu.memory` give it.
    pub memory_bytes: u64,
    /// Its architecture.
    pub compute_capability: ComputeCapability,
    /// The resource of which a pod asks for one.
    #[serde(default = "whole_gpu")]
    pub resource: String,
    /// A node has this GPU when it has all labels of one of these. Empty: any node that has the resource.
    #[serde(default)]
    pub nodes: Vec<NodeLabels>,
    /// Taints of such nodes that the pods tolerate.
    #[serde(default)]
    pub tolerations: Vec<Toleration>,
    /// `RuntimeClass` of the pods, where the GPU's runtime is not the default one of its nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime_class_name: Option<String>,
    /// What it costs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<Price>,
    /// How fast it is on paper; only estimates of cost use it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speed: Option<Speed>,
    /// Whether nobody has run a model on one so far.
    #[serde(default)]
    pub untested: bool,
}

/// Labels of a node: each has one of the values; with no value, the label must be absent.
pub type NodeLabels = BTreeMap<String, Vec<String>>;

/// A toleration of pods, with the fields that Kubernetes has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Toleration {
    /// Key of the taint.
    pub key: String,
    /// `Exists` or `Equal`.
    pub operator: String,
    /// Value of the taint, with `Equal`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`.
    pub effect: String,
}

/// What a GPU costs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Price {
    /// US dollars an hour, with the share of the machine around it.
    pub usd_per_hour: f64,
    /// Whose price it is, and when it was looked up.
    pub source: String,
}

/// How fast a GPU is on paper.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Speed {
    /// Bytes of its memory that can be read in a second.
    pub memory_bytes_per_second: f64,
    /// Operations on 16-bit numbers that its tensor cores make in a second, without sparsity.
    pub tensor_flops_per_second: f64,
}

/// An architecture of NVIDIA GPUs, such as 8.9 for Ada.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ComputeCapability {
    /// Before the dot.
    pub major: u8,
    /// Behind the dot.
    pub minor: u8,
}

/// A name that the catalogue does not have; without a full stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownGpuType {
    /// What was asked for.
    pub name: String,
    /// The names that are most like it, at most three.
    pub nearest: Vec<String>,
}

fn whole_gpu() -> String {
    "nvidia.com/gpu".to_owned()
}

impl GpuTypes {
    /// The type of this name.
    ///
    /// # Errors
    /// [`UnknownGpuType`] with the names that are most like it.
    pub fn get(&self, name: &str) -> Result<&GpuType, UnknownGpuType> {
        self.0.get(name).ok_or_else(|| UnknownGpuType {
            name: name.chars().take(100).collect(),
            nearest: nearest::nearest(name, self.0.keys().map(String::as_str)),
        })
    }

    /// All types by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &GpuType)> {
        self.0.iter().map(|(name, gpu)| (name.as_str(), gpu))
    }

    /// All types, the cheapest first; those without a price last, the smallest of them first.
    pub fn by_price(&self) -> Vec<(&str, &GpuType)> {
        let mut all: Vec<_> = self.iter().collect();
        let price = |gpu: &GpuType| gpu.price.as_ref().map_or(f64::INFINITY, |price| price.usd_per_hour);
        all.sort_by(|(_, a), (_, b)| price(a).total_cmp(&price(b)).then(a.memory_bytes.cmp(&b.memory_bytes)));
        all
    }

    /// Name of the cheapest type that `would_do`; a tested one before one that is not.
    pub fn cheapest(&self, would_do: impl Fn(&GpuType) -> bool) -> Option<&str> {
        let all = self.by_price();
        let found = |untested| all.iter().find(|(_, gpu)| gpu.untested == untested && would_do(gpu));
        found(false).or_else(|| found(true)).map(|(name, _)| *name)
    }
}

impl GpuType {
    /// Whether a node of these labels has this GPU.
    pub fn is_on(&self, labels: &BTreeMap<String, String>) -> bool {
        let has = |wanted: &NodeLabels| {
            wanted.iter().all(|(label, values)| match labels.get(label) {
                Some(value) => values.contains(value),
                None => values.is_empty(),
            })
        };
        self.nodes.is_empty() || self.nodes.iter().any(has)
    }
}

impl fmt::Display for UnknownGpuType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the GPU type {:?} is not in the catalogue", self.name)?;
        match self.nearest.as_slice() {
            [] => Ok(()),
            names => write!(f, "; did you mean {}?", names.join(", ")),
        }
    }
}

impl std::error::Error for UnknownGpuType {}

impl fmt::Display for ComputeCapability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl From<ComputeCapability> for String {
    fn from(capability: ComputeCapability) -> Self {
        capability.to_string()
    }
}

impl TryFrom<String> for ComputeCapability {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for ComputeCapability {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('.').and_then(|(major, minor)| major.parse().ok().zip(minor.parse().ok()));
        let (major, minor) =
            parts.ok_or_else(|| format!("the compute capability {text:?} is not two numbers, such as \"8.9\""))?;
        Ok(Self { major, minor })
    }
}

#[cfg(test)]
mod tests;
