//! Whether one replica fits the memory that it has, and what the server is told of it: from a spec, its checkpoint and
//! the GPU types to numbers and words. Pure; the arithmetic is the catalogue's.

use vlm_catalog::{
    footprint::{self, Breakdown, Device, Fit, Model, Suggestion, Verdict, Wish, suggest},
    gpu::{GpuType, GpuTypes},
    inspection::Inspection,
    quantity,
    quantization::{Quantization, QuantizationChoice},
};
use vlm_crds::{
    status::{self, FitStatus, Resolved, VisionModelStatus, conditions::FITS_GPU, reasons::Trouble},
    vision_model::VisionModelSpec,
};

use crate::status::Problem;

/// How one replica fits.
#[derive(Clone, Debug, PartialEq)]
pub struct Fitted {
    fit: Fit,
    device: Device,
    suggestion: Option<Suggestion>,
}

/// Whether there is a memory to fit into: a GPU's, or the limit of the server's container. Only then the checkpoint is
/// looked at; without one the server's own defaults are what a fit would say.
pub fn is_judged(spec: &VisionModelSpec) -> bool {
    spec.gpu.is_some() || memory_limit(spec).is_some()
}

/// The number format of a replica that is not judged.
pub fn unjudged_quantization(spec: &VisionModelSpec) -> Quantization {
    match spec.quantization() {
        QuantizationChoice::Fixed(quantization) => quantization,
        // Any fits into memory without a limit: the first one.
        QuantizationChoice::Auto => Quantization::None,
    }
}

/// How a replica of `spec` fits the memory of `gpu`, or of its container's limit. Where it does not, `types` are those
/// that a suggestion may name.
///
/// # Errors
/// When the wished context is longer than what the model takes.
pub fn fit(
    spec: &VisionModelSpec,
    inspection: &Inspection,
    gpu: Option<&GpuType>,
    types: &GpuTypes,
) -> Result<Fitted, Problem> {
    let model = Model { config: inspection.config(), size: inspection.size() };
    let device = match gpu {
        Some(gpu) => Device::Gpu { memory_bytes: gpu.memory_bytes },
        None => Device::Cpu { memory_bytes: memory_limit(spec) },
    };
    let wish = wish(spec);
    let fit = footprint::fit(model, wish, device)
        .map_err(|error| Problem::new(Trouble::InvalidArguments, format!("{error}; lower spec.context.maxTokens")))?;
    let suggestion = (!fit.may_start()).then(|| suggest(model, wish, device, types));
    Ok(Fitted { fit, device, suggestion })
}

/// Whether the last judgement of this spec's predecessor was that it does not fit.
pub fn did_not_fit(previous: &VisionModelStatus) -> bool {
    previous.conditions.iter().any(|c| c.type_ == FITS_GPU && c.status == "False")
}

impl Fitted {
    /// What the server is to be told.
    pub fn numbers(&self) -> &Fit {
        &self.fit
    }

    /// That it does not fit.
    pub fn problem(&self) -> Option<Problem> {
        (!self.fit.may_start()).then(|| Problem::new(Trouble::DoesNotFit, self.in_words()))
    }

    /// Whether it fits, why in this number format, and what would fit where it does not.
    pub fn in_words(&self) -> String {
        let because = self.fit.chosen_because.as_ref();
        let chosen = because.map(|because| format!("quantization {} was chosen: {because}", self.fit.quantization));
        let suggestion = self.suggestion_in_words();
        [Some(self.fit.in_words(self.device)), chosen, suggestion].into_iter().flatten().collect::<Vec<_>>().join("; ")
    }

    /// As it stands in the status.
    pub fn to_status(&self) -> FitStatus {
        let Fit { verdict, required_bytes, available_bytes, breakdown, .. } = &self.fit;
        FitStatus {
            verdict: if *verdict == Verdict::DoesNotFit { "DoesNotFit" } else { "Fits" }.to_owned(),
            required_bytes: whole(*required_bytes),
            available_bytes: whole(available_bytes.unwrap_or(u64::MAX)),
            breakdown: parts(breakdown),
            full_length_sequences: whole(self.fit.full_length_sequences),
            typical_requests: whole(self.fit.typical_requests),
            suggestion: self.suggestion_in_words(),
        }
    }

    /// Notes what it comes to among the resolved defaults.
    pub fn note(&self, resolved: &mut Resolved) {
        resolved.quantization = Some(self.fit.quantization.to_string());
        resolved.max_tokens = Some(count(self.fit.max_tokens));
        resolved.max_concurrency = Some(count(self.fit.max_concurrency));
    }

    fn suggestion_in_words(&self) -> Option<String> {
        self.suggestion.as_ref().map(|suggestion| suggestion.in_words(self.device))
    }
}

/// A number of tokens or requests as the API has it.
pub(super) fn count(number: u64) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn parts(breakdown: &Breakdown) -> status::Breakdown {
    status::Breakdown {
        embedding_bytes: whole(breakdown.embedding_bytes),
        decoder_bytes: whole(breakdown.decoder_bytes),
        head_bytes: whole(breakdown.head_bytes),
        tower_bytes: whole(breakdown.tower_bytes),
        projector_bytes: whole(breakdown.projector_bytes),
        image_bytes: whole(breakdown.image_bytes),
        workspace_bytes: whole(breakdown.workspace_bytes),
        context_bytes: whole(breakdown.context_bytes),
        kv_bytes: whole(breakdown.kv_bytes),
    }
}

fn wish(spec: &VisionModelSpec) -> Wish {
    let context = spec.context.clone().unwrap_or_default();
    let number = |value: Option<i32>| value.and_then(|value| u64::try_from(value).ok()).map(|value| value.max(1));
    Wish {
        quantization: spec.quantization(),
        max_tokens: number(context.max_tokens),
        max_concurrency: number(context.max_concurrency),
        kv_cache_dtype: spec.kv_cache_dtype(),
    }
}

/// The memory limit of the server's container. 0 means none, as Kubernetes has it.
fn memory_limit(spec: &VisionModelSpec) -> Option<u64> {
    let limits = &spec.pod.as_ref()?.resources.as_ref()?.limits;
    quantity::bytes(&limits.get("memory")?.0).filter(|bytes| *bytes > 0)
}

#[cfg(test)]
mod tests;
