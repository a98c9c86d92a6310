//! TCP ports.

/// The model server: API, `/health`, `/ready` and `/metrics`.
pub const RUNTIME_HTTP: u16 = 8000;
/// The Service in front of the model servers.
pub const MODEL_SERVICE: u16 = 80;
/// The operator's `/healthz`, `/readyz`, `/metrics` and `/prometheus/targets`.
pub const OPERATOR_ADMIN: u16 = 8080;
/// The gateway: the API of every model.
pub const GATEWAY_HTTP: u16 = 8000;
/// The gateway's `/healthz`, `/readyz`, `/metrics` and [`crate::routable::PATH`].
pub const GATEWAY_ADMIN: u16 = 8080;
/// Name of the gateway's and of the operator's port of that kind.
pub const ADMIN_NAME: &str = "admin";
/// Name of the model server's container port and of the Service port.
pub const HTTP_NAME: &str = "http";
