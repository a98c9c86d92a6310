//! Which stream it is: its id, its time and its seed, drawn here or told by the server that began it; and the names of
//! what it has in it, which follow from the id, so that a server that continues it gives the same.

use std::hash::{BuildHasher, Hasher, RandomState};

use uuid::Uuid;
use vlm_contract::continuation::Identity;

use super::app::unix_seconds;
use super::continuation::Continued;

/// That of a new request, whose id begins with `kind`, or of the one that is continued. `seed` is the client's.
pub fn identity(kind: &str, seed: Option<u64>, continued: Option<&Continued>) -> Identity {
    if let Some(continued) = continued {
        return continued.head.identity.clone();
    }
    // Drawn here and not by the engine, so that the gateway can be told.
    let drawn = || RandomState::new().build_hasher().finish();
    Identity {
        id: format!("{kind}{}", Uuid::new_v4().simple()),
        created: unix_seconds(),
        seed: seed.unwrap_or_else(drawn),
    }
}

/// The name of the item at `place` of an answer, such as a call; it begins with `kind`.
pub fn item_name(id: &str, kind: &str, answer: usize, place: usize) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(id.as_bytes()).update(&[0]).update(kind.as_bytes()).update(&[0]);
    hasher.update(&(answer as u64).to_le_bytes()).update(&(place as u64).to_le_bytes());
    let digits = hasher.finalize().to_hex();
    format!("{kind}_{}", &digits[..32])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_from_the_id_and_differ_in_everything_else() {
        let name = item_name("chatcmpl-1", "call", 1, 2);
        assert_eq!(name, item_name("chatcmpl-1", "call", 1, 2));
        assert!(name.starts_with("call_") && name.len() == 37, "{name}");
        let others = [("chatcmpl-2", "call", 1, 2), ("chatcmpl-1", "fc", 1, 2), ("chatcmpl-1", "call", 2, 1)];
        for (id, kind, answer, place) in others {
            let other = item_name(id, kind, answer, place);
            assert_ne!(name[name.len() - 32..], other[other.len() - 32..]);
        }
    }

    #[test]
    fn the_clients_seed_counts_and_others_are_drawn() {
        assert_eq!(identity("x-", Some(9), None).seed, 9);
        let (a, b) = (identity("x-", None, None), identity("x-", None, None));
        assert!(a.seed != b.seed && a.id != b.id && a.id.starts_with("x-"), "{a:?} {b:?}");
    }
}
