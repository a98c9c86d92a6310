//! Calls of functions as the Hermes models write them, each as JSON between two marks, and as a grammar.

use serde_json::Value;

use super::bounded;

/// Stands before a call.
pub const OPEN: &str = "<tool_call>";
/// Stands behind a call.
pub const CLOSE: &str = "</tool_call>";
/// Most calls in one answer.
const MOST: usize = 16;

/// A function that may be called.
#[derive(Clone, Debug)]
pub struct Callable {
    /// Its name: letters, digits, `_`, `-` and `.`.
    pub name: String,
    /// JSON schema of its arguments.
    pub parameters: Value,
}

/// A grammar (Lark) of calls. Each function's schema is one of its own, so that references in it stay within it.
pub fn grammar(functions: &[Callable], several: bool) -> String {
    let mut lines =
        vec![if several { format!("start: call (\"\\n\" call){{0,{}}}", MOST - 1) } else { "start: call".to_owned() }];
    let numbered: Vec<String> = (0..functions.len()).map(|number| format!("call_{number}")).collect();
    lines.push(format!("call: {}", numbered.join(" | ")));
    for (number, function) in functions.iter().enumerate() {
        let begin = Value::from(format!("{OPEN}\n{{\"name\": \"{}\", \"arguments\": ", function.name));
        let end = Value::from(format!("}}\n{CLOSE}"));
        lines.push(format!("call_{number}: {begin} arguments_{number} {end}"));
        lines.push(format!("arguments_{number}: %json {}", bounded(&function.parameters)));
    }
    lines.join("\n") + "\n"
}
