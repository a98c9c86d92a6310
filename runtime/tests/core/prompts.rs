//! Prompts of every family as a checkpoint's directory gives them: the reference's ids, which template is taken,
//! what ends an answer, and how several pictures share the context.

use std::path::Path;
use std::sync::Arc;

use vlm_contract::diagnosis::Cause;
use vlm_runtime::checkpoint::{Checkpoint, CheckpointError};
use vlm_runtime::image::{ImageLimits, PreparedImage, TileBudget};
use vlm_runtime::processor::{Processor, Prompt, PromptMessage, PromptPart, PromptRole};

use crate::cases::dir;

const ALL: [&str; 12] = [
    "llava15_llama_hub",
    "llava15_llama_v5names",
    "llava15_llama_orig",
    "llava_next_mistral_hub",
    "llava_next_llama_hub",
    "llava_next_llama_orig",
    "internvl3_qwen2_hub",
    "internvl3_qwen2_chat",
    "internvl2_internlm2_chat",
    "internvl2_llama_chat",
    "internvl2_phi3_short_chat",
    "internvl2_phi3_long_chat",
];

const VICUNA: &str = "A chat between a curious user and an artificial intelligence assistant. The assistant gives \
    helpful, detailed, and polite answers to the user's questions.";
const LLAVA: &str = "A chat between a curious human and an artificial intelligence assistant. The assistant gives \
    helpful, detailed, and polite answers to the human's questions.";

fn open(dir: &Path, template: Option<&str>) -> Result<Processor, CheckpointError> {
    Processor::open_with(&Checkpoint::open(dir)?, template)
}

/// The pictures of a case.
fn pictures(processor: &Processor, case: &str, budget: TileBudget) -> Vec<Arc<PreparedImage>> {
    let files = (0..).map(|number| dir(case).join(format!("images/{number}.png"))).take_while(|path| path.exists());
    files
        .map(|path| std::fs::read(path).unwrap())
        .map(|bytes| processor.prepare_image_within(&bytes, &ImageLimits::default(), budget).unwrap())
        .map(Arc::new)
        .collect()
}

fn ask(processor: &Processor, images: &[Arc<PreparedImage>], question: &str) -> Prompt {
    let images = images.iter().map(|image| PromptPart::Image(Arc::clone(image)));
    let parts = images.chain([PromptPart::Text(question.to_owned())]).collect();
    processor.prompt(&[PromptMessage { role: PromptRole::User, parts }]).unwrap()
}

/// A case in a folder of its own, with other files.
fn changed(case: &str, files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(dir(case)).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            std::fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    for (name, content) in files {
        std::fs::write(folder.path().join(name), content).unwrap();
    }
    folder
}

#[test]
fn raw_prompts_of_all_cases_have_the_ids_of_the_reference() {
    for case in ALL {
        let processor = open(&dir(case), None).unwrap();
        let facts = std::fs::read(dir(case).join("expected.json")).unwrap();
        let facts: serde_json::Value = serde_json::from_slice(&facts).unwrap();
        let images = pictures(&processor, case, TileBudget::default());
        let prompt = processor.raw_prompt(facts["prompt"].as_str().unwrap(), &images).unwrap();
        assert_eq!(serde_json::json!(prompt.ids), facts["input_ids"], "{case}");
        assert_eq!(serde_json::json!(prompt.image_token), facts["image_token_id"], "{case}");
        let tokens: Vec<usize> = prompt.images.iter().map(|image| image.tokens).collect();
        assert_eq!(serde_json::json!(tokens), facts["image_tokens"], "{case}");
    }
}

