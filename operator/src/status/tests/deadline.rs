//! `rollout.progressDeadlineSeconds`: which reasons stall after it, and that a new spec starts anew.

use vlm_crds::rollout::Rollout;

use super::failing::failing;
use super::*;

fn exceeded(scene: &mut Scene) {
    scene.deployment_says("Progressing", "False", "ProgressDeadlineExceeded", "");
    scene.report();
}

#[test]
fn reasons_that_may_pass_stall_after_the_deadline_and_those_of_the_cluster_never() {
    let unscheduled = json!({
        "metadata": {"name": "p1", "annotations": {labels::TEMPLATE: TEMPLATE}},
        "status": {"phase": "Pending", "conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available"}
        ]},
    });
    let evicted = json!({
        "metadata": {"name": "p1", "annotations": {labels::TEMPLATE: TEMPLATE}},
        "status": {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."},
    });
    let oom = json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}});
    let crash = waiting("CrashLoopBackOff", "");
    for (pod, reason, stalls) in [
        (pod("p1", &waiting("ErrImagePull", ""), &json!({}), 0), "ImagePullError", true),
        (pod("p1", &waiting("CreateContainerConfigError", ""), &json!({}), 0), "ContainerConfigError", true),
        (pod("p1", &crash, &ended(3, ""), 2), "ContainerCrashLoopBackOff", true),
        (pod("p1", &crash, &oom, 1), "ContainerOOMKilled", true),
        (pod("p1", &crash, &ended(20, ""), 1), "StartFailed", true),
        (pod("p1", &json!({"running": {}}), &ended(137, ""), 1), "ProbeFailed", true),
        (unscheduled, "Unschedulable", false),
        (evicted, "PodEvicted", false),
    ] {
        let mut scene = failing(&[pod]);
        assert_eq!((scene.ready(), scene.says(RECONCILING)), (("False", reason), ("True", reason)));
        assert_eq!(scene.says(STALLED).0, "False", "{reason}: the deadline has not passed");
        exceeded(&mut scene);
        assert_eq!(scene.ready(), ("False", reason), "the deadline does not hide the cause");
        let (stalled, reconciling) = if stalls { ("True", "False") } else { ("False", "True") };
        assert_eq!((scene.says(STALLED).0, scene.says(RECONCILING).0), (stalled, reconciling), "{reason}");
    }
}

#[test]
fn a_new_spec_is_not_stalled_by_what_the_deployment_said_of_the_old_one() {
    let mut scene = failing(&[]);
    exceeded(&mut scene);
    assert_eq!(scene.says(STALLED), ("True", "RolloutStuck"));
    scene.template = "t2".to_owned();
    scene.model.metadata.generation = Some(2);
    scene.deployment.metadata.generation = Some(4);
    scene.report();
    assert_eq!(scene.says(STALLED), ("False", reasons::SETTLED));
    assert_eq!(scene.says(RECONCILING), ("True", reasons::DEPLOYING));
}

#[test]
fn the_sentence_names_the_deadline_of_the_spec() {
    let mut scene = failing(&[]);
    scene.model.spec.rollout = Some(Rollout { progress_deadline_seconds: Some(45) });
    exceeded(&mut scene);
    let message = &scene.condition(READY).message;
    assert!(message.contains("45 seconds of rollout.progressDeadlineSeconds"), "{message}");
}

#[test]
fn pods_that_break_after_a_rollout_stall_after_the_deadline_of_the_spec() {
    let mut scene = Scene::serving(1);
    scene.model.spec.rollout = Some(Rollout { progress_deadline_seconds: Some(45) });
    scene.deployed(1, 1, 0);
    scene.pods(&[pod("p1", &waiting("CrashLoopBackOff", ""), &ended(3, ""), 2)]);
    scene.report();
    assert_eq!(scene.report().1, Some(Duration::from_secs(45)));
    scene.wait(45);
    scene.report();
    assert_eq!(scene.says(STALLED), ("True", "ContainerCrashLoopBackOff"));
}
