//! The gateway as its process has it, but for the watches: one model and its replicas are told.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use clap::Parser;
use vlm_gateway::{
    app::App,
    args::Cli,
    balance::Endpoint,
    hold::Bounds,
    routes::{ModelId, Route, Standing, catalogue::Catalogue},
    run,
};

/// A gateway for `replicas`, each of which is given `window` requests at a time.
pub fn gateway(replicas: &[SocketAddr], window: u32) -> Arc<App> {
    let app = Arc::new(run::app(&Cli::parse_from(["vlm-gateway"])).unwrap());
    let bounds = Bounds { count: 10_000, bytes: 1 << 30, wait: Duration::from_secs(300) };
    app.routes.replace(Catalogue::new([Route {
        id: model(),
        created: 0,
        aliases: Vec::new(),
        standing: Standing::Awake,
        window,
        bounds,
        max_tokens: None,
        migrates: false,
        drain: Duration::ZERO,
    }]));
    app.desk.update_routes(&app.routes.catalogue());
    tell(&app, replicas);
    app
}

fn model() -> ModelId {
    ModelId { namespace: "bench".to_owned(), name: "tiny".to_owned() }
}

/// From now on these are the replicas.
pub fn tell(app: &App, replicas: &[SocketAddr]) {
    let pod = |address: &SocketAddr| Endpoint { pod: address.to_string(), address: *address, ready: true };
    app.desk.update_endpoints(&[(model(), replicas.iter().map(pod).collect())].into());
}
