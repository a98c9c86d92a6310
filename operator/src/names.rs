//! Which names of a model are an older one's at the gateway. Names hold across namespaces, so the parts of the cluster
//! that are looked after one by one share what they know. Pure, in memory.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use kube::ResourceExt;
use vlm_crds::{
    VisionModel,
    names::{Bearer, owners},
};

use crate::autoscaler::table::{Key, key};

/// The names of all models, as seen from one part of the cluster.
#[derive(Clone, Debug, Default)]
pub struct Names {
    known: Arc<Mutex<Known>>,
    /// The part: one namespace, or all.
    namespace: Option<String>,
}

#[derive(Debug, Default)]
struct Known {
    bearers: BTreeMap<Key, Bearer>,
    /// What was told of each model: the names that it lost.
    told: HashMap<Key, Vec<String>>,
}

impl Names {
    /// The same names, seen from this namespace, or from all.
    #[must_use]
    pub fn of(&self, namespace: Option<String>) -> Self {
        Self { namespace, ..self.clone() }
    }

    /// Takes over the models of this part; gives those of them of which something else is to be told than before.
    pub fn take_over(&self, models: &[Arc<VisionModel>]) -> Vec<Key> {
        let mut known = self.lock();
        let Known { bearers, told } = &mut *known;
        let elsewhere = |key: &Key| self.namespace.as_ref().is_some_and(|namespace| *namespace != key.0);
        bearers.retain(|key, _| elsewhere(key));
        let living = models.iter().filter(|model| model.metadata.deletion_timestamp.is_none());
        bearers.extend(living.map(|model| (key(model), bearer(model))));
        told.retain(|key, _| bearers.contains_key(key));
        let owners = owners(bearers.values());
        let mut changed = Vec::new();
        for (key, bearer) in bearers.iter().filter(|(key, _)| !elsewhere(key)) {
            let owned = |name: &str| owners.get(name).is_some_and(|owner| *owner == bearer);
            let mut lost: Vec<_> = bearer.names().filter(|name| !owned(name)).cloned().collect();
            lost.dedup();
            let before = told.insert(key.clone(), lost.clone());
            if before.unwrap_or_default() != lost {
                changed.push(key.clone());
            }
        }
        changed
    }

    /// The names that a model has lost to older ones; `None` while nobody has looked.
    pub fn lost(&self, model: &VisionModel) -> Option<Vec<String>> {
        self.lock().told.get(&key(model)).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bearer(model: &VisionModel) -> Bearer {
    Bearer {
        created: model.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second()),
        namespace: model.namespace().unwrap_or_default(),
        name: model.name_any(),
        aliases: model.spec.model.aliases.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn model(second: u32, namespace: &str, name: &str, aliases: &[&str]) -> Arc<VisionModel> {
        let model = json!({
            "apiVersion": "vlm-operator.dev/v1alpha1", "kind": "VisionModel",
            "metadata": {"name": name, "namespace": namespace,
                         "creationTimestamp": format!("2026-01-01T00:00:{second:02}Z")},
            "spec": {"model": {"uri": "pvc://weights/tiny", "aliases": aliases}},
        });
        Arc::new(serde_json::from_value(model).unwrap())
    }

    fn names(keys: &[Key]) -> Vec<String> {
        keys.iter().map(|(namespace, name)| format!("{namespace}/{name}")).collect()
    }

    #[test]
    fn the_younger_loses_and_wins_when_the_older_goes() {
        let all = Names::default();
        let (old, young) = (model(1, "b", "tiny", &[]), model(2, "a", "other", &["tiny", "mine"]));
        assert_eq!(all.lost(&young), None, "nobody has looked");
        assert_eq!(names(&all.take_over(&[old.clone(), young.clone()])), ["a/other"]);
        assert_eq!((all.lost(&old), all.lost(&young)), (Some(vec![]), Some(vec!["tiny".to_owned()])));
        assert!(all.take_over(&[old, young.clone()]).is_empty(), "it was told");
        assert_eq!(names(&all.take_over(std::slice::from_ref(&young))), ["a/other"]);
        assert_eq!(all.lost(&young), Some(vec![]));
    }

    #[test]
    fn parts_of_the_cluster_know_of_each_other_and_speak_for_their_own() {
        let shared = Names::default();
        let (a, b) = (shared.of(Some("a".to_owned())), shared.of(Some("b".to_owned())));
        let (old, young) = (model(1, "b", "tiny", &[]), model(2, "a", "tiny", &[]));
        assert!(a.take_over(std::slice::from_ref(&young)).is_empty());
        assert!(b.take_over(&[old]).is_empty(), "the other part is told by its own look");
        assert_eq!(names(&a.take_over(std::slice::from_ref(&young))), ["a/tiny"]);
        assert_eq!(a.lost(&young), Some(vec!["tiny".to_owned()]));
        assert!(b.take_over(&[]).is_empty());
        assert_eq!(names(&a.take_over(&[young])), ["a/tiny"]);
    }
}
