//! Scrapes one gateway: what it holds, and what arrived there, of every model. A series that is missing is unknown.

use std::collections::HashMap;

use prometheus_parse::{Scrape, Value};
use reqwest::Client;
use vlm_contract::metrics::{GATEWAY_REQUESTS_ARRIVED, GATEWAY_REQUESTS_HELD, GATEWAY_REQUESTS_REFUSED};

use super::page::{PageError, fetch};

/// A dozen series for each of many thousand models.
const PAGE_MAX: usize = 32 << 20;

/// What one gateway says of one model.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct GatewayReading {
    /// Requests that wait there.
    pub held: f64,
    /// Counter of requests that arrived, refused ones included.
    pub arrived: f64,
    /// Counter of refused requests.
    pub refused: f64,
}

/// What one gateway says, by namespace and name of the model.
pub type GatewayPage = HashMap<(String, String), GatewayReading>;

/// Why a gateway could not be read.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// There is no page.
    #[error("the gateway cannot be read")]
    Fetch(#[source] PageError),
    /// Its answer is not Prometheus text.
    #[error("the page is unusable")]
    Text(#[source] std::io::Error),
}

/// Reads `/metrics` of the gateway at `address`, an IP address. The client has the time limit.
pub async fn scrape(http: &Client, address: &str, port: u16) -> Result<GatewayPage, GatewayError> {
    let page = fetch(http, address, port, PAGE_MAX).await.map_err(GatewayError::Fetch)?;
    parse(&page).map_err(GatewayError::Text)
}

/// Reads a page. A model of which a series is missing or not a number is left out.
fn parse(page: &str) -> Result<GatewayPage, std::io::Error> {
    let wanted = [GATEWAY_REQUESTS_HELD, GATEWAY_REQUESTS_ARRIVED, GATEWAY_REQUESTS_REFUSED];
    let of_models = |line: &&str| line.starts_with("# TYPE") || wanted.iter().any(|name| line.starts_with(name));
    let scrape = Scrape::parse(page.lines().filter(of_models).map(|line| Ok(line.to_owned())))?;
    let mut found: HashMap<(String, String), [Option<f64>; 3]> = HashMap::new();
    for sample in &scrape.samples {
        let Some(which) = wanted.iter().position(|name| *name == sample.metric) else { continue };
        let (Some(namespace), Some(model)) = (sample.labels.get("namespace"), sample.labels.get("model")) else {
            continue;
        };
        let (Value::Gauge(value) | Value::Counter(value) | Value::Untyped(value)) = sample.value else { continue };
        let sum = &mut found.entry((namespace.to_owned(), model.to_owned())).or_default()[which];
        *sum = Some(sum.unwrap_or(0.0) + value);
    }
    let whole = found.into_iter().filter_map(|(model, sums)| {
        let [held, arrived, refused] = sums.map(|sum| sum.filter(|sum| sum.is_finite()));
        Some((model, GatewayReading { held: held?, arrived: arrived?, refused: refused? }))
    });
    Ok(whole.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "\
# TYPE vlm_gateway_requests_held gauge
vlm_gateway_requests_held{model=\"tiny\",namespace=\"shop\"} 3
vlm_gateway_requests_held{model=\"half\",namespace=\"shop\"} 1
# TYPE vlm_gateway_requests_arrived_total counter
vlm_gateway_requests_arrived_total{model=\"tiny\",namespace=\"shop\"} 20
# TYPE vlm_gateway_requests_refused_total counter
vlm_gateway_requests_refused_total{model=\"tiny\",namespace=\"shop\",reason=\"queue_full\"} 2
vlm_gateway_requests_refused_total{model=\"tiny\",namespace=\"shop\",reason=\"waited_too_long\"} 1
";

    fn tiny(page: &str) -> Option<GatewayReading> {
        parse(page).unwrap().remove(&("shop".to_owned(), "tiny".to_owned()))
    }

    #[test]
    fn reasons_are_added_and_models_told_apart() {
        assert_eq!(tiny(PAGE), Some(GatewayReading { held: 3.0, arrived: 20.0, refused: 3.0 }));
        assert_eq!(parse(PAGE).unwrap().len(), 1, "of the other model, too little is known");
    }

    #[test]
    fn a_missing_series_is_unknown_and_not_zero() {
        for gone in ["requests_held{model=\"tiny\"", "arrived_total{", "refused_total{"] {
            let page: String = PAGE.lines().filter(|l| !l.contains(gone)).fold(String::new(), |a, l| a + l + "\n");
            assert_eq!(tiny(&page), None, "{gone}");
        }
        assert_eq!(tiny(&PAGE.replace("} 20", "} NaN")), None);
        assert!(parse("").unwrap().is_empty());
    }
}