#[test]
fn each_case_gets_the_form_of_its_kind() {
    let internvl_2_5 = "你是书生·万象，英文名是InternVL，\
        是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。";
    let internvl_2 = "你是由上海人工智能实验室联合商汤科技开发的书生多模态大模型，英文名叫InternVL, \
        是一个有用无害的人工智能助手。";
    let chatml = format!(
        "<|im_start|>system\n{internvl_2}<|im_end|><|im_start|>user\n<image>\nHi<|im_end|><|im_start|>assistant\n"
    );
    for (case, text) in [
        ("llava15_llama_hub", "USER: <image>\nHi ASSISTANT:".to_owned()),
        ("llava15_llama_orig", format!("{VICUNA} USER: <image>\nHi ASSISTANT:")),
        ("llava_next_llama_hub", format!("{LLAVA} USER: <image>\nHi ASSISTANT:")),
        ("llava_next_llama_orig", format!("{LLAVA} USER: <image>\nHi ASSISTANT:")),
        ("llava_next_mistral_hub", "[INST] <image>\n<image>\nHi [/INST]".to_owned()),
        ("internvl3_qwen2_hub", "<|im_start|>user\n<image>\n<image>\nHi<|im_end|>\n<|im_start|>assistant\n".to_owned()),
        (
            "internvl3_qwen2_chat",
            format!(
                "<|im_start|>system\n{internvl_2_5}<|im_end|>\n<|im_start|>user\nImage-1: <image>\nImage-2: <image>\n\
                 Hi<|im_end|>\n<|im_start|>assistant\n"
            ),
        ),
        ("internvl2_internlm2_chat", chatml.clone()),
        ("internvl2_llama_chat", chatml),
        (
            "internvl2_phi3_long_chat",
            format!("<|system|>\n{internvl_2}<|end|><|user|>\n<image>\nHi<|end|><|assistant|>\n"),
        ),
    ] {
        let processor = open(&dir(case), None).unwrap();
        let images = pictures(&processor, case, TileBudget::default());
        let expected = processor.raw_prompt(&text, &images).unwrap();
        assert_eq!(ask(&processor, &images, "Hi").ids, expected.ids, "{case}");
    }
}

#[test]
fn answers_end_at_the_ids_of_the_files_and_at_the_separator() {
    for (case, ids, text) in [
        ("llava15_llama_hub", vec![2], None),
        ("llava15_llama_orig", vec![2], Some("</s>")),
        ("internvl2_internlm2_chat", vec![2, 258], Some("<|im_end|>")),
        ("internvl2_phi3_long_chat", vec![258, 271], Some("<|end|>")),
        ("internvl3_qwen2_hub", vec![258], None),
    ] {
        let processor = open(&dir(case), None).unwrap();
        assert_eq!((processor.stop_ids(), processor.stop_string()), (ids.as_slice(), text), "{case}");
    }
}

#[test]
fn the_template_of_a_language_model_does_not_count_in_the_original_layouts() {
    let blind = r#"{"chat_template": "{{ messages[0]['content'] }}"}"#;
    let sees = r#"{"chat_template": "{% for c in messages[0].content %}{% if c.type == 'image' %}<image>{% endif %}{% endfor %}!"}"#;
    let text = |case: &str, config: &str, template| {
        let folder = changed(case, &[("tokenizer_config.json", config)]);
        let processor = open(folder.path(), template).unwrap();
        let images = pictures(&processor, case, TileBudget::default());
        let ids = ask(&processor, &images, "Hi").ids;
        let raw = move |text: &str| processor.raw_prompt(text, &images).unwrap().ids;
        (ids, raw)
    };
    let (ids, raw) = text("llava_next_llama_orig", blind, None);
    assert_eq!(ids, raw(&format!("{LLAVA} USER: <image>\nHi ASSISTANT:")));
    let (ids, raw) = text("llava_next_llama_orig", sees, None);
    assert_eq!(ids, raw("<image>!"));
    let (ids, raw) = text("llava_next_llama_hub", blind, None);
    assert_eq!(ids, raw("<image>\nHi"));
    let (ids, raw) = text("internvl2_llama_chat", sees, Some("mistral_instruct"));
    assert_eq!(ids, raw("[INST] <image>\nHi [/INST]"));
    let plain = open(&dir("internvl2_llama_chat"), None).unwrap();
    let (ids, _) = text("internvl2_llama_chat", sees, None);
    assert_eq!(ids, ask(&plain, &pictures(&plain, "internvl2_llama_chat", TileBudget::default()), "Hi").ids);
}

