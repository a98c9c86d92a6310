//! Where replicas are: from the `EndpointSlices` of Services. Pure.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use vlm_contract::labels;

use super::{Endpoints, Leaving, ModelId, socket};
use crate::balance::Endpoint;

/// The replicas of every model. One that stands in several slices, as for a moment while it moves between them, is
/// ready when one of them says so.
pub fn of_models<'a>(slices: impl IntoIterator<Item = &'a EndpointSlice>) -> Endpoints {
    let mut found: HashMap<ModelId, BTreeMap<String, Endpoint>> = HashMap::new();
    for slice in slices {
        let (Some(namespace), Some(name)) = (slice.namespace(), slice.labels().get(labels::MODEL)) else { continue };
        let model = found.entry(ModelId { namespace, name: name.clone() }).or_default();
        for endpoint in of_slice(slice) {
            let ready = endpoint.ready;
            model.entry(endpoint.pod.clone()).or_insert(endpoint).ready |= ready;
        }
    }
    found.into_iter().map(|(model, pods)| (model, pods.into_values().collect())).collect()
}

/// The pods of every model that were asked to end, and still answer what they have begun.
pub fn leaving<'a>(slices: impl IntoIterator<Item = &'a EndpointSlice>) -> Leaving {
    let mut found = Leaving::new();
    for slice in slices {
        let (Some(namespace), Some(name)) = (slice.namespace(), slice.labels().get(labels::MODEL)) else { continue };
        let leave =
            slice.endpoints.iter().filter(|e| e.conditions.as_ref().is_some_and(|c| c.terminating == Some(true)));
        let pods = leave.filter_map(|endpoint| endpoint.target_ref.as_ref()?.name.clone());
        found.entry(ModelId { namespace, name: name.clone() }).or_default().extend(pods);
    }
    found
}

/// How many endpoints are ready.
pub fn ready<'a>(slices: impl IntoIterator<Item = &'a EndpointSlice>) -> usize {
    let pods = slices.into_iter().flat_map(of_slice).filter(|endpoint| endpoint.ready);
    pods.map(|endpoint| endpoint.pod).collect::<std::collections::BTreeSet<_>>().len()
}

fn of_slice(slice: &EndpointSlice) -> Vec<Endpoint> {
    let Some(port) = slice.ports.iter().flatten().find_map(|port| u16::try_from(port.port?).ok()) else {
        return Vec::new();
    };
    let all = slice.endpoints.iter().filter_map(|endpoint| {
        let address = socket(endpoint.addresses.first()?, port)?;
        let pod = endpoint.target_ref.as_ref().and_then(|target| target.name.clone());
        let conditions = endpoint.conditions.as_ref();
        let leaves = conditions.and_then(|c| c.terminating).unwrap_or(false);
        // An unknown condition counts as ready, as the API has it.
        let ready = conditions.and_then(|c| c.ready).unwrap_or(true) && !leaves;
        Some(Endpoint { pod: pod.unwrap_or_else(|| address.to_string()), address, ready })
    });
    all.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn slice(name: &str, endpoints: &Value) -> EndpointSlice {
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "shop", "labels": {labels::MODEL: "tiny"}},
            "addressType": "IPv4", "ports": [{"name": "http", "port": 8000}], "endpoints": endpoints,
        }))
        .unwrap()
    }

    fn endpoint(pod: &str, ip: &str, conditions: &Value) -> Value {
        json!({"addresses": [ip], "targetRef": {"kind": "Pod", "name": pod}, "conditions": conditions})
    }

    #[test]
    fn ready_pods_take_requests_and_leaving_ones_do_not() {
        let all = json!([
            endpoint("a", "10.0.0.1", &json!({"ready": true})),
            endpoint("b", "10.0.0.2", &json!({"ready": false, "serving": true, "terminating": true})),
            endpoint("c", "10.0.0.3", &json!({"ready": true, "terminating": true})),
            endpoint("d", "10.0.0.4", &json!({})),
            endpoint("e", "no address", &json!({"ready": true})),
        ]);
        let slices = [slice("x", &all), slice("y", &json!([endpoint("b", "10.0.0.2", &json!({"ready": true}))]))];
        let found = of_models(&slices);
        let model = &found[&ModelId { namespace: "shop".to_owned(), name: "tiny".to_owned() }];
        let shown: Vec<_> = model.iter().map(|e| (e.pod.as_str(), e.address.to_string(), e.ready)).collect();
        let at = |n: u8| format!("10.0.0.{n}:8000");
        assert_eq!(shown, [("a", at(1), true), ("b", at(2), true), ("c", at(3), false), ("d", at(4), true)]);
        assert_eq!(ready(&slices), 3);
        let leave = &leaving(&slices)[&ModelId { namespace: "shop".to_owned(), name: "tiny".to_owned() }];
        assert_eq!(leave.iter().collect::<Vec<_>>(), ["b", "c"]);
    }

    #[test]
    fn a_slice_without_port_or_label_has_nothing() {
        let mut bare = slice("x", &json!([endpoint("a", "10.0.0.1", &json!({}))]));
        bare.ports = None;
        assert!(of_slice(&bare).is_empty());
        bare.metadata.labels = None;
        assert!(of_models([&bare]).is_empty());
    }
}
