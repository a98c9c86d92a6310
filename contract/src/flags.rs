//! Flags of `vlm-runtime serve`, `fetch` and `inspect` that the operator passes, and the variables of their
//! environment.

/// Directory of the checkpoint.
pub const MODEL: &str = "--model";
/// Name under which the model is served; repeatable.
pub const SERVED_MODEL_NAME: &str = "--served-model-name";
/// Longest sequence, prompt and answer together, in tokens.
pub const MAX_TOKENS: &str = "--max-tokens";
/// Sequences computed at the same time.
pub const MAX_CONCURRENCY: &str = "--max-concurrency";
/// Number format that the decoder is brought into while it is loaded; without it, as it is stored.
pub const QUANTIZATION: &str = "--quantization";
/// Number format of keys and values; without it, that of the weights that are not quantised.
pub const KV_CACHE_DTYPE: &str = "--kv-cache-dtype";
/// Most bytes of the KV cache.
pub const KV_BYTES: &str = "--kv-bytes";
/// What the model runs on: [`CUDA`], or processor cores.
pub const DEVICE: &str = "--device";
/// Value of [`DEVICE`]: a GPU of NVIDIA's.
pub const CUDA: &str = "cuda";
/// Most bytes that are kept of pictures, for the next request with the same picture.
pub const ENCODER_CACHE_BYTES: &str = "--encoder-cache-bytes";
/// Seconds that running requests get to finish after SIGTERM.
pub const DRAIN_TIMEOUT_SECONDS: &str = "--drain-timeout-seconds";
/// File that receives the diagnosis when the process cannot start.
pub const TERMINATION_LOG: &str = "--termination-log";

/// Fetch pictures from http and https URLs.
pub const ALLOW_IMAGE_URLS: &str = "--allow-image-urls";
/// Directory under which pictures may be named by `file://` URLs.
pub const IMAGE_ROOT: &str = "--image-root";
/// File with the API keys, one a line; without keys everyone may ask.
pub const API_KEY_FILE: &str = "--api-key-file";
/// Ed25519 public key of the gateway, in base64: see [`crate::continuation`].
pub const CONTINUATION_PUBLIC_KEY: &str = "--continuation-public-key";
/// API keys, one a line, where no file holds them (`serve`).
pub const API_KEY_VARIABLE: &str = "VLM_API_KEY";

/// Where the checkpoint is fetched from (`fetch`, `inspect`).
pub const URI: &str = "--uri";
/// Branch, tag or commit of the repository (`fetch`, `inspect`).
pub const REVISION: &str = "--revision";
/// Directory that the checkpoint is fetched into (`fetch`).
pub const TO: &str = "--to";
/// File that holds the hub's token (`fetch`, `inspect`).
pub const TOKEN_FILE: &str = "--token-file";
/// Base address of the hub or of a mirror (`fetch`, `inspect`); tools of the hub read the same variable.
pub const HUB_ENDPOINT_VARIABLE: &str = "HF_ENDPOINT";
/// The hub's token, where no file holds it (`fetch`, `inspect`); tools of the hub read the same variable.
pub const HUB_TOKEN_VARIABLE: &str = "HF_TOKEN";
/// Directory in which the GPU's driver keeps the kernels that it has compiled (`serve`); CUDA itself reads it.
pub const CUDA_CACHE_VARIABLE: &str = "CUDA_CACHE_PATH";
