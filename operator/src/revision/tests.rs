//! What is asked, what is kept, and what is not asked again.

use futures::channel::mpsc;
use serde_json::{Value, json};
use vlm_crds::status::{self, reasons::Trouble};
use vlm_hub::{Settings, patience::Patience};
use vlm_test_hub::{Fault, Repository as Published, TestHub};

use super::*;

fn model(spec: &Value) -> VisionModel {
    serde_json::from_value(json!({
        "apiVersion": "vlm-operator.dev/v1alpha1", "kind": "VisionModel",
        "metadata": {"name": "tiny", "namespace": "shop", "uid": "u1", "generation": 1},
        "spec": {"model": spec},
    }))
    .unwrap()
}

fn published() -> Published {
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/tiny-llava/model");
    Published::of_folder("org/tiny", std::path::Path::new(model))
}

struct Scene {
    server: TestHub,
    revisions: Revisions,
    status: VisionModelStatus,
}

impl Scene {
    async fn new() -> Self {
        let server = TestHub::start(vec![published()]).await;
        let settings = Settings { endpoint: server.endpoint.clone(), token: None, patience: Patience::LOOK };
        let status = VisionModelStatus { resolved: Some(status::Resolved::default()), ..VisionModelStatus::default() };
        Self { revisions: Revisions::new(Hub::new(&settings).unwrap()), server, status }
    }

    fn look(&self, model: &VisionModel, seconds: u64) -> Revision {
        self.revisions.look(model, &self.status, false, Duration::from_secs(seconds))
    }

    /// Lets the hub answer one question.
    async fn answered(&self, seconds: u64) {
        let (wake, mut woken) = mpsc::unbounded();
        let run = self.revisions.run(wake, || Duration::from_secs(seconds), CancellationToken::new());
        tokio::select! {
            () = run => panic!("it ended"),
            model = woken.next() => assert_eq!(model.unwrap().name, "tiny"),
        }
    }
}

#[tokio::test]
async fn a_branch_is_asked_for_once_and_then_kept_in_the_status() {
    let mut scene = Scene::new().await;
    let tiny = model(&json!({"uri": "hf://org/tiny"}));
    assert_eq!(scene.look(&tiny, 0), Revision::Asked);
    assert_eq!(scene.look(&tiny, 0), Revision::Asked, "no second question");
    scene.answered(0).await;
    let revision = scene.look(&tiny, 1);
    assert_eq!(revision.commit(), Some(published().commit().as_str()));
    revision.note(&mut scene.status);
    assert_eq!(scene.status.resolved.as_ref().unwrap().source.as_deref(), Some("hf://org/tiny@main"));
    // As after a restart: nothing is remembered but the status.
    let again = Revisions::new(scene.revisions.hub.clone());
    assert_eq!(again.look(&tiny, &scene.status, false, Duration::ZERO), revision);
    assert_eq!(scene.server.asked().len(), 1);
}

#[tokio::test]
async fn another_revision_is_asked_for_and_another_field_is_not() {
    let mut scene = Scene::new().await;
    let tiny = model(&json!({"uri": "hf://org/tiny"}));
    scene.look(&tiny, 0);
    scene.answered(0).await;
    scene.look(&tiny, 0).note(&mut scene.status);
    let mut scaled = tiny.clone();
    scaled.spec.replicas = Some(3);
    scaled.metadata.generation = Some(2);
    assert_eq!(scene.look(&scaled, 0).commit(), Some(published().commit().as_str()));
    let other = model(&json!({"uri": "hf://org/tiny", "revision": "v2"}));
    assert_eq!(scene.look(&other, 0), Revision::Asked);
    scene.answered(0).await;
    let Revision::Failed(problem) = scene.look(&other, 0) else { panic!("v2 does not exist") };
    assert_eq!(problem.trouble, Trouble::ModelNotFound);
    assert!(problem.message.contains("v2") && problem.message.contains("spec.model.uri"), "{}", problem.message);
}

#[tokio::test]
async fn what_needs_no_question_is_not_asked() {
    let scene = Scene::new().await;
    let commit = "0123456789abcdef0123456789abcdef01234567";
    let pinned = model(&json!({"uri": "hf://org/tiny", "revision": commit}));
    assert_eq!(scene.look(&pinned, 0).commit(), Some(commit));
    for spec in [
        json!({"uri": "pvc://claim/path"}),
        json!({"uri": "hf://org/tiny", "tokenSecretRef": {"name": "hf", "key": "token"}}),
    ] {
        assert_eq!(scene.look(&model(&spec), 0), Revision::Unasked);
    }
    assert_eq!(scene.server.asked().len(), 0);
}

