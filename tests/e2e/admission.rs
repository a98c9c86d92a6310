//! What the API server itself refuses, and in which words.

use kube::api::{PostParams, Request};
use serde_json::{Value, json};
use vlm_tests::cluster::{cluster, kubectl};
use vlm_tests::space::Space;
use vlm_tests::tools::{documents, root};

/// Lays `over` over `base`; null removes a field, and the word LONG stands for a long text.
fn lay(base: &mut Value, over: &Value) {
    match over {
        Value::Object(fields) => {
            for (name, value) in fields {
                if value.is_null() {
                    base.as_object_mut().unwrap().remove(name);
                } else if value.as_object().is_some_and(serde_json::Map::is_empty) {
                    base[name] = json!({});
                } else {
                    lay(&mut base[name], value);
                }
            }
        }
        Value::String(text) if text == "LONG" => *base = json!("x".repeat(5000)),
        other => *base = other.clone(),
    }
}

/// Creates an object without keeping it, as kubectl does: unknown fields are errors. The refusal, if any.
async fn refusal(space: &Space, manifest: &Value) -> Option<String> {
    let url = format!("/apis/vlm-operator.dev/v1alpha1/namespaces/{}/visionmodels", space.name);
    let params = PostParams { dry_run: true, ..PostParams::default() };
    let mut request = Request::new(url).create(&params, manifest.to_string().into_bytes()).unwrap();
    *request.uri_mut() = format!("{}&fieldValidation=Strict", request.uri()).parse().unwrap();
    match cluster().await.request::<Value>(request).await {
        Ok(_) => None,
        Err(kube::Error::Api(status)) => Some(status.message),
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_wrong_manifest_is_refused_with_a_sentence_that_names_the_field_and_the_limit() {
    let space = Space::empty("t-admission").await;
    let rows = std::fs::read_to_string(root().join("tests/e2e/refused.yaml")).unwrap();
    let rows: Vec<Value> = serde_yaml::from_str(&rows).unwrap();
    assert!(rows.len() >= 40, "{}", rows.len());
    assert_eq!(refusal(&space, &space.manifest(&json!({}))).await, None, "the manifest below all rows is valid");
    let mut wrong = Vec::new();
    for row in rows {
        let mut manifest = space.manifest(&json!({}));
        lay(&mut manifest["spec"], &row["spec"]);
        if row["name"].is_string() {
            manifest["metadata"]["name"] = row["name"].clone();
        }
        let said = refusal(&space, &manifest).await.unwrap_or_else(|| "accepted".to_owned());
        let words = row["says"].as_array().unwrap().iter().map(|w| w.as_str().unwrap());
        let missing: Vec<_> = words.filter(|word| !said.contains(word)).collect();
        if !missing.is_empty() {
            wrong.push(format!("{}: {missing:?} not in: {said}", row["spec"]));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    space.close();
}

#[tokio::test]
async fn kubectl_explains_every_field() {
    let space = Space::empty("t-explain").await;
    let text = kubectl(&["explain", "visionmodel.spec", "--recursive"]).unwrap();
    for field in [
        "model",
        "uri",
        "quantization",
        "gpu",
        "context",
        "maxTokens",
        "kvCacheDtype",
        "scaling",
        "minReplicas",
        "queueDepth",
        "drain",
        "pod",
    ] {
        assert!(text.contains(field), "{field} is missing from kubectl explain:\n{text}");
    }
    for (field, words) in [
        ("spec.model.uri", "pvc://CLAIM/PATH"),
        ("spec.rollout.progressDeadlineSeconds", "Default 1800"),
        ("spec.scaling.target", "rounded up"),
        ("spec.gpu.type", "such as nvidia-l4"),
        ("spec.quantization", "int8 and int4 take"),
        ("status.cost.perHour", "US dollars an hour"),
        ("status.fit.breakdown", "What requiredBytes is made of"),
        ("status.failures", "most actionable first"),
    ] {
        let text = kubectl(&["explain", &format!("visionmodel.{field}")]).unwrap();
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains(words), "{field}: {text}");
    }
    space.close();
}

#[tokio::test]
async fn the_status_of_a_new_object_says_that_nobody_has_looked_yet() {
    let space = Space::empty("t-default").await;
    let manifest = space.manifest(&json!({}));
    let out = {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), manifest.to_string()).unwrap();
        kubectl(&["create", "--dry-run=server", "-o", "json", "-f", file.path().to_str().unwrap()]).unwrap()
    };
    let object: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(object["status"]["observedGeneration"], -1, "{object}");
    space.close();
}

#[tokio::test]
async fn every_example_is_accepted() {
    let space = Space::empty("t-examples").await;
    let mut seen = 0;
    for entry in std::fs::read_dir(root().join("examples")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        for mut object in documents(&std::fs::read_to_string(&path).unwrap()) {
            if object["kind"] == "VisionModel" {
                object["metadata"]["namespace"] = json!(space.name);
                assert_eq!(refusal(&space, &object).await, None, "{}", path.display());
                seen += 1;
            }
        }
    }
    assert!(seen >= 3, "{seen}");
    space.close();
}
