//! One page of a runtime's metrics, as numbers. A series that is missing is unknown, never 0.

use prometheus_parse::{Sample, Scrape, Value};
use vlm_contract::metrics::{
    GENERATION_TOKENS, REQUESTS_ARRIVED, REQUESTS_CAPACITY, REQUESTS_FINISHED, REQUESTS_REFUSED, REQUESTS_RUNNING,
    REQUESTS_WAITING, finished, via,
};

/// What one pod says of itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// Requests being computed.
    pub running: f64,
    /// Accepted requests that wait, in all stages.
    pub waiting: f64,
    /// Requests that can be computed at the same time.
    pub capacity: f64,
    /// Counter of requests that came straight to the pod, refused ones included.
    pub arrived: Option<f64>,
    /// Counter of refused requests.
    pub refused: Option<f64>,
    /// Counter of requests that ended, failures of the engine left out.
    pub finished: Option<f64>,
    /// Counter of generated tokens.
    pub generated: Option<f64>,
}

/// Why a page is unusable.
#[derive(Debug, thiserror::Error)]
pub enum ReadingError {
    /// It is not Prometheus text.
    #[error("not Prometheus text")]
    Text(#[source] std::io::Error),
    /// A gauge is missing or not a number.
    #[error("no usable series {0}")]
    Missing(&'static str),
}

/// Reads a page.
///
/// # Errors
/// [`ReadingError`] when the text is malformed or one of the three gauges is missing.
pub fn parse(page: &str) -> Result<Reading, ReadingError> {
    let lines = page.lines().map(|line| Ok(line.to_owned()));
    let scrape = Scrape::parse(lines).map_err(ReadingError::Text)?;
    let all = |_: &Sample| true;
    let gauge = |name| sum(&scrape, name, all).ok_or(ReadingError::Missing(name));
    Ok(Reading {
        running: gauge(REQUESTS_RUNNING)?,
        waiting: gauge(REQUESTS_WAITING)?,
        capacity: gauge(REQUESTS_CAPACITY)?,
        arrived: sum(&scrape, REQUESTS_ARRIVED, |s| s.labels.get("via") == Some(via::DIRECT)),
        refused: sum(&scrape, REQUESTS_REFUSED, all),
        finished: sum(&scrape, REQUESTS_FINISHED, |s| s.labels.get("reason") != Some(finished::ERROR)),
        generated: sum(&scrape, GENERATION_TOKENS, all),
    })
}

/// Adds up the series of a name; `None` when there is none, or one is not a finite number.
fn sum(scrape: &Scrape, name: &str, take: impl Fn(&Sample) -> bool) -> Option<f64> {
    let mut total = None;
    for sample in scrape.samples.iter().filter(|s| s.metric == name && take(s)) {
        let (Value::Gauge(value) | Value::Counter(value) | Value::Untyped(value)) = sample.value else {
            return None;
        };
        if !value.is_finite() {
            return None;
        }
        total = Some(total.unwrap_or(0.0) + value);
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "\
# TYPE vlm_requests_running gauge
vlm_requests_running{model=\"m\"} 3
# TYPE vlm_requests_waiting gauge
vlm_requests_waiting{model=\"m\",stage=\"media\"} 1
vlm_requests_waiting{model=\"m\",stage=\"queue\"} 4
# TYPE vlm_requests_capacity gauge
vlm_requests_capacity{model=\"m\"} 8
# TYPE vlm_requests_arrived_total counter
vlm_requests_arrived_total{via=\"direct\"} 20
vlm_requests_arrived_total{via=\"gateway\"} 7
# TYPE vlm_requests_finished_total counter
vlm_requests_finished_total{reason=\"stop\"} 5
vlm_requests_finished_total{reason=\"error\"} 2
# TYPE vlm_generation_tokens_total counter
vlm_generation_tokens_total 90
";

    #[test]
    fn stages_are_added_and_what_came_through_a_gateway_is_left_out() {
        let reading = parse(PAGE).unwrap();
        assert_eq!((reading.running, reading.waiting, reading.capacity), (3.0, 5.0, 8.0));
        assert_eq!((reading.arrived, reading.finished, reading.generated), (Some(20.0), Some(5.0), Some(90.0)));
    }

    #[test]
    fn a_missing_counter_is_unknown_not_zero() {
        assert_eq!(parse(PAGE).unwrap().refused, None);
    }

    #[test]
    fn a_missing_or_broken_gauge_makes_the_page_unusable() {
        for gone in ["vlm_requests_running", "vlm_requests_waiting", "vlm_requests_capacity"] {
            let page: String = PAGE.lines().filter(|l| !l.contains(gone)).fold(String::new(), |a, l| a + l + "\n");
            assert!(matches!(parse(&page), Err(ReadingError::Missing(name)) if name == gone));
        }
        assert!(parse(&PAGE.replace("} 3", "} NaN")).is_err());
        assert!(parse("").is_err());
    }
}
