//! How conditions move, and the events of it.

use kube::runtime::events::EventType;
use vlm_crds::status::{ScalingDecision, reasons::decision};

use super::*;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

#[test]
fn a_new_object_is_in_progress_until_its_replicas_answer() {
    let mut scene = Scene::new(1);
    scene.report();
    assert_eq!(scene.ready(), ("False", reasons::DEPLOYING));
    assert_eq!(scene.says(RECONCILING).0, "True");
    assert_eq!(scene.says(STALLED).0, "False");
    assert_eq!(scene.says(AVAILABLE), ("False", reasons::NO_REPLICA_READY));
    scene.deployed(1, 1, 1);
    scene.report();
    assert_eq!(scene.ready(), ("True", reasons::SERVING));
    assert_eq!(scene.says(RECONCILING).0, "False");
    assert_eq!(scene.says(AVAILABLE).0, "True");
    let replicas = scene.status.replicas.clone().unwrap();
    assert_eq!((replicas.summary.as_str(), replicas.updated), ("1/1", 1));
}

#[test]
fn when_nothing_happens_nothing_changes_however_much_later() {
    let mut scene = Scene::serving(2);
    scene.wait(86_400);
    assert_eq!(scene.report(), (false, None));
}

#[test]
fn the_time_of_a_condition_moves_with_its_status_only() {
    let mut scene = Scene::new(1);
    scene.report();
    let first = scene.condition(READY).last_transition_time.clone();
    scene.wait(10);
    scene.pods(&[pod("p1", &ended(10, ""), &json!({}), 0)]);
    assert!(scene.report().0);
    assert_eq!(scene.condition(READY).last_transition_time, first, "only the reason changed");
    scene.pods(&[]);
    scene.deployed(1, 1, 1);
    scene.report();
    assert_eq!(scene.condition(READY).last_transition_time.0, scene.now);
}

#[test]
fn a_lost_replica_turns_ready_false_after_30_seconds_and_not_before() {
    let mut scene = Scene::serving(3);
    scene.deployed(3, 3, 2);
    let (_, again) = scene.report();
    assert_eq!((scene.ready(), again), (("True", reasons::SERVING), Some(Duration::from_secs(30))));
    assert_eq!(scene.says(RECONCILING).0, "True");
    scene.wait(29);
    scene.report();
    assert_eq!(scene.ready().0, "True");
    scene.wait(1);
    scene.report();
    assert_eq!(scene.ready(), ("False", reasons::REPLICAS_UNREADY));
    assert_eq!(scene.says(AVAILABLE).0, "True", "two still answer");
    scene.deployed(3, 3, 3);
    scene.report();
    assert_eq!(scene.ready().0, "True");
}

#[test]
fn when_no_replica_answers_ready_is_false_at_once() {
    let mut scene = Scene::serving(1);
    scene.deployed(1, 1, 0);
    scene.report();
    assert_eq!(scene.ready(), ("False", reasons::REPLICAS_UNREADY));
    assert_eq!(scene.says(AVAILABLE).0, "False");
}

#[test]
fn scaling_up_leaves_ready_true_also_when_a_person_does_it() {
    let mut scene = Scene::serving(1);
    scene.wait(1000);
    scene.scale.desired = 3;
    scene.model.metadata.generation = Some(2);
    scene.deployment.metadata.generation = Some(4);
    scene.report();
    assert_eq!(scene.ready().0, "True");
    assert_eq!(scene.says(RECONCILING), ("True", reasons::SCALING));
    assert_eq!(scene.status.observed_generation, Some(2));
}

#[test]
fn a_new_template_is_not_ready_until_it_is_rolled_out_though_the_old_one_answers() {
    let mut scene = Scene::serving(2);
    scene.template = "t2".to_owned();
    scene.model.metadata.generation = Some(2);
    scene.deployed(3, 1, 2);
    scene.report();
    assert_eq!(scene.ready(), ("False", reasons::DEPLOYING));
    assert_eq!(scene.says(AVAILABLE).0, "True");
    scene.deployed(2, 2, 2);
    scene.report();
    assert_eq!(scene.ready().0, "True");
}

#[test]
fn a_new_image_of_the_operators_leaves_ready_true_while_enough_answer() {
    let mut scene = Scene::serving(2);
    scene.template = "t2".to_owned();
    scene.deployed(3, 1, 2);
    scene.report();
    assert_eq!(scene.ready().0, "True");
    assert_eq!(scene.says(RECONCILING).0, "True");
}

#[test]
fn a_deployment_that_its_controller_has_not_seen_is_not_complete() {
    let mut scene = Scene::new(1);
    scene.deployed(1, 1, 1);
    scene.deployment.metadata.generation = Some(4);
    scene.report();
    assert_eq!(scene.ready(), ("False", reasons::DEPLOYING));
}

#[test]
fn a_model_that_is_switched_off_is_as_wanted_and_answers_nobody() {
    let mut scene = Scene::serving(1);
    scene.scale.desired = 0;
    scene.model.spec.replicas = Some(0);
    scene.deployed(0, 0, 0);
    scene.report();
    assert_eq!(scene.ready(), ("True", reasons::SWITCHED_OFF));
    assert_eq!(scene.says(AVAILABLE), ("False", reasons::SWITCHED_OFF));
    assert_eq!(scene.says(RECONCILING).0, "False");
}

