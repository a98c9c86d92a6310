//! What tools that know kstatus make of an object, and what is wrong with a history of one. Pure.

use serde_json::Value;

/// What a tool makes of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Somebody is at work.
    InProgress,
    /// Nobody goes on.
    Failed,
    /// As wanted.
    Current,
    /// On its way out.
    Terminating,
}

/// The rules of kstatus for custom resources, in its order.
pub fn health(object: &Value) -> Health {
    let metadata = &object["metadata"];
    if metadata["deletionTimestamp"].is_string() {
        return Health::Terminating;
    }
    let observed = &object["status"]["observedGeneration"];
    if !observed.is_null() && *observed != metadata["generation"] {
        return Health::InProgress;
    }
    let says = |kind: &str| condition(object, kind)["status"].as_str().map(str::to_owned);
    if says("Reconciling").as_deref() == Some("True") {
        return Health::InProgress;
    }
    if says("Stalled").as_deref() == Some("True") {
        return Health::Failed;
    }
    match says("Ready").as_deref() {
        Some("True") | None => Health::Current,
        Some(_) => Health::InProgress,
    }
}

/// The healths of a history, each change once.
pub fn path(history: &[Value]) -> Vec<Health> {
    let mut path: Vec<_> = history.iter().map(health).collect();
    path.dedup();
    path
}

/// What is wrong with the states of one object, oldest first: one sentence each.
pub fn violations(history: &[Value]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (i, object) in history.iter().enumerate() {
        let version = &object["metadata"]["resourceVersion"];
        let mut say = |what: String| wrong.push(format!("at version {version}: {what}"));
        alone(object, &mut say);
        if let Some(before) = i.checked_sub(1).map(|i| &history[i]) {
            after(before, object, &mut say);
        }
    }
    wrong
}

/// What is wrong with one state by itself.
fn alone(object: &Value, say: &mut impl FnMut(String)) {
    let (status, generation) = (&object["status"], object["metadata"]["generation"].as_i64().unwrap_or_default());
    let observed = status["observedGeneration"].as_i64();
    let conditions = status["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    match observed {
        None => say("no observedGeneration: tools take the object for finished".to_owned()),
        Some(observed) if observed > generation => say(format!("generation {generation}, but observed {observed}")),
        Some(_) if conditions.is_empty() && observed != Some(-1) => say("observed without conditions".to_owned()),
        Some(_) => {}
    }
    let holds = |kind: &str| condition(object, kind)["status"] == "True";
    if holds("Reconciling") && holds("Stalled") {
        say("both Reconciling and Stalled".to_owned());
    }
    if holds("Stalled") && holds("Ready") {
        say("both Stalled and Ready".to_owned());
    }
    for c in conditions {
        let kind = &c["type"];
        if c["observedGeneration"].as_i64() != observed {
            say(format!("{kind} is about generation {}, the status about {observed:?}", c["observedGeneration"]));
        }
        if c["reason"].as_str().is_none_or(str::is_empty) {
            say(format!("{kind} has no reason"));
        }
    }
    let ready = condition(object, "Ready");
    if ready["status"] == "False" {
        if !holds("Reconciling") && !holds("Stalled") {
            say("not Ready, yet neither Reconciling nor Stalled: nobody says whether to wait".to_owned());
        }
        if ready["message"].as_str().is_none_or(str::is_empty) {
            say("not Ready without a sentence".to_owned());
        }
    }
    if health(object) == Health::Current && !conditions.is_empty() {
        let of = |field: &str| status["replicas"][field].as_i64().unwrap_or_default();
        if of("ready") < of("desired") || of("updated") != of("current") || of("current") != of("desired") {
            say(format!("Current with {}", status["replicas"]));
        }
    }
}

/// What is wrong between two states that follow each other.
fn after(before: &Value, now: &Value, say: &mut impl FnMut(String)) {
    let observed = |object: &Value| object["status"]["observedGeneration"].as_i64();
    if observed(now) < observed(before) {
        say(format!("observedGeneration went back from {:?} to {:?}", observed(before), observed(now)));
    }
    for c in now["status"]["conditions"].as_array().into_iter().flatten() {
        let earlier = condition(before, c["type"].as_str().unwrap_or_default());
        let (same, time) = (c["status"] == earlier["status"], "lastTransitionTime");
        if same && c[time] != earlier[time] {
            say(format!("{} moved its time from {} to {} without a change", c["type"], earlier[time], c[time]));
        }
        if !same && c[time].as_str() < earlier[time].as_str() {
            say(format!("{} changed in the past: from {} to {}", c["type"], earlier[time], c[time]));
        }
    }
}

