//! HTTP headers between the gateway and the model server. Clients need none of them.

/// Set by the gateway: an opaque name of the client on whose behalf it asks, of at most [`LONGEST_CLIENT`] bytes.
/// Clients get their turns one after another. A request with it came through a gateway.
pub const CLIENT: &str = "x-vlm-client";
/// Most bytes of [`CLIENT`] that count.
pub const LONGEST_CLIENT: usize = 256;
/// Set by the gateway to `true` to get with each event of a stream what is needed to continue it elsewhere: see
/// [`crate::continuation`].
pub const STREAM_STATE: &str = "x-vlm-stream-state";
