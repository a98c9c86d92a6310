//! Fields that hold one value or a list of them. Read by hand: an untagged enum is buffered first,
//! and then an error can no longer say which field it came from.

use std::fmt::{Formatter, Result as Written};
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::SeqAccessDeserializer;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};

/// Reads a string or a list of `T` into `O`.
///
/// # Errors
/// What is neither, saying that `expected` was; an item that is no `T`.
pub fn text_or_list<'de, D, T, O>(
    deserializer: D,
    expected: &'static str,
    text: fn(String) -> O,
    list: fn(Vec<T>) -> O,
) -> Result<O, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    deserializer.deserialize_any(Reader { expected, text, list, item: PhantomData })
}

struct Reader<T, O> {
    expected: &'static str,
    text: fn(String) -> O,
    list: fn(Vec<T>) -> O,
    item: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>, O> Visitor<'de> for Reader<T, O> {
    type Value = O;

    fn expecting(&self, f: &mut Formatter<'_>) -> Written {
        f.write_str(self.expected)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<O, E> {
        Ok((self.text)(text.to_owned()))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<O, E> {
        Ok((self.text)(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<O, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(items)).map(self.list)
    }
}
