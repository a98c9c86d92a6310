//! JSON, in one pass and without keeping anything: strings are hashed where they stand. What has another type than
//! expected is passed over, so that the model server, which knows the whole request, words the error.

use std::fmt;

use serde::{
    Deserialize,
    de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use super::{
    Peek,
    affinity::{self, Collector},
};
use crate::error::{GatewayError, excerpt};

pub(super) fn peek(body: &[u8]) -> Result<Peek, GatewayError> {
    let top: Top = serde_json::from_slice(body).map_err(|error| {
        GatewayError::Malformed(format!("the body is not valid JSON: {}; mend it", excerpt(&error.to_string())))
    })?;
    let mut collector = Collector::default();
    if let Some(text) = top.instructions.hash {
        collector.system(text);
    }
    // `messages` is the conversation of chat completions, `input` that of responses.
    top.messages.add_to(&mut collector);
    top.input.add_to(&mut collector);
    Ok(Peek { model: top.model.0, stream: top.stream.0, affinity: collector.finish() })
}

/// Adds a conversation; one that cannot be read adds nothing.
pub(super) fn messages(json: &[u8], collector: &mut Collector) {
    if let Ok(messages) = serde_json::from_slice::<Messages>(json) {
        messages.add_to(collector);
    }
}

#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct Top {
    #[serde(default)]
    model: Name,
    #[serde(default)]
    stream: Switch,
    #[serde(default)]
    instructions: Text,
    #[serde(default)]
    messages: Messages,
    #[serde(default)]
    input: Messages,
}

/// Methods of a visitor that pass over values of a type that is not expected.
macro_rules! pass_over {
    ($($kind:ident)*) => { $(pass_over!(@ $kind);)* };
    (@ expecting) => {
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str("any value") }
    };
    (@ bool) => { fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> { Ok(Self::Value::default()) } };
    (@ number) => {
        fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> { Ok(Self::Value::default()) }
        fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> { Ok(Self::Value::default()) }
        fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> { Ok(Self::Value::default()) }
        fn visit_unit<E>(self) -> Result<Self::Value, E> { Ok(Self::Value::default()) }
    };
    (@ str) => { fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> { Ok(Self::Value::default()) } };
    (@ seq) => {
        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
            while items.next_element::<IgnoredAny>()?.is_some() {}
            Ok(Self::Value::default())
        }
    };
    (@ map) => {
        fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self::Value, A::Error> {
            while fields.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            Ok(Self::Value::default())
        }
    };
}

/// A visitor of its own for a type, which is read by `deserialize_any`.
macro_rules! read_by {
    ($type:ident, $($body:tt)*) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Reader;
                impl<'de> Visitor<'de> for Reader {
                    type Value = $type;
                    $($body)*
                }
                deserializer.deserialize_any(Reader)
            }
        }
    };
}

/// A string that is kept.
#[derive(Default)]
struct Name(Option<String>);

read_by!(Name,
    pass_over!(expecting bool number seq map);
    fn visit_str<E>(self, text: &str) -> Result<Name, E> {
        Ok(Name(Some(text.to_owned())))
    }
);

#[derive(Default)]
struct Switch(bool);

read_by!(Switch,
    pass_over!(expecting number str seq map);
    fn visit_bool<E>(self, on: bool) -> Result<Switch, E> {
        Ok(Switch(on))
    }
);

/// A string's hash, and that of the picture when it is a `data:` address.
#[derive(Clone, Copy, Default)]
struct Text {
    hash: Option<u64>,
    picture: Option<u64>,
}

read_by!(Text,
    pass_over!(expecting bool number seq map);
    fn visit_str<E>(self, text: &str) -> Result<Text, E> {
        let picture = affinity::data_url(text);
        // A picture is hashed once: megabytes of text are its data.
        let hash = if picture.is_some() { picture } else { Some(affinity::hash(text.as_bytes())) };
        Ok(Text { hash, picture })
    }
);

/// `{"url": …}`, or the address itself.
#[derive(Default)]
struct Address(Text);

