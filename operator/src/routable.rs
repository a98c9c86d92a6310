//! Which pods a gateway reaches: has a gateway ask each new pod about a picture, and notes what came of it as a condition
//! of the pod, which is ready only once that holds. What was true once stays true. Effects: asks gateways, writes
//! conditions of pods. Only the leader runs it.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures::{StreamExt, stream::FuturesUnordered};
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Pod, PodCondition},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
    runtime::reflector::ObjectRef,
};
use serde_json::json;
use tokio::sync::{
    Semaphore,
    broadcast::{self, error::RecvError},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use vlm_contract::routable::{CONDITION, Question};

use crate::{build::labels, context::Context, observe::Trigger};

mod ask;

use ask::{Told, ask};

/// Pods that are asked at the same time.
const AT_ONCE: usize = 64;
/// What does not hold is written once it has not for so long: watches lag, and servers take a moment.
const WRITTEN_AFTER: Duration = Duration::from_secs(3);
/// Least and most time until a pod is asked again.
const AGAIN: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// Why a pod that is ready but for the gateway is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hindrance {
    /// It does not answer a picture.
    NoAnswer,
    /// No gateway can be asked.
    NoGateway,
}

/// What is written of a pod that waits for a gateway, with the words; `None` for every other.
pub fn hindrance(pod: &Pod) -> Option<(Hindrance, &str)> {
    let condition = is_due(pod).then(|| condition(pod, CONDITION)).flatten()?;
    let what = if condition.status == "False" { Hindrance::NoAnswer } else { Hindrance::NoGateway };
    Some((what, condition.message.as_deref().unwrap_or_default()))
}

fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == kind)
}

/// Whether nothing but the gateway keeps a pod from being ready.
fn is_due(pod: &Pod) -> bool {
    let gates = pod.spec.as_ref().and_then(|spec| spec.readiness_gates.as_ref());
    let holds = |kind: &str| condition(pod, kind).is_some_and(|condition| condition.status == "True");
    gates.is_some_and(|gates| gates.iter().any(|gate| gate.condition_type == CONDITION))
        && pod.metadata.deletion_timestamp.is_none()
        && holds("ContainersReady")
        && !holds("Ready")
        && !holds(CONDITION)
}

/// Runs until `shutdown`.
pub async fn run(context: Arc<Context>, mut triggers: broadcast::Receiver<Trigger>, shutdown: CancellationToken) {
    if context.gateways.is_none() {
        return;
    }
    let asker = Asker { context: &context, turn: AtomicUsize::new(0), places: Semaphore::new(AT_ONCE) };
    let mut looked_after = HashSet::new();
    let mut asking = FuturesUnordered::new();
    let mut trigger = Trigger::All;
    loop {
        for pod in asker.concerned(&trigger) {
            if let Some(uid) = pod.uid().filter(|_| is_due(&pod))
                && looked_after.insert(uid.clone())
            {
                asking.push(asker.look_after(pod, uid));
            }
        }
        trigger = tokio::select! {
            () = shutdown.cancelled() => return,
            Some((uid, model)) = asking.next(), if !asking.is_empty() => {
                looked_after.remove(&uid);
                // It may be due again since.
                model
            }
            received = triggers.recv() => match received {
                Ok(trigger) => trigger,
                Err(RecvError::Lagged(_)) => Trigger::All,
                Err(RecvError::Closed) => return,
            },
        };
    }
}

struct Asker<'a> {
    context: &'a Context,
    /// Which gateway is asked next.
    turn: AtomicUsize,
    places: Semaphore,
}

impl Asker<'_> {
    /// The pods that a change may concern.
    fn concerned(&self, trigger: &Trigger) -> Vec<Arc<Pod>> {
        match trigger {
            Trigger::Model(namespace, name) => self.context.stores.pods_of(namespace, name),
            Trigger::All => self.context.stores.pods.state(),
            Trigger::Claim(..) => Vec::new(),
        }
    }

    /// Has a pod asked until it is not due any more; gives its uid and what to look at then.
    async fn look_after(&self, pod: Arc<Pod>, uid: String) -> (String, Trigger) {
        let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
        let model = pod.labels().get(labels::MODEL).cloned().unwrap_or_default();
        let question = Question { namespace: namespace.clone(), model: model.clone(), pod: name.clone() };
        let (begun, mut pause) = (Instant::now(), AGAIN.0);
        while let Some(pod) = self.still_due(&namespace, &name, &uid) {
            let told = match self.places.acquire().await {
                Ok(_place) => ask(self.context, &question, self.turn.fetch_add(1, Ordering::Relaxed)).await,
                Err(_) => break,
            };
            debug!(namespace, pod = name, ?told, "a gateway was asked");
            let certain = told == Told::Routable || begun.elapsed() >= WRITTEN_AFTER;
            if certain && told.differs(condition(&pod, CONDITION)) {
                self.write(&pod, &told).await;
                if told == Told::Routable {
                    info!(namespace, pod = name, took_seconds = begun.elapsed().as_secs_f64(), "routable");
                }
            }
            tokio::time::sleep(pause).await;
            pause = (2 * pause).min(AGAIN.1);
        }
        (uid, Trigger::Model(namespace, model))
    }

    /// The pod as it is now, if it is the same one and still waits.
    fn still_due(&self, namespace: &str, name: &str, uid: &str) -> Option<Arc<Pod>> {
        let pod = self.context.stores.pods.get(&ObjectRef::new(name).within(namespace))?;
        (pod.metadata.uid.as_deref() == Some(uid) && is_due(&pod)).then_some(pod)
    }

    async fn write(&self, pod: &Pod, told: &Told) {
        let before = condition(pod, CONDITION).filter(|before| before.status == told.status());
        let since = before.and_then(|before| before.last_transition_time.clone());
        let written = json!({
            "type": CONDITION, "status": told.status(), "reason": told.reason(), "message": told.message(),
            "lastTransitionTime": since.unwrap_or_else(|| Time(Timestamp::now())),
        });
        let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [written]}});
        let api: Api<Pod> = Api::namespaced(self.context.client.clone(), &pod.namespace().unwrap_or_default());
        let params = PatchParams { field_manager: Some(labels::MANAGER.to_owned()), ..PatchParams::default() };
        match api.patch_status(&pod.name_any(), &params, &Patch::Strategic(patch)).await {
            Ok(_) => self.context.metrics.wrote("Pod"),
            Err(error) => warn!(%error, pod = pod.name_any(), "the condition of the pod was not written"),
        }
    }
}

#[cfg(test)]
mod tests;
