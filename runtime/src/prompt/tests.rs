//! Templates as checkpoints carry them, and conversations that make no prompt.

use std::path::Path;

use super::*;
use crate::checkpoint::Checkpoint;

/// llava-hf's own template, as the hub has it.
const LLAVA_HF: &str = "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': '}}{% endif %}{# Render all images first #}{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\\n' }}{% endfor %}{# Render all text next #}{% if message['role'] != 'assistant' %}{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] + ' '}}{% endfor %}{% else %}{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{% generation %}{{ content['text'] + ' '}}{% endgeneration %}{% endfor %}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}";
/// A template for messages that are plain strings.
const PLAIN: &str = "{{ bos_token }}{% for message in messages %}
    {% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{ raise_exception('Roles must alternate user/assistant/user') }}
    {% endif %}
    {% if message['role'] == 'user' %}
{{ '[INST] ' + message['content'].strip() + ' [/INST]' }}
    {%- else %}
{{ message['content'] + eos_token }}
    {%- endif %}
{% endfor %}";

fn checkpoint() -> Checkpoint {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/llava15_llama_hub");
    Checkpoint::open(&dir).unwrap()
}

fn compile(source: Option<&str>) -> (tempfile::TempDir, Template) {
    let dir = tempfile::tempdir().unwrap();
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/llava15_llama_hub");
    for entry in std::fs::read_dir(fixture).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            std::fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    if let Some(source) = source {
        std::fs::write(dir.path().join("chat_template.jinja"), source).unwrap();
    }
    let template = Template::open(&Checkpoint::open(dir.path()).unwrap(), "<image>", "<s>", "</s>").unwrap();
    (dir, template)
}

fn image(tokens: usize) -> PromptPart {
    PromptPart::Image(Arc::new(PreparedImage { tiles: 1, height: 1, width: 1, pixels: Vec::new(), tokens, kept: None }))
}

fn text(text: &str) -> PromptPart {
    PromptPart::Text(text.to_owned())
}

fn says(role: PromptRole, parts: Vec<PromptPart>) -> PromptMessage {
    PromptMessage { role, parts }
}

fn conversation() -> Vec<PromptMessage> {
    vec![
        says(PromptRole::System, vec![text("Be brief.")]),
        says(PromptRole::User, vec![text("What is it?"), image(3), image(2)]),
        says(PromptRole::Assistant, vec![text("A cat.")]),
        says(PromptRole::User, vec![text("Sure?"), text("Really?")]),
    ]
}

fn render(template: &Template, messages: &[PromptMessage]) -> Result<String, String> {
    let tokenizer = Tokenizer::open(&checkpoint()).unwrap();
    template.render(messages, &mut tokenizer.protect())
}

#[test]
fn the_default_is_what_llava_hf_renders() {
    let (_dir, default) = compile(None);
    let (_dir, hub) = compile(Some(LLAVA_HF));
    let expected = "Be brief. USER: <image>\n<image>\nWhat is it? ASSISTANT: A cat. USER: Sure? Really? ASSISTANT:";
    assert_eq!(render(&default, &conversation()).as_deref(), Ok(expected));
    assert_eq!(render(&hub, &conversation()).as_deref(), Ok(expected));
}

#[test]
fn a_template_of_plain_strings_gets_the_image_token_first() {
    let (_dir, plain) = compile(Some(PLAIN));
    let turns = [
        says(PromptRole::User, vec![text(" What is it? "), image(1)]),
        says(PromptRole::Assistant, vec![text("A cat.")]),
    ];
    assert_eq!(render(&plain, &turns).as_deref(), Ok("<s>[INST] <image>\n What is it? [/INST]A cat.</s>"));
    let error = render(&plain, &turns[1..]).unwrap_err();
    assert!(error.contains("Roles must alternate"), "{error}");
}

#[test]
fn a_template_that_does_not_compile_is_named_at_start() {
    let dir = std::panic::catch_unwind(|| compile(Some("{% for x in %}")));
    assert!(dir.is_err());
}

#[test]
fn each_picture_gets_its_rows_in_order() {
    let (_dir, template) = compile(None);
    let tokenizer = Tokenizer::open(&checkpoint()).unwrap();
    let prompt = build(&template, &tokenizer, 260, &conversation()).unwrap();
    let runs: Vec<usize> = prompt.ids.chunk_by(|a, b| a == b).filter(|run| run[0] == 260).map(<[u32]>::len).collect();
    assert_eq!((runs, prompt.images.len()), (vec![3, 2], 2));
}

#[test]
fn conversations_that_make_no_prompt_say_why() {
    let tokenizer = Tokenizer::open(&checkpoint()).unwrap();
    let (_dir, template) = compile(None);
    assert!(matches!(build(&template, &tokenizer, 260, &[]), Err(PromptError::Empty)));
    let (_dir, blind) = compile(Some(
        "{% for m in messages %}{% for c in m.content %}{% if c.type == 'text' %}{{ c.text }}{% endif %}{% endfor %}{% endfor %}",
    ));
    let error = build(&blind, &tokenizer, 260, &conversation()).unwrap_err();
    assert!(matches!(error, PromptError::ImageCount { images: 2, places: 0 }), "{error}");
    let (_dir, plain) = compile(Some(PLAIN));
    let error = build(&plain, &tokenizer, 260, &conversation()).unwrap_err();
    assert!(error.to_string().contains("Roles must alternate"), "{error}");
}

#[test]
fn an_image_token_typed_by_a_person_is_no_place_for_a_picture() {
    let (_dir, template) = compile(None);
    let tokenizer = Tokenizer::open(&checkpoint()).unwrap();
    let typed = [says(PromptRole::User, vec![text("what does <image> mean, and </s>?"), image(4)])];
    let prompt = build(&template, &tokenizer, 260, &typed).unwrap();
    assert_eq!(prompt.ids.iter().filter(|id| **id == 260).count(), 4);
    assert!(!prompt.ids.contains(&2));
}
