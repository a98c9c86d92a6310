//! A gateway of a test's own, with one model `shop/tiny`, and a client.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use clap::Parser;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use vlm_gateway::{
    app::App,
    args::Cli,
    balance::Endpoint,
    bodies::Bodies,
    hold::Bounds,
    migrate::key::SigningKey,
    routes::{Endpoints, ModelId, Route, Standing, catalogue::Catalogue},
    run,
    server::{listen, router},
};

/// A running gateway.
pub struct Gateway {
    pub app: Arc<App>,
    pub address: SocketAddr,
    pub client: reqwest::Client,
    stop: CancellationToken,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Room for every test's connections.
const WIDE: listen::Bounds = listen::Bounds { connections: 1000, silence: Duration::from_secs(60) };

/// The gateway's private key in every test: the first of RFC 8032, section 7.1.
const KEY: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpgukSqZcRJuoRxLsSS7EnEaffDGq5/rn9g\n-----END PRIVATE KEY-----\n";

/// Its public half, as replicas are given it.
pub fn public_key() -> String {
    SigningKey::parse(KEY).unwrap().public()
}

pub fn id() -> ModelId {
    ModelId { namespace: "shop".to_owned(), name: "tiny".to_owned() }
}

/// Room for 4 that wait; two requests at a time for each replica.
pub fn route(standing: Standing) -> Route {
    Route {
        id: id(),
        created: 100,
        aliases: Vec::new(),
        standing,
        window: 2,
        bounds: Bounds { count: 4, bytes: 1 << 20, wait: Duration::from_secs(20) },
        max_tokens: Some(512),
        migrates: true,
        drain: Duration::from_secs(60),
    }
}

impl Gateway {
    /// With a model that is awake, and no replicas yet.
    pub async fn start() -> Self {
        Self::with(route(Standing::Awake)).await
    }

    pub async fn with(route: Route) -> Self {
        Self::made(route, WIDE, |_| {}).await
    }

    /// With a model that is awake, and a state that differs from what tests have.
    pub async fn that(differs: impl FnOnce(&mut App)) -> Self {
        Self::made(route(Standing::Awake), WIDE, differs).await
    }

    /// With bounds of its own for connections.
    pub async fn within(route: Route, bounds: listen::Bounds) -> Self {
        Self::made(route, bounds, |_| {}).await
    }

    async fn made(route: Route, bounds: listen::Bounds, differs: impl FnOnce(&mut App)) -> Self {
        let mut app = run::app(&Cli::parse_from(["vlm-gateway"])).unwrap();
        app.bodies = Bodies::new(4 << 20, 1 << 20, Duration::from_secs(1));
        app.heartbeat = Duration::from_millis(50);
        app.signer = Some(Arc::new(SigningKey::parse(KEY).unwrap()));
        differs(&mut app);
        let app = Arc::new(app);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        tokio::spawn(listen::serve(listener, router(Arc::clone(&app)), app.life.clone(), bounds));
        tokio::spawn(Arc::clone(&app.desk).run(stop.clone()));
        // An error means that another test has installed it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let gateway = Self { app, address, client, stop };
        gateway.stands(route);
        gateway
    }

    /// What the cluster says of the model.
    pub fn stands(&self, route: Route) {
        self.app.routes.replace(Catalogue::new([route]));
        self.app.desk.update_routes(&self.app.routes.catalogue());
    }

    /// Where the replicas are.
    pub fn replicas(&self, addresses: &[SocketAddr]) {
        let endpoint =
            |(n, address): (usize, &SocketAddr)| Endpoint { pod: format!("pod-{n}"), address: *address, ready: true };
        let all: Endpoints = [(id(), addresses.iter().enumerate().map(endpoint).collect())].into();
        self.app.desk.update_endpoints(&all);
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn ask(&self, body: &Value) -> reqwest::RequestBuilder {
        self.client.post(self.url("/v1/chat/completions")).json(body)
    }

    /// Requests that wait, and that are in flight.
    pub fn counts(&self) -> (usize, u32) {
        let all = self.app.desk.counts();
        (all[0].1, all[0].2)
    }

    /// Waits until as many wait and are in flight.
    pub async fn await_counts(&self, held: usize, in_flight: u32) {
        await_that(|| self.counts() == (held, in_flight), &format!("{held} waiting, {in_flight} in flight")).await;
    }

    pub fn page(&self) -> String {
        self.app.metrics.page(&self.app.desk.counts(), self.app.bodies.held()).unwrap()
    }
}

/// Asks every few milliseconds until it holds, for at most 5 s.
pub async fn await_that(mut holds: impl FnMut() -> bool, what: &str) {
    for _ in 0..1000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it never came to be: {what}");
}

pub fn question() -> Value {
    json!({"model": "tiny", "messages": [{"role": "user", "content": "hi"}]})
}

pub fn streamed() -> Value {
    let mut body = question();
    body["stream"] = json!(true);
    body
}

/// The `code` of an error's body.
pub async fn code(response: reqwest::Response) -> String {
    let body: Value = response.json().await.unwrap();
    body["error"]["code"].as_str().unwrap_or_default().to_owned()
}
