//! What every handler shares: the limits, the metrics, and, once loaded, the model.

use std::sync::{Arc, OnceLock};
use std::thread::available_parallelism;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::Semaphore;

use super::admission::Admission;
use super::auth::Keys;
use super::continuation::GatewayKey;
use super::cors::Origins;
use super::defaults::SamplingDefaults;
use super::error::{ApiError, LoadState, excerpt};
use super::lifecycle::{Lifecycle, Phase};
use super::media::MediaPool;
use super::sources::Sources;
use crate::checkpoint::LoadProgress;
use crate::engine::{Engine, Snapshot};
use crate::image::ImageLimits;
use crate::metrics::Metrics;
use crate::processor::Processor;

/// What a request may ask for.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of one picture.
    pub image: ImageLimits,
    /// Pictures in one request.
    pub images: usize,
    /// Bytes of a body.
    pub body_bytes: usize,
    /// Time for a whole body to arrive.
    pub body_time: Duration,
    /// Silence after which a stream sends a comment, so that nobody between takes it for dead.
    pub keep_alive: Duration,
}

/// The model, once it is loaded.
pub struct Loaded {
    /// Generates.
    pub engine: Engine,
    /// Prepares prompts.
    pub processor: Arc<Processor>,
    /// Of the checkpoint.
    pub defaults: SamplingDefaults,
    /// Longest sequence in tokens.
    pub max_tokens: usize,
}

/// What the server's owner has set.
pub struct Settings {
    /// What a request may ask for.
    pub limits: Limits,
    /// Names of the model; at least one.
    pub names: Vec<String>,
    /// Where pictures may come from.
    pub sources: Sources,
    /// API keys; none means that everyone may ask.
    pub keys: Keys,
    /// Origins whose pages may read answers.
    pub origins: Origins,
    /// Whose signature a continuation must have; without it there are none.
    pub gateway_key: Option<GatewayKey>,
}

/// State of the server.
pub struct App {
    /// Loading, ready, draining.
    pub lifecycle: Lifecycle,
    /// All metrics.
    pub metrics: Metrics,
    /// How much is taken on.
    pub admission: Admission,
    /// Decodes pictures.
    pub media: MediaPool,
    /// Forms of answers that are made at once.
    pub forms: Arc<Semaphore>,
    /// What a request may ask for.
    pub limits: Limits,
    /// Names of the model; at least one.
    pub names: Vec<String>,
    /// Where pictures may come from.
    pub sources: Sources,
    /// API keys.
    pub keys: Keys,
    /// Origins whose pages may read answers.
    pub origins: Origins,
    /// Whose signature a continuation must have.
    pub gateway_key: Option<GatewayKey>,
    /// How far the load is.
    pub progress: Arc<LoadProgress>,
    /// Seconds since 1970 at which the server started.
    pub started: u64,
    model: OnceLock<Loaded>,
}

impl App {
    /// A server that is still loading.
    pub fn new(settings: Settings, admission: Admission, metrics: Metrics, lifecycle: Lifecycle) -> Self {
        let Settings { limits, names, sources, keys, origins, gateway_key } = settings;
        Self {
            lifecycle,
            metrics,
            admission,
            media: MediaPool::new(),
            forms: Arc::new(Semaphore::new(available_parallelism().map_or(1, usize::from))),
            limits,
            names,
            sources,
            keys,
            origins,
            gateway_key,
            progress: Arc::default(),
            started: unix_seconds(),
            model: OnceLock::new(),
        }
    }

    /// Hands over the loaded model and becomes ready.
    pub fn loaded(&self, model: Loaded) {
        if self.model.set(model).is_ok() {
            self.lifecycle.advance(Phase::Ready);
        }
    }

    /// The model, or why it cannot be asked now.
    pub fn model(&self) -> Result<&Loaded, ApiError> {
        match self.lifecycle.phase() {
            Phase::Closed => Err(ApiError::Draining),
            Phase::Loading => Err(ApiError::Loading(self.load_state())),
            Phase::Ready | Phase::Draining => self.model.get().ok_or_else(|| ApiError::Loading(self.load_state())),
        }
    }

    /// How far the load is.
    pub fn load_state(&self) -> LoadState {
        self.progress.bytes().map_or(LoadState::Opening, |(read, total)| LoadState::Reading(read, total))
    }

    /// What the engine does now; `None` before it exists.
    pub fn snapshot(&self) -> Option<Snapshot> {
        self.model.get().map(|model| model.engine.snapshot())
    }

    /// Stops the engine from accepting requests.
    pub fn drain_engine(&self) {
        if let Some(model) = self.model.get() {
            model.engine.drain();
        }
    }

    /// The name under which a request is answered: the one it asks for, or the first.
    pub fn resolve(&self, asked: Option<&str>) -> Result<String, ApiError> {
        let first = self.names.first().map_or("", String::as_str);
        let name = asked.unwrap_or(first);
        if self.names.iter().any(|served| served == name) {
            return Ok(name.to_owned());
        }
        let served: Vec<String> = self.names.iter().map(|name| format!("`{name}`")).collect();
        Err(ApiError::ModelNotFound { asked: excerpt(name), served: served.join(", ") })
    }
}

/// Seconds since 1970.
pub fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
pub(super) mod tests {
    use tokio_util::sync::CancellationToken;

    use super::*;

    /// A loading server of the model `tiny` that takes two pictures.
    pub fn app() -> App {
        let limits = Limits {
            image: ImageLimits::default(),
            images: 2,
            body_bytes: 1 << 20,
            body_time: Duration::from_secs(1),
            keep_alive: Duration::from_secs(1),
        };
        let settings = Settings {
            limits,
            names: vec!["tiny".into(), "alias".into()],
            sources: Sources::new(None, None),
            keys: Keys::default(),
            origins: Origins::default(),
            gateway_key: None,
        };
        App::new(
            settings,
            Admission::new(1, limits.body_bytes),
            Metrics::new(None).unwrap(),
            Lifecycle::new(CancellationToken::new()),
        )
    }

    #[test]
    fn a_request_is_answered_under_the_name_it_asks_for() {
        let app = app();
        assert_eq!(app.resolve(None).unwrap(), "tiny");
        assert_eq!(app.resolve(Some("alias")).unwrap(), "alias");
        let message = app.resolve(Some("gpt-4o")).unwrap_err().to_string();
        assert!(message.contains("`gpt-4o`") && message.contains("`tiny`, `alias`"), "{message}");
    }

    #[test]
    fn a_server_that_is_not_ready_says_why() {
        let app = app();
        assert!(matches!(app.model(), Err(ApiError::Loading(LoadState::Opening))));
        app.lifecycle.advance(Phase::Closed);
        assert!(matches!(app.model(), Err(ApiError::Draining)));
    }
}
