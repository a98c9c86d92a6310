//! A short name for the content of an object.

use serde::Serialize;
use serde_json::Value;

/// FNV-1a over the JSON of `object` with sorted keys, as 16 hex digits. It stays the same across
/// restarts and versions of the operator, which the standard library's hashers and the order of a
/// struct's fields don't promise; it guards against accidents, not against forgery.
pub fn fingerprint<T: Serialize>(object: &T) -> String {
    let mut hash = Fnv(0xcbf2_9ce4_8422_2325);
    hash.value(&serde_json::to_value(object).unwrap_or_default());
    format!("{:016x}", hash.0)
}

struct Fnv(u64);

impl Fnv {
    fn text(&mut self, text: &str) {
        for byte in text.bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Object(map) => {
                let mut entries: Vec<_> = map.iter().collect();
                entries.sort_by_key(|(key, _)| *key);
                self.text("{");
                for (key, value) in entries {
                    self.text(&format!("{key:?}:"));
                    self.value(value);
                    self.text(",");
                }
                self.text("}");
            }
            Value::Array(items) => {
                self.text("[");
                for item in items {
                    self.value(item);
                    self.text(",");
                }
                self.text("]");
            }
            scalar => self.text(&scalar.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn it_is_fnv_1a_and_never_changes() {
        // Of the JSON text `"a"` with its quotation marks.
        let by_hand = b"\"a\""
            .iter()
            .fold(14_695_981_039_346_656_037_u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(1_099_511_628_211));
        assert_eq!(fingerprint(&"a"), format!("{by_hand:016x}"));
    }

    #[test]
    fn the_order_of_keys_does_not_matter_and_everything_else_does() {
        let one: Value = serde_json::from_str(r#"{"a": 1, "b": [1, 2]}"#).unwrap();
        let other: Value = serde_json::from_str(r#"{"b": [1, 2], "a": 1}"#).unwrap();
        assert_eq!(fingerprint(&one), fingerprint(&other));
        for changed in
            [json!({"a": 1, "b": [2, 1]}), json!({"a": "1", "b": [1, 2]}), json!({"a": 1, "b": [1, 2], "c": null})]
        {
            assert_ne!(fingerprint(&one), fingerprint(&changed));
        }
    }
}
