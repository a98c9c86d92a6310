//! Where the gateways are: from the `EndpointSlices` of their Service.

use futures::{FutureExt, StreamExt, future::BoxFuture};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{
    Api, Client,
    runtime::{
        WatchStreamExt,
        reflector::{self, Store},
        watcher,
    },
};
use tracing::warn;

/// Label by which a slice names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// A gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// Name of its pod.
    pub pod: String,
    /// Its IP address.
    pub address: String,
    /// Whether it takes requests.
    pub ready: bool,
}

/// The gateways' addresses.
#[derive(Clone)]
pub struct Gateways(Store<EndpointSlice>);

impl Gateways {
    /// Every gateway, those that drain among them.
    pub fn all(&self) -> Vec<Gateway> {
        let mut all: Vec<_> = self.0.state().iter().flat_map(|slice| of_slice(slice)).collect();
        // One that moves between slices stands in both for a moment.
        all.sort_by(|a, b| (&a.pod, b.ready).cmp(&(&b.pod, a.ready)));
        all.dedup_by(|b, a| a.pod == b.pod);
        all
    }
}

/// Watches the slices of the Service `name`. The future runs as long as the process.
pub fn watch(client: &Client, namespace: &str, name: &str) -> (Gateways, BoxFuture<'static, ()>) {
    let api: Api<EndpointSlice> = Api::namespaced(client.clone(), namespace);
    let config = watcher::Config::default().labels(&format!("{SERVICE_NAME}={name}"));
    let (reader, writer) = reflector::store();
    let work = reflector::reflector(writer, watcher::watcher(api, config)).default_backoff().for_each(|event| {
        if let Err(error) = event {
            warn!(%error, "watch of the gateways broke; it is taken up again");
        }
        futures::future::ready(())
    });
    (Gateways(reader), work.boxed())
}

fn of_slice(slice: &EndpointSlice) -> Vec<Gateway> {
    let all = slice.endpoints.iter().filter_map(|endpoint| {
        let conditions = endpoint.conditions.as_ref();
        Some(Gateway {
            pod: endpoint.target_ref.as_ref()?.name.clone()?,
            address: endpoint.addresses.first()?.clone(),
            ready: conditions.and_then(|c| c.ready).unwrap_or(true),
        })
    });
    all.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn gateways_that_drain_are_asked_as_well() {
        let slice: EndpointSlice = serde_json::from_value(json!({
            "metadata": {"name": "x"}, "addressType": "IPv4",
            "endpoints": [
                {"addresses": ["10.0.0.1"], "targetRef": {"name": "a"}, "conditions": {"ready": true}},
                {"addresses": ["10.0.0.2"], "targetRef": {"name": "b"},
                 "conditions": {"ready": false, "serving": true, "terminating": true}},
                {"addresses": ["10.0.0.3"]},
            ],
        }))
        .unwrap();
        let gateway = |pod: &str, address: &str, ready| Gateway { pod: pod.into(), address: address.into(), ready };
        assert_eq!(of_slice(&slice), [gateway("a", "10.0.0.1", true), gateway("b", "10.0.0.2", false)]);
    }
}
