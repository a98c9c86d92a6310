//! What ails pods, and what is said of it.

use vlm_contract::diagnosis::{Cause, Diagnosis};

use super::*;

fn diagnosis(cause: Cause) -> String {
    serde_json::to_string(&Diagnosis::new(cause, "/models/x does not exist")).unwrap()
}

pub(super) fn failing(pods: &[Value]) -> Scene {
    let mut scene = Scene::new(1);
    scene.deployed(1, 1, 0);
    scene.pods(pods);
    scene.report();
    scene
}

#[test]
fn the_servers_own_words_stand_in_the_condition_with_pod_container_and_exit_code() {
    let scene = failing(&[pod("p1", &ended(10, &diagnosis(Cause::ModelNotFound)), &json!({}), 0)]);
    assert_eq!(scene.ready(), ("False", "ModelNotFound"));
    assert_eq!(scene.says(STALLED), ("True", "ModelNotFound"));
    assert_eq!(scene.says(RECONCILING), ("False", reasons::SETTLED));
    assert_eq!(
        scene.condition(READY).message,
        "/models/x does not exist; check spec.model.uri or --model, and that what it names is there (pod p1, container server, exit code 10)"
    );
    let failure = &scene.status.failures[0];
    assert_eq!((failure.pod.as_deref(), failure.exit_code), (Some("p1"), Some(10)));
}

#[test]
fn an_exit_code_of_the_contract_is_enough_when_nothing_was_written() {
    for cause in Cause::ALL {
        let scene = failing(&[pod("p1", &ended(i32::from(cause.exit_code()), "log line"), &json!({}), 0)]);
        assert_eq!(scene.ready(), ("False", cause.reason()));
    }
}

#[test]
fn between_crashes_the_reason_does_not_flap() {
    let end = ended(11, &diagnosis(Cause::WeightsCorrupt));
    let mut scene = failing(&[pod("p1", &end, &json!({}), 0)]);
    let back_off = waiting("CrashLoopBackOff", "back-off 10s restarting failed container");
    for state in [back_off, json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}}), waiting("ContainerCreating", "")]
    {
        scene.pods(&[pod("p1", &state, &end, 1)]);
        scene.wait(5);
        assert!(!scene.report().0, "{state}");
    }
}

#[test]
fn a_container_that_became_ready_again_is_no_failure() {
    let end = ended(11, &diagnosis(Cause::WeightsCorrupt));
    let mut scene = failing(&[pod("p1", &end, &json!({}), 0)]);
    let mut healed = pod("p1", &json!({"running": {}}), &end, 1);
    healed["status"]["containerStatuses"][0]["ready"] = json!(true);
    scene.pods(&[healed]);
    scene.deployed(1, 1, 1);
    scene.report();
    assert_eq!(scene.ready(), ("True", reasons::SERVING));
    assert_eq!(scene.says(STALLED), ("False", reasons::SETTLED));
    assert!(scene.status.failures.is_empty());
}

#[test]
fn a_crash_without_words_shows_the_last_line_and_stalls_only_after_the_deadline() {
    let mut scene = failing(&[pod("p1", &waiting("CrashLoopBackOff", ""), &ended(3, "a\nboom\n"), 2)]);
    assert_eq!(scene.ready(), ("False", "ContainerCrashLoopBackOff"));
    assert!(scene.condition(READY).message.contains("boom"));
    assert_eq!(scene.says(RECONCILING), ("True", "ContainerCrashLoopBackOff"));
    assert_eq!(scene.says(STALLED), ("False", reasons::SETTLED));
    scene.deployment_says("Progressing", "False", "ProgressDeadlineExceeded", "");
    scene.report();
    assert_eq!(scene.says(STALLED), ("True", "ContainerCrashLoopBackOff"));
    assert_eq!(scene.says(RECONCILING), ("False", reasons::SETTLED));
}

