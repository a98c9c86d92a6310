//! The state that a sequence of edits leads to, held against that of a fresh object after each: no
//! order of edits may leave anything behind. After Gu et al., "Acto: Automatic End-to-End Testing for
//! Operation Correctness of Cloud System Management" (SOSP 2023).

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::cluster::{await_that, cluster, kubectl};
use crate::edits::{Random, edit};
use crate::made_up::{node, placed};
use crate::space::Space;
use crate::watch::{Watch, models};

const NAME: &str = "edited";
/// Namespaces in which fresh objects are made by turns, so that none waits for the end of the last.
const FRESH: usize = 4;

/// Makes `count` edits and returns a sentence for each that led elsewhere than a fresh object.
pub async fn run(space: &Space, count: usize, seed: u64, mut progress: impl FnMut(usize)) -> Vec<String> {
    node().await;
    let mut fresh = Vec::new();
    for i in 0..FRESH {
        let space = Space::empty(&format!("{}-fresh-{i}", space.name)).await;
        space.add_claim();
        fresh.push(space);
    }
    for Space { name, .. } in fresh.iter().chain([space]) {
        let bound = ["wait", "pvc/tiny-llava", "-n", name, "--for=jsonpath={.status.phase}=Bound", "--timeout=30s"];
        kubectl(&bound).expect("a bound claim");
    }
    let (mut random, mut spec, mut wrong) = (Random(seed), json!({"model": {"uri": "pvc://tiny-llava/a"}}), Vec::new());
    for step in 0..count {
        edit(&mut spec, &mut random);
        let other = &fresh[step % FRESH];
        clear(other).await;
        let (edited, new) = tokio::join!(observed(space, &spec), observed(other, &spec));
        if edited != new {
            wrong.push(format!("after edit {step}, {spec}: edited {edited}, fresh {new}"));
        }
        progress(step + 1);
    }
    for space in fresh {
        space.close();
    }
    wrong
}

/// Applies the spec as a user does, and returns what the operator made of it.
async fn observed(space: &Space, spec: &Value) -> Value {
    let watch = Watch::start(&space.name, NAME).await;
    let mut manifest = space.manifest(&json!({}));
    manifest["metadata"]["name"] = json!(NAME);
    manifest["spec"] = placed(spec, false);
    let params = PatchParams::apply("user").force();
    let applied = models(&space.name).await.patch(NAME, &params, &Patch::Apply(&manifest)).await;
    let generation = applied.unwrap_or_else(|e| panic!("{spec}: {e}")).metadata.generation;
    // Where there is a memory to fit into, the checkpoint is looked at first.
    let judged = spec.pointer("/gpu").is_some() || spec.pointer("/pod/resources/limits/memory").is_some();
    let done = |object: &Value| {
        object["status"]["observedGeneration"].as_i64() >= generation && (!judged || !object["status"]["fit"].is_null())
    };
    // The edit of a field that it already had changes nothing, and no state follows.
    let now = models(&space.name).await.get(NAME).await.expect("the model");
    let now = serde_json::to_value(now).expect("JSON");
    let model = if done(&now) {
        now
    } else {
        watch.until("the spec is observed", 0, 30, |seen| done(&seen.object)).await.object
    };
    state(space, &model).await
}

/// What the spec determines of the children and of the status.
async fn state(space: &Space, model: &Value) -> Value {
    let client = cluster().await;
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), &space.name);
    let services: Api<Service> = Api::namespaced(client.clone(), &space.name);
    let budgets: Api<PodDisruptionBudget> = Api::namespaced(client, &space.name);
    let (deployment, service, budget) = tokio::join!(deployments.get(NAME), services.get(NAME), budgets.get(NAME));
    let mut deployment = serde_json::to_value(deployment.expect("deployment")).expect("JSON");
    let mut service = serde_json::to_value(service.expect("service")).expect("JSON");
    let budget = serde_json::to_value(budget.expect("budget")).expect("JSON");
    // It is made of what is compared here.
    deployment["spec"]["template"]["metadata"]["annotations"]["vlm-operator.dev/template"].take();
    for address in ["clusterIP", "clusterIPs"] {
        service["spec"][address] = Value::Null;
    }
    let (spec, replicas) = (&model["spec"], deployment["spec"]["replicas"].take());
    let replicas = if spec["replicas"].is_null() {
        // The autoscaler has a memory; the limits hold whatever it remembers.
        let least = spec["scaling"]["minReplicas"].as_i64().unwrap_or(1);
        let most = spec["scaling"]["maxReplicas"].as_i64().unwrap_or(1).max(least);
        json!(replicas.as_i64().is_some_and(|n| (least..=most).contains(&n)))
    } else {
        replicas
    };
    let of = |object: &Value| {
        let owners = object["metadata"]["ownerReferences"].as_array().cloned().unwrap_or_default();
        let owners: Vec<_> = owners.into_iter().map(|o| json!([o["kind"], o["name"], o["controller"]])).collect();
        json!({"labels": object["metadata"]["labels"], "owners": owners, "spec": object["spec"]})
    };
    let state = json!({"deployment": of(&deployment), "service": of(&service), "budget": of(&budget),
        "replicas": replicas, "resolved": model["status"]["resolved"], "selector": model["status"]["selector"]});
    // The one value that tells where the model is: the name by which the gateway asks for it.
    let whole_name = format!("{}/{NAME}", space.name);
    serde_json::from_str(&state.to_string().replace(&whole_name, NAME)).expect("JSON")
}

/// Deletes the fresh object of an earlier turn and waits until its children are gone.
async fn clear(space: &Space) {
    let api = models(&space.name).await;
    let _ = api.delete(NAME, &DeleteParams::background()).await;
    let client = cluster().await;
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), &space.name);
    let services: Api<Service> = Api::namespaced(client, &space.name);
    await_that("the last fresh object is gone", 60, || async {
        let all = ListParams::default();
        let (models, deployments, services) = tokio::join!(api.list(&all), deployments.list(&all), services.list(&all));
        let left = models.map_or(1, |l| l.items.len())
            + deployments.map_or(1, |l| l.items.len())
            + services.map_or(1, |l| l.items.len());
        if left == 0 { Ok(()) } else { Err(format!("{left} objects")) }
    })
    .await;
}
