//! Which template a checkpoint gets, and what the forms and templates of transformers render.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::super::PromptRole::{Assistant, System, User};
use super::super::tests::{asks, image, says, text};
use super::*;
use crate::prompt::PromptMessage;

mod checkpoints;
mod forms;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures")
}

fn render(template: &Template, messages: &[PromptMessage]) -> Result<String, String> {
    let tokenizer = Tokenizer::open_in(&fixtures().join("llava15_llama_hub")).unwrap();
    let mut protected = tokenizer.protect();
    let text = template.render(messages, &mut protected)?;
    Ok(protected.restore(&text))
}

#[derive(Deserialize)]
struct Rendered {
    conversations: BTreeMap<String, Vec<Turn>>,
    expected: BTreeMap<String, BTreeMap<String, Outcome>>,
}

#[derive(Deserialize)]
struct Turn {
    role: String,
    /// A picture where there is no text.
    parts: Vec<Option<String>>,
}

#[derive(Deserialize)]
struct Outcome {
    text: Option<String>,
    error: Option<String>,
}

impl Turn {
    fn message(&self) -> PromptMessage {
        let role = match self.role.as_str() {
            "system" => System,
            "user" => User,
            _ => Assistant,
        };
        says(role, self.parts.iter().map(|part| part.as_deref().map_or_else(|| image(1), text)).collect())
    }
}

#[test]
fn templates_render_as_in_transformers() {
    let dir = fixtures().join("templates");
    let all: Rendered = serde_json::from_slice(&std::fs::read(dir.join("rendered.json")).unwrap()).unwrap();
    assert!(all.expected.len() >= 8 && all.conversations.len() >= 10);
    for (name, expected) in &all.expected {
        let source = std::fs::read_to_string(dir.join(format!("{name}.jinja"))).unwrap();
        let template = Template::compile(&source, "<s>", "</s>", "the chat template").unwrap();
        for (conversation, turns) in &all.conversations {
            let messages: Vec<_> = turns.iter().map(Turn::message).collect();
            let actual = render(&template, &messages);
            match &expected[conversation] {
                Outcome { text: Some(text), .. } => assert_eq!(actual.as_ref(), Ok(text), "{name} {conversation}"),
                Outcome { error, .. } => {
                    let (actual, error) = (actual.unwrap_err(), error.as_deref().unwrap());
                    // What a template says itself is told as it is; what the engine says is its own.
                    assert!(actual == error || !source.contains("raise_exception"), "{actual} / {error}");
                }
            }
        }
    }
}

#[test]
fn the_time_is_written_as_python_does() {
    let template = Template::compile("{{ strftime_now('%Y-%m-%d|%d %B %Y|%b') }}", "", "", "x").unwrap();
    let now = render(&template, &[asks(vec![])]).unwrap();
    let parts: Vec<&str> = now.split('|').collect();
    assert_eq!(parts[0].len(), "2026-01-31".len(), "{now}");
    assert!(parts[0] >= "2026" && parts[1].ends_with(&parts[0][..4]) && parts[2].len() == 3, "{now}");
    let template = Template::compile("{{ strftime_now('%') }}", "", "", "x").unwrap();
    assert!(render(&template, &[asks(vec![])]).is_err());
}

#[test]
fn a_template_that_recurses_or_counts_for_ever_ends() {
    for source in [
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% for i in range(1000000000) %}{{ i }}{% endfor %}",
        "{% for i in range(9999) %}{% for j in range(9999) %}{% set x = i + j %}{% endfor %}{% endfor %}",
        "{% set ns = namespace(v=[]) %}{% for i in range(200) %}{% set ns.v = [ns.v] %}{% endfor %}{{ ns.v | tojson }}",
    ] {
        let template = Template::compile(source, "", "", "x").unwrap();
        assert!(render(&template, &[asks(vec![text("x")])]).is_err(), "{source}");
    }
}
