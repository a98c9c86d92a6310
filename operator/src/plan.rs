//! What to do: from a `VisionModel` and a number of replicas to a [`Plan`]. Pure: no client, no clock.

use std::str::FromStr;

use kube::ResourceExt;
use vlm_catalog::{footprint::Fit, kv_cache::KvCacheDtype, quantization::Quantization};
use vlm_contract::uri::{Claim, ModelUri, Repository, UriError};
use vlm_crds::{VisionModel, VisionModelSpec, pod::PodSettings, vision_model::SecretKey};

pub mod fit;
pub mod placement;
pub mod scale;

use placement::Gpu;

/// Settings of the operator that shape every model's pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Image of the model server for processor cores.
    pub runtime_image: String,
    /// Image of the model server for GPUs.
    pub runtime_cuda_image: String,
    /// `imagePullPolicy` of the model server.
    pub image_pull_policy: String,
    /// Base address of the hub or of a mirror; `None` is the public one.
    pub hub_endpoint: Option<String>,
    /// The gateway's public key, where streams go on at another model server.
    pub gateway_public_key: Option<String>,
    /// There is a gateway, so that a replica counts as ready only once one has reached it.
    pub gated: bool,
}

impl Settings {
    /// The image of the model server that a spec takes.
    pub fn image(&self, spec: &VisionModelSpec) -> &str {
        if spec.gpu.is_some() { &self.runtime_cuda_image } else { &self.runtime_image }
    }
}

/// Where the weights come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// They are on a claim.
    Claim(Claim),
    /// Each pod fetches them.
    Hub {
        /// The repository.
        repository: Repository,
        /// The commit where it is known, else what the pod is to resolve.
        revision: String,
        /// Where the token is.
        token: Option<SecretKey>,
        /// Base address of the hub; `None` is the public one.
        endpoint: Option<String>,
    },
}

/// Everything that the child objects are made of.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Name of the `VisionModel` and of its children.
    pub name: String,
    /// Their namespace.
    pub namespace: String,
    /// Further names, none of them the model's own.
    pub aliases: Vec<String>,
    /// Where the weights come from.
    pub source: Source,
    /// Image of the model server.
    pub image: String,
    /// `imagePullPolicy` of the model server.
    pub image_pull_policy: String,
    /// The GPU of each replica; `None` is processor cores.
    pub gpu: Option<Gpu>,
    /// Wanted number of pods.
    pub replicas: i32,
    /// Requests that a replica computes at the same time.
    pub max_concurrency: i32,
    /// Longest request in tokens; `None` leaves it to the model.
    pub max_tokens: Option<i32>,
    /// Number format that the decoder is brought into.
    pub quantization: Quantization,
    /// Number format of keys and values.
    pub kv_cache_dtype: KvCacheDtype,
    /// Bytes of the server's cache of keys and values; `None` is room for as many requests of the greatest length as
    /// are computed at the same time.
    pub kv_bytes: Option<u64>,
    /// Bytes that the server keeps of pictures at most; `None` is its own default.
    pub picture_cache_bytes: Option<u64>,
    /// Seconds without progress after which a rollout counts as stuck.
    pub progress_deadline_seconds: i32,
    /// Seconds that running requests get to finish.
    pub drain_timeout_seconds: i32,
    /// The gateway's public key: who signs with it may let a server go on with another one's answer.
    pub gateway_public_key: Option<String>,
    /// A replica counts as ready only once a gateway has reached it.
    pub gated: bool,
    /// What is handed on to the pods.
    pub pod: PodSettings,
}

/// Plans the children of a model, whose weights are those of `commit` where that is known, and whose replicas run on
/// `gpu` each, or on processor cores.
///
/// # Errors
/// [`UriError`] for a URI that the API server's own check would have refused.
pub fn plan(
    model: &VisionModel,
    settings: &Settings,
    replicas: i32,
    commit: Option<&str>,
    gpu: Option<&Gpu>,
) -> Result<Plan, UriError> {
    let spec = &model.spec;
    let source = match ModelUri::from_str(&spec.model.uri)? {
        ModelUri::Claim(claim) => Source::Claim(claim),
        ModelUri::Hub(repository) => Source::Hub {
            repository,
            revision: commit.unwrap_or(spec.model.revision()).to_owned(),
            token: spec.model.token_secret_ref.clone(),
            endpoint: settings.hub_endpoint.clone(),
        },
    };
    Ok(Plan {
        name: model.name_any(),
        namespace: model.namespace().unwrap_or_default(),
        aliases: spec.model.aliases.iter().filter(|alias| **alias != model.name_any()).cloned().collect(),
        source,
        image: settings.image(spec).to_owned(),
        image_pull_policy: settings.image_pull_policy.clone(),
        gpu: gpu.cloned(),
        replicas,
        max_concurrency: spec.max_concurrency(),
        max_tokens: spec.context.as_ref().and_then(|c| c.max_tokens),
        quantization: fit::unjudged_quantization(spec),
        kv_cache_dtype: spec.kv_cache_dtype(),
        kv_bytes: None,
        picture_cache_bytes: None,
        progress_deadline_seconds: spec.progress_deadline_seconds(),
        drain_timeout_seconds: spec.drain_timeout_seconds(),
        gateway_public_key: settings.gateway_public_key.clone(),
        gated: settings.gated,
        pod: spec.pod.clone().unwrap_or_default(),
    })
}

impl Plan {
    /// Takes over what the memory of a replica gives room for.
    pub fn take_over(&mut self, fit: &Fit) {
        self.quantization = fit.quantization;
        self.max_tokens = Some(fit::count(fit.max_tokens));
        self.max_concurrency = fit::count(fit.max_concurrency);
        self.kv_bytes = Some(fit.cache_bytes());
        self.picture_cache_bytes = fit.picture_cache_bytes;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pods_fetch_the_commit_that_is_known_and_else_the_revision() {
        let model: VisionModel = serde_json::from_value(json!({
            "apiVersion": "vlm-operator.dev/v1alpha1", "kind": "VisionModel", "metadata": {"name": "tiny"},
            "spec": {"model": {"uri": "hf://org/tiny", "revision": "v2"}},
        }))
        .unwrap();
        let settings = Settings {
            runtime_image: "i".to_owned(),
            runtime_cuda_image: "c".to_owned(),
            image_pull_policy: "Always".to_owned(),
            hub_endpoint: Some("http://mirror".to_owned()),
            gateway_public_key: None,
            gated: false,
        };
        for (commit, expected) in [(Some("c0ffee"), "c0ffee"), (None, "v2")] {
            let Source::Hub { revision, endpoint, .. } = plan(&model, &settings, 1, commit, None).unwrap().source
            else {
                panic!("a claim")
            };
            assert_eq!((revision.as_str(), endpoint.as_deref()), (expected, Some("http://mirror")));
        }
    }
}
