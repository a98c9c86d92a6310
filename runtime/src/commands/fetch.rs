//! `fetch`: a checkpoint of the hub into a directory, its progress on /metrics meanwhile.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus::{IntGaugeVec, Opts, Registry, TextEncoder};
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio_util::sync::CancellationToken;
use vlm_contract::metrics as names;
use vlm_hub::fetch::{Progress, Wanted, fetch};

use super::serve::Signals;
use super::{CommandError, hub};
use crate::args::FetchArgs;
use crate::diagnose::StartError;
use crate::metrics::Connections;
use crate::server::listen::{self, ConnectionLimits};

/// Fetches, unless it is there already.
///
/// # Errors
/// Why the checkpoint is not there; [`CommandError::Stopped`] on a signal, after which the next call goes on.
pub fn run(args: &FetchArgs) -> Result<(), CommandError> {
    let runtime = Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|source| StartError::System { what: "the async runtime", source })?;
    let result = runtime.block_on(serve_and_fetch(args));
    // A process that waits for another's lock waits on a thread of its own.
    runtime.shutdown_background();
    result
}

async fn serve_and_fetch(args: &FetchArgs) -> Result<(), CommandError> {
    let mut signals = Signals::new()?;
    let weights = Arc::new(Weights::new()?);
    let close = CancellationToken::new();
    let address = SocketAddr::new(args.host, args.port);
    let failed = |source| StartError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    tracing::info!(address = %listener.local_addr().map_err(failed)?, "listening");
    let unset = |error| StartError::System { what: "the metrics", source: std::io::Error::other(error) };
    let counted = Connections::new().map_err(unset)?;
    let limits = ConnectionLimits::default();
    let http = tokio::spawn(listen::serve(listener, router(&weights), limits, counted, close.clone()));
    let result = tokio::select! {
        result = get_checkpoint(args, &weights) => result,
        () = signals.next() => Err(CommandError::Stopped),
    };
    close.cancel();
    // It ends within its own deadline; a panic in it has been logged.
    let _ = http.await;
    result
}

async fn get_checkpoint(args: &FetchArgs, weights: &Weights) -> Result<(), CommandError> {
    let repository = hub::repository(&args.uri)?;
    let client = hub::client(&args.hub).map_err(StartError::from)?;
    let wanted = Wanted { repository, revision: &args.hub.revision, to: &args.to };
    let fetched = fetch(&client, wanted, &|progress| weights.set(progress)).await.map_err(StartError::from)?;
    tracing::info!(
        revision = fetched.revision,
        bytes = fetched.bytes,
        was_there = fetched.was_there,
        to = %args.to.display(),
        "fetched"
    );
    Ok(())
}

/// Bytes on the disk and still to come.
struct Weights {
    registry: Registry,
    bytes: IntGaugeVec,
}

impl Weights {
    fn new() -> Result<Self, StartError> {
        let failed = |e| StartError::System { what: "the metrics", source: std::io::Error::other(e) };
        let options = Opts::new(names::WEIGHTS_BYTES, "Bytes of the checkpoint that is being fetched, by state");
        let bytes = IntGaugeVec::new(options, &["state"]).map_err(failed)?;
        let registry = Registry::new();
        registry.register(Box::new(bytes.clone())).map_err(failed)?;
        for state in names::weights::ALL {
            bytes.with_label_values(&[state]).set(0);
        }
        Ok(Self { registry, bytes })
    }

    fn set(&self, progress: Progress) {
        let Progress { fetched_bytes, total_bytes } = progress;
        let missing = total_bytes.saturating_sub(fetched_bytes);
        self.bytes.with_label_values(&[names::weights::FETCHED]).set(fetched_bytes.cast_signed());
        self.bytes.with_label_values(&[names::weights::MISSING]).set(missing.cast_signed());
    }

    fn page(&self) -> Response {
        match TextEncoder::new().encode_to_string(&self.registry.gather()) {
            Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
            Err(error) => {
                tracing::error!(%error, "cannot render the metrics");
                StatusCode::INTERNAL_SERVER_ERROR.into_response()
            }
        }
    }
}

fn router(weights: &Arc<Weights>) -> Router {
    let weights = Arc::clone(weights);
    Router::new().route("/metrics", get(async move || weights.page()))
}
