//! The resource `VisionModel` and its spec.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};
use vlm_catalog::kv_cache::KvCacheDtype;
use vlm_catalog::quantization::{Quantization, QuantizationChoice};

use crate::{bounded, pod::PodSettings, rollout::Rollout, scaling::Scaling, status::VisionModelStatus};

/// One vision-language model, served by as many replicas as its load needs behind one Service of
/// the same name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "vlm-operator.dev",
    version = "v1alpha1",
    kind = "VisionModel",
    plural = "visionmodels",
    singular = "visionmodel",
    shortname = "vlm",
    namespaced,
    status = "VisionModelStatus",
    derive = "PartialEq",
    doc = "A vision-language model served behind an OpenAI-compatible API: Deployment, Service and PodDisruptionBudget of the same name.",
    annotation("helm.sh/resource-policy", "keep"),
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas.current",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Model", type_ = "string", json_path = ".spec.model.uri", description = "Where the weights are"),
    printcolumn(name = "Quant", type_ = "string", json_path = ".status.resolved.quantization", description = "Number format of the weights"),
    printcolumn(name = "GPU", type_ = "string", json_path = ".spec.gpu.type", description = "GPU type; empty means processor cores"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.replicas.summary", description = "Ready replicas of those wanted"),
    printcolumn(name = "Status", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#, description = "Why it is ready or not"),
    printcolumn(name = "Cost/h", type_ = "string", json_path = ".status.cost.perHour", description = "US dollars an hour for the GPUs of all wanted replicas"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp", description = "Time since it was created"),
    printcolumn(name = "Message", type_ = "string", priority = 1, json_path = r#".status.conditions[?(@.type=="Ready")].message"#, description = "The reason in a sentence"),
    validation = Rule::new(
        "self.metadata.name.size() <= 63 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')"
    ).message("metadata.name must be the name of a Service: at most 63 small letters, digits and hyphens, beginning with a letter")
)]
pub struct VisionModelSpec {
    /// The model to serve.
    pub model: Model,
    /// Number format of the weights, converted while they are loaded. none keeps them as they are stored; int8 and int4
    /// take about a half and a quarter of the memory of 16 bit; auto takes the first of none, int8 and int4 with which
    /// the context and the concurrency fit the memory. Default none. What it came to is status.resolved.quantization.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "bounded::quantization")]
    pub quantization: Option<QuantizationChoice>,
    /// The GPU of each replica. Without it a model runs on processor cores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<Gpu>,
    /// How long and how many requests one replica holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<Context>,
    /// A fixed number of replicas; while set, the autoscaler is off. 0 switches the model off. This
    /// is what kubectl scale and a HorizontalPodAutoscaler write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub replicas: Option<i32>,
    /// How the number of replicas follows the load.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scaling: Option<Scaling>,
    /// How a change reaches the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
    /// How a replica goes away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<Drain>,
    /// Settings of the pods that are handed on as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodSettings>,
}

/// Which model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "self.uri.startsWith('hf://') || (!has(self.revision) && !has(self.tokenSecretRef))"
).message("model.revision and model.tokenSecretRef are only for a model.uri that begins with hf://"))]
pub struct Model {
    /// Where the weights are. hf://ORGANISATION/NAME is a repository of the Hugging Face hub, or of the
    /// mirror that the operator is set to; each pod downloads it. pvc://CLAIM/PATH is a directory with
    /// config.json, tokenizer and safetensors on a PersistentVolumeClaim of the same namespace, mounted read-only.
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(validation = Rule::new("self.startsWith('pvc://') || self.startsWith('hf://')").message(
        "model.uri must begin with hf:// or pvc://, as in hf://ORGANISATION/NAME or pvc://CLAIM/PATH; other sources are not available yet"
    ))]
    #[x_kube(validation = Rule::new(
        "!self.startsWith('hf://') || self.matches('^hf://[A-Za-z0-9_]([A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?/[A-Za-z0-9_]([A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?$') && !self.contains('..')"
    ).message(
        "model.uri must name an organisation and a repository of it, as in hf://ORGANISATION/NAME; each has up to 96 letters, digits, _ . and -, no .., and neither begins nor ends with . or -"
    ))]
    #[x_kube(validation = Rule::new(
        "!self.startsWith('pvc://') || self.matches('^pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9_@+=.-]+(/[A-Za-z0-9_@+=.-]+)*$')"
    ).message(
        "model.uri must name a claim and a directory inside it, as in pvc://CLAIM/PATH; the path has letters, digits, any of _ @ + = . - and single slashes, none at its end"
    ))]
    #[x_kube(validation = Rule::new("!self.matches('/[.][.]?(/|$)')").message(
        "model.uri must not have . or .. as a part of its path"
    ))]
    pub uri: String,
    /// Branch, tag or commit of an hf:// repository. Default main. A branch is looked up once, when the model or this
    /// field changes, and stays at that commit (status.resolved.revision) until then; with tokenSecretRef, and
    /// without a GPU or a memory limit, each new pod looks it up, so name a commit there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    #[x_kube(validation = Rule::new(
        "self.matches('^[A-Za-z0-9_][A-Za-z0-9_./-]*$') && !self.endsWith('/') && !self.contains('..') && !self.contains('//')"
    ).message(
        "model.revision must be a branch, a tag or a commit: letters, digits, _ . / and -, beginning with a letter, a digit or _, without .. or // and without / at its end"
    ))]
    pub revision: Option<String>,
    /// The token for a private or gated hf:// repository: a key of a Secret of the same namespace. Only the
    /// containers that look at it and download it get it; the operator never reads it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_secret_ref: Option<SecretKey>,
    /// Further names by which clients may ask for the model, at the gateway without a namespace. Of several models with
    /// one name or alias the oldest has it; Available says so to the others (AliasConflict). A change reaches the pods.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "bounded::aliases")]
    pub aliases: Vec<String>,
}

