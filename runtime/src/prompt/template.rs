//! Which chat template a checkpoint's conversations take: its own, or the form on which models of its kind were
//! trained. What is rendered is in [`form`] and [`jinja`].

mod form;
mod jinja;

use std::path::Path;

use serde::Deserialize;
use vlm_catalog::architecture::raw::RawConfig;
use vlm_catalog::architecture::{Dialect, Family};

use self::form::{FORMS, Form};
use self::jinja::Jinja;
use super::PromptMessage;
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::tokenizer::{Protected, Tokenizer};

/// Names that [`Template::named`] knows.
const NAMES: &str = "vicuna_v1, llava_v1, mistral_instruct, chatml_direct, internlm2-chat, Hermes-2, phi3-chat, \
    internvl2_5, llava_hf, internvl_hf";

/// llava-hf's for LLaVA-1.5: pictures of a message first, then its texts.
const LLAVA_HF: &str = "\
{%- for message in messages -%}\
{%- if message.role != 'system' -%}{{ message.role | upper ~ ': ' }}{%- endif -%}\
{%- for part in message.content if part.type == 'image' -%}{{ '<image>\\n' }}{%- endfor -%}\
{%- for part in message.content if part.type == 'text' -%}{{ part.text ~ ' ' }}{%- endfor -%}\
{%- endfor -%}\
{%- if add_generation_prompt -%}{{ 'ASSISTANT:' }}{%- endif -%}";

/// That of `InternVL` in transformers: no system text of its own, pictures where they are.
const INTERNVL_HF: &str = "\
{%- for message in messages -%}\
{{ '<|im_start|>' ~ message.role ~ '\\n' }}\
{%- for part in message.content -%}\
{%- if part.type == 'image' -%}{{ '<IMG_CONTEXT>\\n' }}{%- else -%}{{ part.text }}{%- endif -%}\
{%- endfor -%}\
{{ '<|im_end|>\\n' }}\
{%- endfor -%}\
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}";

/// What may end an answer, where a template writes it.
const SEPARATORS: [&str; 3] = ["<|im_end|>", "<|end|>", "</s>"];

/// A chat template.
pub struct Template {
    kind: Kind,
    /// System text of the checkpoint's configuration.
    system: Option<String>,
}

enum Kind {
    Form(&'static Form),
    Jinja(Box<Jinja>),
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
    /// The template of `checkpoint`: `choice`, a name or the path of a Jinja file, where it is given; else the form
    /// that `config.json` names, as the original `InternVL` does; else the checkpoint's own template; else the form
    /// of its family. In the original repositories' layouts a template that does not know pictures is the language
    /// model's alone, and does not count.
    ///
    /// # Errors
    /// A name that is not known, a file that cannot be read, or what is not Jinja.
    pub fn open(checkpoint: &Checkpoint, tokenizer: &Tokenizer, choice: Option<&str>) -> Result<Self, CheckpointError> {
        let config = checkpoint.config();
        let (bos, eos) = (tokenizer.bos().unwrap_or(""), tokenizer.eos().unwrap_or(""));
        let system = config.system_message.clone();
        let own = |source: String| Self::compile(&source, bos, eos, "the chat template");
        if let Some(choice) = choice {
            return match Self::named(choice) {
                Some(named) => Ok(Self { system, ..named }),
                None => Self::compile(&read_choice(choice)?, bos, eos, "--chat-template"),
            };
        }
        let original = config.dialect == Dialect::Original;
        if let Some(name) = config.template.as_deref().filter(|_| original) {
            let named = Self::named(name).ok_or_else(|| unknown(format!("the template {name:?}")))?;
            return Ok(Self { system, ..named });
        }
        if let Some(source) = source(checkpoint)?.filter(|source| !original || source.contains("image")) {
            return own(source);
        }
        let name = of_kind(checkpoint, tokenizer)?;
        let named = Self::named(name).ok_or_else(|| unknown(format!("the template {name:?}")))?;
        Ok(Self { system, ..named })
    }

    /// A template by its name: one of the original repositories' forms, or `llava_hf` (LLaVA-1.5) or `internvl_hf`
    /// as transformers' checkpoints have them.
    pub fn named(name: &str) -> Option<Self> {
        let kind = match name {
            "llava_hf" => Kind::Jinja(Box::new(Jinja::compile(LLAVA_HF, "", "").ok()?)),
            "internvl_hf" => Kind::Jinja(Box::new(Jinja::compile(INTERNVL_HF, "", "").ok()?)),
            _ => Kind::Form(FORMS.iter().find(|form| form.name == name)?),
        };
        Some(Self { kind, system: None })
    }

    fn compile(source: &str, bos: &str, eos: &str, file: &'static str) -> Result<Self, CheckpointError> {
        let jinja = Jinja::compile(source, bos, eos).map_err(|e| CheckpointError::Unsupported {
            file,
            what: e.to_string(),
            supported: "Jinja as transformers runs it",
        })?;
        Ok(Self { kind: Kind::Jinja(Box::new(jinja)), system: None })
    }

    /// The text of a conversation, ready for the model to answer. Texts go through `protected`.
    ///
    /// # Errors
    /// Why the template refuses the conversation.
    pub fn render(&self, messages: &[PromptMessage], protected: &mut Protected<'_>) -> Result<String, String> {
        match &self.kind {
            Kind::Form(form) => form.render(self.system.as_deref(), messages, protected),
            Kind::Jinja(jinja) => jinja.render(messages, protected),
        }
    }

    /// Tokens that end an answer, by their strings.
    pub fn separators(&self) -> Vec<&'static str> {
        match &self.kind {
            Kind::Form(form) => vec![form.separator],
            Kind::Jinja(jinja) => SEPARATORS.into_iter().filter(|text| jinja.mentions(text)).collect(),
        }
    }

