//! From what is known to what is done.

use serde_json::{Value, json};
use vlm_catalog::{inspection::Found, quantization::Quantization};

use super::*;

struct Scene {
    model: VisionModel,
    previous: VisionModelStatus,
    observed: Observed,
    revision: Revision,
    wanted: Wanted,
    /// There is a gateway.
    gated: bool,
}

fn inspection() -> Inspection {
    let path = format!("{}/../catalog/tests/models/InternVL2-1B.json", env!("CARGO_MANIFEST_DIR"));
    let raw = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let found =
        Found { revision: Some("c0ffee".to_owned()), weight_bytes: None, tensors: None::<Vec<(&str, &[usize])>> };
    Inspection::new(&raw, found).unwrap()
}

impl Scene {
    fn new(spec: &Value) -> Self {
        let model = json!({
            "apiVersion": "vlm-operator.dev/v1alpha1", "kind": "VisionModel",
            "metadata": {"name": "tiny", "namespace": "shop", "uid": "u1", "generation": 1},
            "spec": spec,
        });
        Self {
            model: serde_json::from_value(model).unwrap(),
            previous: VisionModelStatus::default(),
            observed: Observed { claim_exists: true, ..Observed::default() },
            revision: Revision::Unasked,
            wanted: Wanted::Cpu,
            gated: false,
        }
    }

    fn on_claim(memory: &str) -> Self {
        Self::new(
            &json!({"model": {"uri": "pvc://weights/tiny"}, "pod": {"resources": {"limits": {"memory": memory}}}}),
        )
    }

    fn told(mut self) -> Self {
        self.previous.checkpoint = inspect::note(&self.model, &self.previous, &inspection());
        self
    }

    fn outline(&self) -> Outline {
        Outline::of(Known {
            model: &self.model,
            previous: &self.previous,
            observed: &self.observed,
            settings: &Settings {
                runtime_image: "i".to_owned(),
                runtime_cuda_image: "cuda".to_owned(),
                image_pull_policy: "Always".to_owned(),
                hub_endpoint: None,
                gateway_public_key: None,
                gated: self.gated,
            },
            types: &GpuTypes::default(),
            revision: &self.revision,
            wanted: &self.wanted,
            replicas: 1,
            now: "2026-01-01T00:00:00Z".parse().unwrap(),
        })
    }
}

/// The server's arguments.
fn arguments(outline: &Outline) -> Vec<String> {
    let Next::Children(children) = &outline.next else { panic!("{:?}", outline.next) };
    let template = &children.deployment.spec.as_ref().unwrap().template;
    template.spec.as_ref().unwrap().containers[0].args.clone().unwrap()
}

fn value<'a>(arguments: &'a [String], flag: &str) -> Option<&'a str> {
    arguments.windows(2).find(|pair| pair[0] == flag).map(|pair| pair[1].as_str())
}

#[test]
fn without_a_memory_to_fit_into_nothing_is_looked_at_and_nothing_is_told_the_server() {
    let outline = Scene::new(&json!({"model": {"uri": "pvc://weights/tiny"}, "quantization": "auto"})).told().outline();
    let arguments = arguments(&outline);
    for flag in ["--kv-bytes", "--quantization", "--max-tokens"] {
        assert_eq!(value(&arguments, flag), None);
    }
    assert!(outline.inspection.is_none() && outline.fitted.is_none());
}

#[test]
fn what_is_on_a_claim_is_looked_at_first_by_a_pod() {
    let scene = Scene::on_claim("16Gi");
    let Next::Look(pod, Look::Absent) = scene.outline().next else { panic!() };
    assert_eq!(pod.metadata.labels.unwrap()[labels::INSPECTS], "tiny");
}

#[test]
fn a_claim_that_does_not_exist_is_told_before_any_pod_is_made() {
    let mut scene = Scene::on_claim("16Gi");
    scene.observed.claim_exists = false;
    let Next::Nothing(problem) = scene.outline().next else { panic!() };
    assert_eq!(problem.trouble, Trouble::VolumeNotFound);
}

