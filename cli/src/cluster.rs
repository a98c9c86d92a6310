//! The way to a cluster: kubeconfig, context and namespace as kubectl finds them.

use anyhow::Context;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use vlm_crds::VisionModel;

use crate::args::ClusterArgs;

/// A connection, and the namespace to look in.
pub struct Cluster {
    /// The API server.
    pub client: Client,
    /// Namespace of the model.
    pub namespace: String,
}

impl Cluster {
    /// The model of this name.
    ///
    /// # Errors
    /// When there is none, the operator is not installed, or the API server cannot be asked.
    pub async fn model(&self, name: &str) -> anyhow::Result<VisionModel> {
        let models: Api<VisionModel> = Api::namespaced(self.client.clone(), &self.namespace);
        let found = models.get_opt(name).await.with_context(|| format!("cannot ask for the VisionModel {name}"))?;
        found.with_context(|| {
            format!(
                "there is no VisionModel {name} in the namespace {}; kubectl get visionmodels -A lists all",
                self.namespace
            )
        })
    }
}

/// Connects as the flags say, otherwise as kubectl would.
///
/// # Errors
/// When the kubeconfig cannot be read or has no such context.
pub async fn connect(args: &ClusterArgs) -> anyhow::Result<Cluster> {
    let options = KubeConfigOptions { context: args.context.clone(), ..KubeConfigOptions::default() };
    let config = match &args.kubeconfig {
        Some(path) => {
            let kubeconfig = Kubeconfig::read_from(path).with_context(|| format!("cannot read {}", path.display()))?;
            Config::from_custom_kubeconfig(kubeconfig, &options).await
        }
        None => Config::from_kubeconfig(&options).await,
    };
    let config = config.context("the kubeconfig leads to no cluster")?;
    let namespace = args.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
    Ok(Cluster { client: Client::try_from(config).context("cannot connect")?, namespace })
}
