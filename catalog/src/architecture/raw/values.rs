//! Values of `config.json` that are spelt in more than one way.

use serde::de::{Deserializer, IgnoredAny};
use serde::{Deserialize, de};

/// A number, or several: `336` and `[336, 336]`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(untagged)]
pub enum OneOrMany {
    /// A plain number.
    One(i64),
    /// A list.
    Many(Vec<i64>),
}

impl OneOrMany {
    /// The numbers as a slice.
    pub fn values(&self) -> &[i64] {
        match self {
            Self::One(value) => std::slice::from_ref(value),
            Self::Many(values) => values,
        }
    }
}

/// A field for which `null` means something else than leaving it out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Nullable<T> {
    /// Left out.
    #[default]
    Absent,
    /// `null`.
    Null,
    /// A value.
    Value(T),
}

impl<T> Nullable<T> {
    /// The value; `default` when the field is left out.
    pub fn or(self, default: T) -> Option<T> {
        match self {
            Self::Absent => Some(default),
            Self::Null => None,
            Self::Value(value) => Some(value),
        }
    }

    /// The value; `None` when there is none.
    pub fn value(self) -> Option<T> {
        match self {
            Self::Absent | Self::Null => None,
            Self::Value(value) => Some(value),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Nullable<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Option::deserialize(deserializer)?.map_or(Self::Null, Self::Value))
    }
}

/// Sizes of grids: a list of pairs, or its text.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(untagged)]
pub enum RawPinpoints {
    /// `[[336, 672], [672, 336]]`.
    Pairs(Vec<(i64, i64)>),
    /// `"[(336, 672), (672, 336)]"`.
    Text(String),
}

/// What says that weights were quantised beforehand, in whatever form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawQuantization {
    /// Name of the method, when it is given.
    pub method: Option<String>,
}

impl<'de> Deserialize<'de> for RawQuantization {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyQuantization)
    }
}

/// Takes any value, since each method writes its own: all are refused.
struct AnyQuantization;

impl<'de> de::Visitor<'de> for AnyQuantization {
    type Value = RawQuantization;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a description of the quantisation")
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<RawQuantization, A::Error> {
        let mut method = None;
        while let Some(key) = map.next_key::<String>()? {
            if key == "quant_method" {
                method = map.next_value::<Option<String>>()?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(RawQuantization { method })
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<RawQuantization, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(RawQuantization::default())
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<RawQuantization, E> {
        Ok(RawQuantization { method: Some(name.to_owned()) })
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<RawQuantization, E> {
        Ok(RawQuantization::default())
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<RawQuantization, E> {
        Ok(RawQuantization::default())
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<RawQuantization, E> {
        Ok(RawQuantization::default())
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<RawQuantization, E> {
        Ok(RawQuantization::default())
    }
}
