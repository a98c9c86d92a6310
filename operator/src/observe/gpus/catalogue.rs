//! The catalogue of GPU types: one `ConfigMap`, watched, so that an edit acts at once. One that cannot be used keeps
//! the last that could.

use std::sync::Arc;

use futures::{FutureExt, StreamExt, future::BoxFuture};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client,
    runtime::{WatchStreamExt, watcher},
};
use tracing::{info, warn};
use vlm_catalog::gpu::GpuTypes;

use super::{Gpus, Sources};
use crate::metrics::Metrics;
use crate::plan::placement::Catalogue;

/// Key of the `ConfigMap` that holds the types.
const KEY: &str = "gpu-types.yaml";

pub(super) fn work(gpus: Arc<Gpus>, client: &Client, sources: &Sources, metrics: &Metrics) -> BoxFuture<'static, ()> {
    let api = Api::<ConfigMap>::namespaced(client.clone(), &sources.namespace);
    let (place, metrics) = (format!("{}/{}", sources.namespace, sources.config_map), metrics.clone());
    watcher::watch_object(api, &sources.config_map)
        .default_backoff()
        .for_each(move |seen| {
            match seen {
                Ok(map) => take_in(&gpus, map.as_ref(), &place, &metrics),
                Err(error) => {
                    warn!(%error, "the watch of the GPU catalogue broke; it is taken up again");
                    if is_forbidden(&error) {
                        gpus.lack(format!("the operator may not read the ConfigMap {place}"));
                    }
                }
            }
            futures::future::ready(())
        })
        .boxed()
}

/// Takes in the `ConfigMap` as it is now; `None`: there is none.
pub(super) fn take_in(gpus: &Gpus, map: Option<&ConfigMap>, place: &str, metrics: &Metrics) {
    let Some(map) = map else {
        warn!(place, "there is no GPU catalogue: models that ask for a GPU cannot be placed");
        metrics.read_catalogue(false);
        gpus.set_catalogue(Catalogue::Unusable(format!("the ConfigMap {place} does not exist")));
        return;
    };
    let yaml = map.data.as_ref().and_then(|data| data.get(KEY));
    let read = yaml
        .ok_or_else(|| format!("it has no key {KEY}"))
        .and_then(|yaml| GpuTypes::parse(yaml).map_err(|error| error.to_string()));
    metrics.read_catalogue(read.is_ok());
    match read {
        Ok(types) => {
            let count = types.iter().count();
            if gpus.set_catalogue(Catalogue::Types(Arc::new(types))) {
                info!(place, count, "GPU types");
            }
        }
        Err(error) => {
            warn!(place, error, "the GPU catalogue cannot be used; what it was before still stands");
            gpus.lack(format!("the ConfigMap {place} cannot be used: {error}"));
        }
    }
}

impl Gpus {
    /// Notes why there is no catalogue, unless there was one that could be used.
    fn lack(&self, why: String) {
        if self.types().is_none() {
            self.set_catalogue(Catalogue::Unusable(why));
        }
    }
}

fn is_forbidden(error: &watcher::Error) -> bool {
    let watcher::Error::InitialListFailed(source) = error else { return false };
    matches!(source, kube::Error::Api(status) if status.code == 403)
}