fn condition(object: &Value, kind: &str) -> Value {
    let all = object["status"]["conditions"].as_array();
    all.into_iter().flatten().find(|c| c["type"] == kind).cloned().unwrap_or(Value::Null)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const T1: &str = "2026-01-01T00:00:01Z";
    const T2: &str = "2026-01-01T00:00:02Z";

    /// Ready, Reconciling and Stalled with these statuses, all since `T1`.
    fn object(generation: i64, observed: i64, statuses: [&str; 3]) -> Value {
        let conditions = ["Ready", "Reconciling", "Stalled"].iter().zip(statuses).map(|(kind, status)| {
            json!({"type": kind, "status": status, "reason": "R", "message": "m", "observedGeneration": observed,
                   "lastTransitionTime": T1})
        });
        json!({"metadata": {"generation": generation, "resourceVersion": "7"},
               "status": {"observedGeneration": observed, "conditions": conditions.collect::<Vec<_>>(),
                          "replicas": {"desired": 1, "current": 1, "updated": 1, "ready": 1}}})
    }

    fn new() -> Value {
        json!({"metadata": {"generation": 1}, "status": {"observedGeneration": -1}})
    }

    #[test]
    fn health_follows_the_rules_in_their_order() {
        assert_eq!(health(&new()), Health::InProgress);
        assert_eq!(health(&object(1, 1, ["True", "False", "False"])), Health::Current);
        assert_eq!(health(&object(2, 1, ["True", "False", "False"])), Health::InProgress);
        assert_eq!(health(&object(1, 1, ["True", "True", "False"])), Health::InProgress);
        assert_eq!(health(&object(1, 1, ["False", "False", "True"])), Health::Failed);
        assert_eq!(health(&object(1, 1, ["False", "False", "False"])), Health::InProgress);
        assert_eq!(health(&json!({"metadata": {"generation": 1}})), Health::Current, "which is why we have a default");
        let mut going = object(1, 1, ["True", "False", "False"]);
        going["metadata"]["deletionTimestamp"] = json!(T1);
        assert_eq!(health(&going), Health::Terminating);
    }

    #[test]
    fn an_ordinary_life_has_nothing_wrong() {
        let mut ready = object(1, 1, ["True", "False", "False"]);
        for c in ready["status"]["conditions"].as_array_mut().unwrap() {
            if c["type"] != "Stalled" {
                c["lastTransitionTime"] = json!(T2);
            }
        }
        let life = [new(), object(1, 1, ["False", "True", "False"]), ready];
        assert_eq!(violations(&life), Vec::<String>::new());
        assert_eq!(path(&life), [Health::InProgress, Health::Current]);
    }

    #[test]
    fn each_breach_is_told() {
        let good = || object(2, 2, ["True", "False", "False"]);
        let changed = |pointer: &str, value: Value| {
            let mut object = good();
            *object.pointer_mut(pointer).unwrap() = value;
            object
        };
        for (history, words) in [
            (vec![object(1, 2, ["True", "False", "False"])], "but observed 2"),
            (vec![object(1, 1, ["False", "True", "True"])], "both Reconciling and Stalled"),
            (vec![object(1, 1, ["True", "False", "True"])], "both Stalled and Ready"),
            (vec![object(1, 1, ["False", "False", "False"])], "nobody says whether to wait"),
            (vec![changed("/status/conditions", json!([]))], "observed without conditions"),
            (vec![changed("/status/observedGeneration", Value::Null)], "no observedGeneration"),
            (vec![changed("/status/conditions/0/observedGeneration", json!(1))], "is about generation 1"),
            (vec![changed("/status/conditions/0/reason", json!(""))], "has no reason"),
            (vec![changed("/status/replicas/ready", json!(0))], "Current with"),
            (vec![changed("/status/replicas/updated", json!(0))], "Current with"),
            (vec![good(), object(2, 1, ["True", "False", "False"])], "went back"),
            (vec![good(), changed("/status/conditions/0/lastTransitionTime", json!(T2))], "without a change"),
            (
                vec![
                    changed("/status/conditions/1/lastTransitionTime", json!(T2)),
                    object(2, 2, ["True", "True", "False"]),
                ],
                "changed in the past",
            ),
        ] {
            let wrong = violations(&history);
            assert!(wrong.iter().any(|w| w.contains(words)), "{words}: {wrong:?}");
        }
    }
}