/// A key of a Secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretKey {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key in it.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

impl Model {
    /// `revision` or its default.
    pub fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or("main")
    }
}

/// The GPU of each replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Gpu {
    /// Name of a GPU type of the operator's catalogue, such as nvidia-l4. Each replica gets one such GPU; the catalogue
    /// says on which nodes they are, which taints their pods tolerate, how much memory they have and what they cost. It
    /// is the ConfigMap RELEASE-gpu-types beside the operator, which the chart's value gpuTypes adds to.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$')").message(
        "gpu.type must be the name of a GPU type, such as nvidia-l4: small letters, digits, dots and hyphens, beginning and ending with a letter or a digit"
    ))]
    pub r#type: String,
}

/// How long and how many requests one replica holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Context {
    /// Longest request, prompt and answer together, in tokens. Default: the longest that fits the memory and that the
    /// model was made for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 16, max = 1_048_576))]
    pub max_tokens: Option<i32>,
    /// Requests that one replica computes at the same time; more wait. Default: with a
    /// GPU as many requests with a picture as fit its memory, up to 128; else up to 8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 256))]
    pub max_concurrency: Option<i32>,
    /// Number format of keys and values: auto (that of weights that are not quantised), int8 or fp8 (E4M3). In 8 bits about
    /// twice as many requests fit as in 16; int8 is the nearer of the two. Default auto.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "bounded::kv_cache_dtype")]
    pub kv_cache_dtype: Option<KvCacheDtype>,
}

/// How a replica goes away.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Drain {
    /// Seconds that running requests get to finish before a replica is stopped. Default 120.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 86400))]
    pub timeout_seconds: Option<i32>,
    /// Whether the gateway lets a streamed answer go on at another replica when its own ends before it, dies, or has
    /// used up most of timeoutSeconds. Default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migrate: Option<bool>,
}

impl VisionModelSpec {
    /// `context.maxConcurrency` or its default.
    pub fn max_concurrency(&self) -> i32 {
        self.context.as_ref().and_then(|c| c.max_concurrency).unwrap_or(8).max(1)
    }

    /// `context.kvCacheDtype` or its default.
    pub fn kv_cache_dtype(&self) -> KvCacheDtype {
        self.context.as_ref().and_then(|c| c.kv_cache_dtype).unwrap_or_default()
    }

    /// `quantization` or its default.
    pub fn quantization(&self) -> QuantizationChoice {
        self.quantization.unwrap_or(QuantizationChoice::Fixed(Quantization::None))
    }

    /// `gpu.type`.
    pub fn gpu_type(&self) -> Option<&str> {
        self.gpu.as_ref().map(|gpu| gpu.r#type.as_str())
    }

    /// `rollout.progressDeadlineSeconds` or its default.
    pub fn progress_deadline_seconds(&self) -> i32 {
        self.rollout.as_ref().and_then(|r| r.progress_deadline_seconds).unwrap_or(1800).max(1)
    }

    /// `drain.timeoutSeconds` or its default.
    pub fn drain_timeout_seconds(&self) -> i32 {
        self.drain.as_ref().and_then(|d| d.timeout_seconds).unwrap_or(120).max(0)
    }

    /// `drain.migrate` or its default.
    pub fn migrates(&self) -> bool {
        self.drain.as_ref().and_then(|d| d.migrate).unwrap_or(true)
    }

    /// `scaling` or its defaults.
    pub fn scaling(&self) -> Scaling {
        self.scaling.clone().unwrap_or_default()
    }
}
