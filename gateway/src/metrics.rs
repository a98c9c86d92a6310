//! The gateway's metrics in a registry of their own. Names are the contract's; the labels `namespace` and `model` are
//! those of models that exist, and every series of a model is there from the start, so that a missing one is unknown.

use std::time::Duration;

use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};
use vlm_contract::metrics as names;

use crate::routes::ModelId;

/// Why the gateway refused a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// As many as allowed wait.
    QueueFull,
    /// It waited as long as allowed.
    Waited,
    /// The model is switched off.
    SwitchedOff,
    /// The model cannot start.
    CannotStart,
    /// Every replica that was asked failed.
    Failed,
}

impl Refused {
    const ALL: [Self; 5] = [Self::QueueFull, Self::Waited, Self::SwitchedOff, Self::CannotStart, Self::Failed];

    /// The label's value.
    pub const fn name(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::Waited => "waited_too_long",
            Self::SwitchedOff => "switched_off",
            Self::CannotStart => "cannot_start",
            Self::Failed => "replicas_failed",
        }
    }
}

/// Why a stream was to go on at another replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// The connection to its own broke.
    BrokeOff,
    /// Its own said nothing for too long.
    Silent,
    /// Its own has ended before the answer did.
    Draining,
    /// Its own could not compute it any further.
    Failed,
    /// Its own was about to end.
    Early,
}

impl Moved {
    const ALL: [Self; 5] = [Self::BrokeOff, Self::Silent, Self::Draining, Self::Failed, Self::Early];

    /// The label's value.
    pub const fn name(self) -> &'static str {
        match self {
            Self::BrokeOff => "broke_off",
            Self::Silent => "silent",
            Self::Draining => "draining",
            Self::Failed => "failed",
            Self::Early => "early",
        }
    }
}

/// Values of the label `result`.
const RESULTS: [&str; 2] = ["ok", "failed"];

/// Classes of HTTP status.
const CODES: [&str; 4] = ["2xx", "3xx", "4xx", "5xx"];
const HOLD_SECONDS: &[f64] = &[0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0];

/// The metrics.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    held: IntGaugeVec,
    in_flight: IntGaugeVec,
    arrived: IntCounterVec,
    refused: IntCounterVec,
    finished: IntCounterVec,
    invalid: IntCounterVec,
    attempts_failed: IntCounterVec,
    answers_broken: IntCounter,
    migrations: IntCounterVec,
    wakes: IntCounterVec,
    wake_seconds: HistogramVec,
    hold_seconds: HistogramVec,
    body_bytes: IntGauge,
}

