//! By which name a replica knows the client on whose behalf the gateway asks, so that clients get their turns one after
//! another behind it too. An API key has the same name at every gateway, and the name does not tell the key. Without
//! one, the address of the connection is all there is: clients behind one proxy without keys are one client.

use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderValue, header};
use ring::digest::{Context, SHA256};

/// Where the connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub IpAddr);

/// Hashed before the key, so that the same key hashed for another purpose tells nothing.
const PURPOSE: &[u8] = b"vlm client 1\n";
/// Bytes of the hash that make a name.
const NAME_BYTES: usize = 16;

/// The name, of at most `LONGEST_CLIENT` bytes; `None` when nothing is known.
pub(super) fn name(headers: &HeaderMap, peer: Option<Peer>) -> Option<HeaderValue> {
    let key = headers.get(header::AUTHORIZATION).and_then(|value| key(value.as_bytes()));
    let name = match (key, peer) {
        (Some(key), _) => format!("key-{}", hex(key)),
        (None, Some(Peer(address))) => format!("address-{}", address.to_canonical()),
        (None, None) => return None,
    };
    HeaderValue::from_str(&name).ok()
}

/// The key of `Authorization: Bearer KEY`.
fn key(value: &[u8]) -> Option<&[u8]> {
    let (scheme, key) = value.split_at_checked(7)?;
    let key = key.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"bearer ") && !key.is_empty()).then_some(key)
}

fn hex(key: &[u8]) -> String {
    let mut hash = Context::new(&SHA256);
    hash.update(PURPOSE);
    hash.update(key);
    let digest = hash.finish();
    let digits = digest.as_ref().iter().take(NAME_BYTES).flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name_of(authorization: Option<&str>, address: Option<&str>) -> Option<String> {
        let mut headers = HeaderMap::new();
        if let Some(value) = authorization {
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
        }
        let name = name(&headers, address.map(|address| Peer(address.parse().unwrap())));
        name.map(|name| name.to_str().unwrap().to_owned())
    }

    #[test]
    fn a_key_has_one_name_wherever_it_comes_from_and_the_name_does_not_tell_it() {
        let name = name_of(Some("Bearer secret-key"), Some("10.0.0.1")).unwrap();
        assert_eq!(name_of(Some("bearer  secret-key "), Some("10.0.0.2")).unwrap(), name);
        assert_ne!(name_of(Some("Bearer other-key"), Some("10.0.0.1")).unwrap(), name);
        assert!(name.starts_with("key-") && name.len() == 36 && !name.contains("secret"), "{name}");
        assert_eq!(name, "key-8b78d1779cc6fe11c61cc53374be375e", "fixed in every release");
    }

    #[test]
    fn without_a_key_it_is_the_address() {
        assert_eq!(name_of(None, Some("10.0.0.1")).as_deref(), Some("address-10.0.0.1"));
        // One and the same client over IPv4, whichever socket takes it.
        assert_eq!(name_of(Some("Basic x"), Some("::ffff:10.0.0.1")).as_deref(), Some("address-10.0.0.1"));
        assert_eq!(name_of(Some("Bearer "), Some("fd00::1")).as_deref(), Some("address-fd00::1"));
        assert_eq!(name_of(None, None), None);
    }
}
