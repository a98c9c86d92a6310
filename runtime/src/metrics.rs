//! The server's metrics in a registry of its own. Names and label values are the contract's; every
//! series exists from the start, so that a missing one always means a broken scrape.

mod alias;
mod connections;
mod engine;

use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{
    Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};
use vlm_contract::metrics as names;

use alias::Aliases;
pub use connections::Connections;
use engine::EngineCounters;

use crate::engine::Snapshot;

const FIRST_TOKEN_SECONDS: &[f64] =
    &[0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.25, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0];
const BETWEEN_TOKENS_SECONDS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.25, 2.5];
const QUEUE_SECONDS: &[f64] = &[0.001, 0.005, 0.02, 0.08, 0.32, 1.25, 5.0, 20.0, 80.0, 320.0];
const FETCH_SECONDS: &[f64] = &[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const IMAGE_BYTES: &[f64] = &[1e4, 3e4, 1e5, 3e5, 1e6, 3e6, 1e7, 3e7];
const IMAGE_TILES: &[f64] = &[1.0, 2.0, 3.0, 5.0, 7.0, 10.0, 13.0, 25.0, 49.0];
const DECODE_SECONDS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

/// Why a generation request was refused before it was queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// As many requests as allowed were running and waiting.
    QueueFull,
    /// The server was loading or draining.
    NotReady,
}

/// How a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// Straight from a client.
    Direct,
    /// From a gateway, which counts it too.
    Gateway,
}

/// How an accepted request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The model ended its answer, or a stop string appeared.
    Stop,
    /// The token limit was reached.
    Length,
    /// The client went away.
    Cancelled,
    /// The engine failed, or the drain deadline passed.
    Error,
    /// The model computed numbers that are not finite.
    NotFinite,
}

impl Outcome {
    /// The label value.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Stop => names::finished::STOP,
            Self::Length => names::finished::LENGTH,
            Self::Cancelled => names::finished::CANCELLED,
            Self::Error => names::finished::ERROR,
            Self::NotFinite => names::finished::NOT_FINITE,
        }
    }
}

/// All metrics of the server.
pub struct Metrics {
    registry: Registry,
    running: IntGauge,
    waiting: IntGaugeVec,
    media: IntGauge,
    capacity: IntGauge,
    kv_usage: Gauge,
    engine: EngineCounters,
    arrived: IntCounterVec,
    refused: IntCounterVec,
    finished: IntCounterVec,
    prompt_tokens: IntCounter,
    generation_tokens: IntCounter,
    first_token: Histogram,
    between_tokens: Histogram,
    queue_wait: Histogram,
    decode: Histogram,
    fetch: Histogram,
    image_bytes: Histogram,
    image_tiles: Histogram,
    shared_decodes: IntCounter,
    connections: Connections,
    aliases: Option<Aliases>,
}

impl Metrics {
    /// Registers every metric; with `alias` also under vLLM's names, of the model `alias`. Fails only if two share a
    /// name.
    pub fn new(alias: Option<String>) -> Result<Self, prometheus::Error> {
        let waiting = IntGaugeVec::new(
            Opts::new(names::REQUESTS_WAITING, "Accepted requests that do not run yet, by stage"),
            &["stage"],
        )?;
        let metrics = Self {
            registry: Registry::new(),
            running: IntGauge::new(names::REQUESTS_RUNNING, "Requests being computed")?,
            media: waiting.with_label_values(&[names::stage::MEDIA]),
            waiting,
            capacity: IntGauge::new(
                names::REQUESTS_CAPACITY,
                "Requests that can run at the same time, 0 while loading",
            )?,
            kv_usage: Gauge::new(names::KV_CACHE_USAGE, "Share of the KV cache in use")?,
            engine: EngineCounters::new()?,
            arrived: counters(
                names::REQUESTS_ARRIVED,
                "Generation requests that reached the server, refused ones included",
                "via",
                &names::via::ALL,
            )?,
            refused: counters(
                names::REQUESTS_REFUSED,
                "Generation requests refused before they were queued",
                "reason",
                &names::refused::ALL,
            )?,
            finished: counters(names::REQUESTS_FINISHED, "Requests that ended", "reason", &names::finished::ALL)?,
            prompt_tokens: IntCounter::new(names::PROMPT_TOKENS, "Tokens of prompts, image tokens included")?,
            generation_tokens: IntCounter::new(names::GENERATION_TOKENS, "Generated tokens")?,
            first_token: histogram(
                names::TIME_TO_FIRST_TOKEN,
                "Seconds from arrival to the first token",
                FIRST_TOKEN_SECONDS,
            )?,
            between_tokens: histogram(
                names::INTER_TOKEN_LATENCY,
                "Seconds between two tokens of one request",
                BETWEEN_TOKENS_SECONDS,
            )?,
            queue_wait: histogram(
                names::QUEUE_WAIT,
                "Seconds from the acceptance of a request by the engine until it runs",
                QUEUE_SECONDS,
            )?,
            decode: histogram(names::IMAGE_DECODE, "Seconds to decode and preprocess one picture", DECODE_SECONDS)?,
            fetch: histogram(names::IMAGE_FETCH, "Seconds to fetch one picture", FETCH_SECONDS)?,
            image_bytes: histogram(names::IMAGE_BYTES, "Bytes of the files of pictures", IMAGE_BYTES)?,
            image_tiles: histogram(names::IMAGE_TILES, "Tiles of pictures", IMAGE_TILES)?,
            shared_decodes: IntCounter::new(
                names::IMAGE_DECODES_SHARED,
                "Pictures that were there already, and so were not decoded again",
            )?,
            connections: Connections::new()?,
            aliases: alias.map(Aliases::new),
        };
        metrics.waiting.with_label_values(&[names::stage::QUEUE]).set(0);
        for collector in metrics.collectors() {
            metrics.registry.register(collector)?;
        }
        Ok(metrics)
    }

