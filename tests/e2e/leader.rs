//! The leader is killed in the middle of a decision: another goes on from what is written, and never two write.

use std::time::{Duration, Instant};

use serde_json::json;
use vlm_tests::cluster::{OPERATOR, SYSTEM, await_that, kubectl};
use vlm_tests::idle::Window;
use vlm_tests::space::Space;
use vlm_tests::watch::{Seen, Watch};
use vlm_tests::written::{Written, writers};

use crate::load::{Load, long_question, question};
use crate::recovery::{leader, pod_of};
use crate::zero::{gateway, named, quick};

/// Kills the leading pod at once.
fn kill(holder: &str) {
    kubectl(&["delete", "pod", &pod_of(holder), "-n", SYSTEM, "--grace-period=0", "--force", "--wait=false"]).unwrap();
}

async fn another_leader(than: &str) -> Instant {
    await_that("another leader", 60, || async {
        leader().filter(|holder| holder != than).ok_or_else(|| format!("{than} still holds the lease"))
    })
    .await;
    Instant::now()
}

/// One pod wrote, then another; the first never again.
fn one_after_the_other(window: &Window, space: &Space) {
    let writers = writers(window, &space.name);
    let mut once = writers.clone();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), writers.len(), "two wrote at the same time: {writers:?}");
    println!("written by {writers:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_killed_while_a_model_wakes_loses_no_request_and_no_replica() {
    let _alone = OPERATOR.write().await;
    let space = Space::with_model("t-leader-wake").await;
    let sleepy =
        json!({"stableSeconds": 4, "panicSeconds": 2, "downStabilizationSeconds": 0, "zero": {"idleSeconds": 2}});
    space.apply(&quick(&sleepy)).unwrap();
    space.await_ready().await;
    let written = Written::start(&space.name, "tiny-llava").await;
    written.until("asleep", 60, |n| n == 0).await;
    space.await_condition("Ready", "True", "ScaledToZero", 30).await;
    let (window, first) = (Window::now(), leader().unwrap());
    let watch = Watch::start(&space.name, "tiny-llava").await;
    let sent = Instant::now();
    let body = named(&space, question("demo.png", "What is drawn here?", 4));
    let asking = tokio::spawn(async move {
        let begun = Instant::now();
        let url = format!("{}/v1/chat/completions", gateway());
        let response = reqwest::Client::new().post(url).json(&body).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap(), begun.elapsed())
    });
    let asked = |seen: &Seen| seen.object["status"]["wake"]["requestedAt"].is_string();
    watch.until("a gateway asks for a replica", 0, 30, asked).await;
    // In the middle of it: a replica is ordered or about to be, and another leader must find it reached before it serves.
    kill(&first);
    let (status, text, took) = asking.await.unwrap();
    assert_eq!(written.fall_after(sent), None, "{:?}", written.all());
    assert_eq!(status, 200, "{text}");
    println!("answered after {took:?}");
    one_after_the_other(&window, &space);
    space.close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_killed_while_replicas_rise_takes_none_away_and_its_successor_waits_a_stable_window() {
    let _alone = OPERATOR.write().await;
    let space = Space::with_model("t-leader-scale").await;
    // Nothing but the change of leaders delays the fall by more than 4 s.
    let scaling = json!({"minReplicas": 1, "stableSeconds": 30, "panicSeconds": 4, "downStabilizationSeconds": 4});
    space.apply(&quick(&scaling)).unwrap();
    space.await_ready().await;
    let written = Written::start(&space.name, "tiny-llava").await;
    let (window, first) = (Window::now(), leader().unwrap());
    let load = Load::start(&gateway(), 20, &named(&space, long_question(150)));
    let rising = written.until("it rises", 60, |n| n > 1).await;
    kill(&first);
    let since = another_leader(&first).await;
    written.until("the successor orders the rest", 60, |n| n == 3).await;
    assert_eq!(written.fall_after(rising), None, "{:?}", written.all());
    let (answered, failures) = load.stop().await;
    assert!(failures.is_empty() && answered > 0, "{answered} answered, failed: {failures:?}");
    written.until("back to one", 180, |n| n == 1).await;
    let (_, fell) = written.fall_after(since).unwrap();
    println!("{answered} answered; the first replica went {fell:?} after the change of leaders");
    assert!(fell >= Duration::from_secs(28), "{fell:?}, {:?}", written.all());
    one_after_the_other(&window, &space);
    space.close();
}