read_by!(Address,
    pass_over!(expecting bool number seq);
    fn visit_str<E>(self, text: &str) -> Result<Address, E> {
        Ok(Address(Text { hash: None, picture: affinity::data_url(text) }))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Address, A::Error> {
        let mut address = Address::default();
        while let Some(field) = fields.next_key::<Field>()? {
            match field {
                Field::Url => address.0 = fields.next_value()?,
                _ => _ = fields.next_value::<IgnoredAny>()?,
            }
        }
        Ok(address)
    }
);

/// The fields that matter, of any object.
enum Field {
    Role,
    Content,
    Text,
    ImageUrl,
    Url,
    Other,
}

impl<'de> Deserialize<'de> for Field {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = Field;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a field")
            }
            fn visit_str<E>(self, name: &str) -> Result<Field, E> {
                Ok(match name {
                    "role" => Field::Role,
                    "content" => Field::Content,
                    "text" => Field::Text,
                    "image_url" => Field::ImageUrl,
                    "url" => Field::Url,
                    _ => Field::Other,
                })
            }
        }
        deserializer.deserialize_str(Reader)
    }
}

/// One part of a message.
#[derive(Default)]
struct Part {
    text: Option<u64>,
    picture: Option<u64>,
}

read_by!(Part,
    pass_over!(expecting bool number str seq);
    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Part, A::Error> {
        let mut part = Part::default();
        while let Some(field) = fields.next_key::<Field>()? {
            match field {
                Field::Text => part.text = fields.next_value::<Text>()?.hash,
                Field::ImageUrl => part.picture = fields.next_value::<Address>()?.0.picture,
                _ => _ = fields.next_value::<IgnoredAny>()?,
            }
        }
        Ok(part)
    }
);

/// The texts and pictures of a message, each folded into one.
#[derive(Default)]
struct Content {
    texts: Collector,
    pictures: Collector,
}