    fn collectors(&self) -> Vec<Box<dyn Collector>> {
        let engine = self.engine.all().iter().map(|counter| Box::new(counter.clone()) as Box<dyn Collector>);
        let own: Vec<Box<dyn Collector>> = vec![
            Box::new(self.running.clone()),
            Box::new(self.waiting.clone()),
            Box::new(self.capacity.clone()),
            Box::new(self.kv_usage.clone()),
            Box::new(self.arrived.clone()),
            Box::new(self.refused.clone()),
            Box::new(self.finished.clone()),
            Box::new(self.prompt_tokens.clone()),
            Box::new(self.generation_tokens.clone()),
            Box::new(self.first_token.clone()),
            Box::new(self.between_tokens.clone()),
            Box::new(self.queue_wait.clone()),
            Box::new(self.decode.clone()),
            Box::new(self.fetch.clone()),
            Box::new(self.image_bytes.clone()),
            Box::new(self.image_tiles.clone()),
            Box::new(self.shared_decodes.clone()),
            Box::new(self.connections.open.clone()),
            Box::new(self.connections.refused.clone()),
        ];
        own.into_iter().chain(engine).collect()
    }

    /// A generation request reached the server.
    pub fn arrived(&self, via: Via) {
        let via = match via {
            Via::Direct => names::via::DIRECT,
            Via::Gateway => names::via::GATEWAY,
        };
        self.arrived.with_label_values(&[via]).inc();
    }

    /// A generation request was refused.
    pub fn refused(&self, why: Refusal) {
        let reason = match why {
            Refusal::QueueFull => names::refused::QUEUE_FULL,
            Refusal::NotReady => names::refused::NOT_READY,
        };
        self.refused.with_label_values(&[reason]).inc();
    }

    /// An accepted request ended.
    pub fn finished(&self, how: Outcome) {
        self.finished.with_label_values(&[how.label()]).inc();
    }

    /// The engine accepted a prompt of so many tokens.
    pub fn prompt(&self, tokens: usize) {
        self.prompt_tokens.inc_by(tokens as u64);
    }

    /// The first token of a request, so long after its arrival; for a part of that it waited in the queue.
    pub fn first_token(&self, after: Duration, waited: Duration) {
        self.generation_tokens.inc();
        self.first_token.observe(after.as_secs_f64());
        self.queue_wait.observe(waited.as_secs_f64());
    }

    /// A later token of a request, so long after the one before.
    pub fn next_token(&self, after: Duration) {
        self.generation_tokens.inc();
        self.between_tokens.observe(after.as_secs_f64());
    }

    /// A picture was decoded and preprocessed.
    pub fn decoded(&self, took: Duration) {
        self.decode.observe(took.as_secs_f64());
    }

    /// The file of a picture has arrived.
    pub fn image_bytes(&self, bytes: usize) {
        self.image_bytes.observe(bytes as f64);
    }

    /// A picture is ready, of so many tiles; `shared` when it was not decoded for this.
    pub fn image(&self, tiles: usize, shared: bool) {
        self.image_tiles.observe(tiles as f64);
        self.shared_decodes.inc_by(u64::from(shared));
    }

    /// A picture was fetched, or could not be.
    pub fn fetched(&self, took: Duration) {
        self.fetch.observe(took.as_secs_f64());
    }

