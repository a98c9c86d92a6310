//! Which model a name without namespace means: of several that bear it, as their own name or as an alias, the oldest.
//! Pure; gateway and operator see it alike.

use std::{cmp::Reverse, collections::BTreeMap};

/// What names a model has, and how old it is. Of two of the same second the order of namespace and name decides.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bearer {
    /// Seconds since 1970 at which it was made.
    pub created: i64,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Further names.
    pub aliases: Vec<String>,
}

impl Bearer {
    /// Every name without namespace that it bears; its own comes first.
    pub fn names(&self) -> impl Iterator<Item = &String> {
        std::iter::once(&self.name).chain(&self.aliases)
    }
}

/// The model that each name means.
pub fn owners<'a>(bearers: impl IntoIterator<Item = &'a Bearer>) -> BTreeMap<&'a str, &'a Bearer> {
    let mut by_age: Vec<_> = bearers.into_iter().collect();
    // The oldest is written last, and stays.
    by_age.sort_by_key(|bearer| Reverse((bearer.created, &bearer.namespace, &bearer.name)));
    by_age.into_iter().flat_map(|bearer| bearer.names().map(move |name| (name.as_str(), bearer))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(created: i64, namespace: &str, name: &str, aliases: &[&str]) -> Bearer {
        let aliases = aliases.iter().map(|alias| (*alias).to_owned()).collect();
        Bearer { created, namespace: namespace.to_owned(), name: name.to_owned(), aliases }
    }

    #[test]
    fn the_oldest_has_a_name_whether_it_is_its_own_or_an_alias() {
        let all = [
            bearer(5, "b", "tiny", &["small", "tiny"]),
            bearer(7, "a", "small", &[]),
            bearer(5, "c", "tiny", &["large"]),
            bearer(9, "a", "other", &["large", "one"]),
        ];
        let owned: Vec<_> =
            owners(&all).into_iter().map(|(name, b)| format!("{name}: {}/{}", b.namespace, b.name)).collect();
        assert_eq!(owned, ["large: c/tiny", "one: a/other", "other: a/other", "small: b/tiny", "tiny: b/tiny"]);
    }
}
