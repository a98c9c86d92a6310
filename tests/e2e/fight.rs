//! Other writers: none of them and the operator undo each other's work without end.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use vlm_tests::cluster::{OPERATOR, await_that, get, kubectl};
use vlm_tests::idle::Window;
use vlm_tests::made_up::{manifest, node};
use vlm_tests::space::Space;
use vlm_tests::watch::Watch;

/// A model that serves on the made-up node.
async fn serving(name: &str, spec: &Value) -> (Space, Watch, Value) {
    let space = Space::with_model(name).await;
    node().await;
    let watch = Watch::start(&space.name, "tiny-llava").await;
    let manifest = manifest(&space, "tiny-llava", spec, false);
    vlm_tests::cluster::apply(&manifest.to_string()).unwrap();
    watch.until_ready_is("True", "", 0, 60).await;
    (space, watch, manifest)
}

/// The operator's writes in the space since the window began.
fn by_operator(window: &Window, space: &Space) -> Vec<String> {
    vlm_tests::idle::writes(window, |e| {
        e["user"]["username"].as_str().is_some_and(|u| u.ends_with(":vlm-operator"))
            && e["objectRef"]["namespace"] == space.name.as_str()
    })
}

#[tokio::test]
async fn applying_the_same_manifest_again_changes_nothing() {
    let _undisturbed = OPERATOR.read().await;
    let (space, watch, manifest) = serving("t-apply-again", &json!({"replicas": 1})).await;
    let window = Window::after_settling(&space, 0).await;
    let states = watch.len();
    for _ in 0..3 {
        let said = vlm_tests::cluster::apply(&manifest.to_string()).unwrap();
        assert!(said.contains("unchanged"), "{said}");
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(by_operator(&window, &space), Vec::<String>::new());
    assert_eq!(watch.len(), states, "the object changed");
    space.close();
}

#[tokio::test]
async fn a_second_field_manager_keeps_what_is_its_own_and_loses_the_rest_once() {
    let _undisturbed = OPERATOR.read().await;
    let (space, watch, _) = serving("t-second-manager", &json!({"replicas": 1})).await;
    let window = Window::after_settling(&space, 0).await;
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "tiny-llava", "namespace": space.name, "labels": {"team": "vision"},
                     "annotations": {"owner": "vision"}},
        "spec": {"replicas": 3, "progressDeadlineSeconds": 77},
    });
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), deployment.to_string()).unwrap();
    let path = file.path().to_str().unwrap();
    kubectl(&["apply", "--server-side", "--field-manager=other", "--force-conflicts", "-f", path]).unwrap();
    await_that("the operator's fields are back", 10, || async {
        let found = get("deployment", "tiny-llava", &space.name).unwrap();
        let spec = &found["spec"];
        let ours = spec["replicas"] == 1 && spec["progressDeadlineSeconds"] == 1800;
        let theirs =
            found["metadata"]["labels"]["team"] == "vision" && found["metadata"]["annotations"]["owner"] == "vision";
        if ours && theirs { Ok(()) } else { Err(found["metadata"].to_string() + &spec["replicas"].to_string()) }
    })
    .await;
    watch.until_ready_is("True", "", watch.len() - 1, 30).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let deployments = by_operator(&window, &space).into_iter().filter(|w| w.contains("deployments")).count();
    assert!(deployments <= 2, "{:?}", by_operator(&window, &space));
    space.close();
}

#[tokio::test]
async fn a_deleted_child_is_back_within_a_second() {
    let _undisturbed = OPERATOR.read().await;
    let (space, _watch, _) = serving("t-child-back", &json!({"replicas": 1})).await;
    let client = vlm_tests::cluster::cluster().await;
    for kind in ["Deployment", "Service", "PodDisruptionBudget"] {
        let uid = |object: &kube::api::DynamicObject| object.metadata.uid.clone();
        let resource = match kind {
            "Deployment" => kube::api::ApiResource::erase::<k8s_openapi::api::apps::v1::Deployment>(&()),
            "Service" => kube::api::ApiResource::erase::<k8s_openapi::api::core::v1::Service>(&()),
            _ => kube::api::ApiResource::erase::<k8s_openapi::api::policy::v1::PodDisruptionBudget>(&()),
        };
        let api: kube::Api<kube::api::DynamicObject> =
            kube::Api::namespaced_with(client.clone(), &space.name, &resource);
        // Nothing else that happens to the model may lead to the repair.
        Window::after_settling(&space, 0).await;
        let before = uid(&api.get("tiny-llava").await.unwrap());
        let begun = Instant::now();
        api.delete("tiny-llava", &kube::api::DeleteParams::background()).await.unwrap();
        loop {
            let found = api.get_opt("tiny-llava").await.unwrap();
            if found.is_some_and(|object| uid(&object) != before) {
                break;
            }
            assert!(begun.elapsed() < Duration::from_secs(10), "{kind} is not back");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        println!("{kind} is back after {:?}", begun.elapsed());
    }
    space.close();
}