impl Metrics {
    /// Metrics at zero.
    ///
    /// # Errors
    /// When two metrics have the same name.
    pub fn new() -> Result<Self, prometheus::Error> {
        let of_model = ["namespace", "model"];
        let counters = |name: &str, help: &str, labels: &[&str]| IntCounterVec::new(Opts::new(name, help), labels);
        let gauges = |name: &str, help: &str| IntGaugeVec::new(Opts::new(name, help), &of_model);
        let seconds = |name: &str, help: &str| {
            HistogramVec::new(HistogramOpts::new(name, help).buckets(HOLD_SECONDS.to_vec()), &of_model)
        };
        let metrics = Self {
            registry: Registry::new(),
            held: gauges(names::GATEWAY_REQUESTS_HELD, "Requests that wait for a replica")?,
            in_flight: gauges(names::GATEWAY_REQUESTS_IN_FLIGHT, "Requests that a replica is answering")?,
            arrived: counters(
                names::GATEWAY_REQUESTS_ARRIVED,
                "Requests for a known model, refused ones included",
                &of_model,
            )?,
            refused: counters(
                names::GATEWAY_REQUESTS_REFUSED,
                "Requests that got no replica",
                &["namespace", "model", "reason"],
            )?,
            finished: counters(
                names::GATEWAY_REQUESTS_FINISHED,
                "Answered requests by class of status",
                &["namespace", "model", "code"],
            )?,
            invalid: counters(names::GATEWAY_REQUESTS_INVALID, "Requests that reached no model", &["reason"])?,
            attempts_failed: counters(
                names::GATEWAY_ATTEMPTS_FAILED,
                "Attempts at a replica that failed before the first byte",
                &["reason"],
            )?,
            answers_broken: IntCounter::new(
                names::GATEWAY_ANSWERS_BROKEN,
                "Answers that broke off after their first byte",
            )?,
            migrations: counters(
                names::GATEWAY_MIGRATIONS,
                "Streams that were to go on at another replica",
                &["reason", "result"],
            )?,
            wakes: counters(names::GATEWAY_WAKES, "Requests to the API server to wake a model", &["result"])?,
            wake_seconds: seconds(
                names::GATEWAY_WAKE,
                "Seconds from the first request held for a model without replicas to the first that one takes",
            )?,
            hold_seconds: seconds(names::GATEWAY_HOLD, "Seconds that requests were held")?,
            body_bytes: IntGauge::new(names::GATEWAY_BODY_BYTES, "Bytes of request bodies in memory")?,
        };
        metrics.register()?;
        for (reason, result) in Moved::ALL.iter().flat_map(|reason| RESULTS.map(|result| (reason, result))) {
            metrics.migrations.with_label_values(&[reason.name(), result]);
        }
        Ok(metrics)
    }

    fn register(&self) -> Result<(), prometheus::Error> {
        let registry = &self.registry;
        registry.register(Box::new(self.held.clone()))?;
        registry.register(Box::new(self.in_flight.clone()))?;
        registry.register(Box::new(self.arrived.clone()))?;
        registry.register(Box::new(self.refused.clone()))?;
        registry.register(Box::new(self.finished.clone()))?;
        registry.register(Box::new(self.invalid.clone()))?;
        registry.register(Box::new(self.attempts_failed.clone()))?;
        registry.register(Box::new(self.answers_broken.clone()))?;
        registry.register(Box::new(self.migrations.clone()))?;
        registry.register(Box::new(self.wakes.clone()))?;
        registry.register(Box::new(self.wake_seconds.clone()))?;
        registry.register(Box::new(self.hold_seconds.clone()))?;
        registry.register(Box::new(self.body_bytes.clone()))
    }

    /// A model is there.
    pub fn introduce(&self, model: &ModelId) {
        let of = [model.namespace.as_str(), model.name.as_str()];
        self.held.with_label_values(&of).set(0);
        self.in_flight.with_label_values(&of).set(0);
        self.arrived.with_label_values(&of);
        for reason in Refused::ALL {
            self.refused.with_label_values(&[of[0], of[1], reason.name()]);
        }
        for code in CODES {
            self.finished.with_label_values(&[of[0], of[1], code]);
        }
    }

    /// A model is gone, and its series with it. An error means that one was not there.
    pub fn forget(&self, model: &ModelId) {
        let of = [model.namespace.as_str(), model.name.as_str()];
        let _ = self.held.remove_label_values(&of);
        let _ = self.in_flight.remove_label_values(&of);
        let _ = self.arrived.remove_label_values(&of);
        let _ = self.wake_seconds.remove_label_values(&of);
        let _ = self.hold_seconds.remove_label_values(&of);
        for reason in Refused::ALL {
            let _ = self.refused.remove_label_values(&[of[0], of[1], reason.name()]);
        }
        for code in CODES {
            let _ = self.finished.remove_label_values(&[of[0], of[1], code]);
        }
    }

    /// A request for a model arrived.
    pub fn arrived(&self, model: &ModelId) {
        self.arrived.with_label_values(&[&model.namespace, &model.name]).inc();
    }

    /// A request was refused.
    pub fn refused(&self, model: &ModelId, why: Refused) {
        self.refused.with_label_values(&[&model.namespace, &model.name, why.name()]).inc();
    }

