//! Short slices of the campaign `outage`: at the peak, what tells the load falls silent.

use vlm_tests::outage::{gateway_cut, prometheus_cut};

/// That nothing falls however long it lasts is the campaign's to show: what Prometheus says counts for more than a minute.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prometheus_cut_off_at_the_peak_is_told() {
    println!("{}", prometheus_cut("a-no-prometheus", 5, false).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_stands_still_at_the_peak_keeps_the_replicas_however_idle_they_get() {
    println!("{}", gateway_cut("a-one-gateway").await);
}
