//! Calls of functions in the text of an answer, as it comes: what stands between the marks is taken out of the text.

use serde::Deserialize;
use serde_json::Value;

use crate::guide::{CLOSE, OPEN};

/// Bytes of one call; more is text.
const LONGEST: usize = 256 * 1024;

/// A part of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// Text; never empty.
    Text(String),
    /// A call.
    Call {
        /// The function.
        name: String,
        /// Its arguments as JSON text.
        arguments: String,
    },
}

/// Takes calls out of one answer.
#[derive(Debug, Default)]
pub struct CallParser {
    held: String,
    inside: bool,
    /// White space behind a call belongs to it.
    behind: bool,
    any: bool,
}

#[derive(Deserialize)]
struct Written {
    name: String,
    #[serde(default, alias = "parameters")]
    arguments: Value,
}

impl CallParser {
    /// Whether there has been a call.
    pub fn any(&self) -> bool {
        self.any
    }

    /// Adds a piece of text.
    pub fn push(&mut self, piece: &str) -> Vec<Said> {
        self.held.push_str(piece);
        let mut out = Vec::new();
        loop {
            if self.behind {
                self.held.replace_range(..self.held.len() - self.held.trim_start().len(), "");
                self.behind = self.held.is_empty();
            }
            let mark = if self.inside { CLOSE } else { OPEN };
            let Some(at) = self.held.find(mark) else { break };
            let rest = self.held.split_off(at + mark.len());
            let whole = std::mem::replace(&mut self.held, rest);
            let before = &whole[..at];
            match call(before).filter(|_| self.inside) {
                Some(call) => {
                    (self.any, self.behind) = (true, true);
                    out.push(call);
                }
                None if self.inside => text(&format!("{OPEN}{whole}"), &mut out),
                None => text(before, &mut out),
            }
            self.inside = !self.inside;
        }
        if self.inside {
            if self.held.len() > LONGEST {
                self.inside = false;
                text(&format!("{OPEN}{}", std::mem::take(&mut self.held)), &mut out);
            }
            return out;
        }
        let rest = self.held.split_off(self.held.len() - self.undecided());
        text(&std::mem::replace(&mut self.held, rest), &mut out);
        out
    }

    /// What was held back; call it when no more will come.
    pub fn finish(&mut self) -> Vec<Said> {
        let mut out = Vec::new();
        let held = std::mem::take(&mut self.held);
        if self.inside {
            text(&format!("{OPEN}{held}"), &mut out);
        } else {
            text(&held, &mut out);
        }
        self.inside = false;
        out
    }

    /// Bytes at the end that could be the beginning of a mark.
    fn undecided(&self) -> usize {
        let most = self.held.len().min(OPEN.len() - 1);
        (1..=most).rev().find(|&n| self.held.as_bytes().ends_with(&OPEN.as_bytes()[..n])).unwrap_or(0)
    }
}

fn text(text: &str, out: &mut Vec<Said>) {
    if !text.is_empty() {
        out.push(Said::Text(text.to_owned()));
    }
}

fn call(text: &str) -> Option<Said> {
    let Written { name, arguments } = serde_json::from_str(text.trim()).ok()?;
    let arguments = match arguments {
        Value::Null => "{}".to_owned(),
        Value::String(text) => text,
        other => other.to_string(),
    };
    Some(Said::Call { name, arguments })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(pieces: &[&str]) -> (Vec<Said>, bool) {
        let mut parser = CallParser::default();
        let mut out: Vec<Said> = pieces.iter().flat_map(|piece| parser.push(piece)).collect();
        out.extend(parser.finish());
        // Texts in a row are one text.
        let mut joined: Vec<Said> = Vec::new();
        for said in out {
            match (joined.last_mut(), said) {
                (Some(Said::Text(last)), Said::Text(text)) => last.push_str(&text),
                (_, said) => joined.push(said),
            }
        }
        (joined, parser.any())
    }

    fn called(name: &str, arguments: &str) -> Said {
        Said::Call { name: name.into(), arguments: arguments.into() }
    }

    const TWO: &str = "I look.\n<tool_call>\n{\"name\": \"look\", \"arguments\": {\"b\": 1, \"a\": \"é\"}}\n</tool_call>\n\
                       <tool_call>{\"name\": \"go\"}</tool_call>\n";

    #[test]
    fn calls_are_taken_out_of_the_text() {
        let text = Said::Text("I look.\n".into());
        let expected = vec![text, called("look", "{\"b\":1,\"a\":\"é\"}"), called("go", "{}")];
        assert_eq!(run(&[TWO]), (expected, true));
    }

    #[test]
    fn what_is_no_call_stays_text() {
        for whole in
            ["a < b <tool_cal", "<tool_call>\nno JSON\n</tool_call>", "<tool_call>{\"name\": \"x\"", "</tool_call>"]
        {
            assert_eq!(run(&[whole]), (vec![Said::Text(whole.into())], false), "{whole}");
        }
    }

    #[test]
    fn a_call_without_end_is_not_held_for_ever() {
        let mut parser = CallParser::default();
        assert_eq!(parser.push("<tool_call>"), []);
        let out = parser.push(&"x".repeat(LONGEST + 1));
        assert!(matches!(&out[..], [Said::Text(text)] if text.len() > LONGEST));
    }

    proptest! {
        #[test]
        fn any_cut_gives_what_the_whole_gives(cuts in prop::collection::vec(0usize..130, 0..12)) {
            let mut bounds: Vec<usize> = cuts.into_iter().filter(|cut| TWO.is_char_boundary(*cut)).collect();
            bounds.extend([0, TWO.len()]);
            bounds.sort_unstable();
            let pieces: Vec<&str> = bounds.windows(2).map(|pair| &TWO[pair[0]..pair[1]]).collect();
            prop_assert_eq!(run(&pieces), run(&[TWO]));
        }
    }
}
