//! The models by their names. `NAMESPACE/NAME` always names one; a bare name or an alias is that of the oldest model that
//! has it. Pure.

use std::{collections::BTreeMap, sync::Arc};

use vlm_crds::names::{Bearer, owners};

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
        let bearers: Vec<_> = all.values().map(|route| bearer(route)).collect();
        let id = |of: &Bearer| ModelId { namespace: of.namespace.clone(), name: of.name.clone() };
        let bare = owners(&bearers).into_iter().map(|(name, owner)| (name.to_owned(), id(owner))).collect();
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

    /// Every model with the shortest name that finds it, and then with each alias that does.
    pub fn list(&self) -> impl Iterator<Item = (String, &Arc<Route>)> {
        self.all.values().flat_map(move |route| {
            let finds = move |alias: &&String| **alias != route.id.name && self.bare.get(*alias) == Some(&route.id);
            let aliases = route.aliases.iter().filter(finds).cloned();
            std::iter::once(self.shortest(&route.id)).chain(aliases).map(move |name| (name, route))
        })
    }

    fn shortest(&self, id: &ModelId) -> String {
        if self.bare.get(&id.name) == Some(id) { id.name.clone() } else { id.to_string() }
    }

    /// Every model.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.all.values()
    }
}

fn bearer(route: &Route) -> Bearer {
    Bearer {
        created: route.created,
        namespace: route.id.namespace.clone(),
        name: route.id.name.clone(),
        aliases: route.aliases.clone(),
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
            aliases: Vec::new(),
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
    fn an_alias_finds_the_oldest_that_has_it_and_is_listed_with_that_one() {
        let with = |route: Route, aliases: &[&str]| Route {
            aliases: aliases.iter().map(|alias| (*alias).to_owned()).collect(),
            ..route
        };
        let all = [
            with(route("a", "tiny", 5), &["gpt-4o", "tiny", "small"]),
            with(route("b", "other", 7), &["gpt-4o", "tiny", "mine"]),
            route("c", "small", 1),
        ];
        let catalogue = Catalogue::new(all);
        for (name, id) in [("gpt-4o", "a/tiny"), ("tiny", "a/tiny"), ("small", "c/small"), ("mine", "b/other")] {
            assert_eq!(found(&catalogue, name).as_deref(), Some(id), "{name}");
        }
        assert_eq!(found(&catalogue, "a/gpt-4o"), None, "an alias has no namespace");
        let names: Vec<_> = catalogue.list().map(|(name, route)| format!("{name} {}", route.id)).collect();
        assert_eq!(names, ["tiny a/tiny", "gpt-4o a/tiny", "other b/other", "mine b/other", "small c/small"]);
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
