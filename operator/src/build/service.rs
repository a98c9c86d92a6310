//! The Service in front of a model's pods.

use k8s_openapi::{
    api::core::v1::{Service, ServicePort, ServiceSpec},
    apimachinery::pkg::{apis::meta::v1::OwnerReference, util::intstr::IntOrString},
};
use vlm_contract::ports;

use super::{labels, metadata};
use crate::plan::Plan;

pub(super) fn service(plan: &Plan, owner: &OwnerReference) -> Service {
    Service {
        metadata: metadata(plan, owner),
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".to_owned()),
            selector: Some(labels::selector(&plan.name)),
            ports: Some(vec![ServicePort {
                name: Some(ports::HTTP_NAME.to_owned()),
                port: i32::from(ports::MODEL_SERVICE),
                target_port: Some(IntOrString::String(ports::HTTP_NAME.to_owned())),
                protocol: Some("TCP".to_owned()),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}
