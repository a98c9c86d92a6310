//! The forms' texts, written out.

use super::*;

const ANSWER: &str = "<|im_end|>\n<|im_start|>assistant\n";
const VICUNA: &str = "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite answers to the user's questions.";
const LLAVA: &str = "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite answers to the human's questions.";
const INTERN_2: &str =
    "你是由上海人工智能实验室联合商汤科技开发的书生多模态大模型，英文名叫InternVL, 是一个有用无害的人工智能助手。";
const INTERN_2_5: &str =
    "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。";

struct Written {
    name: &'static str,
    /// A picture and a question; then its answer and another question; a system text; two pictures; Chinese.
    texts: [String; 5],
}

fn conversations() -> [Vec<PromptMessage>; 5] {
    let answered = vec![
        asks(vec![image(1), text("What is it?")]),
        says(Assistant, vec![text("A cat.")]),
        asks(vec![text("Sure?")]),
    ];
    [
        vec![asks(vec![image(1), text("What is it?")])],
        answered,
        vec![says(System, vec![text("Be brief.")]), asks(vec![text("Hi")])],
        vec![asks(vec![text("Compare."), image(1), image(1)])],
        vec![asks(vec![image(1), text("图片里有什么？")])],
    ]
}

fn vicuna(name: &'static str, s: &str) -> Written {
    let texts = [
        format!("{s} USER: <image>\nWhat is it? ASSISTANT:"),
        format!("{s} USER: <image>\nWhat is it? ASSISTANT: A cat.</s>USER: Sure? ASSISTANT:"),
        "Be brief. USER: Hi ASSISTANT:".to_owned(),
        format!("{s} USER: <image>\n<image>\nCompare. ASSISTANT:"),
        format!("{s} USER: <image>\n图片里有什么？ ASSISTANT:"),
    ];
    Written { name, texts }
}

/// `e` ends a turn.
fn chatml(name: &'static str, s: &str, e: &str, two: &str) -> Written {
    let system = format!("<|im_start|>system\n{s}{e}<|im_start|>user\n");
    let texts = [
        format!("{system}<image>\nWhat is it?{e}<|im_start|>assistant\n"),
        format!(
            "{system}<image>\nWhat is it?{e}<|im_start|>assistant\nA cat.{e}<|im_start|>user\nSure?{e}<|im_start|>assistant\n"
        ),
        format!("<|im_start|>system\nBe brief.{e}<|im_start|>user\nHi{e}<|im_start|>assistant\n"),
        format!("{system}{two}Compare.{e}<|im_start|>assistant\n"),
        format!("{system}<image>\n图片里有什么？{e}<|im_start|>assistant\n"),
    ];
    Written { name, texts }
}

