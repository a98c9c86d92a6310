//! Bytes that never become a request.

/// Why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Another protocol, or a line that HTTP does not allow.
    #[error("this cannot be read as an HTTP request; speak HTTP/1.1 or HTTP/2 in the clear, one header a line")]
    Request,
    /// So large a head that it is not read to its end.
    #[error("the head of the request is longer than is read at all; send fewer and shorter headers, and a shorter URL")]
    Head,
}