/// `config.json` of a case with one more field.
fn config_with(case: &str, field: &str, value: serde_json::Value) -> String {
    let config = std::fs::read(dir(case).join("config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_slice(&config).unwrap();
    config[field] = value;
    config.to_string()
}

#[test]
fn config_json_names_the_template_and_its_system_text() {
    let case = "internvl2_llama_chat";
    let folder = changed(case, &[("config.json", &config_with(case, "template", "internvl9".into()))]);
    let Err(error) = open(folder.path(), None) else { panic!("internvl9 is known") };
    assert_eq!(error.cause(), Cause::UnsupportedArchitecture);
    let error = error.to_string();
    assert!(error.contains("config.json") && error.contains("internvl9") && error.contains("Hermes-2"), "{error}");
    assert!(open(folder.path(), Some("Hermes-2")).is_ok());
    let folder = changed(case, &[("config.json", &config_with(case, "template", serde_json::Value::Null))]);
    assert!(open(folder.path(), None).is_err());
    let folder = changed(case, &[("config.json", &config_with(case, "system_message", "Be brief.".into()))]);
    let processor = open(folder.path(), None).unwrap();
    let expected = "<|im_start|>system\nBe brief.<|im_end|><|im_start|>user\nHi<|im_end|><|im_start|>assistant\n";
    assert_eq!(ask(&processor, &[], "Hi").ids, processor.raw_prompt(expected, &[]).unwrap().ids);
}

#[test]
fn a_tokenizer_with_im_end_is_that_of_the_34b() {
    let tokenizer = std::fs::read_to_string(dir("internvl2_llama_chat").join("tokenizer.json")).unwrap();
    let folder = changed("llava_next_llama_orig", &[("tokenizer.json", &tokenizer)]);
    let processor = open(folder.path(), None).unwrap();
    let images = pictures(&processor, "llava_next_llama_orig", TileBudget::default());
    let expected = "<|im_start|>system\nAnswer the questions.<|im_end|><|im_start|>user\n<image>\nHi<|im_end|>\
                    <|im_start|>assistant\n";
    let prompt = ask(&processor, &images, "Hi");
    assert_eq!(prompt.ids, processor.raw_prompt(expected, &images).unwrap().ids);
    assert_eq!(prompt.image_token, 320);
    assert_eq!(prompt.ids.iter().filter(|id| **id == 320).count(), images[0].tokens);
}

#[test]
fn several_pictures_share_the_tiles_of_one_when_the_context_is_short() {
    let case = "internvl2_internlm2_chat";
    let processor = open(&dir(case), None).unwrap();
    let three = |budget| {
        let image = pictures(&processor, case, budget).remove(0);
        ask(&processor, &[Arc::clone(&image), Arc::clone(&image), image], "Hi")
    };
    let whole = three(TileBudget::default());
    assert_eq!(whole.image_tokens(), 3 * 52);
    assert_eq!(processor.smaller_tiles(&whole, whole.ids.len() + 1), None);
    let budget = processor.smaller_tiles(&whole, whole.ids.len()).unwrap();
    assert_eq!(budget, TileBudget(Some(4)));
    let shared = three(budget);
    assert!(shared.image_tokens() <= 3 * 5 * 4, "{}", shared.image_tokens());
    assert_eq!(shared.text_tokens(), whole.text_tokens());
    let alone = ask(&processor, &pictures(&processor, case, TileBudget::default()), "Hi");
    assert_eq!(processor.smaller_tiles(&alone, 1), None);
    let llava = open(&dir("llava_next_mistral_hub"), None).unwrap();
    let two = ask(&llava, &pictures(&llava, "llava_next_mistral_hub", TileBudget::default()), "Hi");
    assert_eq!(llava.smaller_tiles(&two, 1), None);
}
