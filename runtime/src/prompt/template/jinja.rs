//! Chat templates in Jinja, run as transformers runs them: its settings, its functions and its variables.

use jiff::Timestamp;
use jiff::fmt::strtime;
use jiff::tz::TimeZone;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Value, context, escape_formatter};

use super::super::{MARK, PromptMessage, PromptPart, PromptRole};
use crate::tokenizer::Protected;

/// A compiled chat template.
pub struct Jinja {
    environment: Environment<'static>,
    source: String,
    /// Whether messages hold a list of parts or one string.
    parts: bool,
    bos: String,
    eos: String,
}

/// Steps of one rendering; a conversation of a thousand messages takes some hundred thousand. A template that loops
/// on ends with an error instead of holding a thread.
const FUEL: u64 = 10_000_000;

impl Jinja {
    /// Compiles `source`; `bos` and `eos` are the strings that start and end a text.
    ///
    /// # Errors
    /// When it is not Jinja.
    pub fn compile(source: &str, bos: &str, eos: &str) -> Result<Self, Error> {
        let mut environment = Environment::new();
        environment.set_fuel(Some(FUEL));
        environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_function("strftime_now", strftime_now);
        environment.add_filter("tojson", |value: &Value, options: Kwargs| -> Result<String, Error> {
            to_json(value, options.get("indent")?)
        });
        environment.set_formatter(|out, state, value| match value.kind() {
            // As Python writes them.
            ValueKind::Bool => Ok(out.write_str(if value.is_true() { "True" } else { "False" })?),
            ValueKind::None => Ok(out.write_str("None")?),
            _ => escape_formatter(out, state, value),
        });
        environment.add_template_owned("chat", without_generation(source))?;
        let parts = [".type", "'type'", "\"type\""].iter().any(|mention| source.contains(mention));
        Ok(Self { environment, source: source.to_owned(), parts, bos: bos.to_owned(), eos: eos.to_owned() })
    }

    /// Whether the template writes `text` somewhere.
    pub fn mentions(&self, text: &str) -> bool {
        self.source.contains(text)
    }

    /// The text of a conversation, ready for the model to answer. Texts go through `protected`.
    ///
    /// # Errors
    /// What the template said when it refused the conversation.
    pub fn render(&self, messages: &[PromptMessage], protected: &mut Protected<'_>) -> Result<String, String> {
        let messages: Vec<Value> = messages.iter().map(|message| self.message(message, protected)).collect();
        let rendered = self.environment.get_template("chat").and_then(|template| {
            template.render(context! {
                messages,
                add_generation_prompt => true,
                bos_token => &self.bos,
                eos_token => &self.eos,
                // Given but empty in transformers, which templates ask for by `is not none`.
                tools => (),
                documents => (),
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
                PromptPart::Image(_) => images.extend([MARK, "\n"]),
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

/// `{% generation %}` marks the trained part for transformers and has no effect on the text, but as a block takes
/// the white space around it along as any other does.
fn without_generation(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some((before, after)) = rest.split_once("{%") {
        out.push_str(before);
        out.push_str("{%");
        let Some((tag, behind)) = after.split_once("%}") else {
            rest = after;
            continue;
        };
        match tag.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+') {
            "generation" => out.push_str(&tag.replace("generation", "if true")),
            "endgeneration" => out.push_str(&tag.replace("endgeneration", "endif")),
            _ => {
                // A string in the tag may hold the end of one; the rest is looked through again.
                rest = after;
                continue;
            }
        }
        out.push_str("%}");
        rest = behind;
    }
    out.push_str(rest);
    out
}

/// The present time in UTC, in the form of Python's `strftime`.
fn strftime_now(format: &str) -> Result<String, Error> {
    let now = Timestamp::now().to_zoned(TimeZone::UTC);
    strtime::format(format, &now).map_err(|e| Error::new(ErrorKind::InvalidOperation, e.to_string()))
}

/// JSON as Python writes it: a space behind `,` and `:`, nothing escaped for HTML.
fn to_json(value: &Value, indent: Option<usize>) -> Result<String, Error> {
    let mut out = String::new();
    write_json(value, indent, 0, &mut out)?;
    Ok(out)
}

/// Levels of lists and maps in each other.
const DEEPEST: usize = 64;

fn write_json(value: &Value, indent: Option<usize>, depth: usize, out: &mut String) -> Result<(), Error> {
    let refuse = |what: &str| Error::new(ErrorKind::InvalidOperation, format!("tojson: {what}"));
    if depth > DEEPEST {
        return Err(refuse("the value is nested too deep"));
    }
    let items: Vec<(Option<Value>, Value)> = match value.kind() {
        ValueKind::Seq | ValueKind::Iterable => value.try_iter()?.map(|item| (None, item)).collect(),
        ValueKind::Map => {
            let entry = |key: Value| Ok((Some(key.clone()), value.get_item(&key)?));
            value.try_iter()?.map(entry).collect::<Result<_, Error>>()?
        }
        kind => {
            let scalar = match kind {
                ValueKind::None => "null".to_owned(),
                ValueKind::Bool => value.is_true().to_string(),
                ValueKind::Number => value.to_string(),
                ValueKind::String => quoted(value.as_str().unwrap_or_default()),
                other => return Err(refuse(&format!("{other} is not JSON"))),
            };
            out.push_str(&scalar);
            return Ok(());
        }
    };
    let map = value.kind() == ValueKind::Map;
    out.push(if map { '{' } else { '[' });
    for (number, (key, item)) in items.iter().enumerate() {
        out.push_str(match (number, indent) {
            (0, _) => "",
            (_, None) => ", ",
            (_, Some(_)) => ",",
        });
        new_line(indent, depth + 1, out);
        if let Some(key) = key {
            out.extend([&quoted(&key.to_string()), ": "]);
        }
        write_json(item, indent, depth + 1, out)?;
    }
    if !items.is_empty() {
        new_line(indent, depth, out);
    }
    out.push(if map { '}' } else { ']' });
    Ok(())
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn new_line(indent: Option<usize>, depth: usize, out: &mut String) {
    if let Some(indent) = indent {
        out.push('\n');
        out.extend(std::iter::repeat_n(' ', indent.min(16) * depth));
    }
}