fn all() -> Vec<Written> {
    const PLAIN: &str = "<image>\n<image>\n";
    const NUMBERED: &str = "Image-1: <image>\nImage-2: <image>\n";
    let mistral = [
        "[INST] <image>\nWhat is it? [/INST]",
        "[INST] <image>\nWhat is it? [/INST] A cat. </s>[INST] Sure? [/INST]",
        "[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi [/INST]",
        "[INST] <image>\n<image>\nCompare. [/INST]",
        "[INST] <image>\n图片里有什么？ [/INST]",
    ];
    let phi = format!("<|system|>\n{INTERN_2}<|end|><|user|>\n");
    let phi3 = [
        format!("{phi}<image>\nWhat is it?<|end|><|assistant|>\n"),
        format!("{phi}<image>\nWhat is it?<|end|><|assistant|>\nA cat.<|end|><|user|>\nSure?<|end|><|assistant|>\n"),
        "<|system|>\nBe brief.<|end|><|user|>\nHi<|end|><|assistant|>\n".to_owned(),
        format!("{phi}Image-1: <image>\nImage-2: <image>\nCompare.<|end|><|assistant|>\n"),
        format!("{phi}<image>\n图片里有什么？<|end|><|assistant|>\n"),
    ];
    let llava_hf = [
        "USER: <image>\nWhat is it? ASSISTANT:",
        "USER: <image>\nWhat is it? ASSISTANT: A cat. USER: Sure? ASSISTANT:",
        "Be brief. USER: Hi ASSISTANT:",
        "USER: <image>\n<image>\nCompare. ASSISTANT:",
        "USER: <image>\n图片里有什么？ ASSISTANT:",
    ];
    let internvl_hf = [
        format!("<|im_start|>user\n<IMG_CONTEXT>\nWhat is it?{ANSWER}"),
        format!(
            "<|im_start|>user\n<IMG_CONTEXT>\nWhat is it?{ANSWER}A cat.<|im_end|>\n<|im_start|>user\nSure?{ANSWER}"
        ),
        format!("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi{ANSWER}"),
        format!("<|im_start|>user\nCompare.<IMG_CONTEXT>\n<IMG_CONTEXT>\n{ANSWER}"),
        format!("<|im_start|>user\n<IMG_CONTEXT>\n图片里有什么？{ANSWER}"),
    ];
    vec![
        vicuna("vicuna_v1", VICUNA),
        vicuna("llava_v1", LLAVA),
        Written { name: "mistral_instruct", texts: mistral.map(str::to_owned) },
        chatml("chatml_direct", "Answer the questions.", "<|im_end|>", PLAIN),
        chatml("internlm2-chat", INTERN_2, "<|im_end|>", NUMBERED),
        chatml("Hermes-2", INTERN_2, "<|im_end|>", NUMBERED),
        Written { name: "phi3-chat", texts: phi3 },
        chatml("internvl2_5", INTERN_2_5, "<|im_end|>\n", NUMBERED),
        Written { name: "llava_hf", texts: llava_hf.map(str::to_owned) },
        Written { name: "internvl_hf", texts: internvl_hf },
    ]
}

#[test]
fn every_form_is_written_out() {
    let names: Vec<&str> = NAMES.split(", ").collect();
    assert_eq!(all().iter().map(|written| written.name).collect::<Vec<_>>(), names);
    for Written { name, texts } in all() {
        let template = Template::named(name).unwrap();
        for (messages, expected) in conversations().iter().zip(texts) {
            assert_eq!(render(&template, messages).as_deref(), Ok(expected.as_str()), "{name}");
        }
    }
    assert!(Template::named("internvl9").is_none());
}

#[test]
fn the_configured_system_text_gives_way_to_the_conversation() {
    let template = Template { system: Some("Configured.".to_owned()), ..Template::named("internvl2_5").unwrap() };
    let hi = || asks(vec![text("Hi")]);
    let begins = |messages: &[PromptMessage]| render(&template, messages).unwrap();
    assert!(begins(&[hi()]).starts_with("<|im_start|>system\nConfigured.<|im_end|>\n<|im_start|>user\nHi"));
    let said = [says(System, vec![text("One."), text("Two.")]), hi(), says(System, vec![text("Three.")])];
    assert!(begins(&said).starts_with("<|im_start|>system\nOne.\nTwo.\nThree.<|im_end|>\n<|im_start|>user\nHi"));
}

#[test]
fn a_system_text_needs_a_place() {
    let mistral = Template::named("mistral_instruct").unwrap();
    let error = render(&mistral, &[says(System, vec![text("Be brief.")])]).unwrap_err();
    assert!(error.contains("needs a user message"), "{error}");
}

#[test]
fn pictures_of_several_messages_are_numbered_through() {
    let template = Template::named("internlm2-chat").unwrap();
    let turns = [
        asks(vec![image(1), text("a")]),
        says(Assistant, vec![text("b")]),
        asks(vec![image(1), image(1), text("c")]),
        says(Assistant, vec![text("d")]),
        asks(vec![text("e"), image(1), text("f"), image(1), text(""), text("g"), text("h")]),
    ];
    let rendered = render(&template, &turns).unwrap();
    let questions: Vec<&str> =
        rendered.split("<|im_start|>user\n").skip(1).map(|q| q.split("<|im_end|>").next().unwrap()).collect();
    assert_eq!(questions, ["<image>\na", "Image-2: <image>\nImage-3: <image>\nc", "e<image>\nf<image>\n\ng\nh"]);
}
