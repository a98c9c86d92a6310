//! What would fit where a wish does not: a shorter context, a smaller number format, another GPU type, more memory.

use super::{Device, Fit, KV_BLOCK_TOKENS, Model, SHARE_PERCENT, TYPICAL_TEXT_TOKENS, Wish};
use super::{bytes_in_words, fit, largest, longest};
use crate::gpu::GpuTypes;
use crate::quantization::{Quantization, QuantizationChoice};

/// What would fit, each by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Suggestion {
    /// The longest context that fits, with everything else as wished.
    pub max_tokens: Option<u64>,
    /// The largest number format that fits, with everything else as wished.
    pub quantization: Option<Quantization>,
    /// The cheapest GPU type that would do, with everything else as wished.
    pub gpu_type: Option<String>,
    /// The smallest memory of such a device that would do.
    pub memory_bytes: u64,
}

/// What would fit where `wish` does not fit `device`.
pub fn suggest(model: Model<'_>, wish: Wish, device: Device, types: &GpuTypes) -> Suggestion {
    let fits = |wish, device| fit(model, wish, device).is_ok_and(|fit| fit.may_start());
    let wished = wish.max_tokens.unwrap_or_else(|| longest(model)).min(longest(model));
    // Room for a picture of one tile.
    let least = TYPICAL_TEXT_TOKENS.saturating_add(model.config.vision.tokens_per_tile() as u64);
    let max_tokens = largest(wished, KV_BLOCK_TOKENS, |tokens| fits(Wish { max_tokens: Some(tokens), ..wish }, device));
    let quantization = Quantization::ALL.into_iter().find(|quantization| {
        let other = QuantizationChoice::Fixed(*quantization);
        other != wish.quantization && fits(Wish { quantization: other, ..wish }, device)
    });
    let gpu_type = match device {
        Device::Gpu { .. } => types.cheapest(|gpu| fits(wish, Device::Gpu { memory_bytes: gpu.memory_bytes })),
        Device::Cpu { .. } => None,
    };
    Suggestion {
        max_tokens: max_tokens.filter(|tokens| *tokens >= least && *tokens < wished),
        quantization,
        gpu_type: gpu_type.map(str::to_owned),
        memory_bytes: needed_memory(smallest(model, wish, device).as_ref()),
    }
}

/// The fit that needs least.
fn smallest(model: Model<'_>, wish: Wish, device: Device) -> Option<Fit> {
    // With no memory at all the context is the shortest that makes sense, unless one is wished.
    let of = |quantization| fit(model, Wish { quantization, ..wish }, device.with_memory(0)).ok();
    match wish.quantization {
        // Not always that of the fewest bits: a small model takes more to compute with quantised weights than they save.
        QuantizationChoice::Auto => {
            let all =
                Quantization::ALL.into_iter().filter_map(|quantization| of(QuantizationChoice::Fixed(quantization)));
            all.min_by_key(|fit| fit.required_bytes)
        }
        fixed @ QuantizationChoice::Fixed(_) => of(fixed),
    }
}

/// The smallest memory whose share is what `fit` requires.
fn needed_memory(fit: Option<&Fit>) -> u64 {
    let required = fit.map_or(u64::MAX, |fit| fit.required_bytes);
    let memory = u128::from(required) * 100 / u128::from(SHARE_PERCENT);
    // Rounding down the share may ask for a few bytes more.
    let memory = u64::try_from(memory).unwrap_or(u64::MAX);
    (0..100).map(|more| memory.saturating_add(more)).find(|memory| super::share(*memory) >= required).unwrap_or(memory)
}

impl Suggestion {
    /// What would fit, in one sentence without a full stop.
    pub fn in_words(&self, device: Device) -> String {
        let memory = bytes_in_words(self.memory_bytes);
        let ways = [
            self.max_tokens.map(|tokens| format!("context.maxTokens: {tokens}")),
            self.quantization.map(|quantization| format!("quantization: {quantization}")),
            self.gpu_type.as_ref().map(|gpu| format!("gpu.type: {gpu}")),
            matches!(device, Device::Cpu { .. }).then(|| format!("a memory limit of {memory}")),
        ];
        let ways = ways.into_iter().flatten().collect::<Vec<_>>().join(", or ");
        let ways = if ways.is_empty() { ways } else { format!("what would fit: {ways}") };
        if self.gpu_type.is_some() || matches!(device, Device::Cpu { .. }) {
            return ways;
        }
        let separator = if ways.is_empty() { "" } else { "; " };
        format!(
            "no GPU type of the catalogue is large enough: {memory} on one GPU are needed, and a replica uses one \
             GPU{separator}{ways}"
        )
    }
}
