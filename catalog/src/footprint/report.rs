//! A fit in words.

use super::{Device, Fit, SHARE_PERCENT, Verdict};

/// Gibibytes.
pub fn gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

/// Bytes for people: in MiB below one GiB, else in GiB to one decimal.
pub fn bytes_in_words(bytes: u64) -> String {
    if bytes < 1 << 30 { format!("{} MiB", bytes.div_ceil(1 << 20)) } else { format!("{:.1} GiB", gib(bytes)) }
}

impl Fit {
    /// What it needs and what there is, in one sentence without a full stop.
    pub fn in_words(&self, device: Device) -> String {
        let Self { quantization, kv_cache_dtype, max_tokens, breakdown, .. } = self;
        let needed = format!(
            "{} for weights ({quantization}), pictures and workspace and {} for keys and values{} of one sequence of \
             {max_tokens} tokens",
            bytes_in_words(breakdown.fixed_bytes()),
            bytes_in_words(breakdown.kv_bytes),
            kv_cache_dtype.note()
        );
        match (self.verdict, self.available_bytes) {
            (Verdict::Fits, Some(available)) => format!(
                "it fits: {needed} are {} of {}; {} requests with a picture at a time",
                bytes_in_words(self.required_bytes),
                bytes_in_words(available),
                self.max_concurrency
            ),
            (Verdict::DoesNotFit, Some(available)) => format!(
                "it does not fit: {needed} are {}, but only {}, {SHARE_PERCENT} % of the {}, may be used",
                bytes_in_words(self.required_bytes),
                bytes_in_words(available),
                device.in_words()
            ),
            _ => format!("it takes {needed}, {} in all; no memory limit is set", bytes_in_words(self.required_bytes)),
        }
    }
}

impl Device {
    /// What there is: a GPU's memory or a container's limit.
    fn in_words(self) -> String {
        match self {
            Self::Gpu { memory_bytes } => format!("GPU's {}", bytes_in_words(memory_bytes)),
            Self::Cpu { memory_bytes: Some(bytes) } => format!("container's limit of {}", bytes_in_words(bytes)),
            Self::Cpu { memory_bytes: None } => "machine's memory".to_owned(),
        }
    }
}
