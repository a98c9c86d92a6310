//! What the API server itself refuses, and in which words.

use serde_json::{Value, json};
use vlm_tests::cluster::kubectl;
use vlm_tests::space::Space;

/// A spec fragment, and words that the refusal must contain.
fn refusals() -> Vec<(Value, &'static [&'static str])> {
    vec![
        (json!({"model": {"uri": "ftp://host/model"}}), &["spec.model.uri", "pvc://"]),
        (json!({"model": {"uri": "s3://bucket/model"}}), &["spec.model.uri", "hf://"]),
        (json!({"model": {"uri": "hf://model"}}), &["spec.model.uri", "hf://ORGANISATION/NAME"]),
        (json!({"model": {"uri": "hf://org/model/more"}}), &["spec.model.uri", "hf://ORGANISATION/NAME"]),
        (json!({"model": {"uri": "hf://org/mo..del"}}), &["spec.model.uri", "hf://ORGANISATION/NAME"]),
        (json!({"model": {"uri": "hf://org/model", "revision": "../main"}}), &["spec.model.revision", "branch"]),
        (json!({"model": {"uri": "pvc://c/x", "revision": "main"}}), &["spec.model", "revision", "hf://"]),
        (
            json!({"model": {"uri": "pvc://c/x", "tokenSecretRef": {"name": "a", "key": "b"}}}),
            &["spec.model", "tokenSecretRef", "hf://"],
        ),
        (json!({"model": {"uri": "hf://org/model", "tokenSecretRef": {"name": "a"}}}), &["tokenSecretRef", "key"]),
        (json!({"model": {"uri": "pvc://claim/../other"}}), &["spec.model.uri"]),
        (json!({"model": {"uri": "pvc:///path"}}), &["spec.model.uri", "pvc://"]),
        (json!({"scaling": {"minReplicas": 5, "maxReplicas": 2}}), &["spec.scaling", "minReplicas", "maxReplicas"]),
        (json!({"scaling": {"minReplicas": 0}}), &["spec.scaling.minReplicas"]),
        (json!({"scaling": {"minReplicas": 3}, "replicas": -1}), &["spec.replicas"]),
        (json!({"scaling": {"stableSeconds": 10, "panicSeconds": 60}}), &["panicSeconds", "stableSeconds"]),
        (json!({"scaling": {"target": {"queueDepth": -1}}}), &["spec.scaling.target.queueDepth"]),
        (json!({"context": {"maxTokens": 0}}), &["spec.context.maxTokens"]),
        (json!({"context": {"maxConcurrency": 0}}), &["spec.context.maxConcurrency"]),
        (json!({"drain": {"timeoutSeconds": -5}}), &["spec.drain.timeoutSeconds"]),
        (json!({"quantisation": "int4"}), &["quantisation"]),
        (json!({"model": {"uri": "x".repeat(3000)}}), &["spec.model.uri"]),
        (json!({"pod": {"labels": {"vlm-operator.dev/model": "mine"}}}), &["spec.pod.labels", "vlm-operator.dev"]),
    ]
}

#[tokio::test]
async fn a_wrong_manifest_is_refused_with_a_sentence_that_names_the_field() {
    let space = Space::empty("t-admission").await;
    for (spec, words) in refusals() {
        let refusal = space.apply(&spec).expect_err(&format!("{spec} was accepted"));
        for word in words {
            assert!(refusal.contains(word), "{spec}: {word:?} is missing from: {refusal}");
        }
    }
    assert_eq!(kubectl(&["get", "visionmodels", "-n", &space.name, "-o", "name"]).unwrap(), "");
    space.close();
}

#[tokio::test]
async fn kubectl_explains_every_field() {
    let space = Space::empty("t-explain").await;
    let text = kubectl(&["explain", "visionmodel.spec", "--recursive"]).unwrap();
    for field in ["model", "uri", "context", "maxTokens", "scaling", "minReplicas", "queueDepth", "drain", "pod"] {
        assert!(text.contains(field), "{field} is missing from kubectl explain:\n{text}");
    }
    let uri = kubectl(&["explain", "visionmodel.spec.model.uri"]).unwrap();
    assert!(uri.contains("pvc://"), "{uri}");
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
