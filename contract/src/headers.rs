//! HTTP headers of our own, in small letters. Clients need none of them.

/// Set by the gateway on what it sends to a model server, to [`crate::metrics::via::GATEWAY`]. The gateway counts the
/// arrival of a request once, so the server counts it apart from those that reach it directly.
pub const VIA: &str = "x-vlm-via";
/// Set by the gateway: an opaque name of the client on whose behalf it asks, of at most [`LONGEST_CLIENT`] bytes.
/// Clients get their turns one after another.
pub const CLIENT: &str = "x-vlm-client";
/// Most bytes of [`CLIENT`] that count.
pub const LONGEST_CLIENT: usize = 256;
/// Set by the gateway to `true` to get with each event of a stream what is needed to continue it elsewhere, and by the
/// model server to which stream it is: see [`crate::continuation`].
pub const STREAM_STATE: &str = "x-vlm-stream-state";
/// Of an error of the gateway: one word for why, such as `queue_full`.
pub const REASON: &str = "x-vlm-reason";
/// Id of a request: the client's, where it is sound, else a new one.
pub const REQUEST_ID: &str = "x-request-id";
