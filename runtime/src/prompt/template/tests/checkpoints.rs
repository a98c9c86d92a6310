//! The choice between a checkpoint's own template and the forms.

use super::*;
use crate::checkpoint::Checkpoint;

/// What LLaVA's language model has for conversations of text.
const BLIND: &str = "{% for m in messages %}{{ m['role'] + '|' + m['content'] }}{% endfor %}";
const SEES: &str = "{% for m in messages %}{% for c in m.content %}{% if c.type == 'image' %}<image>{% else %}{{ c.text }}{% endif %}{% endfor %}{% endfor %}";

/// The first case with other files.
fn template(files: &[(&str, &str)], choice: Option<&str>) -> Result<Template, CheckpointError> {
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(fixtures().join("llava15_llama_hub")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            std::fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    for (name, content) in files {
        std::fs::write(dir.path().join(name), content).unwrap();
    }
    let checkpoint = Checkpoint::open(dir.path())?;
    Template::open(&checkpoint, &Tokenizer::open(&checkpoint)?, choice)
}

fn rendered(template: &Template) -> String {
    render(template, &[asks(vec![image(1), text("Hi")])]).unwrap()
}

#[test]
fn the_checkpoints_own_template_comes_from_the_first_file_that_has_one() {
    assert_eq!(rendered(&template(&[], None).unwrap()), "USER: <image>\nHi ASSISTANT:");
    let json = |source: &str| serde_json::json!({ "chat_template": source }).to_string();
    let named = serde_json::json!({ "chat_template": [
        {"name": "tool_use", "template": "no"}, {"name": "default", "template": "tokenizer"},
    ] });
    let (named, chat) = (named.to_string(), json("chat"));
    let mut files = vec![("tokenizer_config.json", named.as_str())];
    assert_eq!(rendered(&template(&files, None).unwrap()), "tokenizer");
    let processor = json("processor");
    files.push(("processor_config.json", &processor));
    assert_eq!(rendered(&template(&files, None).unwrap()), "processor");
    files.push(("chat_template.json", &chat));
    assert_eq!(rendered(&template(&files, None).unwrap()), "chat");
    files.push(("chat_template.jinja", "jinja"));
    assert_eq!(rendered(&template(&files, None).unwrap()), "jinja");
    assert!(template(&[("chat_template.jinja", "{% for %}")], None).is_err());
}

#[test]
fn another_template_can_be_chosen_by_name_or_file() {
    let own = [("chat_template.jinja", SEES)];
    assert_eq!(rendered(&template(&own, None).unwrap()), "<image>Hi");
    let chosen = template(&own, Some("mistral_instruct")).unwrap();
    assert_eq!(rendered(&chosen), "[INST] <image>\nHi [/INST]");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), BLIND).unwrap();
    let chosen = template(&own, file.path().to_str()).unwrap();
    assert_eq!(rendered(&chosen), "user|<image>\nHi");
    let Err(error) = template(&own, Some("internvl9")) else { panic!("internvl9 is known") };
    let error = error.to_string();
    assert!(error.contains("--chat-template internvl9") && error.contains(NAMES), "{error}");
}

#[test]
fn separators_are_those_of_the_form_or_of_the_template() {
    assert_eq!(Template::named("phi3-chat").unwrap().separators(), ["<|end|>"]);
    assert_eq!(Template::named("vicuna_v1").unwrap().separators(), ["</s>"]);
    assert_eq!(Template::named("internvl_hf").unwrap().separators(), ["<|im_end|>"]);
    assert_eq!(Template::named("internvl_hf").unwrap().stop_string(), None);
    assert_eq!(Template::named("mistral_instruct").unwrap().stop_string(), Some("</s>"));
}