    /// What ends an answer even when the model spells it in other tokens, as the original code has it.
    pub fn stop_string(&self) -> Option<&'static str> {
        match &self.kind {
            Kind::Form(form) => Some(form.separator),
            Kind::Jinja(_) => None,
        }
    }
}

/// The checkpoint's own template, from the first of the places where one can be.
fn source(checkpoint: &Checkpoint) -> Result<Option<String>, CheckpointError> {
    if let Some(source) = checkpoint.text("chat_template.jinja")? {
        return Ok(Some(source));
    }
    for file in ["chat_template.json", "processor_config.json", "tokenizer_config.json"] {
        let holder = checkpoint.json::<Holder>(file)?;
        if let Some(source) = holder.and_then(|holder| holder.chat_template).and_then(Source::text) {
            return Ok(Some(source));
        }
    }
    Ok(None)
}

/// The name of the form on which models of this kind were trained.
fn of_kind(checkpoint: &Checkpoint, tokenizer: &Tokenizer) -> Result<&'static str, CheckpointError> {
    let config = checkpoint.config();
    match (config.family, config.dialect) {
        (Family::InternVl, Dialect::Transformers) => return Ok("internvl_hf"),
        (Family::InternVl, Dialect::Original) => {
            return Err(unknown("a conversation, but names no template".to_owned()));
        }
        (Family::Llava, Dialect::Transformers) => return Ok("llava_hf"),
        _ => {}
    }
    let raw: RawConfig = checkpoint.json("config.json")?.unwrap_or_default();
    let decoder = raw.text_config.as_ref().and_then(|text| text.model_type.as_deref());
    let classes = raw.architectures.iter().flatten().map(String::as_str);
    let mut names = classes.chain(raw.model_type.as_deref()).chain(decoder);
    if names.any(|name| name.to_lowercase().contains("mistral")) {
        return Ok("mistral_instruct");
    }
    // Of the decoders of LLaVA only Nous-Hermes-2-Yi has it.
    if tokenizer.id("<|im_end|>").is_some() {
        return Ok("chatml_direct");
    }
    Ok(if config.family == Family::Llava { "vicuna_v1" } else { "llava_v1" })
}

fn read_choice(choice: &str) -> Result<String, CheckpointError> {
    std::fs::read_to_string(Path::new(choice)).map_err(|e| {
        let name = format!("--chat-template {choice}: neither a file that can be read ({e}) nor one of {NAMES}");
        CheckpointError::Options(name)
    })
}

fn unknown(what: String) -> CheckpointError {
    CheckpointError::Unsupported { file: "config.json", what, supported: NAMES }
}

#[cfg(test)]
mod tests;
