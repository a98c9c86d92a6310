//! `serve`: listen at once, load, serve until a signal, drain. Reads as that list.

mod settings;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::args::ServeArgs;
use crate::checkpoint::LoadProgress;
use crate::device::{self, Demand};
use crate::diagnose::StartError;
use crate::engine::{Engine, EngineOptions};
use crate::metrics::Metrics;
use crate::server::admission::Admission;
use crate::server::app::{App, Loaded};
use crate::server::defaults::SamplingDefaults;
use crate::server::lifecycle::{Lifecycle, Phase};
use crate::server::listen::{self, ConnectionLimits};
use crate::server::router;

/// Time for cut answers to tell their clients.
const ABORT_TIME: Duration = Duration::from_secs(2);
/// Time for blocking work, such as a load that nobody waits for any more, at exit.
const EXIT_TIME: Duration = Duration::from_millis(200);

/// Serves until a signal and a complete drain.
///
/// # Errors
/// Why the server could not start or go on.
pub fn run(args: ServeArgs) -> Result<(), StartError> {
    let mut builder = Builder::new_multi_thread();
    // Whoever says it in the way of the library knows better.
    if std::env::var_os("TOKIO_WORKER_THREADS").is_none() {
        builder.worker_threads(listen::threads());
    }
    let runtime =
        builder.enable_all().build().map_err(|source| StartError::System { what: "the async runtime", source })?;
    let result = runtime.block_on(serve(args));
    runtime.shutdown_timeout(EXIT_TIME);
    result
}

async fn serve(args: ServeArgs) -> Result<(), StartError> {
    let (shutdown, abort) = (CancellationToken::new(), CancellationToken::new());
    let signals = tokio::spawn(watch_signals(Signals::new()?, shutdown.clone(), abort.clone()));
    let listener = bind(&args).await?;
    let app = Arc::new(app(&args, abort.clone())?);
    let close = CancellationToken::new();
    let connections =
        ConnectionLimits { count: args.connections(), idle: Duration::from_secs(args.web.idle_timeout_seconds) };
    let counted = app.metrics.connections();
    let http = tokio::spawn(listen::serve(listener, router::router(app.clone()), connections, counted, close.clone()));

    let result = tokio::select! {
        () = shutdown.cancelled() => Ok(()),
        result = load_and_wait(&args, &app) => result,
    };
    if result.is_ok() {
        drain(&args, &app).await;
    }
    close.cancel();
    // It ends within its own deadline; a panic in it has been logged.
    let _ = http.await;
    signals.abort();
    result
}

/// Loads the model, then waits for the one thing that ends a healthy server from within.
async fn load_and_wait(args: &ServeArgs, app: &App) -> Result<(), StartError> {
    let begun = Instant::now();
    tracing::info!(model = %args.model.display(), "loading");
    let (load_args, progress) = (args.clone(), Arc::clone(&app.progress));
    let model = tokio::task::spawn_blocking(move || load(&load_args, progress))
        .await
        .map_err(|error| StartError::LoadPanicked(error.to_string()))??;
    let engine = model.engine.clone();
    app.loaded(model);
    let milliseconds = begun.elapsed().as_millis() as u64;
    tracing::info!(milliseconds, names = app.names.join(","), "ready");
    Err(engine.stopped().await.into())
}

