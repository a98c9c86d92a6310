//! Forms that an answer must have, a JSON schema or calls of functions, as sets of tokens that may come next. Over
//! `llguidance`, with the checkpoint's own vocabulary.

mod calls;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{ApproximateTokEnv, InferenceCapabilities, SimpleVob, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
use serde_json::{Value, json};
use thiserror::Error;

pub use calls::{CLOSE, Callable, OPEN};

use crate::tokenizer::{Shown, Tokenizer};

/// Most bytes of a schema, as JSON.
pub const LONGEST_SCHEMA: usize = 64 * 1024;
/// White space where JSON allows it: with no bound a model could write on for ever.
const WHITE_SPACE: &str = r"[ \n]{1,12}";
/// Stack on which a schema is read: the parser follows its references by recursion.
const STACK_BYTES: usize = 256 << 20;

/// Why there is no form, or it cannot be followed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum GuideError {
    /// The schema is too long.
    #[error("the schema has {bytes} bytes, more than the {LONGEST_SCHEMA} that are read")]
    TooLong {
        /// Its length as JSON.
        bytes: usize,
    },
    /// The schema contradicts itself, or uses what is not served.
    #[error("{0}")]
    Schema(String),
    /// What was generated does not follow the form, or following it takes too much.
    #[error("{0}")]
    Lost(String),
}

/// Makes forms over one checkpoint's vocabulary.
pub struct Forms {
    factory: ParserFactory,
    ends: Arc<[u32]>,
}

impl Forms {
    /// Over the tokens of `tokenizer`, of which `ends` end an answer. Takes a moment with a large vocabulary.
    ///
    /// # Errors
    /// [`GuideError::Schema`] when the vocabulary is none.
    pub fn new(tokenizer: &Tokenizer, ends: &[u32]) -> Result<Self, GuideError> {
        let size = tokenizer.size().max(ends.iter().max().map_or(0, |id| *id as usize + 1));
        // The parser needs an end of text even where the model has none.
        let none = size as u32;
        let words: Vec<Vec<u8>> = (0..=none).map(|id| word(tokenizer.shown(id))).collect();
        let trie = || {
            let ends = if ends.is_empty() { vec![none] } else { ends.to_vec() };
            TokTrie::from(&TokRxInfo::new(none + 1, ends[0]), &words).with_eos_tokens(&ends)
        };
        let build = || -> anyhow::Result<Self> {
            let environment: TokEnv = Arc::new(ApproximateTokEnv::new(trie()));
            let mut factory = ParserFactory::new(
                &environment,
                InferenceCapabilities::default(),
                &llguidance::earley::SlicedBiasComputer::general_slices(),
            )?;
            factory.quiet().limits_mut().verbose_errors = false;
            Ok(Self { factory, ends: ends.into() })
        };
        guarded(build).map_err(GuideError::Schema)
    }

    /// The form that `schema` (JSON Schema) describes. Heavy on the CPU with a large one.
    ///
    /// # Errors
    /// A schema that is too long, contradicts itself, or uses what is not served.
    pub fn json(&self, schema: &Value) -> Result<Guide, GuideError> {
        measure(schema)?;
        self.guide(TopLevelGrammar::from_json_schema(bounded(schema)))
    }

    /// One JSON object, whatever it holds.
    ///
    /// # Errors
    /// None that is known.
    pub fn json_object(&self) -> Result<Guide, GuideError> {
        self.json(&json!({"type": "object"}))
    }

    /// Calls of `functions`, one or several.
    ///
    /// # Errors
    /// As [`Forms::json`], of the schemas of their arguments.
    pub fn calls(&self, functions: &[Callable], several: bool) -> Result<Guide, GuideError> {
        functions.iter().try_for_each(|function| measure(&function.parameters))?;
        self.guide(TopLevelGrammar::from_lark(calls::grammar(functions, several)))
    }

