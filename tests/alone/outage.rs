//! Short slices of the campaign `outage`: at the peak, what tells the load falls silent, and replicas do not go.

use vlm_tests::outage::{gateway_cut, prometheus_cut};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prometheus_cut_off_at_the_peak_takes_no_replica_away_however_idle_it_gets() {
    println!("{}", prometheus_cut("a-no-prometheus", 20, false).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_cut_off_at_the_peak_takes_no_replica_away() {
    println!("{}", gateway_cut("a-one-gateway").await);
}
