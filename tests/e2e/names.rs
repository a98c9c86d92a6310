//! Names by which the gateway finds a model, and who has one that several bear.

use serde_json::{Value, json};
use vlm_tests::cluster::{await_that, condition, kubectl};
use vlm_tests::space::Space;

use crate::load::question;
use crate::zero::gateway;

const SHARED: &str = "t-names-shared";
const OWN: &str = "t-names-own";

fn spec(aliases: &[&str]) -> Value {
    json!({"model": {"uri": "pvc://tiny-llava/tiny-llava", "aliases": aliases}})
}

/// Requests that a model's pods got through a gateway.
async fn arrived(space: &Space) -> String {
    let page = reqwest::get(space.address() + "/metrics").await.unwrap().text().await.unwrap();
    let line = page.lines().find(|line| line.starts_with("vlm_requests_arrived_total{via=\"gateway\"}"));
    line.unwrap_or_default().rsplit(' ').next().unwrap_or_default().to_owned()
}

async fn ask(name: &str) -> Result<Value, String> {
    let mut body = question("demo.png", "What is drawn here?", 4);
    body["model"] = json!(name);
    let url = format!("{}/v1/chat/completions", gateway());
    let response = reqwest::Client::new().post(url).json(&body).send().await.map_err(|e| format!("{e:?}"))?;
    let (status, text) = (response.status().as_u16(), response.text().await.map_err(|e| format!("{e:?}"))?);
    if status == 200 {
        serde_json::from_str(&text).map_err(|e| e.to_string())
    } else {
        Err(format!("{status}: {text}"))
    }
}

/// What Available says of names that the model does not have.
fn lost(space: &Space) -> String {
    let available = condition(&space.model(), "Available");
    let conflict = available["reason"] == "AliasConflict" && available["status"] == "True";
    if conflict { available["message"].as_str().unwrap_or_default().to_owned() } else { String::new() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alias_finds_the_oldest_model_that_has_it_and_the_younger_is_told() {
    let old = Space::with_model("t-names-old").await;
    old.apply(&spec(&[SHARED])).unwrap();
    old.await_ready().await;
    let young = Space::with_model("t-names-young").await;
    young.apply(&spec(&[SHARED, OWN])).unwrap();
    young.await_ready().await;
    await_that("the younger is told", 20, || async {
        let lost = lost(&young);
        if lost.contains(SHARED) && lost.contains("t-names-young/tiny-llava") { Ok(()) } else { Err(lost) }
    })
    .await;
    assert!(!lost(&old).contains(SHARED) && !lost(&young).contains(OWN), "{} / {}", lost(&old), lost(&young));
    assert_eq!(condition(&young.model(), "Ready")["status"], "True", "it is served under its other names");
    let listed = reqwest::get(format!("{}/v1/models", gateway())).await.unwrap().text().await.unwrap();
    for name in [SHARED, OWN] {
        assert_eq!(listed.matches(&format!("\"{name}\"")).count(), 1, "{listed}");
    }
    // One picture was the gateway's own.
    assert_eq!(ask(SHARED).await.unwrap()["model"], SHARED);
    assert_eq!((arrived(&old).await, arrived(&young).await), ("2".to_owned(), "1".to_owned()));
    ask(OWN).await.unwrap();
    assert_eq!((arrived(&old).await, arrived(&young).await), ("2".to_owned(), "2".to_owned()));
    // When the older one goes, its name goes to the next.
    kubectl(&["delete", "visionmodel", "tiny-llava", "-n", &old.name]).unwrap();
    await_that("the younger has both names", 60, || async {
        let lost = lost(&young);
        if lost.contains(SHARED) { Err(lost) } else { Ok(()) }
    })
    .await;
    await_that("and is found by them", 20, || ask(SHARED)).await;
    assert!(ask("t-names-young/t-names-own").await.is_err_and(|error| error.starts_with("404")));
    old.close();
    young.close();
}
