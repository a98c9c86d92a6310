//! What a model gets: its children, a look at its checkpoint before there can be any, or neither. Pure.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::{
    api::{apps::v1::Deployment, core::v1::Pod},
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::Resource as _;
use vlm_catalog::{gpu::GpuTypes, inspection::Inspection};
use vlm_crds::{
    VisionModel,
    status::{VisionModelStatus, reasons::Trouble},
};

use crate::{
    build::{Children, build, inspection::inspection, labels},
    inspect::{self, Look},
    observe::Observed,
    plan::{
        Plan, Settings,
        fit::{self, Fitted},
        placement::Wanted,
        plan,
    },
    revision::Revision,
    status::{Problem, failures},
};

/// What a model gets, and what that rests on.
#[derive(Debug)]
pub(super) struct Outline {
    /// What is known of the checkpoint, where it has to be known.
    pub inspection: Option<Arc<Inspection>>,
    /// How it fits.
    pub fitted: Option<Fitted>,
    /// What is to be done.
    pub next: Next,
}

/// What is to be done.
#[derive(Debug)]
pub(super) enum Next {
    /// These objects are to be there.
    Children(Box<Children>),
    /// This pod is to look at the checkpoint, and has told as much.
    Look(Box<Pod>, Look),
    /// Nothing, until a person has changed something or time has passed.
    Nothing(Problem),
}

/// What an outline is made from.
#[derive(Clone, Copy)]
pub(super) struct Known<'a> {
    pub model: &'a VisionModel,
    pub previous: &'a VisionModelStatus,
    pub observed: &'a Observed,
    pub settings: &'a Settings,
    pub types: &'a GpuTypes,
    pub revision: &'a Revision,
    pub wanted: &'a Wanted,
    pub replicas: i32,
    pub now: Timestamp,
}

impl Known<'_> {
    fn plan(self, commit: Option<&str>) -> Result<Plan, Problem> {
        plan(self.model, self.settings, self.replicas, commit, self.wanted.gpu())
            .map_err(|error| Problem::new(Trouble::SpecRefused, format!("spec.model.uri {error}")))
    }
}

impl Outline {
    pub fn of(known: Known<'_>) -> Self {
        // What was told stays known, whatever hinders the rest.
        let judged = fit::is_judged(&known.model.spec);
        let told = || known.revision.inspection().or_else(|| inspect::noted(known.model, known.previous));
        let mut outline = Self {
            inspection: if judged { told() } else { None },
            fitted: None,
            next: Next::Nothing(Problem::new(Trouble::SpecRefused, "the object has no name or no uid")),
        };
        match outline.complete(known, judged) {
            Ok(Some(next)) => outline.next = next,
            Ok(None) => {}
            Err(problem) => outline.next = Next::Nothing(problem),
        }
        outline
    }

    /// `None` for an object without name or uid.
    fn complete(&mut self, known: Known<'_>, judged: bool) -> Result<Option<Next>, Problem> {
        let Known { model, observed, revision, .. } = known;
        if let (_, Wanted::Unknown(problem)) | (Revision::Failed(problem), _) = (revision, known.wanted) {
            return Err(problem.clone());
        }
        let Some(owner) = model.controller_owner_ref(&()) else { return Ok(None) };
        if judged && self.inspection.is_none() {
            if let Some(problem) = failures::missing_claim(model, observed) {
                return Err(problem);
            }
            let pod = inspection(&known.plan(revision.commit())?, &known.settings.runtime_image, &owner);
            match inspect::look(&pod, &observed.inspecting, known.now) {
                Look::Told(told) => self.inspection = Some(told),
                look => return Ok(Some(Next::Look(Box::new(pod), look))),
            }
        }
        let told = self.inspection.clone();
        let commit = revision.commit().or_else(|| told.as_ref()?.revision());
        let mut plan = known.plan(commit)?;
        if let Some(told) = &told {
            let fitted =
                self.fitted.insert(fit::fit(&model.spec, told, known.wanted.gpu().map(|gpu| &gpu.kind), known.types)?);
            if let Some(problem) = fitted.problem() {
                return Err(problem);
            }
            plan.take_over(fitted.numbers());
        }
        Ok(Some(Next::Children(Box::new(children(plan, &owner, observed)))))
    }

    /// Notes in a status what was told of the checkpoint.
    pub fn note(&self, model: &VisionModel, previous: &VisionModelStatus, status: &mut VisionModelStatus) {
        let Some(told) = &self.inspection else { return };
        status.checkpoint = inspect::note(model, previous, told);
        if let (Some(resolved), Some(commit)) = (&mut status.resolved, told.revision()) {
            resolved.source = inspect::source(model);
            resolved.revision = Some(commit.to_owned());
        }
    }
}

/// The children of a plan. Pods that a version without the readiness gate made, or one without a gateway, stay as they are
/// until something else changes them: the gate alone restarts nothing.
fn children(mut plan: Plan, owner: &OwnerReference, observed: &Observed) -> Children {
    let children = build(&plan, owner);
    let Some(there) = observed.deployment.as_ref().and_then(|deployment| template_of(deployment)) else {
        return children;
    };
    if !plan.gated || *there == children.template {
        return children;
    }
    plan.gated = false;
    let ungated = build(&plan, owner);
    if *there == ungated.template { ungated } else { children }
}

/// The fingerprint of the pod template that a Deployment has.
fn template_of(deployment: &Deployment) -> Option<&String> {
    deployment.spec.as_ref()?.template.metadata.as_ref()?.annotations.as_ref()?.get(labels::TEMPLATE)
}

#[cfg(test)]
mod tests;
