//! Conversations as the original repositories of LLaVA and `InternVL` write them in their code: text before and
//! behind each turn, and where pictures go. A checkpoint in their layout carries no template of its own.

use super::super::{MARK, PromptMessage, PromptPart, PromptRole};
use crate::tokenizer::Protected;

/// One form of conversation.
#[derive(Debug, PartialEq, Eq)]
pub struct Form {
    /// Its name, as `config.json` (`template`) and the original code spell it.
    pub name: &'static str,
    system: System,
    user: Around,
    assistant: Around,
    /// What lets the model answer.
    opening: &'static str,
    /// Whether several pictures of one message are numbered.
    numbered: bool,
    /// What ends an answer.
    pub separator: &'static str,
}

/// What stands before and behind a text.
type Around = (&'static str, &'static str);

#[derive(Debug, PartialEq, Eq)]
struct System {
    around: Around,
    /// Where neither the conversation nor the checkpoint has one.
    text: Option<&'static str>,
    /// Inside of the first message of the user rather than before it.
    within_user: bool,
}

const VICUNA: Form = Form {
    name: "vicuna_v1",
    system: System {
        around: ("", " "),
        text: Some(
            "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, \
             detailed, and polite answers to the user's questions.",
        ),
        within_user: false,
    },
    user: ("USER: ", " "),
    assistant: ("ASSISTANT: ", "</s>"),
    opening: "ASSISTANT:",
    numbered: false,
    separator: "</s>",
};

/// Turns in the way of `ChatML`, each ended by `separator`.
const fn chatml(name: &'static str, text: &'static str) -> Form {
    Form {
        name,
        system: System { around: ("<|im_start|>system\n", "<|im_end|>"), text: Some(text), within_user: false },
        user: ("<|im_start|>user\n", "<|im_end|>"),
        assistant: ("<|im_start|>assistant\n", "<|im_end|>"),
        opening: "<|im_start|>assistant\n",
        numbered: true,
        separator: "<|im_end|>",
    }
}

const INTERNVL_2: &str = "你是由上海人工智能实验室联合商汤科技开发的书生多模态大模型，英文名叫InternVL, \
    是一个有用无害的人工智能助手。";
const INTERNVL_2_5: &str = "你是书生·万象，英文名是InternVL，\
    是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。";

/// All of them.
pub static FORMS: [Form; 8] = [
    VICUNA,
    Form {
        name: "llava_v1",
        system: System {
            around: ("", " "),
            text: Some(
                "A chat between a curious human and an artificial intelligence assistant. The assistant gives \
                 helpful, detailed, and polite answers to the human's questions.",
            ),
            within_user: false,
        },
        ..VICUNA
    },
    Form {
        name: "mistral_instruct",
        system: System { around: ("<<SYS>>\n", "\n<</SYS>>\n\n"), text: None, within_user: true },
        user: ("[INST] ", " [/INST]"),
        assistant: (" ", " </s>"),
        opening: "",
        ..VICUNA
    },
    Form { numbered: false, ..chatml("chatml_direct", "Answer the questions.") },
    chatml("internlm2-chat", INTERNVL_2),
    chatml("Hermes-2", INTERNVL_2),
    Form {
        system: System { around: ("<|system|>\n", "<|end|>"), text: Some(INTERNVL_2), within_user: false },
        user: ("<|user|>\n", "<|end|>"),
        assistant: ("<|assistant|>\n", "<|end|>"),
        opening: "<|assistant|>\n",
        separator: "<|end|>",
        ..chatml("phi3-chat", INTERNVL_2)
    },
    Form {
        system: System {
            around: ("<|im_start|>system\n", "<|im_end|>\n"),
            text: Some(INTERNVL_2_5),
            within_user: false,
        },
        user: ("<|im_start|>user\n", "<|im_end|>\n"),
        assistant: ("<|im_start|>assistant\n", "<|im_end|>\n"),
        ..chatml("internvl2_5", INTERNVL_2_5)
    },
];

impl Form {
    /// The text of a conversation, ready for the model to answer. The system text is that of the conversation, else
    /// `configured`, else the form's own. Texts of the conversation go through `protected`.
    ///
    /// # Errors
    /// A system text without a user message that could hold it.
    pub fn render(
        &self,
        configured: Option<&str>,
        messages: &[PromptMessage],
        protected: &mut Protected<'_>,
    ) -> Result<String, String> {
        let mut system = self.system_text(configured, messages, protected);
        let mut out = String::new();
        if !self.system.within_user {
            out.extend(system.take());
        }
        let mut pictures = 0;
        for message in messages {
            let ((before, behind), text) = match message.role {
                PromptRole::System => continue,
                PromptRole::User => (self.user, self.question(&message.parts, &mut pictures, protected)),
                PromptRole::Assistant => (self.assistant, texts(&message.parts, protected)),
            };
            out.push_str(before);
            if message.role == PromptRole::User {
                out.extend(system.take());
            }
            out.extend([text.as_str(), behind]);
        }
        if system.is_some() {
            return Err("a system message needs a user message behind it".to_owned());
        }
        out.push_str(self.opening);
        Ok(out)
    }

    fn system_text(
        &self,
        configured: Option<&str>,
        messages: &[PromptMessage],
        protected: &mut Protected<'_>,
    ) -> Option<String> {
        let said: Vec<String> = messages
            .iter()
            .filter(|message| message.role == PromptRole::System)
            .map(|message| texts(&message.parts, protected))
            .collect();
        let text = if said.is_empty() { configured.or(self.system.text)?.to_owned() } else { said.join("\n") };
        let (before, behind) = self.system.around;
        Some([before, text.as_str(), behind].concat())
    }

    /// Pictures of a message stand before its text, as the reference puts them there; those between two texts stand
    /// where they are, as in a question in which a person has placed them. `pictures` counts those of the conversation.
    fn question(&self, parts: &[PromptPart], pictures: &mut usize, protected: &mut Protected<'_>) -> String {
        let kinds: Vec<bool> = parts
            .iter()
            .filter(|part| !matches!(part, PromptPart::Text(text) if text.is_empty()))
            .map(|part| matches!(part, PromptPart::Image(_)))
            .collect();
        let images = kinds.iter().filter(|is_image| **is_image).count();
        let runs: Vec<bool> = kinds.chunk_by(|a, b| a == b).map(|run| run[0]).collect();
        let first = *pictures + 1;
        *pictures += images;
        if runs.len() > 2 {
            return in_place(parts, protected);
        }
        let marks: String = (first..first + images)
            .map(|number| if images > 1 && self.numbered { format!("Image-{number}: ") } else { String::new() })
            .map(|number| number + MARK + "\n")
            .collect();
        marks + &texts(parts, protected)
    }
}

/// The texts of a message, a line each.
fn texts(parts: &[PromptPart], protected: &mut Protected<'_>) -> String {
    let texts = parts.iter().filter_map(|part| match part {
        PromptPart::Text(text) => Some(protected.take(text)),
        PromptPart::Image(_) => None,
    });
    texts.collect::<Vec<_>>().join("\n")
}

fn in_place(parts: &[PromptPart], protected: &mut Protected<'_>) -> String {
    let (mut out, mut after_text) = (String::new(), false);
    for part in parts {
        match part {
            PromptPart::Text(text) => {
                out.push_str(if after_text { "\n" } else { "" });
                out.push_str(&protected.take(text));
                after_text = true;
            }
            PromptPart::Image(_) => {
                out.extend([MARK, "\n"]);
                after_text = false;
            }
        }
    }
    out
}