    fn guide(&self, grammar: TopLevelGrammar) -> Result<Guide, GuideError> {
        let read = || guarded(|| self.factory.create_parser(grammar));
        let built = std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("schema".to_owned()).stack_size(STACK_BYTES);
            let parser = thread.spawn_scoped(scope, read).map_err(|e| e.to_string())?;
            parser.join().map_err(|_| "it cannot be read".to_owned())?
        });
        let mut matcher = Box::new(Matcher::new(Ok(built.map_err(GuideError::Schema)?)));
        if let Some(why) = matcher.get_error() {
            return Err(GuideError::Schema(first_line(&why)));
        }
        // Says of a form without any text that it is one, before a model is asked.
        matcher.compute_mask().map_err(|e| GuideError::Schema(first_line(&e.to_string())))?;
        Ok(Guide { matcher, ends: Arc::clone(&self.ends) })
    }
}

/// The bytes by which the parser knows a token.
fn word(shown: Option<Shown>) -> Vec<u8> {
    match shown {
        None => Vec::new(),
        Some(Shown::Bytes(bytes)) => bytes,
        Some(Shown::Special(name)) => [&[TokTrie::SPECIAL_TOKEN_MARKER], name.as_bytes()].concat(),
    }
}

fn measure(schema: &Value) -> Result<(), GuideError> {
    let bytes = schema.to_string().len();
    if bytes > LONGEST_SCHEMA { Err(GuideError::TooLong { bytes }) } else { Ok(()) }
}

/// The schema with our bound on white space in place of any option of the parser that it brings.
fn bounded(schema: &Value) -> Value {
    let mut schema = match schema {
        Value::Object(fields) => fields.clone(),
        // `true` is any value and `false` none.
        other => serde_json::Map::from_iter([("allOf".to_owned(), json!([other]))]),
    };
    schema.insert("x-guidance".to_owned(), json!({"whitespace_pattern": WHITE_SPACE}));
    Value::Object(schema)
}

/// Runs what may panic on input that its author did not foresee.
fn guarded<T, E: fmt::Display>(run: impl FnOnce() -> Result<T, E>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(first_line(&error.to_string())),
        Err(_) => Err("it cannot be read".to_owned()),
    }
}

/// An error without what the library says of itself below it, and not too long.
fn first_line(text: &str) -> String {
    const LONGEST: usize = 300;
    let line = text.lines().next().unwrap_or_default().trim();
    if line.starts_with("panic") { "it cannot be read".to_owned() } else { line.chars().take(LONGEST).collect() }
}

/// How far an answer has followed its form. A clone goes its own way.
#[derive(Clone)]
pub struct Guide {
    matcher: Box<Matcher>,
    ends: Arc<[u32]>,
}

impl fmt::Debug for Guide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Guide")
    }
}

/// Tokens that may come next.
pub struct Allowed(SimpleVob);

impl Allowed {
    /// Whether `id` may.
    pub fn contains(&self, id: u32) -> bool {
        (id as usize) < self.0.len() && self.0.is_allowed(id)
    }
}

impl Guide {
    /// What may come next: those that end an answer too, where the form is complete.
    ///
    /// # Errors
    /// [`GuideError::Lost`].
    pub fn allowed(&mut self) -> Result<Allowed, GuideError> {
        self.matcher.compute_mask().map(Allowed).map_err(|e| GuideError::Lost(first_line(&e.to_string())))
    }

    /// Whether `token` ends an answer.
    pub fn ends(&self, token: u32) -> bool {
        self.ends.contains(&token)
    }

    /// Takes one of the allowed tokens; says whether the form is complete and nothing can follow.
    ///
    /// # Errors
    /// [`GuideError::Lost`].
    pub fn take(&mut self, token: u32) -> Result<bool, GuideError> {
        let lost = |why: String| GuideError::Lost(first_line(&why));
        self.matcher.consume_token(token).map_err(|e| lost(e.to_string()))?;
        match self.matcher.get_error() {
            Some(why) => Err(lost(why)),
            None => Ok(self.matcher.is_stopped()),
        }
    }
}

#[cfg(test)]
mod tests;