#[tokio::test]
async fn a_failure_stands_while_it_is_asked_again_and_goes_with_the_answer() {
    let scene = Scene::new().await;
    let tiny = model(&json!({"uri": "hf://org/tiny"}));
    scene.server.fail("/revision/", [Fault::Status(403, None)]);
    scene.look(&tiny, 0);
    scene.answered(0).await;
    let failed = scene.look(&tiny, 0);
    let Revision::Failed(problem) = &failed else { panic!("{failed:?}") };
    assert_eq!(problem.trouble, Trouble::ModelAccessDenied);
    assert_eq!(scene.look(&tiny, RETRY.as_secs() - 1), failed);
    assert!(lock(&scene.revisions.waiting).is_empty(), "not asked before its time");
    assert_eq!(scene.look(&tiny, RETRY.as_secs()), failed, "no moment without a reason");
    scene.answered(RETRY.as_secs()).await;
    assert!(scene.look(&tiny, RETRY.as_secs()).commit().is_some());
}

#[tokio::test]
async fn what_a_checkpoint_is_made_of_is_asked_with_its_commit_and_kept_in_the_status() {
    let mut scene = Scene::new().await;
    let tiny = model(&json!({"uri": "hf://org/tiny"}));
    let look = |scene: &Scene| scene.revisions.look(&tiny, &scene.status, true, Duration::ZERO);
    assert_eq!(look(&scene), Revision::Asked);
    scene.answered(0).await;
    let known = look(&scene);
    let inspection = known.inspection().unwrap();
    assert!(inspection.is_exact() && inspection.revision() == known.commit(), "{inspection:?}");
    let asked = scene.server.asked();
    assert!(asked.iter().filter(|asked| asked.storage).all(|asked| asked.range.is_some()), "no weights: {asked:#?}");
    // As after a restart, with what the status has.
    known.note(&mut scene.status);
    scene.status.checkpoint = inspect::note(&tiny, &scene.status, &inspection);
    let again = Revisions::new(scene.revisions.hub.clone());
    assert_eq!(again.look(&tiny, &scene.status, true, Duration::ZERO), known);
    assert_eq!(scene.server.asked().len(), asked.len());
    // A limit that came later asks for what is missing, at the commit that is known.
    scene.status.checkpoint = None;
    assert_eq!(again.look(&tiny, &scene.status, false, Duration::ZERO).commit(), known.commit());
    assert_eq!(again.look(&tiny, &scene.status, true, Duration::ZERO), Revision::Asked);
    assert!(lock(&again.waiting).iter().all(|question| Some(question.revision.as_str()) == known.commit()));
}

#[tokio::test]
async fn a_checkpoint_of_a_kind_that_is_not_served_is_told_before_any_pod_is_made() {
    let mut other = published();
    other.files.insert("config.json".to_owned(), r#"{"architectures": ["LlamaForCausalLM"]}"#.into());
    let mut scene = Scene::new().await;
    scene.server = TestHub::start(vec![other]).await;
    let settings = Settings { endpoint: scene.server.endpoint.clone(), token: None, patience: Patience::LOOK };
    scene.revisions = Revisions::new(Hub::new(&settings).unwrap());
    let tiny = model(&json!({"uri": "hf://org/tiny"}));
    scene.revisions.look(&tiny, &scene.status, true, Duration::ZERO);
    scene.answered(0).await;
    let failed = scene.revisions.look(&tiny, &scene.status, true, Duration::ZERO);
    let Revision::Failed(problem) = failed else { panic!("{failed:?}") };
    assert_eq!(problem.trouble, Trouble::UnsupportedArchitecture);
    assert!(
        problem.message.contains("org/tiny") && problem.message.contains("LlamaForCausalLM"),
        "{}",
        problem.message
    );
}

#[tokio::test]
async fn failures_are_asked_again_ever_more_seldom() {
    let scene = Scene::new().await;
    scene.server.fail("/revision/", vec![Fault::Status(404, None); 99]);
    let tiny = model(&json!({"uri": "hf://org/tiny"}));
    let mut now = 0;
    scene.look(&tiny, now);
    for pause in [20, 40, 80, 80] {
        scene.answered(now).await;
        scene.look(&tiny, now + pause - 1);
        assert!(lock(&scene.revisions.waiting).is_empty(), "not before {pause} s have passed");
        now += pause;
        scene.look(&tiny, now);
        assert_eq!(lock(&scene.revisions.waiting).len(), 1);
    }
}
