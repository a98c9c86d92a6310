//! Metric names. The runtime and the gateway export them, the operator and Prometheus queries read them.

/// Gauge: requests being computed.
pub const REQUESTS_RUNNING: &str = "vlm_requests_running";
/// Gauge by `stage`: accepted requests that do not run yet.
pub const REQUESTS_WAITING: &str = "vlm_requests_waiting";
/// Gauge: how many requests can run at the same time.
pub const REQUESTS_CAPACITY: &str = "vlm_requests_capacity";
/// Counter by `via`: generation requests that reached the server, refused ones included.
pub const REQUESTS_ARRIVED: &str = "vlm_requests_arrived_total";
/// Counter by `reason`: generation requests refused before they were queued.
pub const REQUESTS_REFUSED: &str = "vlm_requests_refused_total";
/// Counter by `reason`: requests that ended.
pub const REQUESTS_FINISHED: &str = "vlm_requests_finished_total";
/// Counter: tokens of prompts, image tokens included.
pub const PROMPT_TOKENS: &str = "vlm_prompt_tokens_total";
/// Counter: generated tokens.
pub const GENERATION_TOKENS: &str = "vlm_generation_tokens_total";
/// Histogram in seconds: from arrival to the first token.
pub const TIME_TO_FIRST_TOKEN: &str = "vlm_time_to_first_token_seconds";
/// Histogram in seconds: between two tokens of one request.
pub const INTER_TOKEN_LATENCY: &str = "vlm_inter_token_latency_seconds";
/// Counter: tokens of prompts whose keys and values were cached already, of [`PROMPT_TOKENS`].
pub const PREFIX_CACHE_HIT_TOKENS: &str = "vlm_prefix_cache_hit_tokens_total";
/// Counter: pictures whose rows were kept from an earlier request, or were being computed for another.
pub const ENCODER_CACHE_HITS: &str = "vlm_encoder_cache_hits_total";
/// Counter: pictures that the vision tower had to see.
pub const ENCODER_CACHE_MISSES: &str = "vlm_encoder_cache_misses_total";
/// Counter: tiles that went through the vision tower.
pub const VISION_TILES: &str = "vlm_vision_tiles_total";
/// Counter: steps in which tiles did; with [`VISION_TILES`], the tiles a step.
pub const VISION_STEPS: &str = "vlm_vision_steps_total";
/// Counter: decode steps that were replayed from a recorded graph; 0 without a GPU.
pub const GRAPH_HITS: &str = "vlm_graph_hits_total";
/// Counter: decode steps on a GPU whose number of rows or length had no graph yet.
pub const GRAPH_MISSES: &str = "vlm_graph_misses_total";
/// Counter: times that a running request gave its KV blocks up for an older one.
pub const PREEMPTIONS: &str = "vlm_preemptions_total";
/// Gauge from 0 to 1: share of the KV cache in use. What is only kept to be found again is not in use.
pub const KV_CACHE_USAGE: &str = "vlm_kv_cache_usage_ratio";
/// Histogram in seconds: decoding and preprocessing one picture.
pub const IMAGE_DECODE: &str = "vlm_image_decode_seconds";
/// Histogram in bytes: files of pictures.
pub const IMAGE_BYTES: &str = "vlm_image_bytes";
/// Histogram: tiles of pictures.
pub const IMAGE_TILES: &str = "vlm_image_tiles";
/// Counter: pictures that were in use already, and so were not decoded again.
pub const IMAGE_DECODES_SHARED: &str = "vlm_image_decodes_shared_total";
/// Histogram in seconds: fetching one picture.
pub const IMAGE_FETCH: &str = "vlm_image_fetch_seconds";
/// Counter: connections that were closed at once because there were too many.
pub const CONNECTIONS_REFUSED: &str = "vlm_connections_refused_total";
/// Gauge: open connections.
pub const CONNECTIONS: &str = "vlm_connections";
/// Histogram in seconds: from a request's acceptance by the engine until it runs.
pub const QUEUE_WAIT: &str = "vlm_queue_wait_seconds";

/// Gauge by `state`: bytes of the checkpoint that is being fetched. The states add up to its size.
pub const WEIGHTS_BYTES: &str = "vlm_weights_bytes";