    /// A request was answered, with whatever status.
    pub fn finished(&self, model: &ModelId, status: u16) {
        let code = CODES.get(usize::from(status / 100).saturating_sub(2)).copied().unwrap_or("5xx");
        self.finished.with_label_values(&[model.namespace.as_str(), &model.name, code]).inc();
    }

    /// A request reached no model; `reason` is the code of an error.
    pub fn invalid(&self, reason: &'static str) {
        self.invalid.with_label_values(&[reason]).inc();
    }

    /// An attempt at a replica failed; `reason` is one of the gateway's own words.
    pub fn attempt_failed(&self, reason: &'static str) {
        self.attempts_failed.with_label_values(&[reason]).inc();
    }

    /// An answer broke off after its first byte.
    pub fn answer_broken(&self) {
        self.answers_broken.inc();
    }

    /// A stream was to go on elsewhere, and did or did not.
    pub fn moved(&self, why: Moved, succeeded: bool) {
        self.migrations.with_label_values(&[why.name(), RESULTS[usize::from(!succeeded)]]).inc();
    }

    /// It was asked that a model be woken.
    pub fn asked_to_wake(&self, succeeded: bool) {
        self.wakes.with_label_values(&[RESULTS[usize::from(!succeeded)]]).inc();
    }

    /// A model took so long to wake.
    pub fn woke(&self, model: &ModelId, took: Duration) {
        self.wake_seconds.with_label_values(&[&model.namespace, &model.name]).observe(took.as_secs_f64());
    }

    /// A request waited so long.
    pub fn held(&self, model: &ModelId, waited: Duration) {
        self.hold_seconds.with_label_values(&[&model.namespace, &model.name]).observe(waited.as_secs_f64());
    }

    /// The page that Prometheus reads, with what waits and what is in flight now.
    ///
    /// # Errors
    /// When a metric cannot be written as text.
    pub fn page(&self, counts: &[(ModelId, usize, u32)], body_bytes: usize) -> Result<String, prometheus::Error> {
        for (model, held, in_flight) in counts {
            let of = [model.namespace.as_str(), model.name.as_str()];
            self.held.with_label_values(&of).set(i64::try_from(*held).unwrap_or(i64::MAX));
            self.in_flight.with_label_values(&of).set(i64::from(*in_flight));
        }
        self.body_bytes.set(i64::try_from(body_bytes).unwrap_or(i64::MAX));
        let mut page = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut page)?;
        String::from_utf8(page).map_err(|e| prometheus::Error::Msg(e.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_series_of_a_model_are_there_from_its_beginning_to_its_end() {
        let metrics = Metrics::new().unwrap();
        let model = ModelId { namespace: "shop".to_owned(), name: "tiny".to_owned() };
        metrics.introduce(&model);
        metrics.woke(&model, Duration::from_secs(2));
        metrics.held(&model, Duration::from_secs(3));
        let labels = "model=\"tiny\",namespace=\"shop\"";
        let page = metrics.page(&[(model.clone(), 3, 4)], 7).unwrap();
        for line in [
            format!("vlm_gateway_requests_held{{{labels}}} 3"),
            format!("vlm_gateway_requests_in_flight{{{labels}}} 4"),
            format!("vlm_gateway_requests_arrived_total{{{labels}}} 0"),
            format!("vlm_gateway_requests_refused_total{{{labels},reason=\"queue_full\"}} 0"),
            format!("vlm_gateway_wake_seconds_sum{{{labels}}} 2"),
            format!("vlm_gateway_hold_seconds_sum{{{labels}}} 3"),
            format!("vlm_gateway_hold_seconds_count{{{labels}}} 1"),
            "vlm_gateway_body_bytes 7".to_owned(),
        ] {
            assert!(page.contains(&line), "{line}\n{page}");
        }
        metrics.forget(&model);
        assert!(!metrics.page(&[], 0).unwrap().contains("tiny"));
    }
}
