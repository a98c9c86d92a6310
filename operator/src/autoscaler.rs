//! The loop that follows the load: read the demand, ask [`crate::plan::scale`], change the number
//! in the [`table`], and have the model reconciled. Only the leader runs it.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures::{StreamExt, channel::mpsc, stream};
use kube::{
    ResourceExt,
    runtime::reflector::{ObjectRef, Store},
};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};
use vlm_contract::ports;
use vlm_crds::VisionModel;

use crate::{
    context::Context,
    demand::{
        gateways::{self, GatewayPage},
        pods, prometheus,
        track::{GatewayAnswer, PodAnswer, QueryAnswer, QueryRound},
    },
    metrics::Source,
    observe::{self, gateways::Gateway},
    plan::scale::{self, Decision, Policy},
};

mod retire;
pub mod table;

use table::{Key, Next, Round, key};

/// Time between two looks at the load.
const TICK: Duration = Duration::from_secs(2);
/// Requests for the load that are under way at the same time.
const AT_ONCE: usize = 64;

/// Sends the models whose number, or what the status shows of it, has changed.
pub type Wake = mpsc::UnboundedSender<ObjectRef<VisionModel>>;

/// Runs until `shutdown`.
pub async fn run(context: Arc<Context>, models: Store<VisionModel>, wake: Wake, shutdown: CancellationToken) {
    if models.wait_until_ready().await.is_err() {
        return;
    }
    let mut counted = 0;
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let all = models.state();
        context.metrics.models(std::mem::replace(&mut counted, all.len()), all.len());
        context.forget_all_but(&all);
        tell_names(&context, &all, &wake);
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tick(&context, &all, &wake) => {}
        }
    }
}

/// Has those models reconciled that have lost a name at the gateway, or won one.
fn tell_names(context: &Context, all: &[Arc<VisionModel>], wake: &Wake) {
    if context.gateways.is_none() {
        return;
    }
    for (namespace, name) in context.names.take_over(all) {
        // An error means that the controller is shutting down.
        let _ = wake.unbounded_send(ObjectRef::new(&name).within(&namespace));
    }
}

async fn tick(context: &Context, all: &[Arc<VisionModel>], wake: &Wake) {
    let scaled: Vec<_> =
        all.iter().filter(|m| m.spec.replicas.is_none() && m.metadata.deletion_timestamp.is_none()).collect();
    let (mut rounds, pages) = futures::join!(read(context, &scaled), read_gateways(context));
    let steps = scaled.into_iter().filter_map(|model| rounds.remove(&key(model)).map(|round| (model, round)));
    let pages = &pages;
    stream::iter(steps)
        .for_each_concurrent(AT_ONCE, |(model, round)| async move { step(context, model, (&round, pages), wake).await })
        .await;
}

async fn step(context: &Context, model: &VisionModel, (round, pages): (&Round, &GatewayPages), wake: &Wake) {
    let key = key(model);
    let policy = Policy::new(&model.spec.scaling(), capacity(model), context.gateways.is_some());
    let gateways = pages.as_ref().map(|pages| of_model(pages, &key));
    let report = match context.table.take_in(&key, &policy, (round, gateways.as_deref()), context.moment().now) {
        Next::Nothing => false,
        Next::Report => true,
        Next::Change { from, decision } => change(context, &key, from, &decision, round).await,
    };
    if report {
        // An error means that the controller is shutting down.
        let _ = wake.unbounded_send(ObjectRef::from_obj(model));
    }
}

/// Requests that a replica computes at the same time, as the newest status has it.
fn capacity(model: &VisionModel) -> i32 {
    let resolved = model.status.as_ref().and_then(|status| status.resolved.as_ref());
    resolved.and_then(|resolved| resolved.max_concurrency).unwrap_or_else(|| model.spec.max_concurrency())
}

async fn change(context: &Context, key: &Key, from: i32, decision: &Decision, round: &Round) -> bool {
    if decision.to < from {
        let count = usize::try_from(from - decision.to).unwrap_or_default();
        retire::mark(context, key, count).await;
    }
    let time = context.moment().time;
    let changed = context.table.commit(key, from, decision, round.source(), time);
    if changed {
        context.metrics.decided(from, decision.to);
        info!(
            namespace = key.0,
            name = key.1,
            from,
            to = decision.to,
            reason = decision.reason,
            load = decision.inputs.load,
            ready = decision.inputs.ready,
            "scale"
        );
    }
    changed
}

/// What every gateway said, and whether it takes requests; `None` where there is to be none.
type GatewayPages = Option<Vec<(Gateway, Option<GatewayPage>)>>;

/// Asks every gateway for what it knows of all models.
async fn read_gateways(context: &Context) -> GatewayPages {
    let all = context.gateways.as_ref()?.all();
    let asked = stream::iter(all).map(|gateway| async move {
        let page = gateways::scrape(&context.http, &gateway.address, ports::GATEWAY_ADMIN)
            .await
            .inspect_err(|error| {
                debug!(error = error as &dyn std::error::Error, gateway = gateway.pod, "not read");
            })
            .ok();
        context.metrics.read(Source::Gateways, page.is_some());
        (gateway, page)
    });
    Some(asked.buffer_unordered(AT_ONCE).collect().await)
}

