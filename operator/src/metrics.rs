//! The operator's own metrics, in a registry of their own. Labels come from closed sets.

use std::time::Duration;

use prometheus::{Encoder, Histogram, HistogramOpts, IntCounterVec, IntGauge, Opts, Registry, TextEncoder};

/// How a reconcile ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything is as wanted.
    Done,
    /// A person has to change something first.
    Refused,
    /// It is tried again.
    Failed,
}

/// Where the load is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// From the pods.
    Pods,
    /// From a Prometheus server.
    Prometheus,
    /// From the gateways, besides either.
    Gateways,
}

impl Source {
    /// As it stands in the status.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pods => "Pods",
            Self::Prometheus => "Prometheus",
            Self::Gateways => "Gateways",
        }
    }
}

/// The metrics.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    reconciles: IntCounterVec,
    reconcile_seconds: Histogram,
    reads: IntCounterVec,
    decisions: IntCounterVec,
    writes: IntCounterVec,
    catalogue: IntCounterVec,
    leader: IntGauge,
    models: IntGauge,
}

impl Metrics {
    /// Metrics at zero.
    ///
    /// # Errors
    /// When two metrics have the same name.
    pub fn new() -> Result<Self, prometheus::Error> {
        let counters = |name: &str, help: &str, label| IntCounterVec::new(Opts::new(name, help), &[label]);
        let metrics = Self {
            registry: Registry::new(),
            reconciles: counters("vlm_operator_reconciles_total", "Reconciles of a VisionModel.", "result")?,
            reconcile_seconds: Histogram::with_opts(
                HistogramOpts::new("vlm_operator_reconcile_duration_seconds", "Duration of a reconcile.")
                    .buckets(vec![0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0]),
            )?,
            reads: IntCounterVec::new(
                Opts::new("vlm_operator_load_reads_total", "Attempts to read the load."),
                &["source", "result"],
            )?,
            decisions: counters("vlm_operator_scale_decisions_total", "Changes of a number of replicas.", "direction")?,
            writes: counters("vlm_operator_writes_total", "Objects written to the API server.", "kind")?,
            catalogue: counters(
                "vlm_operator_gpu_catalogue_reads_total",
                "Looks at the ConfigMap of GPU types; failed ones keep what it was before.",
                "result",
            )?,
            leader: IntGauge::new("vlm_operator_leader", "1 while this process leads.")?,
            models: IntGauge::new("vlm_operator_models", "VisionModels that this process looks after.")?,
        };
        let registry = &metrics.registry;
        registry.register(Box::new(metrics.reconciles.clone()))?;
        registry.register(Box::new(metrics.reconcile_seconds.clone()))?;
        registry.register(Box::new(metrics.reads.clone()))?;
        registry.register(Box::new(metrics.decisions.clone()))?;
        registry.register(Box::new(metrics.writes.clone()))?;
        registry.register(Box::new(metrics.catalogue.clone()))?;
        registry.register(Box::new(metrics.leader.clone()))?;
        registry.register(Box::new(metrics.models.clone()))?;
        Ok(metrics)
    }

    /// Counts a reconcile.
    pub fn reconciled(&self, outcome: Outcome, took: Duration) {
        let result = match outcome {
            Outcome::Done => "done",
            Outcome::Refused => "refused",
            Outcome::Failed => "failed",
        };
        self.reconciles.with_label_values(&[result]).inc();
        self.reconcile_seconds.observe(took.as_secs_f64());
    }

    /// Counts an attempt to read the load.
    pub fn read(&self, source: Source, succeeded: bool) {
        let source = match source {
            Source::Pods => "pods",
            Source::Prometheus => "prometheus",
            Source::Gateways => "gateways",
        };
        self.reads.with_label_values(&[source, if succeeded { "ok" } else { "failed" }]).inc();
    }

    /// Counts a change of a number of replicas.
    pub fn decided(&self, from: i32, to: i32) {
        self.decisions.with_label_values(&[if to > from { "up" } else { "down" }]).inc();
    }

    /// Counts a written object; `kind` is one of the kinds that the operator writes.
    pub fn wrote(&self, kind: &str) {
        self.writes.with_label_values(&[kind]).inc();
    }

    /// Counts a look at the catalogue of GPU types.
    pub fn read_catalogue(&self, succeeded: bool) {
        self.catalogue.with_label_values(&[if succeeded { "ok" } else { "failed" }]).inc();
    }

    /// Says whether this process leads.
    pub fn lead(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// Says how many models there are where there were `before`; namespaces are counted one by one.
    pub fn models(&self, before: usize, now: usize) {
        let whole = |count| i64::try_from(count).unwrap_or(i64::MAX);
        self.models.add(whole(now) - whole(before));
    }

    /// The page that Prometheus reads.
    ///
    /// # Errors
    /// When a metric cannot be written as text.
    pub fn page(&self) -> Result<String, prometheus::Error> {
        let mut page = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut page)?;
        String::from_utf8(page).map_err(|e| prometheus::Error::Msg(e.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_stands_on_the_page() {
        let metrics = Metrics::new().unwrap();
        metrics.reconciled(Outcome::Done, Duration::from_millis(3));
        metrics.read(Source::Pods, false);
        metrics.decided(1, 3);
        metrics.lead(true);
        metrics.models(0, 5);
        metrics.models(0, 2);
        metrics.models(5, 4);
        let page = metrics.page().unwrap();
        for line in [
            "vlm_operator_reconciles_total{result=\"done\"} 1",
            "vlm_operator_load_reads_total{result=\"failed\",source=\"pods\"} 1",
            "vlm_operator_scale_decisions_total{direction=\"up\"} 1",
            "vlm_operator_leader 1",
            "vlm_operator_models 6",
        ] {
            assert!(page.contains(line), "{line}\n{page}");
        }
    }
}