#[test]
fn what_fits_is_handed_on_to_the_byte() {
    let outline = Scene::on_claim("16Gi").told().outline();
    let (arguments, fit) = (arguments(&outline), outline.fitted.as_ref().unwrap().numbers());
    assert_eq!(value(&arguments, "--kv-bytes"), Some(fit.cache_bytes().to_string().as_str()));
    assert_eq!(value(&arguments, "--max-tokens"), Some(fit.max_tokens.to_string().as_str()));
    assert_eq!(value(&arguments, "--max-concurrency"), Some("8"));
    assert_eq!(value(&arguments, "--quantization"), None, "as they are stored");
}

#[test]
fn auto_hands_on_what_it_chose() {
    let mut scene = Scene::on_claim("4Gi");
    scene.model.spec.quantization = Some("auto".parse().unwrap());
    let outline = scene.told().outline();
    let chosen = outline.fitted.as_ref().unwrap().numbers().quantization;
    assert_ne!(chosen, Quantization::None);
    assert_eq!(value(&arguments(&outline), "--quantization"), Some(chosen.name()));
}

#[test]
fn what_does_not_fit_gets_no_children_and_stays_known() {
    let outline = Scene::on_claim("1Gi").told().outline();
    let Next::Nothing(problem) = &outline.next else { panic!("{:?}", outline.next) };
    assert_eq!(problem.trouble, Trouble::DoesNotFit);
    assert!(outline.inspection.is_some() && outline.fitted.is_some());
}

#[test]
fn a_private_repository_is_looked_at_by_a_pod_and_fetched_at_the_commit_that_it_told() {
    let spec = json!({
        "model": {"uri": "hf://org/tiny", "tokenSecretRef": {"name": "hf", "key": "token"}},
        "pod": {"resources": {"limits": {"memory": "16Gi"}}},
    });
    let scene = Scene::new(&spec);
    let Next::Look(pod, Look::Absent) = scene.outline().next else { panic!() };
    assert!(pod.spec.unwrap().containers[0].args.as_ref().unwrap().contains(&"main".to_owned()));
    let (scene, mut status) = (scene.told(), VisionModelStatus::default());
    let outline = scene.outline();
    let Next::Children(children) = &outline.next else { panic!() };
    let template = serde_json::to_value(&children.deployment).unwrap()["spec"]["template"]["spec"].clone();
    assert!(template["initContainers"][0]["args"].to_string().contains("c0ffee"), "{template}");
    status.resolved = Some(vlm_crds::status::Resolved::default());
    outline.note(&scene.model, &scene.previous, &mut status);
    let resolved = status.resolved.unwrap();
    assert_eq!(resolved.revision.as_deref(), Some("c0ffee"));
    assert_eq!(resolved.source.as_deref(), Some("hf://org/tiny@main"));
    assert_eq!(status.checkpoint, scene.previous.checkpoint);
}

#[test]
fn a_failed_answer_of_the_hub_is_told_and_no_pod_is_made() {
    let mut scene =
        Scene::new(&json!({"model": {"uri": "hf://org/tiny"}, "pod": {"resources": {"limits": {"memory": "1Gi"}}}}));
    scene.revision = Revision::Failed(Problem::new(Trouble::ModelNotFound, "no"));
    assert!(matches!(scene.outline().next, Next::Nothing(p) if p.trouble == Trouble::ModelNotFound));
}

fn children(scene: &Scene) -> Children {
    let Next::Children(children) = scene.outline().next else { panic!() };
    *children
}

fn is_gated(children: &Children) -> bool {
    let pod = children.deployment.spec.as_ref().unwrap().template.spec.as_ref().unwrap();
    pod.readiness_gates.is_some()
}

#[test]
fn pods_made_without_the_gate_stay_until_something_else_changes_them() {
    let mut scene = Scene::new(&json!({"model": {"uri": "pvc://weights/tiny"}}));
    let before = children(&scene);
    assert!(!is_gated(&before));
    scene.gated = true;
    assert!(is_gated(&children(&scene)), "a new model has the gate");
    scene.observed.deployment = Some(Arc::new(before.deployment.clone()));
    assert_eq!(children(&scene).template, before.template, "the gate alone restarts nothing");
    scene.model.spec.drain = Some(vlm_crds::vision_model::Drain { timeout_seconds: Some(7), migrate: None });
    let changed = children(&scene);
    assert!(is_gated(&changed) && changed.template != before.template);
    scene.observed.deployment = Some(Arc::new(changed.deployment.clone()));
    assert_eq!(children(&scene), changed);
    scene.gated = false;
    assert!(!is_gated(&children(&scene)), "without a gateway nobody would open it");
}