fn of_model(pages: &[(Gateway, Option<GatewayPage>)], key: &Key) -> Vec<GatewayAnswer> {
    let answer = |(gateway, page): &(Gateway, Option<GatewayPage>)| GatewayAnswer {
        gateway: gateway.pod.clone(),
        ready: gateway.ready,
        reading: page.as_ref().and_then(|page| page.get(key)).copied(),
    };
    pages.iter().map(answer).collect()
}

/// One thing to ask.
enum Question {
    Pod { key: Key, pod: String, ready: bool, address: String },
    Prometheus { key: Key, query: String },
}

/// What came of a question.
enum Told {
    Pod(PodAnswer),
    Prometheus(QueryAnswer),
}

/// Asks for the load of every model, all at once.
async fn read(context: &Context, models: &[&Arc<VisionModel>]) -> HashMap<Key, Round> {
    let mut rounds = HashMap::new();
    let mut questions = Vec::new();
    for model in models {
        let key = key(model);
        let pods = context.stores.pods_of(&key.0, &key.1);
        let scaling = model.spec.scaling();
        let mut asks_pods = true;
        let round = match &scaling.prometheus {
            Some(source) => {
                let query = prometheus::substitute(&source.query, &key.0, &key.1);
                questions.push(Question::Prometheus { key: key.clone(), query });
                asks_pods = scale::least(&scaling, context.gateways.is_some()) == 0;
                let ready = pods.iter().filter(|pod| observe::is_ready(pod)).count();
                Round::Prometheus(QueryRound {
                    ready: i32::try_from(ready).unwrap_or(i32::MAX),
                    pods: pods.len(),
                    answer: QueryAnswer::Failed("it was not asked".to_owned()),
                    direct: asks_pods.then(Vec::new),
                })
            }
            None => Round::Pods(Vec::new()),
        };
        rounds.insert(key.clone(), round);
        if asks_pods {
            questions.extend(pods.iter().filter_map(|pod| {
                let (ready, address) = (observe::is_ready(pod), observe::address(pod)?.to_owned());
                Some(Question::Pod { key: key.clone(), pod: pod.name_any(), ready, address })
            }));
        }
    }
    let mut answers = stream::iter(questions).map(|question| ask(context, question)).buffer_unordered(AT_ONCE);
    while let Some((key, told)) = answers.next().await {
        match (rounds.get_mut(&key), told) {
            (Some(Round::Pods(pods)), Told::Pod(answer)) => pods.push(answer),
            (Some(Round::Prometheus(query)), Told::Pod(answer)) => query.direct.get_or_insert_default().push(answer),
            (Some(Round::Prometheus(query)), Told::Prometheus(answer)) => query.answer = answer,
            _ => {}
        }
    }
    rounds
}

/// Asks one thing.
async fn ask(context: &Context, question: Question) -> (Key, Told) {
    match question {
        Question::Pod { key, pod, ready, address } => {
            let reading = pods::scrape(&context.http, &address, ports::RUNTIME_HTTP)
                .await
                .inspect_err(|error| debug!(error = error as &dyn std::error::Error, pod, "not read"))
                .ok();
            context.metrics.read(Source::Pods, reading.is_some());
            (key, Told::Pod(PodAnswer { pod, ready, reading }))
        }
        Question::Prometheus { key, query } => {
            let answer = match &context.prometheus_url {
                Some(url) => match prometheus::query(&context.http, url, &query).await {
                    Ok(load) => QueryAnswer::Load(load),
                    Err(error) => {
                        debug!(error = &error as &dyn std::error::Error, query, "not read");
                        let why = error.to_string();
                        if error.is_absence() { QueryAnswer::Absent(why) } else { QueryAnswer::Failed(why) }
                    }
                },
                None => QueryAnswer::Failed("the operator was given no --prometheus-url".to_owned()),
            };
            context.metrics.read(Source::Prometheus, matches!(answer, QueryAnswer::Load(_)));
            (key, Told::Prometheus(answer))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn what_the_status_has_resolved_wins_over_the_spec_and_that_over_the_default() {
        let capacity = |context: Value, resolved: Value| {
            let model = json!({"apiVersion": "vlm-operator.dev/v1alpha1", "kind": "VisionModel",
                               "metadata": {"name": "tiny"}, "status": {"resolved": resolved},
                               "spec": {"model": {"uri": "pvc://weights/tiny"}, "context": context}});
            capacity(&serde_json::from_value(model).unwrap())
        };
        assert_eq!(capacity(json!({"maxConcurrency": 16}), json!({"image": "i", "maxConcurrency": 4})), 4);
        assert_eq!(capacity(json!({"maxConcurrency": 16}), json!({"image": "i"})), 16);
        assert_eq!(capacity(json!({"maxConcurrency": 16}), Value::Null), 16);
        assert_eq!(capacity(json!({}), Value::Null), 8);
    }
}
