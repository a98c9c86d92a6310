//! Flags of `vlm-runtime serve` that the operator passes.

/// Directory of the checkpoint.
pub const MODEL: &str = "--model";
/// Name under which the model is served; repeatable.
pub const SERVED_MODEL_NAME: &str = "--served-model-name";
/// Longest sequence, prompt and answer together, in tokens.
pub const MAX_TOKENS: &str = "--max-tokens";
/// Sequences computed at the same time.
pub const MAX_CONCURRENCY: &str = "--max-concurrency";
/// Most bytes of the KV cache.
pub const KV_BYTES: &str = "--kv-bytes";
/// Seconds that running requests get to finish after SIGTERM.
pub const DRAIN_TIMEOUT_SECONDS: &str = "--drain-timeout-seconds";
/// File that receives the diagnosis when the process cannot start.
pub const TERMINATION_LOG: &str = "--termination-log";
