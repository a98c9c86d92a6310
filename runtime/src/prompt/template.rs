//! The chat template of a checkpoint, in Jinja as transformers runs it, or llava-hf's when it has none.

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, ErrorKind, Value, context};
use serde::Deserialize;

use super::{PromptMessage, PromptPart, PromptRole};
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::tokenizer::Protected;

/// The form on which LLaVA-1.5 was trained: pictures of a message first, then its text.
const DEFAULT: &str = "\
{%- for message in messages -%}\
{%- if message.role != 'system' -%}{{ message.role | upper ~ ': ' }}{%- endif -%}\
{%- for part in message.content if part.type == 'image' -%}{{ '<image>\\n' }}{%- endfor -%}\
{%- for part in message.content if part.type == 'text' -%}{{ part.text ~ ' ' }}{%- endfor -%}\
{%- endfor -%}\
{%- if add_generation_prompt -%}{{ 'ASSISTANT:' }}{%- endif -%}";

/// A compiled chat template.
pub struct Template {
    environment: Environment<'static>,
    /// Whether messages hold a list of parts or one string.
    parts: bool,
    image_token: String,
    bos: String,
    eos: String,
}

#[derive(Deserialize)]
struct Holder {
    chat_template: Option<Source>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Source {
    One(String),
    Named(Vec<Named>),
}

#[derive(Deserialize)]
struct Named {
    name: String,
    template: String,
}

impl Source {
    fn text(self) -> Option<String> {
        match self {
            Self::One(text) => Some(text),
            Self::Named(all) => all.into_iter().find(|named| named.name == "default").map(|named| named.template),
        }
    }
}

impl Template {
    /// The template of `checkpoint`, from the first of the places where one can be.
    pub fn open(checkpoint: &Checkpoint, image_token: &str, bos: &str, eos: &str) -> Result<Self, CheckpointError> {
        let mut source = checkpoint.text("chat_template.jinja")?;
        for file in ["chat_template.json", "processor_config.json", "tokenizer_config.json"] {
            if source.is_none() {
                source =
                    checkpoint.json::<Holder>(file)?.and_then(|holder| holder.chat_template).and_then(Source::text);
            }
        }
        let source = source.unwrap_or_else(|| DEFAULT.to_owned());
        Self::compile(&source, image_token, bos, eos).map_err(|e| CheckpointError::Unsupported {
            file: "the chat template",
            what: e.to_string(),
            supported: "Jinja as transformers runs it",
        })
    }

    fn compile(source: &str, image_token: &str, bos: &str, eos: &str) -> Result<Self, Error> {
        // `generation` marks the trained part for transformers and has no effect on the text.
        let source = [
            "{% generation %}",
            "{%- generation %}",
            "{% endgeneration %}",
            "{%- endgeneration %}",
            "{% generation -%}",
            "{%- generation -%}",
            "{% endgeneration -%}",
            "{%- endgeneration -%}",
        ]
        .iter()
        .fold(source.to_owned(), |source, tag| {
            let comment = tag.replace("{%", "{#").replace("%}", "#}");
            source.replace(tag, &comment)
        });
        let parts = [".type", "'type'", "\"type\""].iter().any(|mention| source.contains(mention));
        let mut environment = Environment::new();
        environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_template_owned("chat", source)?;
        let [image_token, bos, eos] = [image_token, bos, eos].map(str::to_owned);
        Ok(Self { environment, parts, image_token, bos, eos })
    }

    /// The text of a conversation, ready for the model to answer. Texts go through `protected`.
    pub fn render(&self, messages: &[PromptMessage], protected: &mut Protected<'_>) -> Result<String, String> {
        let messages: Vec<Value> = messages.iter().map(|message| self.message(message, protected)).collect();
        let rendered = self.environment.get_template("chat").and_then(|template| {
            template.render(context! {
                messages,
                add_generation_prompt => true,
                bos_token => &self.bos,
                eos_token => &self.eos,
            })
        });
        rendered.map_err(|e| e.detail().map_or_else(|| e.to_string(), str::to_owned))
    }

    fn message(&self, message: &PromptMessage, protected: &mut Protected<'_>) -> Value {
        let role = match message.role {
            PromptRole::System => "system",
            PromptRole::User => "user",
            PromptRole::Assistant => "assistant",
        };
        if self.parts {
            let content: Vec<Value> = message
                .parts
                .iter()
                .map(|part| match part {
                    PromptPart::Text(text) => part_value(&[("type", "text"), ("text", &protected.take(text))]),
                    PromptPart::Image(_) => part_value(&[("type", "image")]),
                })
                .collect();
            return context! { role, content };
        }
        let (mut images, mut texts) = (String::new(), Vec::new());
        for part in &message.parts {
            match part {
                PromptPart::Text(text) => texts.push(protected.take(text)),
                PromptPart::Image(_) => images.extend([self.image_token.as_str(), "\n"]),
            }
        }
        let content = images + &texts.join("\n");
        context! { role, content }
    }
}

/// `type` is a Rust keyword, which `context!` spells with its escape.
fn part_value(fields: &[(&str, &str)]) -> Value {
    Value::from_pairs(fields.iter().copied())
}
