//! Puts the parts together, and takes them apart at SIGTERM.

use std::{net::Ipv6Addr, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use kube::{Client, Config};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::{
    app::App,
    args::Cli,
    bodies::Bodies,
    desk::Desk,
    drain::{ENDPOINT_LAG, Life},
    metrics::Metrics,
    migrate::{
        SILENCE,
        key::{KeyError, SigningKey},
    },
    proxy::upstream::Upstream,
    routable::Probes,
    routes::{
        Routes,
        watch::{Scope, Watched, watch},
    },
    server::{
        admin::{self, Admin},
        listen::{Bounds, serve},
        router,
    },
    wake,
};

/// Why the process ends.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No kubeconfig and no service account.
    #[error("no access to a cluster")]
    Config(#[source] kube::config::InferConfigError),
    /// The client for the API server cannot be made.
    #[error("no client for the API server")]
    Client(#[source] Box<kube::Error>),
    /// Two metrics have one name.
    #[error("metrics cannot be registered")]
    Metrics(#[source] prometheus::Error),
    /// The key that signs continuations cannot be used.
    #[error("--continuation-key-file cannot be used")]
    Key(#[source] KeyError),
    /// A port is taken.
    #[error("cannot listen on port {port}")]
    Listen {
        /// The port.
        port: u16,
        /// Why not.
        source: std::io::Error,
    },
    /// The admin endpoints broke.
    #[error("the admin endpoints broke")]
    Admin(#[source] std::io::Error),
    /// The watches ended.
    #[error("the watches ended")]
    Watches,
}

/// Runs until `shutdown`, and then until the open answers are done.
///
/// # Errors
/// [`RunError`] when the gateway cannot start or go on; a restart is the cure.
pub async fn run(args: Cli, shutdown: CancellationToken) -> Result<(), RunError> {
    let config = Config::infer().await.map_err(RunError::Config)?;
    let namespace = args.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
    let client = Client::try_from(config).map_err(|e| RunError::Client(Box::new(e)))?;
    let app = Arc::new(app(&args)?);
    let scope = Scope {
        namespaces: args.watch_namespaces.clone(),
        gateways: args.service.clone().map(|service| (namespace, service)),
    };
    let (watched, watching) = watch(&client, &scope, Arc::clone(&app.routes), Arc::clone(&app.desk));
    let (listener, admin_listener) = (listen(args.port).await?, listen(args.admin_port).await?);
    info!(version = env!("CARGO_PKG_VERSION"), port = args.port, "started");
    let bounds =
        Bounds { connections: args.max_connections as usize, silence: Duration::from_secs(args.silence_seconds) };
    let served = serve_filled(listener, &app, watched.clone(), bounds);
    let ending = app.life.end(shutdown, ENDPOINT_LAG, Duration::from_secs(args.drain_timeout_seconds));
    let process = CancellationToken::new();
    let admin = admin::run(admin_listener, Admin { app: Arc::clone(&app), watched }, process.clone());
    let ended = async {
        ending.await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = served => Ok(()),
        () = ended => Ok(()),
        () = watching => Err(RunError::Watches),
        () = Arc::clone(&app.desk).run(process.clone()) => Ok(()),
        () = wake::run(client, Arc::clone(&app.desk), app.metrics.clone()) => Ok(()),
        broken = admin => Err(RunError::Admin(broken.err().unwrap_or_else(|| std::io::Error::other("they ended")))),
    }
}

/// Serves once the caches are filled: before that, every model would be unknown.
fn serve_filled(listener: TcpListener, app: &Arc<App>, watched: Watched, bounds: Bounds) -> BoxFuture<'static, ()> {
    let app = Arc::clone(app);
    Box::pin(async move {
        let closed = app.life.closed().clone();
        tokio::select! {
            () = closed.cancelled() => {}
            filled = watched.filled() => {
                if filled {
                    serve(listener, router(Arc::clone(&app)), app.life.clone(), bounds).await;
                } else {
                    // The watches have ended, and so does the process.
                    std::future::pending::<()>().await;
                }
            }
        }
    })
}

/// What all handlers share, as the flags have it.
///
/// # Errors
/// [`RunError::Metrics`], which no flag can cause.
pub fn app(args: &Cli) -> Result<App, RunError> {
    let metrics = Metrics::new().map_err(RunError::Metrics)?;
    let key = args.continuation_key_file.as_deref().map(SigningKey::read).transpose().map_err(RunError::Key)?;
    let signer = key.map(Arc::new);
    if let Some(key) = &signer {
        info!(public_key = key.public(), "streams go on elsewhere when their replica ends");
    } else {
        info!("no key for continuations: a stream ends with its replica");
    }
    let all = usize::try_from(args.max_bodies_bytes).unwrap_or(usize::MAX);
    Ok(App {
        routes: Arc::new(Routes::default()),
        desk: Desk::new(metrics.clone()),
        upstream: Upstream::default(),
        bodies: Bodies::new(all, args.max_body_bytes as usize, Duration::from_secs(args.body_seconds)),
        metrics,
        probes: Probes::default(),
        life: Life::default(),
        heartbeat: Duration::from_secs(args.heartbeat_seconds),
        silence: SILENCE,
        signer,
    })
}

async fn listen(port: u16) -> Result<TcpListener, RunError> {
    match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
        Ok(listener) => Ok(listener),
        // A machine without IPv6.
        Err(_) => TcpListener::bind(("0.0.0.0", port)).await.map_err(|source| RunError::Listen { port, source }),
    }
}
