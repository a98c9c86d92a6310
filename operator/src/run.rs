//! `vlm-operator run`: puts the parts together and takes them apart at SIGTERM.

use std::{
    net::Ipv6Addr,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::{join_all, select_all};
use kube::{
    Client, Config,
    runtime::events::{Recorder, Reporter},
};
use tokio::{net::TcpListener, sync::broadcast};
use tokio_util::sync::CancellationToken;
use tracing::info;
use vlm_hub::{Hub, HubError, hf, patience::Patience};

use crate::{
    admin::{self, Admin},
    apply::Ledger,
    args::Run,
    autoscaler::table::Table,
    build::labels::MANAGER,
    context::{Context, Memories},
    controller,
    leader::{Candidate, LeaderError},
    metrics::Metrics,
    names::Names,
    observe::{
        self, Trigger, Watches,
        gateways::{self, Gateways},
        gpus::{self, Gpus},
    },
    plan::Settings,
    revision::Revisions,
};

/// Time limit of a look at a pod or at Prometheus.
const LOAD_TIMEOUT: Duration = Duration::from_millis(1500);
/// Time for a connection to pods, gateways or Prometheus.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Time limit of requests for the lease.
const LEASE_TIMEOUT: Duration = Duration::from_secs(3);

/// Why the process ends.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No kubeconfig and no service account.
    #[error("no access to a cluster")]
    Config(#[source] kube::config::InferConfigError),
    /// The client for the API server cannot be made.
    #[error("no client for the API server")]
    Client(#[source] Box<kube::Error>),
    /// The client for pods and Prometheus cannot be made.
    #[error("no HTTP client")]
    Http(#[source] reqwest::Error),
    /// The client for the hub cannot be made.
    #[error("no client for the hub")]
    Hub(#[source] HubError),
    /// Two metrics have one name.
    #[error("metrics cannot be registered")]
    Metrics(#[source] prometheus::Error),
    /// The admin port is taken.
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
    /// Leading ended.
    #[error(transparent)]
    Leader(#[from] LeaderError),
    /// The watches ended.
    #[error("the watches ended")]
    Watches,
}

/// Runs until `shutdown`.
///
/// # Errors
/// [`RunError`] when the operator cannot start or no longer leads; a restart is the cure.
pub async fn run(args: Run, shutdown: CancellationToken) -> Result<(), RunError> {
    let config = Config::infer().await.map_err(RunError::Config)?;
    let client = connect(config.clone())?;
    let metrics = Metrics::new().map_err(RunError::Metrics)?;
    let identity = args.identity.clone().unwrap_or_else(|| format!("{}-{}", host(), std::process::id()));
    let reporter = Reporter { controller: MANAGER.to_owned(), instance: Some(identity.clone()) };
    let recorder = Recorder::new(client.clone(), reporter);
    let namespaces: Vec<_> = match args.watch_namespaces.as_slice() {
        [] => vec![None],
        some => some.iter().cloned().map(Some).collect(),
    };
    let http = http_client()?;
    let (gpus, gpus_work) = gpus::watch(&client, &sources(&args, &config), &metrics);
    let names = Names::default();
    let (mut scopes, mut work) = (Vec::new(), vec![gpus_work]);
    let gateways = args.gateway_service.as_ref().map(|service| {
        let (gateways, watching) = gateways::watch(&client, &own_namespace(&args, &config), service);
        work.push(watching);
        gateways
    });
    for namespace in namespaces {
        let watches = observe::watch(&client, namespace.as_deref());
        let around = (&gpus, gateways.as_ref(), names.of(namespace.clone()));
        let context = context(&args, &client, &watches, around, &http, &metrics, &recorder)?;
        work.push(watches.work);
        scopes.push(Scope { namespace, triggers: watches.triggers, context: Arc::new(context) });
    }
    let candidate = candidate(config, &client, &args, identity)?;
    let listener = listen(args.admin_port).await?;
    let stores = scopes.iter().map(|scope| scope.context.stores.clone()).collect();
    let endpoints = admin::run(listener, Admin { stores, metrics: metrics.clone() }, shutdown.clone());
    let endpoints_broke = async {
        match endpoints.await {
            Err(error) => error,
            // They end at the shutdown, before the leader has put down its work.
            Ok(()) => std::future::pending().await,
        }
    };
    info!(version = env!("CARGO_PKG_VERSION"), image = args.runtime_image, "started");
    let leading = candidate.lead(shutdown.clone(), |stop| async move {
        metrics.lead(true);
        join_all(scopes.iter().map(|scope| scope.lead(stop.clone()))).await;
    });
    tokio::select! {
        result = leading => result.map_err(RunError::Leader),
        error = endpoints_broke => Err(RunError::Admin(error)),
        _ = select_all(work) => Err(RunError::Watches),
    }
}

/// The part of the cluster that has caches and a controller of its own: one namespace, or all.
struct Scope {
    namespace: Option<String>,
    triggers: broadcast::Sender<Trigger>,
    context: Arc<Context>,
}

impl Scope {
    /// Does the leader's work until `stop`.
    async fn lead(&self, stop: CancellationToken) {
        if self.context.stores.wait_until_ready().await.is_ok() {
            let triggers = self.triggers.subscribe();
            controller::run(Arc::clone(&self.context), self.namespace.as_deref(), triggers, stop).await;
        }
    }
}

fn context(
    args: &Run,
    client: &Client,
    watches: &Watches,
    (gpus, gateways, names): (&Arc<Gpus>, Option<&Gateways>, Names),
    http: &reqwest::Client,
    metrics: &Metrics,
    recorder: &Recorder,
) -> Result<Context, RunError> {
    Ok(Context {
        recorder: recorder.clone(),
        client: client.clone(),
        stores: watches.stores.clone(),
        gpus: Arc::clone(gpus),
        settings: Settings {
            runtime_image: args.runtime_image.clone(),
            runtime_cuda_image: args.runtime_cuda_image.clone(),
            image_pull_policy: args.image_pull_policy.name().to_owned(),
            hub_endpoint: args.hub_endpoint.clone(),
            gateway_public_key: args.gateway_public_key.clone(),
            gated: gateways.is_some(),
        },
        prometheus_url: args.prometheus_url.clone(),
        gateways: gateways.cloned(),
        names,
        http: http.clone(),
        table: Table::new(gateways.is_some()),
        ledger: Ledger::default(),
        metrics: metrics.clone(),
        started: Instant::now(),
        memories: Memories::default(),
        revisions: Revisions::new(hub(args)?),
    })
}

fn connect(config: Config) -> Result<Client, RunError> {
    Client::try_from(config).map_err(|e| RunError::Client(Box::new(e)))
}

/// The namespace of the operator itself.
fn own_namespace(args: &Run, config: &Config) -> String {
    args.leader_lease_namespace.clone().unwrap_or_else(|| config.default_namespace.clone())
}

fn sources(args: &Run, config: &Config) -> gpus::Sources {
    gpus::Sources {
        namespace: own_namespace(args, config),
        config_map: args.gpu_types.clone(),
        nodes: args.watch_nodes,
    }
}

fn candidate(mut config: Config, client: &Client, args: &Run, identity: String) -> Result<Candidate, RunError> {
    let namespace = own_namespace(args, &config);
    config.connect_timeout = Some(LEASE_TIMEOUT);
    config.read_timeout = Some(LEASE_TIMEOUT);
    config.write_timeout = Some(LEASE_TIMEOUT);
    Ok(Candidate { client: client.clone(), hasty_client: connect(config)?, namespace, identity })
}

/// For whatever tells the load.
pub(crate) fn http_client() -> Result<reqwest::Client, RunError> {
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(LOAD_TIMEOUT)
        .build()
        .map_err(RunError::Http)
}

/// Without a token: whatever needs one is asked for by a pod that has it.
fn hub(args: &Run) -> Result<Hub, RunError> {
    let endpoint = args.hub_endpoint.clone().unwrap_or_else(|| hf::PUBLIC.to_owned());
    Hub::new(&hf::Settings { endpoint, token: None, patience: Patience::LOOK }).map_err(RunError::Hub)
}

async fn listen(port: u16) -> Result<TcpListener, RunError> {
    match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
        Ok(listener) => Ok(listener),
        // A machine without IPv6.
        Err(_) => TcpListener::bind(("0.0.0.0", port)).await.map_err(|source| RunError::Listen { port, source }),
    }
}

fn host() -> String {
    std::env::var("HOSTNAME").unwrap_or_else(|_| "vlm-operator".to_owned())
}
