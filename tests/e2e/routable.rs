//! A replica is ready only once a gateway has reached it with a picture.

use serde_json::{Value, json};
use vlm_tests::cluster::condition;
use vlm_tests::provoked::Provoked;
use vlm_tests::space::Space;

use crate::load::{Load, long_question};
use crate::zero::{gateway, named};

const CONDITION: &str = "vlm-operator.dev/routable";

fn time(object: &Value, kind: &str) -> String {
    condition(object, kind)["lastTransitionTime"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_is_ready_after_a_gateway_has_reached_it_and_rollouts_wait_for_that() {
    let space = Space::with_model("t-routable").await;
    space.apply(&json!({"replicas": 1})).unwrap();
    space.await_ready().await;
    let load = Load::start(&gateway(), 2, &named(&space, long_question(20)));
    // A change that reaches the pods: the old one answers until the new one was reached.
    space.apply(&json!({"replicas": 2, "drain": {"timeoutSeconds": 20}})).unwrap();
    vlm_tests::streams::await_settled(&space, 2).await;
    let (answered, failures) = load.stop().await;
    assert!(failures.is_empty() && answered > 0, "{answered} answered, failed: {failures:?}");
    for pod in space.pods() {
        assert_eq!(pod["spec"]["readinessGates"], json!([{"conditionType": CONDITION}]));
        let routable = condition(&pod, CONDITION);
        assert_eq!(
            (&routable["status"], &routable["reason"]),
            (&json!("True"), &json!("PictureAnswered")),
            "{routable}"
        );
        let (containers, reached, ready) = (time(&pod, "ContainersReady"), time(&pod, CONDITION), time(&pod, "Ready"));
        assert!(containers <= reached && reached <= ready, "{containers} {reached} {ready}");
        let address = pod["status"]["podIP"].as_str().unwrap();
        let page = reqwest::get(format!("http://{address}:8000/metrics")).await.unwrap().text().await.unwrap();
        assert!(!page.contains("vlm_requests_arrived_total{via=\"gateway\"} 0"), "{page}");
        assert!(page.contains("vlm_requests_arrived_total{via=\"direct\"} 0"), "{page}");
    }
    space.close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_cannot_answer_a_picture_gets_no_users_and_says_why() {
    let case = Provoked::with_model("t-not-routable").await;
    // It serves, but no picture has room in 16 tokens.
    let words = ["answered a picture with 400", "16", "pod tiny-llava-"];
    case.fails(&json!({"context": {"maxTokens": 16}}), "NotRoutable", false, &words).await;
    let pod = case.space.pods().remove(0);
    let (containers, ready) = (condition(&pod, "ContainersReady"), condition(&pod, "Ready"));
    assert_eq!((&containers["status"], &ready["status"]), (&json!("True"), &json!("False")));
    assert_eq!(ready["reason"], "ReadinessGatesNotReady", "{ready}");
    assert_eq!(condition(&pod, CONDITION)["status"], "False");
    let from = case.watch.len();
    case.space.apply(&json!({"context": {"maxTokens": 512}})).unwrap();
    case.recovers(from, "NotRoutable").await;
}
