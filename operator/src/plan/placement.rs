//! Which GPU a model asks for, by the catalogue of GPU types. Pure.

use std::sync::Arc;

use vlm_catalog::gpu::{GpuType, GpuTypes};
use vlm_crds::{VisionModelSpec, status::reasons::Trouble};

use crate::status::Problem;

/// What is known of the catalogue.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Catalogue {
    /// Not looked at yet.
    #[default]
    Unread,
    /// Its types.
    Types(Arc<GpuTypes>),
    /// There is none that can be used, and why; without a full stop.
    Unusable(String),
}

/// The GPU of each replica.
#[derive(Clone, Debug, PartialEq)]
pub struct Gpu {
    /// Name of its type.
    pub name: String,
    /// What the catalogue says of it.
    pub kind: GpuType,
}

/// What a model asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Wanted {
    /// Processor cores.
    Cpu,
    /// This GPU.
    Gpu(Box<Gpu>),
    /// A GPU of which nothing is known yet: the catalogue is being read, and its first answer is a change.
    Unread,
    /// A GPU that the catalogue does not have.
    Unknown(Problem),
}

impl Wanted {
    /// The GPU, if it is asked for and known.
    pub fn gpu(&self) -> Option<&Gpu> {
        match self {
            Self::Gpu(gpu) => Some(gpu),
            _ => None,
        }
    }
}

impl Catalogue {
    /// The types, where they are known.
    pub fn types(&self) -> Option<&Arc<GpuTypes>> {
        match self {
            Self::Types(types) => Some(types),
            _ => None,
        }
    }

    /// What a spec asks for.
    pub fn wanted(&self, spec: &VisionModelSpec) -> Wanted {
        let Some(name) = spec.gpu_type() else { return Wanted::Cpu };
        let unknown = |message| Wanted::Unknown(Problem::new(Trouble::GpuTypeUnknown, message));
        match self {
            Self::Unread => Wanted::Unread,
            Self::Unusable(why) => unknown(format!(
                "the GPU type {name:?} of spec.gpu.type cannot be looked up: {why}; the operator's chart installs it"
            )),
            Self::Types(types) => match types.get(name) {
                Ok(kind) => Wanted::Gpu(Box::new(Gpu { name: name.to_owned(), kind: kind.clone() })),
                Err(error) => unknown(format!(
                    "spec.gpu.type: {error}; correct the name, or add the type with the value gpuTypes of the \
                     operator's chart"
                )),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec(gpu: &str) -> VisionModelSpec {
        serde_json::from_value(json!({"model": {"uri": "pvc://w/x"}, "gpu": {"type": gpu}})).unwrap()
    }

    fn types() -> Catalogue {
        let yaml = "nvidia-l4: {memoryBytes: 24152899584, computeCapability: '8.9'}\n\
                    nvidia-l40s: {memoryBytes: 48305799168, computeCapability: '8.9'}\n";
        Catalogue::Types(Arc::new(GpuTypes::parse(yaml).unwrap()))
    }

    fn problem(wanted: Wanted) -> String {
        match wanted {
            Wanted::Unknown(problem) if problem.trouble == Trouble::GpuTypeUnknown => problem.message,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_type_of_the_catalogue_is_found_by_its_name() {
        let wanted = types().wanted(&spec("nvidia-l4"));
        let gpu = wanted.gpu().unwrap();
        assert_eq!((gpu.name.as_str(), gpu.kind.memory_bytes), ("nvidia-l4", 24_152_899_584));
    }

    #[test]
    fn an_unknown_type_is_told_with_the_nearest_names_and_the_mend() {
        let message = problem(types().wanted(&spec("nvidia-l5")));
        for words in ["\"nvidia-l5\"", "did you mean nvidia-l4", "gpuTypes"] {
            assert!(message.contains(words), "{message}");
        }
    }

    #[test]
    fn without_a_catalogue_only_models_that_ask_for_a_gpu_suffer() {
        let cpu: VisionModelSpec = serde_json::from_value(json!({"model": {"uri": "pvc://w/x"}})).unwrap();
        let none = Catalogue::Unusable("the ConfigMap a/b does not exist".to_owned());
        for catalogue in [Catalogue::Unread, none.clone(), types()] {
            assert_eq!(catalogue.wanted(&cpu), Wanted::Cpu);
        }
        let message = problem(none.wanted(&spec("nvidia-l4")));
        assert!(message.contains("nvidia-l4") && message.contains("the ConfigMap a/b does not exist"), "{message}");
        assert_eq!(Catalogue::Unread.wanted(&spec("nvidia-l4")), Wanted::Unread, "no verdict before it is read");
    }
}