#[test]
fn a_panic_is_told_by_its_own_words() {
    let log = "thread 'main' panicked at x.rs:1:\nno threads\nnote: run with `RUST_BACKTRACE=1` environment variable to display a backtrace\n";
    let scene = failing(&[pod("p1", &waiting("CrashLoopBackOff", ""), &ended(101, log), 1)]);
    let message = &scene.condition(READY).message;
    assert!(message.starts_with("the container ended: no threads; "), "{message}");
}

#[test]
fn what_a_deployment_remembers_of_refused_pods_is_no_failure_once_all_replicas_answer() {
    let mut scene = Scene::new(1);
    let refusal = "pods \"tiny-5d-x7\" is forbidden: exceeded quota: q, requested: cpu=1";
    scene.deployment_says("ReplicaFailure", "True", "FailedCreate", refusal);
    scene.report();
    assert_eq!(scene.status.failures[0].reason, "QuotaExceeded");
    scene.deployed(1, 1, 1);
    scene.deployment_says("ReplicaFailure", "True", "FailedCreate", refusal);
    scene.report();
    assert_eq!(scene.ready(), ("True", reasons::SERVING));
    assert!(scene.status.failures.is_empty(), "{:?}", scene.status.failures);
}

#[test]
fn the_refusal_of_an_older_template_says_nothing_about_this_one() {
    let conditions = |failed: &str, progressed: &str| {
        serde_json::from_value(json!([
            {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "lastUpdateTime": failed,
             "message": "pods \"tiny-5d-x7\" is forbidden: no PriorityClass with name x was found"},
            {"type": "Progressing", "status": "True", "reason": "NewReplicaSetCreated", "lastUpdateTime": progressed},
        ]))
        .unwrap()
    };
    let mut scene = Scene::new(1);
    scene.deployment.status.as_mut().unwrap().conditions = conditions("2026-01-01T00:00:05Z", "2026-01-01T00:00:05Z");
    scene.report();
    assert_eq!(scene.ready(), ("False", "PodRefused"));
    scene.deployment.status.as_mut().unwrap().conditions = conditions("2026-01-01T00:00:05Z", "2026-01-01T00:00:09Z");
    scene.report();
    assert_eq!(scene.ready(), ("False", reasons::DEPLOYING));
    scene.deployment.status.as_mut().unwrap().conditions = conditions("2026-01-01T00:00:05Z", "2026-01-01T00:00:05Z");
    scene.pods(&[pod("p1", &waiting("ContainerCreating", ""), &json!({}), 0)]);
    scene.report();
    assert_eq!(scene.ready(), ("False", reasons::DEPLOYING), "there are pods enough");
}

#[test]
fn pods_that_break_long_after_a_rollout_stall_after_the_same_deadline() {
    let mut scene = Scene::serving(1);
    scene.deployed(1, 1, 0);
    scene.pods(&[pod("p1", &waiting("CrashLoopBackOff", ""), &ended(3, ""), 2)]);
    scene.report();
    assert_eq!(scene.says(STALLED), ("False", reasons::SETTLED));
    let (_, again) = scene.report();
    assert_eq!(again, Some(Duration::from_secs(1800)));
    scene.wait(1800);
    scene.report();
    assert_eq!(scene.says(STALLED), ("True", "ContainerCrashLoopBackOff"));
}

#[test]
fn a_rollout_that_is_stuck_without_a_reason_is_said_to_be() {
    let mut scene = failing(&[]);
    assert_eq!(scene.ready(), ("False", reasons::DEPLOYING));
    scene.deployment_says("Progressing", "False", "ProgressDeadlineExceeded", "");
    scene.report();
    assert_eq!(scene.ready(), ("False", "RolloutStuck"));
    assert_eq!(scene.says(STALLED).0, "True");
}

#[test]
fn too_little_memory_is_told_apart_from_a_crash() {
    let killed = json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}});
    let scene = failing(&[pod("p1", &waiting("CrashLoopBackOff", ""), &killed, 1)]);
    assert_eq!(scene.ready(), ("False", "ContainerOOMKilled"));
}

