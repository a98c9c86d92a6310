//! What a model's GPUs cost by the price of the catalogue. Pure.

use vlm_catalog::gpu::GpuType;
use vlm_crds::status::Cost;

/// Prices below this are shown to a hundredth of a cent.
const SMALL_USD: f64 = 0.1;

/// US dollars an hour for `replicas` of one GPU each; `None` without a price.
pub(super) fn per_hour(gpu: &GpuType, replicas: i32) -> Option<Cost> {
    let usd = gpu.price.as_ref()?.usd_per_hour * f64::from(replicas.max(0));
    let per_hour = if usd > 0.0 && usd < SMALL_USD { format!("{usd:.4}") } else { format!("{usd:.2}") };
    Some(Cost { per_hour })
}

#[cfg(test)]
mod tests {
    use vlm_catalog::gpu::Price;

    use super::*;

    fn cost(usd_per_hour: Option<f64>, replicas: i32) -> Option<String> {
        let types =
            vlm_catalog::gpu::GpuTypes::parse("a: {memoryBytes: 24152899584, computeCapability: '8.9'}").unwrap();
        let price = usd_per_hour.map(|usd_per_hour| Price { usd_per_hour, source: "us".to_owned() });
        let gpu = GpuType { price, ..types.get("a").unwrap().clone() };
        per_hour(&gpu, replicas).map(|cost| cost.per_hour)
    }

    #[test]
    fn it_is_the_price_times_the_replicas() {
        assert_eq!(cost(Some(0.8048), 1).as_deref(), Some("0.80"));
        assert_eq!(cost(Some(0.8048), 3).as_deref(), Some("2.41"));
        assert_eq!(cost(Some(10_000.0), 1000).as_deref(), Some("10000000.00"));
        assert_eq!(cost(Some(2.5), 0).as_deref(), Some("0.00"));
        assert_eq!(cost(Some(0.0042), 2).as_deref(), Some("0.0084"));
        assert_eq!(cost(None, 3), None);
    }
}
