//! `logs`: what all pods of a model say, each line behind the name of its pod.

use std::io::Write;
use std::pin::pin;

use anyhow::{Context, bail};
use futures::{AsyncBufReadExt, StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, LogParams};
use kube::{Api, ResourceExt};

use crate::args::LogsArgs;
use crate::cluster::Cluster;

/// Pods that are read; a model with more needs a collector of logs.
const MAX_PODS: usize = 100;

/// Writes the logs of all containers of all pods of a model to `out`.
///
/// # Errors
/// When there is no such model, it has no pods, or a log cannot be read.
pub async fn run(cluster: &Cluster, args: &LogsArgs, out: &mut impl Write) -> anyhow::Result<()> {
    let model = cluster.model(&args.name).await?;
    let selector = model.status.and_then(|status| status.selector);
    let selector =
        selector.with_context(|| format!("the operator has not looked at {} yet: it has no pods", args.name))?;
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let found = pods.list(&ListParams::default().labels(&selector)).await.context("cannot list the pods")?.items;
    if found.is_empty() {
        bail!("{} has no pods; kubectl vlm status {} says why", args.name, args.name);
    }
    let several = found.len() > 1;
    let places = found.iter().take(MAX_PODS).flat_map(|pod| places(pod, several)).collect::<Vec<_>>();
    let opened = places.into_iter().map(|place| {
        let params = LogParams {
            container: Some(place.container.clone()),
            follow: args.follow,
            previous: args.previous,
            tail_lines: args.tail,
            ..LogParams::default()
        };
        let pods = pods.clone();
        async move {
            let log = pods.log_stream(&place.pod, &params).await;
            let what = format!("cannot read the log of {}, container {}", place.pod, place.container);
            let lines = log.with_context(|| what.clone())?.lines();
            anyhow::Ok(lines.map(move |line| match line {
                Ok(line) => Ok(format!("{}{line}\n", place.prefix)),
                Err(error) => Err(anyhow::Error::new(error).context(what.clone())),
            }))
        }
    });
    // Containers that have not started yet have no log; the others are read all the same.
    let mut open = Vec::new();
    for log in futures::future::join_all(opened).await {
        match log {
            Ok(lines) => open.push(lines.boxed_local()),
            Err(error) => open.push(stream::once(async move { Ok(format!("# {error:#}\n")) }).boxed_local()),
        }
    }
    let mut lines = pin!(stream::select_all(open));
    while let Some(line) = lines.try_next().await? {
        match out.write_all(line.as_bytes()).and_then(|()| out.flush()) {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
            written => written.context("cannot write the log")?,
        }
    }
    Ok(())
}

/// A container whose log is read, and what stands before its lines.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    pod: String,
    container: String,
    prefix: String,
}

/// All containers of a pod, those first that run first. A single one of a single pod needs no name before its lines.
fn places(pod: &Pod, several: bool) -> Vec<Place> {
    let spec = pod.spec.as_ref();
    let first = spec.and_then(|spec| spec.init_containers.as_ref()).into_iter().flatten();
    let containers: Vec<_> = first.chain(spec.into_iter().flat_map(|spec| &spec.containers)).collect();
    let name = pod.name_any();
    let prefix = |container: &str| match (several, containers.len()) {
        (false, 0 | 1) => String::new(),
        (_, 0 | 1) => format!("{name} | "),
        _ => format!("{name} {container} | "),
    };
    let place =
        |container: &str| Place { pod: name.clone(), container: container.to_owned(), prefix: prefix(container) };
    containers.iter().map(|container| place(&container.name)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(spec: &serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "llava-1"}, "spec": spec})).unwrap()
    }

    #[test]
    fn lines_carry_a_name_only_where_there_are_several() {
        let one = pod(&json!({"containers": [{"name": "server"}]}));
        let two = pod(&json!({"initContainers": [{"name": "fetch"}], "containers": [{"name": "server"}]}));
        let prefixes = |pod, several| places(pod, several).into_iter().map(|place| place.prefix).collect::<Vec<_>>();
        assert_eq!(prefixes(&one, false), [""]);
        assert_eq!(prefixes(&one, true), ["llava-1 | "]);
        assert_eq!(prefixes(&two, false), ["llava-1 fetch | ", "llava-1 server | "]);
        assert!(places(&pod(&json!({"containers": []})), true).is_empty());
    }
}