#[test]
fn an_image_that_cannot_be_pulled_is_said_once_though_the_kubelet_alternates() {
    let error = "failed to pull and unpack image \"i\": not found";
    let mut scene = failing(&[pod("p1", &waiting("ErrImagePull", error), &json!({}), 0)]);
    assert_eq!(scene.ready(), ("False", "ImagePullError"));
    assert!(scene.condition(READY).message.contains("not found"));
    let back_off = format!("Back-off pulling image \"i\": ErrImagePull: {error}");
    scene.pods(&[pod("p1", &waiting("ImagePullBackOff", &back_off), &json!({}), 0)]);
    assert!(!scene.report().0);
}

#[test]
fn a_pod_that_no_node_takes_keeps_reconciling() {
    let unscheduled = json!({
        "metadata": {"name": "p1", "annotations": {labels::TEMPLATE: TEMPLATE}},
        "status": {"phase": "Pending", "conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available"}
        ]},
    });
    let mut scene = failing(&[unscheduled]);
    assert_eq!(scene.ready(), ("False", "Unschedulable"));
    scene.deployment_says("Progressing", "False", "ProgressDeadlineExceeded", "");
    scene.report();
    assert_eq!(scene.says(STALLED), ("False", reasons::SETTLED), "a node autoscaler may be at work");
}

#[test]
fn a_missing_claim_is_named_and_outranks_what_it_causes() {
    let mut scene = Scene::new(1);
    scene.observed.claim_exists = false;
    scene.pods(&[pod("p1", &waiting("CreateContainerConfigError", "x"), &json!({}), 0)]);
    scene.report();
    assert_eq!(scene.ready(), ("False", "VolumeNotFound"));
    assert!(scene.condition(READY).message.contains("PersistentVolumeClaim weights"));
    assert_eq!(scene.says(STALLED).0, "True");
    assert_eq!(scene.status.failures[1].reason, "ContainerConfigError");
}

#[test]
fn refused_pods_are_told_apart_and_their_made_up_names_left_out() {
    for (message, reason) in [
        ("pods \"tiny-5d-x7\" is forbidden: exceeded quota: q, requested: cpu=1", "QuotaExceeded"),
        ("pods \"tiny-5d-x7\" is forbidden: violates PodSecurity \"restricted:latest\"", "PodSecurityForbids"),
        ("pods \"tiny-5d-x7\" is forbidden: no such service account", "PodRefused"),
    ] {
        let mut scene = Scene::new(1);
        scene.deployment_says("ReplicaFailure", "True", "FailedCreate", message);
        scene.report();
        assert_eq!(scene.ready(), ("False", reason));
        assert!(!scene.condition(READY).message.contains("tiny-5d-x7"));
    }
}

#[test]
fn the_most_actionable_of_all_pods_is_shown_whatever_their_order() {
    let crash = pod("a", &waiting("CrashLoopBackOff", ""), &ended(3, ""), 2);
    let corrupt = pod("b", &ended(11, ""), &json!({}), 0);
    for pods in [[crash.clone(), corrupt.clone()], [corrupt, crash]] {
        let scene = failing(&pods);
        assert_eq!(scene.ready(), ("False", "WeightsCorrupt"));
        assert_eq!(scene.status.failures.len(), 2);
    }
}

#[test]
fn pods_of_an_older_template_say_nothing_about_this_one() {
    let mut scene = failing(&[pod("p1", &ended(10, ""), &json!({}), 0)]);
    scene.template = "t2".to_owned();
    scene.model.metadata.generation = Some(2);
    scene.deployed(1, 0, 0);
    scene.report();
    assert_eq!(scene.ready(), ("False", reasons::DEPLOYING));
    assert_eq!(scene.says(STALLED), ("False", reasons::SETTLED));
}

#[test]
fn an_object_that_the_api_server_refuses_stalls() {
    let mut scene = Scene::serving(1);
    scene.refused = Some(Problem::new(Trouble::SpecRefused, "cpu: must be less than or equal to its limit"));
    scene.model.metadata.generation = Some(2);
    scene.report();
    assert_eq!(scene.ready(), ("False", "SpecRefused"));
    assert_eq!(scene.says(STALLED).0, "True");
}
