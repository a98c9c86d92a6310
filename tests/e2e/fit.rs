//! The fit, before any pod of a model is made: what does not fit gets none and says what would; what fits is served
//! with the numbers that it came to.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use vlm_tests::cluster::{OPERATOR, SYSTEM, await_that, condition, get, kubectl, list};
use vlm_tests::hub::{self, PUBLIC};
use vlm_tests::idle::{Window, writes};
use vlm_tests::provoked::Provoked;
use vlm_tests::space::Space;
use vlm_tests::watch::{Seen, Watch};

use crate::weights::answers;

/// A verdict without a look by a pod, though all other tests run meanwhile; alone it is far below.
const SOON: Duration = Duration::from_secs(5);

fn limited(memory: &str, fields: &Value) -> Value {
    let resources = json!({"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"cpu": "1", "memory": memory}});
    let mut spec = json!({"replicas": 1, "pod": {"resources": resources}});
    for (name, value) in fields.as_object().unwrap() {
        spec[name] = value.clone();
    }
    spec
}

/// The pods that look at checkpoints.
fn looking(space: &Space) -> Vec<Value> {
    list("pods", &space.name, "vlm-operator.dev/inspects=tiny-llava")
}

fn message(seen: &Seen, kind: &str) -> String {
    condition(&seen.object, kind)["message"].as_str().unwrap_or_default().to_owned()
}

/// Checks a verdict that it does not fit.
fn check_unfit(seen: &Seen) {
    let object = &seen.object;
    let (said, fit) = (message(seen, "Ready"), &object["status"]["fit"]);
    for words in ["it does not fit", "container's limit of", "what would fit: ", "a memory limit of "] {
        assert!(said.contains(words), "{words} is missing from: {said}");
    }
    assert_eq!(condition(object, "Stalled")["reason"], "DoesNotFit");
    assert_eq!(condition(object, "FitsGPU")["status"], "False");
    assert_eq!(fit["verdict"], "DoesNotFit");
    assert!(fit["requiredBytes"].as_i64() > fit["availableBytes"].as_i64(), "{fit}");
    assert!(said.ends_with(fit["suggestion"].as_str().unwrap()), "{fit}");
}

/// The server's value of a flag, by the pod that runs.
fn flag(space: &Space, name: &str) -> Option<String> {
    let pod = space.pods().into_iter().find(|pod| pod["metadata"]["deletionTimestamp"].is_null()).unwrap();
    let arguments = pod["spec"]["containers"][0]["args"].as_array().unwrap().clone();
    let at = arguments.iter().position(|argument| argument == name)?;
    arguments[at + 1].as_str().map(ToOwned::to_owned)
}

async fn none_looks(space: &Space) {
    await_that("no pod looks any more", 20, || async {
        let pods = looking(space);
        if pods.is_empty() { Ok(()) } else { Err(format!("{} pods", pods.len())) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_fit_starts_no_pod_and_the_mend_serves_with_what_fits() {
    let case = Provoked::with_model("t-fit-claim").await;
    let (space, watch) = (&case.space, &case.watch);
    space.apply(&limited("256Mi", &json!({}))).unwrap();
    let inspecting = watch.until_ready_is("False", "Inspecting", 0, 60).await;
    assert_eq!(condition(&inspecting.object, "Reconciling")["status"], "True");
    let seen = watch.until_ready_is("False", "DoesNotFit", 0, 60).await;
    println!("looked at and judged within {:?}", seen.at.duration_since(inspecting.at));
    check_unfit(&seen);
    assert!(get("deployment", "tiny-llava", &space.name).is_none() && space.pods().is_empty());
    none_looks(space).await;

    let from = watch.len();
    space.apply(&limited("1Gi", &json!({"context": {"kvCacheDtype": "int8"}}))).unwrap();
    let seen = case.recovered(from, "DoesNotFit").await;
    let status = &seen.object["status"];
    assert_eq!(condition(&seen.object, "FitsGPU")["reason"], "Fits");
    let resolved = &status["resolved"];
    assert_eq!(
        [&resolved["architecture"], &resolved["quantization"], &resolved["maxTokens"], &resolved["maxConcurrency"]],
        [&json!("LLaVA-1.5"), &json!("none"), &json!(1024), &json!(8)]
    );
    // All that is left of the share of the limit, and the cache's spare block.
    let bytes = |field: &str| status["fit"]["breakdown"][field].as_i64().unwrap();
    let left = status["fit"]["availableBytes"].as_i64().unwrap() - status["fit"]["requiredBytes"].as_i64().unwrap();
    let kv = left + bytes("kvBytes") + bytes("kvBytes") / 1024 * 32;
    assert_eq!(flag(space, "--kv-bytes"), Some(kv.to_string()));
    assert_eq!(flag(space, "--max-tokens").as_deref(), Some("1024"));
    assert_eq!(flag(space, "--kv-cache-dtype").as_deref(), Some("int8"));
    answers(space).await;
    none_looks(space).await;

    // What serves goes on serving when the next spec does not fit.
    let from = watch.len();
    space.apply(&limited("256Mi", &json!({}))).unwrap();
    let seen = watch.until_ready_is("False", "DoesNotFit", from, 60).await;
    assert_eq!(condition(&seen.object, "Available")["status"], "True");
    assert!(flag(space, "--kv-bytes").is_some());
    answers(space).await;
    case.space.close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_of_the_hub_is_judged_at_once_and_auto_takes_what_fits() {
    hub::start().await;
    let case = Provoked::within(Space::empty("t-fit-hub").await).await;
    let (space, watch) = (&case.space, &case.watch);
    let begun = Instant::now();
    space.apply(&limited("300Mi", &json!({"model": {"uri": PUBLIC}}))).unwrap();
    let seen = watch.until_ready_is("False", "DoesNotFit", 0, 60).await;
    println!("judged {:?} after the apply", seen.at.duration_since(begun));
    assert!(seen.at.duration_since(begun) < SOON);
    check_unfit(&seen);
    assert!(looking(space).is_empty() && space.pods().is_empty(), "nobody has to look from inside");

    // A limit between what int8 and what 32 bits need.
    let limit = between(&seen.object["status"]["fit"]);
    let from = watch.len();
    space.apply(&limited(&limit, &json!({"model": {"uri": PUBLIC}, "quantization": "none"}))).unwrap();
    check_unfit(&watch.until_ready_is("False", "DoesNotFit", from, 30).await);
    let from = watch.len();
    space.apply(&limited(&limit, &json!({"model": {"uri": PUBLIC}, "quantization": "auto"}))).unwrap();
    // Still the same reason after an edit that mends nothing: one Event.
    let seen = case.recovered(from, "DoesNotFit").await;
    let said = message(&seen, "FitsGPU");
    assert!(said.contains("quantization int8 was chosen") && said.contains("not with none"), "{said}");
    assert_eq!(seen.object["status"]["resolved"]["quantization"], "int8");
    assert_eq!(flag(space, "--quantization").as_deref(), Some("int8"));
    answers(space).await;
    assert!(kubectl(&["get", "vlm", "-n", &space.name]).unwrap().contains("int8"));
    case.space.close();
}

/// A memory limit a little below what the unquantised model needs.
fn between(fit: &Value) -> String {
    let required = fit["requiredBytes"].as_u64().unwrap();
    (required * 100 / 92 - (2 << 20)).to_string()
}

/// How often the operator has made a pod in the space.
fn made(window: &Window, space: &Space) -> usize {
    let by_operator = |entry: &Value| {
        entry["user"]["username"].as_str().is_some_and(|user| user.ends_with(":vlm-operator"))
            && entry["objectRef"]["namespace"] == space.name.as_str()
            && entry["objectRef"]["resource"] == "pods"
            && entry["verb"] == "create"
    };
    writes(window, by_operator).len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_leader_looks_at_nothing_again() {
    let _alone = OPERATOR.write().await;
    let space = Space::with_model("t-fit-leader").await;
    let window = Window::now();
    space.apply(&limited("1Gi", &json!({}))).unwrap();
    space.await_ready().await;
    assert_eq!(made(&window, &space), 1);
    let before = (space.pods()[0]["metadata"]["uid"].clone(), space.model()["status"]["checkpoint"].clone());
    let selector = "app.kubernetes.io/name=vlm-operator";
    kubectl(&["delete", "pods", "-n", SYSTEM, "-l", selector, "--grace-period=0", "--force"]).unwrap();
    // The new one acts, with another limit too.
    space.apply(&limited("900Mi", &json!({"drain": {"timeoutSeconds": 33}}))).unwrap();
    await_that("the change reaches the Deployment", 90, || async {
        let deployment = get("deployment", "tiny-llava", &space.name).unwrap();
        let grace = &deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"];
        if *grace == 48 { Ok(()) } else { Err(grace.to_string()) }
    })
    .await;
    space.await_ready().await;
    assert_eq!(made(&window, &space), 1, "the status had the answer");
    assert_eq!(space.model()["status"]["checkpoint"], before.1);
    space.close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_lies_on_a_claim_is_looked_at_anew_when_it_did_not_fit_and_the_spec_changes() {
    let space = Space::with_model("t-fit-replaced").await;
    let config = space.volume().join("tiny-llava/config.json");
    let good = std::fs::read_to_string(&config).unwrap();
    // A checkpoint whose description asks for far more, as headers that belong to it would.
    let weights = space.volume().join("tiny-llava/model.safetensors");
    let bytes = std::fs::read(&weights).unwrap();
    std::fs::remove_file(&weights).unwrap();
    std::fs::write(space.volume().join("tiny-llava/pytorch_model.bin"), b"not read").unwrap();
    std::fs::write(&config, good.replace("\"num_hidden_layers\": 4", "\"num_hidden_layers\": 900")).unwrap();
    let watch = Watch::start(&space.name, "tiny-llava").await;
    space.apply(&limited("1Gi", &json!({}))).unwrap();
    watch.until_ready_is("False", "DoesNotFit", 0, 60).await;
    std::fs::remove_file(space.volume().join("tiny-llava/pytorch_model.bin")).unwrap();
    std::fs::write(&weights, bytes).unwrap();
    std::fs::write(&config, good).unwrap();
    let from = watch.len();
    space.apply(&limited("1Gi", &json!({"drain": {"timeoutSeconds": 30}}))).unwrap();
    watch.until_ready_is("True", "", from, 90).await;
    space.close();
}