/// Gauge by `namespace` and `model`: requests that the gateway holds because no replica can take them yet.
pub const GATEWAY_REQUESTS_HELD: &str = "vlm_gateway_requests_held";
/// Gauge by `namespace` and `model`: requests that a replica is answering through the gateway.
pub const GATEWAY_REQUESTS_IN_FLIGHT: &str = "vlm_gateway_requests_in_flight";
/// Counter by `namespace` and `model`: requests for a known model that reached the gateway, refused ones included. A
/// retry is no arrival.
pub const GATEWAY_REQUESTS_ARRIVED: &str = "vlm_gateway_requests_arrived_total";
/// Counter by `namespace`, `model` and `reason`: requests that the gateway refused.
pub const GATEWAY_REQUESTS_REFUSED: &str = "vlm_gateway_requests_refused_total";
/// Counter by `namespace`, `model` and `code`: answered requests by the class of their HTTP status.
pub const GATEWAY_REQUESTS_FINISHED: &str = "vlm_gateway_requests_finished_total";
/// Counter by `reason`: requests that reached no model because of what they are.
pub const GATEWAY_REQUESTS_INVALID: &str = "vlm_gateway_requests_invalid_total";
/// Counter by `reason`: attempts at a replica that failed before the first byte.
pub const GATEWAY_ATTEMPTS_FAILED: &str = "vlm_gateway_attempts_failed_total";
/// Counter: answers that broke off after their first byte.
pub const GATEWAY_ANSWERS_BROKEN: &str = "vlm_gateway_answers_broken_total";
/// Counter by `reason` and `result`: streams that were to go on at another replica.
pub const GATEWAY_MIGRATIONS: &str = "vlm_gateway_migrations_total";
/// Counter by `result`: requests to the API server to wake a model.
pub const GATEWAY_WAKES: &str = "vlm_gateway_wakes_total";
/// Histogram in seconds by `namespace` and `model`: from the first request held for a model without replicas to the
/// first that one takes.
pub const GATEWAY_WAKE: &str = "vlm_gateway_wake_seconds";
/// Histogram in seconds by `namespace` and `model`: how long requests were held.
pub const GATEWAY_HOLD: &str = "vlm_gateway_hold_seconds";
/// Gauge: bytes of request bodies in memory.
pub const GATEWAY_BODY_BYTES: &str = "vlm_gateway_body_bytes";

/// The same under the names that vLLM gives them, for dashboards and autoscalers that know those.
pub const VLLM_ALIASES: [(&str, &str); 8] = [
    (REQUESTS_RUNNING, "vllm:num_requests_running"),
    (KV_CACHE_USAGE, "vllm:kv_cache_usage_perc"),
    (TIME_TO_FIRST_TOKEN, "vllm:time_to_first_token_seconds"),
    (INTER_TOKEN_LATENCY, "vllm:inter_token_latency_seconds"),
    (QUEUE_WAIT, "vllm:request_queue_time_seconds"),
    (PROMPT_TOKENS, "vllm:prompt_tokens_total"),
    (GENERATION_TOKENS, "vllm:generation_tokens_total"),
    (PREEMPTIONS, "vllm:num_preemptions_total"),
];
/// vLLM's name of the sum of [`REQUESTS_WAITING`] over its stages.
pub const VLLM_REQUESTS_WAITING: &str = "vllm:num_requests_waiting";
/// The label that vLLM's metrics have, and tools select by.
pub const VLLM_MODEL_LABEL: &str = "model_name";

/// Values of the label `stage` of [`REQUESTS_WAITING`].
pub mod stage {
    /// A picture of the request is being decoded.
    pub const MEDIA: &str = "media";
    /// The request waits for the engine.
    pub const QUEUE: &str = "queue";
    /// All stages.
    pub const ALL: [&str; 2] = [MEDIA, QUEUE];
}

/// Values of the label `via` of [`REQUESTS_ARRIVED`].
pub mod via {
    /// Straight to the pod or its Service.
    pub const DIRECT: &str = "direct";
    /// Through a gateway, which has counted the arrival already; its retries as well.
    pub const GATEWAY: &str = "gateway";
    /// All ways.
    pub const ALL: [&str; 2] = [DIRECT, GATEWAY];
}

/// Values of the label `reason` of [`REQUESTS_REFUSED`].
pub mod refused {
    /// The queue was full.
    pub const QUEUE_FULL: &str = "queue_full";
    /// The server was loading or draining.
    pub const NOT_READY: &str = "not_ready";
    /// All reasons.
    pub const ALL: [&str; 2] = [QUEUE_FULL, NOT_READY];
}

/// Values of the label `reason` of [`REQUESTS_FINISHED`].
pub mod finished {
    /// The model ended its answer, or a stop string appeared.
    pub const STOP: &str = "stop";
    /// The token limit was reached.
    pub const LENGTH: &str = "length";
    /// The client went away.
    pub const CANCELLED: &str = "cancelled";
    /// The engine failed.
    pub const ERROR: &str = "error";
    /// The model computed numbers that are not finite, so that any further text would be nonsense.
    pub const NOT_FINITE: &str = "not_finite";
    /// All reasons.
    pub const ALL: [&str; 5] = [STOP, LENGTH, CANCELLED, ERROR, NOT_FINITE];
}

/// Values of the label `state` of [`WEIGHTS_BYTES`].
pub mod weights {
    /// On the disk.
    pub const FETCHED: &str = "fetched";
    /// Still to come.
    pub const MISSING: &str = "missing";
    /// All states.
    pub const ALL: [&str; 2] = [FETCHED, MISSING];
}
