//! Wiring of the leader, and the reconcile: observe → plan → build → apply → report.

use std::{
    str::FromStr,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{Stream, StreamExt, channel::mpsc, stream};
use kube::{
    Resource, ResourceExt,
    runtime::{
        controller::{Action, Config, Controller},
        reflector::{ObjectRef, Store},
        watcher,
    },
};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use vlm_contract::uri::ModelUri;
use vlm_crds::{
    VisionModel,
    status::{VisionModelStatus, reasons::Trouble},
};

use crate::{
    apply::{ApplyError, apply},
    autoscaler,
    build::Children,
    context::Context,
    inspect::{self, InspectError},
    metrics::Outcome,
    observe::{Observed, Trigger},
    plan::{fit, placement::Wanted},
    revision::{self, Revision},
    routable,
    status::{Facts, Problem, PublishError, events, publish, report},
};

mod outline;

use outline::{Known, Next, Outline};

/// Changes of one model that come within this time are handled together. A request that wakes a model waits as long.
const DEBOUNCE: Duration = Duration::from_millis(4);
/// Reconciles at the same time.
const CONCURRENCY: u16 = 32;
/// How often a model is looked at though nothing happened.
const RECHECK: Duration = Duration::from_secs(600);
/// How often it is tried again what the API server refused.
const RETRY_REFUSED: Duration = Duration::from_secs(60);

/// How often it is tried again to have a checkpoint looked at.
const RETRY_LOOK: Duration = Duration::from_secs(20);

/// Why a reconcile is tried again.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// A child could not be written.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// No pod could be made that looks at the checkpoint.
    #[error(transparent)]
    Inspect(#[from] InspectError),
    /// The status could not be written.
    #[error(transparent)]
    Publish(#[from] PublishError),
}

/// Runs the leader's work until `shutdown`, then ends what is in hand.
pub async fn run(
    context: Arc<Context>,
    namespace: Option<&str>,
    triggers: broadcast::Receiver<Trigger>,
    shutdown: CancellationToken,
) {
    let models = crate::observe::api::<VisionModel>(&context.client, namespace);
    let controller = Controller::new(models, watcher::Config::default());
    let store = controller.store();
    let (wake, woken) = mpsc::unbounded();
    let probing = routable::run(Arc::clone(&context), triggers.resubscribe(), shutdown.clone());
    let work = controller
        .with_config(Config::default().debounce(DEBOUNCE).concurrency(CONCURRENCY))
        .reconcile_on(affected(triggers, store.clone()))
        .reconcile_on(with_gpus(context.gpus.changes(), store.clone()))
        .reconcile_on(woken)
        .graceful_shutdown_on(shutdown.clone().cancelled_owned())
        .run(reconcile, retry, Arc::clone(&context))
        .for_each(|result| async move {
            if let Err(error) = result {
                debug!(%error, "not reconciled");
            }
        });
    let now = || context.started.elapsed();
    let revisions = context.revisions.run(wake.clone(), now, shutdown.clone());
    let scaling = autoscaler::run(Arc::clone(&context), store, wake, shutdown);
    tokio::join!(work, scaling, revisions, probing);
}

/// The models that a change concerns.
fn affected(
    triggers: broadcast::Receiver<Trigger>,
    models: Store<VisionModel>,
) -> impl Stream<Item = ObjectRef<VisionModel>> + Send {
    let received = stream::unfold(triggers, |mut triggers| async move {
        match triggers.recv().await {
            Ok(trigger) => Some((trigger, triggers)),
            Err(RecvError::Lagged(_)) => Some((Trigger::All, triggers)),
            Err(RecvError::Closed) => None,
        }
    });
    received.flat_map(move |trigger| {
        let concerned = match trigger {
            Trigger::Model(namespace, name) => vec![ObjectRef::new(&name).within(&namespace)],
            Trigger::Claim(namespace, claim) => {
                let on_it = |model: &VisionModel| {
                    model.namespace().as_ref() == Some(&namespace) && claim_of(model).as_ref() == Some(&claim)
                };
                models.state_filter(on_it).iter().map(|m| ObjectRef::from_obj(m.as_ref())).collect()
            }
            Trigger::All => models.state().iter().map(|m| ObjectRef::from_obj(m.as_ref())).collect(),
        };
        stream::iter(concerned)
    })
}

/// The models that ask for a GPU, whenever types or nodes change.
fn with_gpus(
    changes: impl Stream<Item = ()> + Send,
    models: Store<VisionModel>,
) -> impl Stream<Item = ObjectRef<VisionModel>> + Send {
    changes.flat_map(move |()| {
        let concerned = models.state_filter(|model| model.spec.gpu.is_some());
        stream::iter(concerned.iter().map(|m| ObjectRef::from_obj(m.as_ref())).collect::<Vec<_>>())
    })
}

fn claim_of(model: &VisionModel) -> Option<String> {
    ModelUri::from_str(&model.spec.model.uri).ok()?.claim().map(|claim| claim.claim.clone())
}

async fn reconcile(model: Arc<VisionModel>, context: Arc<Context>) -> Result<Action, ReconcileError> {
    let begun = Instant::now();
    let result = steps(&model, &context).await;
    let outcome = match &result {
        Ok((outcome, _)) => *outcome,
        Err(_) => Outcome::Failed,
    };
    context.metrics.reconciled(outcome, begun.elapsed());
    result.map(|(_, action)| action)
}

/// The steps, each with what it may touch.
async fn steps(model: &VisionModel, context: &Context) -> Result<(Outcome, Action), ReconcileError> {
    if model.metadata.deletion_timestamp.is_some() {
        return Ok((Outcome::Done, Action::await_change()));
    }
    let (namespace, name) = (model.namespace().unwrap_or_default(), model.name_any());
    let moment = context.moment();
    let mut memory = context.memories.get(model);

    // observe: caches
    let observed = context.stores.observe(&namespace, &name, claim_of(model).as_deref());
    let observed = Observed { nodes: context.gpus.nodes(), ..observed };
    let previous = memory.newest_status(model);
    // look up: memory; the hub is asked beside this
    let revision = context.revisions.look(model, &previous, fit::is_judged(&model.spec), moment.now);
    let wanted = context.gpus.wanted(&model.spec);
    if revision == Revision::Asked || wanted == Wanted::Unread {
        return Ok((Outcome::Done, Action::await_change()));
    }
    // plan, build: pure
    let scale = context.table.settle(model, deployed_replicas(&observed), moment);
    let types = context.gpus.types().unwrap_or_default();
    let outline = Outline::of(Known {
        model,
        previous: &previous,
        observed: &observed,
        settings: &context.settings,
        types: &types,
        wanted: &wanted,
        revision: &revision,
        replicas: scale.desired,
        now: moment.time,
    });
    // apply: writes the children, or has the checkpoint looked at
    let applied = act(context, &outline.next, &observed).await?;
    // report: pure, then one patch and its events
    let template = if let Next::Children(children) = &outline.next { children.template.as_str() } else { "" };
    let lost = context.names.lost(model);
    let facts = Facts {
        model,
        previous: &previous,
        observed: &observed,
        applied: applied.as_ref().map(|deployment| (deployment.as_ref(), template)).map_err(Option::as_ref),
        inspection: outline.inspection.as_deref(),
        fitted: outline.fitted.as_ref(),
        gpu: wanted.gpu(),
        scale: &scale,
        lost_names: lost.as_deref(),
        settings: &context.settings,
        now: moment.time,
    };
    let mut report = report(&facts, &mut memory.remembered);
    revision.note(&mut report.status);
    outline.note(model, &previous, &mut report.status);
    if let Some(written) = publish(&context.client, model, &previous, &report.status).await? {
        context.metrics.wrote("VisionModel");
        memory.wrote(&written);
        announce(context, model, &previous, &report.status).await;
    }
    // What was told is in the status now: nobody has to ask for it again.
    if !matches!(outline.next, Next::Look(..)) {
        inspect::clear(&context.client, &context.metrics, &observed.inspecting, None).await?;
    }
    memory.failures = 0;
    context.memories.put(model, memory);
    let (outcome, again) = again(&applied, &outline.next, &revision);
    Ok((outcome, Action::requeue(report.look_again.unwrap_or(again).min(again))))
}

/// Writes the children, or has the checkpoint looked at. Without children: a problem, or nothing but a look that goes on.
async fn act(context: &Context, next: &Next, observed: &Observed) -> Result<Applied, ReconcileError> {
    Ok(match next {
        Next::Children(children) => write(context, children, observed).await?.map_err(Some),
        Next::Look(pod, look) => {
            Err(inspect::act(&context.client, &context.metrics, (pod, look), &observed.inspecting).await?)
        }
        Next::Nothing(problem) => Err(Some(problem.clone())),
    })
}

/// How a reconcile ended, and when it is made again though nothing happens.
fn again(applied: &Applied, next: &Next, revision: &Revision) -> (Outcome, Duration) {
    match (applied, next, revision) {
        (Ok(_), ..) => (Outcome::Done, RECHECK),
        (Err(None), ..) => (Outcome::Done, RETRY_LOOK),
        (Err(_), Next::Look(..), _) => (Outcome::Refused, RETRY_LOOK),
        (Err(_), _, Revision::Failed(_)) => (Outcome::Refused, revision::RETRY),
        (Err(_), ..) => (Outcome::Refused, RETRY_REFUSED),
    }
}

type Applied = Result<Arc<k8s_openapi::api::apps::v1::Deployment>, Option<Problem>>;
type Deployed = Result<Arc<k8s_openapi::api::apps::v1::Deployment>, Problem>;

/// Writes the children. What only a person can mend is a problem to report, the rest an error to
/// try again.
async fn write(context: &Context, children: &Children, observed: &Observed) -> Result<Deployed, ReconcileError> {
    match apply(&context.client, &context.ledger, &context.metrics, children, observed).await {
        Ok(deployment) => Ok(Ok(deployment)),
        Err(error @ ApplyError::Refused { .. }) => Ok(Err(Problem::new(Trouble::SpecRefused, error.to_string()))),
        Err(error @ ApplyError::NameTaken { .. }) => Ok(Err(Problem::new(Trouble::NameTaken, error.to_string()))),
        Err(error @ ApplyError::Failed { .. }) => Err(error.into()),
    }
}

fn deployed_replicas(observed: &Observed) -> Option<i32> {
    observed.deployment.as_ref()?.spec.as_ref()?.replicas
}

async fn announce(context: &Context, model: &VisionModel, previous: &VisionModelStatus, next: &VisionModelStatus) {
    for event in events::transitions(previous, next) {
        info!(
            namespace = model.namespace(),
            name = model.name_any(),
            reason = event.reason,
            note = event.note,
            "transition"
        );
        if let Err(error) = context.recorder.publish(&event, &model.object_ref(&())).await {
            warn!(%error, "event not written");
        }
    }
}

/// Waits longer after each failure, up to a minute.
#[expect(clippy::needless_pass_by_value, reason = "the controller's signature")]
fn retry(model: Arc<VisionModel>, error: &ReconcileError, context: Arc<Context>) -> Action {
    let mut memory = context.memories.get(&model);
    memory.failures = memory.failures.saturating_add(1);
    let seconds = 1_u64 << memory.failures.min(6);
    warn!(
        error = error as &dyn std::error::Error,
        namespace = model.namespace(),
        name = model.name_any(),
        "reconcile failed"
    );
    context.memories.put(&model, memory);
    Action::requeue(Duration::from_secs(seconds.min(60)))
}