/// Opens the checkpoint and starts the engine. Blocks for as long as the weights take.
fn load(args: &ServeArgs, progress: Arc<LoadProgress>) -> Result<Loaded, StartError> {
    let begun = Instant::now();
    let device = device::open(args.how.device)?;
    let opened = begun.elapsed();
    device::load_code(&device)?;
    let coded = begun.elapsed();
    let (checkpoint, processor) = super::open_watched(&args.model, &args.how, Some(progress))?;
    tracing::info!(
        device_seconds = format_args!("{:.3}", opened.as_secs_f64()),
        code_seconds = format_args!("{:.3}", coded.as_secs_f64() - opened.as_secs_f64()),
        files_seconds = format_args!("{:.3}", begun.elapsed().as_secs_f64() - coded.as_secs_f64()),
        "device and files opened"
    );
    let longest = processor.max_model_len();
    let max_tokens = args.max_tokens.map_or(longest, |tokens| tokens as usize);
    if max_tokens > longest {
        return Err(StartError::Arguments(format!(
            "--max-tokens {max_tokens} is more than the {longest} that this model can take"
        )));
    }
    let options = EngineOptions {
        max_tokens,
        max_concurrency: args.max_concurrency as usize,
        max_queue: args.queue(),
        kv_bytes: args.kv_bytes,
        encoder_cache_bytes: args.encoder_cache_bytes,
        precision: args.how.precision.on(&device, checkpoint.stored()),
    };
    let demand = Demand::of(&checkpoint, options.precision, max_tokens, options.max_concurrency);
    let kv = options.kv_bytes.unwrap_or(demand.kv);
    device::check_memory(&device, Demand { kv, ..demand })?;
    let engine = Engine::start_on(&checkpoint, options, &device)?;
    let defaults = SamplingDefaults::read(&args.model);
    Ok(Loaded { engine, processor: Arc::new(processor), defaults, max_tokens })
}

/// Leaves without breaking an answer, unless the deadline passes.
async fn drain(args: &ServeArgs, app: &App) {
    if app.lifecycle.phase() == Phase::Loading {
        app.lifecycle.advance(Phase::Closed);
        return;
    }
    let deadline = Instant::now() + Duration::from_secs(args.drain_timeout_seconds.into());
    let accept = args.drain_accept_seconds.min(args.drain_timeout_seconds);
    tracing::info!(accept_seconds = accept, "draining");
    app.lifecycle.advance(Phase::Draining);
    tokio::select! {
        () = sleep(Duration::from_secs(accept.into())) => {}
        () = app.lifecycle.aborted().cancelled() => {}
    }
    app.lifecycle.advance(Phase::Closed);
    let emptied = tokio::select! {
        emptied = timeout_at(deadline, app.admission.emptied()) => emptied.is_ok(),
        () = app.lifecycle.aborted().cancelled() => false,
    };
    if !emptied {
        tracing::warn!("the drain deadline passed; running answers are cut");
        app.lifecycle.aborted().cancel();
        // What cannot be told in this time is cut with its connection.
        let _ = timeout(ABORT_TIME, app.admission.emptied()).await;
    }
    app.drain_engine();
    tracing::info!("drained");
}

async fn bind(args: &ServeArgs) -> Result<TcpListener, StartError> {
    let address = SocketAddr::new(args.host, args.port);
    let failed = |source| StartError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    tracing::info!(address = %listener.local_addr().map_err(failed)?, "listening");
    Ok(listener)
}

fn app(args: &ServeArgs, abort: CancellationToken) -> Result<App, StartError> {
    let settings = settings::read(args)?;
    let requests = args.max_concurrency as usize + args.queue();
    let alias = settings.names.first().filter(|_| !args.web.no_vllm_metrics).cloned();
    let metrics = Metrics::new(alias)
        .map_err(|error| StartError::System { what: "the metrics", source: std::io::Error::other(error) })?;
    let admission = Admission::new(requests, settings.limits.body_bytes);
    Ok(App::new(settings, admission, metrics, Lifecycle::new(abort)))
}

/// The signals that end the process.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub fn new() -> Result<Self, StartError> {
        let listen = |kind| signal(kind).map_err(|source| StartError::System { what: "signal handlers", source });
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    /// Waits for one of them.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// The first signal begins the drain, the second cuts it short.
async fn watch_signals(mut signals: Signals, shutdown: CancellationToken, abort: CancellationToken) {
    signals.next().await;
    shutdown.cancel();
    signals.next().await;
    abort.cancel();
}
