//! The same numbers under the names and labels that vLLM gives them. Nothing is counted twice: they are made of what
//! was gathered.

use std::collections::HashMap;

use prometheus::proto::{LabelPair, Metric, MetricFamily};
use vlm_contract::metrics as names;

/// Makes aliases.
#[derive(Debug)]
pub struct Aliases {
    by_name: HashMap<&'static str, &'static str>,
    model: LabelPair,
}

impl Aliases {
    /// For `model`, by its first name.
    pub fn new(model: String) -> Self {
        let mut label = LabelPair::default();
        label.set_name(names::VLLM_MODEL_LABEL.to_owned());
        label.set_value(model);
        Self { by_name: names::VLLM_ALIASES.into_iter().collect(), model: label }
    }

    /// The aliases of `families`.
    pub fn of(&self, families: &[MetricFamily]) -> Vec<MetricFamily> {
        let mut aliases = Vec::new();
        for family in families {
            if let Some(name) = self.by_name.get(family.name()) {
                aliases.push(self.alias(family, name, family.get_metric().to_vec()));
            } else if family.name() == names::REQUESTS_WAITING {
                aliases.push(self.alias(family, names::VLLM_REQUESTS_WAITING, vec![summed(family)]));
            }
        }
        aliases
    }

    fn alias(&self, family: &MetricFamily, name: &str, metrics: Vec<Metric>) -> MetricFamily {
        let labelled = metrics.into_iter().map(|mut metric| {
            metric.set_label(vec![self.model.clone()]);
            metric
        });
        let mut alias = MetricFamily::default();
        alias.set_name(name.to_owned());
        alias.set_help(family.help().to_owned());
        alias.set_field_type(family.get_field_type());
        alias.set_metric(labelled.collect());
        alias
    }
}

/// One gauge of all.
fn summed(family: &MetricFamily) -> Metric {
    let mut gauge = prometheus::proto::Gauge::default();
    gauge.set_value(family.get_metric().iter().map(|metric| metric.get_gauge().get_value()).sum());
    let mut metric = Metric::default();
    metric.set_gauge(gauge);
    metric
}

#[cfg(test)]
mod tests {
    use vlm_contract::metrics as names;

    use crate::engine::Snapshot;
    use crate::metrics::Metrics;

    #[test]
    fn the_numbers_appear_under_vllms_names_unless_they_are_off() {
        let snapshot = Snapshot { running: 3, waiting: 4, kv_usage: 0.5, ..Snapshot::default() };
        let metrics = Metrics::new(Some("tiny".to_owned())).unwrap();
        let _media = metrics.in_media_stage();
        let text = metrics.render(Some(&snapshot)).unwrap();
        for line in [
            "# TYPE vllm:num_requests_running gauge",
            "vllm:num_requests_running{model_name=\"tiny\"} 3",
            "vllm:num_requests_waiting{model_name=\"tiny\"} 5",
            "vllm:kv_cache_usage_perc{model_name=\"tiny\"} 0.5",
            "vllm:time_to_first_token_seconds_count{model_name=\"tiny\"} 0",
            "# TYPE vllm:prompt_tokens_total counter",
            "vllm:prompt_tokens_total{model_name=\"tiny\"} 0",
            "vlm_requests_running 3",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        let all = names::VLLM_ALIASES.map(|(_, alias)| alias).into_iter().chain([names::VLLM_REQUESTS_WAITING]);
        for alias in all {
            let kind = format!("# TYPE {alias} ");
            assert_eq!(text.lines().filter(|line| line.starts_with(&kind)).count(), 1, "{alias} in\n{text}");
            let mut series = text.lines().filter_map(|line| line.strip_prefix(alias)).peekable();
            assert!(series.peek().is_some(), "{alias} in\n{text}");
            // Of a histogram, the name of its parts follows.
            assert!(series.all(|rest| rest.contains("{model_name=\"tiny\"")), "{alias} in\n{text}");
        }
        assert!(!Metrics::new(None).unwrap().render(Some(&snapshot)).unwrap().contains("vllm:"));
    }
}