read_by!(Content,
    pass_over!(expecting bool number map);
    fn visit_str<E>(self, text: &str) -> Result<Content, E> {
        let mut content = Content::default();
        content.texts.system(affinity::hash(text.as_bytes()));
        Ok(content)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Content, A::Error> {
        let mut content = Content::default();
        while let Some(part) = parts.next_element::<Part>()? {
            part.text.into_iter().for_each(|text| content.texts.system(text));
            part.picture.into_iter().for_each(|picture| content.pictures.picture(picture));
        }
        Ok(content)
    }
);

#[derive(Default)]
struct Message {
    is_system: bool,
    content: Content,
}

/// Whether a role is the system's.
#[derive(Default)]
struct Role(bool);

read_by!(Role,
    pass_over!(expecting bool number seq map);
    fn visit_str<E>(self, role: &str) -> Result<Role, E> {
        Ok(Role(matches!(role, "system" | "developer")))
    }
);

read_by!(Message,
    pass_over!(expecting bool number str seq);
    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Message, A::Error> {
        let mut message = Message::default();
        while let Some(field) = fields.next_key::<Field>()? {
            match field {
                Field::Role => message.is_system = fields.next_value::<Role>()?.0,
                Field::Content => message.content = fields.next_value()?,
                _ => _ = fields.next_value::<IgnoredAny>()?,
            }
        }
        Ok(message)
    }
);

/// The system prompt, and the pictures of the first message that has any: a conversation that goes on stays where its
/// beginning is cached.
#[derive(Default)]
struct Messages {
    system: Vec<affinity::Affinity>,
    pictures: Option<affinity::Affinity>,
}

/// Messages of the system that count; more are none of a usual conversation.
const MOST_SYSTEM: usize = 4;

read_by!(Messages,
    pass_over!(expecting bool number str map);
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Messages, A::Error> {
        let mut messages = Messages::default();
        while let Some(message) = items.next_element::<Message>()? {
            if message.is_system && messages.system.len() < MOST_SYSTEM {
                messages.system.extend(message.content.texts.finish());
            }
            if messages.pictures.is_none() {
                messages.pictures = message.content.pictures.finish();
            }
        }
        Ok(messages)
    }
);

impl Messages {
    fn add_to(&self, collector: &mut Collector) {
        self.system.iter().for_each(|text| collector.system(text.0));
        self.pictures.iter().for_each(|picture| collector.picture(picture.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn affinity(messages: &str) -> Option<affinity::Affinity> {
        peek(format!(r#"{{"model": "m", "messages": {messages}}}"#).as_bytes()).unwrap().affinity
    }

    fn asked(question: &str, data: &str) -> String {
        format!(
            r#"{{"role": "user", "content": [{{"type": "text", "text": "{question}"}},
               {{"type": "image_url", "image_url": {{"detail": "low", "url": "data:image/png;base64,{data}"}}}}]}}"#
        )
    }

    #[test]
    fn model_and_stream_are_found_wherever_they_stand() {
        let peek = peek(br#"{"messages": [], "stream": true, "x": {"model": "inner"}, "model": "a/b"}"#).unwrap();
        assert_eq!((peek.model.as_deref(), peek.stream, peek.affinity), (Some("a/b"), true, None));
    }

    #[test]
    fn the_same_picture_with_another_question_has_the_same_affinity() {
        let one = affinity(&format!("[{}]", asked("what?", "AAAA")));
        assert!(one.is_some());
        assert_eq!(one, affinity(&format!("[{}]", asked("where?", "AAAA"))));
        assert_ne!(one, affinity(&format!("[{}]", asked("what?", "AAAB"))));
        let system = r#"{"role": "system", "content": "be brief"}"#;
        assert_ne!(one, affinity(&format!("[{system}, {}]", asked("what?", "AAAA"))));
    }

    #[test]
    fn a_conversation_that_goes_on_keeps_its_affinity() {
        let begun = affinity(&format!("[{}]", asked("what?", "AAAA")));
        let reply = r#"{"role": "assistant", "content": "a dog"}"#;
        assert_eq!(begun, affinity(&format!("[{}, {reply}, {}]", asked("what?", "AAAA"), asked("and this?", "BBBB"))));
    }

    #[test]
    fn addresses_and_mere_text_have_none() {
        assert_eq!(affinity(r#"[{"role": "user", "content": "hello"}]"#), None);
        let web = r#"[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x/a.png"}}]}]"#;
        assert_eq!(affinity(web), None);
        assert!(affinity(r#"[{"role": "developer", "content": [{"type": "text", "text": "brief"}]}]"#).is_some());
    }

    #[test]
    fn the_form_of_responses_is_read_as_well() {
        let body = br#"{"model": "m", "instructions": "be brief", "input": [{"role": "user", "content":
            [{"type": "input_image", "image_url": "data:image/png;base64,AAAA"}]}]}"#;
        assert!(peek(body).unwrap().affinity.is_some());
        assert_eq!(peek(br#"{"model": "m", "input": "just text"}"#).unwrap().affinity, None);
    }

    #[test]
    fn other_types_are_passed_over_and_broken_json_is_an_error() {
        for body in [
            r#"{"model": 5, "stream": "yes", "messages": "x"}"#,
            r#"{"model": null, "messages": [1, "a", null, [], {"role": 5, "content": {"a": 1}}]}"#,
            r#"{"messages": [{"role": "user", "content": [1, {"text": 5, "image_url": 7}, {"image_url": {"url": []}}]}]}"#,
        ] {
            assert_eq!(peek(body.as_bytes()).unwrap(), Peek::default(), "{body}");
        }
        for body in ["", "{", r#"{"model": "a", "model": "b"}"#, "{\"model\": \"\u{1}\"}"] {
            assert!(peek(body.as_bytes()).is_err(), "{body}");
        }
        assert!(peek(b"{\"model\": \"\xff\"}").is_err());
        let deep = format!(r#"{{"messages": {}}}"#, "[".repeat(100_000));
        assert!(peek(deep.as_bytes()).is_err());
    }
}
