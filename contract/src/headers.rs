//! HTTP headers of our own, in small letters.

/// Set by the gateway on what it sends to a model server, to [`crate::metrics::via::GATEWAY`]. The gateway counts the
/// arrival of a request once, so the server counts it apart from those that reach it directly.
pub const VIA: &str = "x-vlm-via";
/// Of an error of the gateway: one word for why, such as `queue_full`.
pub const REASON: &str = "x-vlm-reason";
/// Id of a request: the client's, where it is sound, else a new one.
pub const REQUEST_ID: &str = "x-request-id";