    /// Counts connections.
    pub fn connections(&self) -> Connections {
        self.connections.clone()
    }

    /// Counts a request as waiting in the media stage until the guard is dropped.
    pub fn in_media_stage(&self) -> MediaStage {
        self.media.inc();
        MediaStage(self.media.clone())
    }

    /// The text format, with the engine's present state.
    pub fn render(&self, engine: Option<&Snapshot>) -> Result<String, prometheus::Error> {
        let queue = self.waiting.with_label_values(&[names::stage::QUEUE]);
        self.running.set(engine.map_or(0, |now| whole(now.running)));
        queue.set(engine.map_or(0, |now| whole(now.waiting)));
        self.capacity.set(engine.map_or(0, |now| whole(now.capacity)));
        self.kv_usage.set(engine.map_or(0.0, |now| now.kv_usage));
        self.engine.advance(&engine.map(|now| now.counts).unwrap_or_default());
        let mut families = self.registry.gather();
        if let Some(aliases) = &self.aliases {
            families.extend(aliases.of(&families));
        }
        TextEncoder::new().encode_to_string(&families)
    }
}

/// A request in the media stage.
pub struct MediaStage(IntGauge);

impl Drop for MediaStage {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn whole(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn counters(name: &str, help: &str, label: &str, values: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
    let vec = IntCounterVec::new(Opts::new(name, help), &[label])?;
    for value in values {
        vec.with_label_values(&[*value]).inc_by(0);
    }
    Ok(vec)
}

fn histogram(name: &str, help: &str, buckets: &[f64]) -> Result<Histogram, prometheus::Error> {
    Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::scheduler::Counts;

    #[test]
    fn every_series_exists_before_the_first_request() {
        let text = Metrics::new(None).unwrap().render(None).unwrap();
        for series in [
            "vlm_requests_running 0",
            "vlm_requests_waiting{stage=\"media\"} 0",
            "vlm_requests_waiting{stage=\"queue\"} 0",
            "vlm_requests_capacity 0",
            "vlm_requests_arrived_total{via=\"direct\"} 0",
            "vlm_requests_refused_total{reason=\"queue_full\"} 0",
            "vlm_requests_refused_total{reason=\"not_ready\"} 0",
            "vlm_requests_finished_total{reason=\"cancelled\"} 0",
            "vlm_kv_cache_usage_ratio 0",
            "vlm_time_to_first_token_seconds_count 0",
            "vlm_inter_token_latency_seconds_count 0",
            "vlm_image_decode_seconds_count 0",
            "vlm_image_fetch_seconds_count 0",
            "vlm_image_bytes_count 0",
            "vlm_image_tiles_count 0",
            "vlm_image_decodes_shared_total 0",
            "vlm_queue_wait_seconds_count 0",
            "vlm_connections 0",
            "vlm_connections_refused_total 0",
            "vlm_requests_arrived_total{via=\"gateway\"} 0",
            "vlm_prompt_tokens_total 0",
            "vlm_generation_tokens_total 0",
            "vlm_prefix_cache_hit_tokens_total 0",
            "vlm_encoder_cache_hits_total 0",
            "vlm_encoder_cache_misses_total 0",
            "vlm_vision_tiles_total 0",
            "vlm_vision_steps_total 0",
            "vlm_preemptions_total 0",
            "vlm_graph_hits_total 0",
            "vlm_graph_misses_total 0",
        ] {
            assert!(text.lines().any(|line| line == series), "{series} is not in\n{text}");
        }
    }

    #[test]
    fn the_engines_sums_are_exported_as_they_are() {
        let metrics = Metrics::new(None).unwrap();
        for tiles in [3, 5] {
            let counts = Counts { tiles, tile_steps: 2, graph_hits: 7, graph_misses: 1, ..Counts::default() };
            let text = metrics.render(Some(&Snapshot { counts, ..Snapshot::default() })).unwrap();
            assert!(text.contains(&format!("\nvlm_vision_tiles_total {tiles}\n")), "{text}");
            assert!(text.contains("\nvlm_vision_steps_total 2\n"), "{text}");
            assert!(text.contains("\nvlm_graph_hits_total 7\n"), "{text}");
            assert!(text.contains("\nvlm_graph_misses_total 1\n"), "{text}");
        }
    }

    #[test]
    fn the_media_stage_ends_with_its_guard() {
        let metrics = Metrics::new(None).unwrap();
        let guard = metrics.in_media_stage();
        assert!(metrics.render(None).unwrap().contains("{stage=\"media\"} 1"));
        drop(guard);
        assert!(metrics.render(None).unwrap().contains("{stage=\"media\"} 0"));
    }
}
