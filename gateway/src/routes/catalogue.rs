//! The models by their names. `NAMESPACE/NAME` always names one; the bare name is that of the oldest model that has
//! it. Pure.

use std::{cmp::Reverse, collections::BTreeMap, sync::Arc};

use super::{ModelId, Route};

/// Every model.
#[derive(Debug, Default)]
pub struct Catalogue {
    all: BTreeMap<ModelId, Arc<Route>>,
    bare: BTreeMap<String, ModelId>,
}

impl Catalogue {
    /// Of all routes.
    pub fn new(routes: impl IntoIterator<Item = Route>) -> Self {
        let all: BTreeMap<_, _> = routes.into_iter().map(|route| (route.id.clone(), Arc::new(route))).collect();
        // The oldest is written last, and stays.
        let mut by_age: Vec<_> = all.values().collect();
        by_age.sort_by_key(|route| Reverse((route.created, &route.id)));
        let bare = by_age.into_iter().map(|route| (route.id.name.clone(), route.id.clone())).collect();
        Self { all, bare }
    }

    /// The model of a name, with or without its namespace.
    pub fn find(&self, name: &str) -> Option<&Arc<Route>> {
        let id = match name.split_once('/') {
            Some((namespace, name)) => {
                return self.all.get(&ModelId { namespace: namespace.to_owned(), name: name.to_owned() });
            }
            None => self.bare.get(name)?,
        };
        self.all.get(id)
    }

    /// The model of an id.
    pub fn get(&self, id: &ModelId) -> Option<&Arc<Route>> {
        self.all.get(id)
    }

    /// The only model, where there is no other.
    pub fn only(&self) -> Option<&Arc<Route>> {
        self.all.values().next().filter(|_| self.all.len() == 1)
    }

    /// Every model with the shortest name that finds it.
    pub fn list(&self) -> impl Iterator<Item = (String, &Arc<Route>)> {
        self.all.values().map(|route| (self.shortest(&route.id), route))
    }

    fn shortest(&self, id: &ModelId) -> String {
        if self.bare.get(&id.name) == Some(id) { id.name.clone() } else { id.to_string() }
    }

    /// Every model.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.all.values()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{super::Standing, *};
    use crate::hold::Bounds;

    fn route(namespace: &str, name: &str, created: i64) -> Route {
        Route {
            id: ModelId { namespace: namespace.to_owned(), name: name.to_owned() },
            created,
            standing: Standing::Awake,
            window: 1,
            bounds: Bounds { count: 1, bytes: 1, wait: Duration::ZERO },
            max_tokens: None,
            migrates: true,
            drain: Duration::ZERO,
        }
    }

    fn found(catalogue: &Catalogue, name: &str) -> Option<String> {
        catalogue.find(name).map(|route| route.id.to_string())
    }

    #[test]
    fn the_oldest_has_the_bare_name_and_each_its_whole_one() {
        let all = [route("b", "tiny", 5), route("a", "tiny", 7), route("c", "tiny", 5), route("a", "other", 9)];
        let catalogue = Catalogue::new(all);
        assert_eq!(found(&catalogue, "tiny").as_deref(), Some("b/tiny"));
        assert_eq!(found(&catalogue, "a/tiny").as_deref(), Some("a/tiny"));
        assert_eq!(found(&catalogue, "other").as_deref(), Some("a/other"));
        let names: Vec<_> = catalogue.list().map(|(name, _)| name).collect();
        assert_eq!(names, ["other", "a/tiny", "tiny", "c/tiny"]);
        for name in &names {
            assert!(catalogue.find(name).is_some());
        }
    }

    #[test]
    fn other_names_find_nothing() {
        let catalogue = Catalogue::new([route("a", "tiny", 1)]);
        for name in ["", "/", "a/", "/tiny", "a/tiny/", "TINY", "a/../a/tiny", "b/tiny"] {
            assert_eq!(found(&catalogue, name), None, "{name}");
        }
        assert!(catalogue.only().is_some());
        assert!(Catalogue::new([route("a", "x", 1), route("a", "y", 1)]).only().is_none());
    }
}