#[test]
fn a_model_that_nobody_asks_is_as_wanted_and_available_through_the_gateway() {
    let mut scene = Scene::serving(1);
    scene.scale.desired = 0;
    scene.deployed(0, 0, 0);
    scene.report();
    assert_eq!(scene.ready(), ("True", reasons::SCALED_TO_ZERO));
    assert_eq!(scene.says(AVAILABLE), ("True", reasons::SCALED_TO_ZERO));
    assert_eq!((scene.says(RECONCILING).0, scene.says(STALLED).0), ("False", "False"));
}

#[test]
fn conditions_of_the_autoscaler_come_and_go_with_it_and_survive_a_restart() {
    let mut scene = Scene::serving(1);
    assert!(scene.status.conditions.iter().all(|c| c.type_ != METRICS_AVAILABLE));
    let seen = |limited, health| Some(AutoView { max: 3, seen: Some(Seen { limited, health }) });
    scene.scale.auto = seen(true, Health::Stale(vec!["p1".to_owned()]));
    scene.report();
    assert_eq!(scene.says(METRICS_AVAILABLE), ("False", reasons::METRICS_STALE));
    assert!(scene.condition(METRICS_AVAILABLE).message.contains("p1"));
    assert_eq!(scene.says(SCALING_LIMITED), ("True", reasons::MAX_REPLICAS_REACHED));
    scene.scale.auto = Some(AutoView { max: 3, seen: None });
    assert!(!scene.report().0, "nothing was read yet, so nothing new is said");
    scene.scale.auto = seen(false, Health::Fresh);
    scene.report();
    assert_eq!(scene.says(METRICS_AVAILABLE), ("True", reasons::METRICS_FRESH));
    assert_eq!(scene.says(SCALING_LIMITED).0, "False");
}

#[test]
fn each_transition_has_one_event_and_no_transition_none() {
    let mut scene = Scene::new(1);
    let before = scene.status.clone();
    scene.report();
    let first = events::transitions(&before, &scene.status);
    assert_eq!(first.iter().map(|e| e.reason.as_str()).collect::<Vec<_>>(), [reasons::DEPLOYING]);
    assert!(events::transitions(&scene.status, &scene.status).is_empty());

    let before = scene.status.clone();
    scene.pods(&[pod("p1", &ended(10, ""), &json!({}), 0)]);
    scene.report();
    let failed = events::transitions(&before, &scene.status);
    assert_eq!(failed.len(), 1);
    assert_eq!((failed[0].reason.as_str(), failed[0].type_), ("ModelNotFound", EventType::Warning));

    let before = scene.status.clone();
    scene.pods(&[]);
    scene.deployed(1, 1, 1);
    scene.report();
    let healed = events::transitions(&before, &scene.status);
    assert_eq!((healed.len(), healed[0].type_), (1, EventType::Normal));
}

#[test]
fn a_decision_has_an_event_also_when_another_follows() {
    let mut scene = Scene::serving(1);
    let decision = |from, to, second| ScalingDecision {
        time: Time(scene.now.checked_add(SignedDuration::from_secs(second)).unwrap()),
        from,
        to,
        reason: decision::LOAD_ROSE.to_owned(),
        inputs: None,
    };
    let history = vec![decision(2, 3, 2), decision(1, 2, 0)];
    let before = scene.status.clone();
    scene.scale.history = history;
    scene.report();
    let notes: Vec<_> = events::transitions(&before, &scene.status).into_iter().filter_map(|e| e.note).collect();
    assert_eq!(notes, ["from 1 to 2 replicas", "from 2 to 3 replicas"]);
    assert!(events::transitions(&scene.status, &scene.status.clone()).is_empty());
}

#[test]
fn a_model_whose_name_is_an_older_ones_says_by_which_it_is_found() {
    let mut scene = Scene::serving(1);
    scene.lost_names = Some(vec!["tiny".to_owned(), "small".to_owned()]);
    scene.report();
    assert_eq!((scene.ready(), scene.says(AVAILABLE)), (("True", reasons::SERVING), ("True", "AliasConflict")));
    let message = "older models have the name tiny, small; the gateway finds this one as shop/tiny";
    assert_eq!(scene.condition(AVAILABLE).message, message);
    assert_eq!(scene.says(STALLED).0, "False");
    // After a restart of the operator nobody has looked yet.
    scene.lost_names = None;
    assert!(!scene.report().0, "what was said stands");
    scene.lost_names = Some(Vec::new());
    scene.report();
    assert_eq!(scene.says(AVAILABLE), ("True", reasons::SERVING));
    scene.lost_names = Some(vec!["small".to_owned()]);
    scene.deployed(1, 1, 0);
    scene.report();
    assert_eq!(scene.says(AVAILABLE), ("False", reasons::NO_REPLICA_READY), "that weighs more");
}
