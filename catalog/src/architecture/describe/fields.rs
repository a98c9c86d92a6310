//! Reading one field: its default, its bounds, and an error that names it.

use super::super::raw::OneOrMany;
use super::super::{Activation, ArchitectureError};

/// The fields of one part of the file.
#[derive(Clone, Copy)]
pub struct Fields {
    /// Before the names of the fields, its dot included.
    pub prefix: &'static str,
}

impl Fields {
    /// A field's path.
    pub fn path(self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// A positive number of at most `max`.
    pub fn number(self, name: &str, value: Option<i64>, default: i64, max: i64) -> Result<usize, ArchitectureError> {
        bounded(&self.path(name), value.unwrap_or(default), 1, max).map(|value| value as usize)
    }

    /// A number between 0 and 1, both excluded.
    pub fn epsilon(self, name: &str, value: Option<f64>, default: f64) -> Result<f64, ArchitectureError> {
        let value = value.unwrap_or(default);
        if value > 0.0 && value < 1.0 { Ok(value) } else { Err(invalid(&self.path(name), &value, "between 0 and 1")) }
    }

    /// One side of a square, as a number or as two equal ones.
    pub fn side(self, name: &str, raw: Option<&OneOrMany>) -> Result<Option<i64>, ArchitectureError> {
        match raw.map(OneOrMany::values) {
            None => Ok(None),
            Some([side]) => Ok(Some(*side)),
            Some([height, width]) if height == width => Ok(Some(*height)),
            Some(other) => Err(invalid(&self.path(name), &shortened(other), "one side of a square")),
        }
    }

    /// An activation of a tower or a projector.
    pub fn activation(self, name: &str, raw: Option<&str>, default: &str) -> Result<Activation, ArchitectureError> {
        match raw.unwrap_or(default) {
            "gelu" => Ok(Activation::Gelu),
            "quick_gelu" => Ok(Activation::QuickGelu),
            other => Err(unsupported(&format!("the activation {other:?} ({})", self.path(name)), "gelu, quick_gelu")),
        }
    }

    /// Refuses a switch that is set.
    pub fn unset(self, name: &str, raw: Option<bool>, supported: &'static str) -> Result<(), ArchitectureError> {
        if raw == Some(true) { Err(unsupported(&format!("{} = true", self.path(name)), supported)) } else { Ok(()) }
    }

    /// Refuses a switch that is cleared.
    pub fn set(self, name: &str, raw: Option<bool>, supported: &'static str) -> Result<(), ArchitectureError> {
        if raw == Some(false) { Err(unsupported(&format!("{} = false", self.path(name)), supported)) } else { Ok(()) }
    }

    /// Refuses a `value` that does not divide `whole`.
    pub fn divides(self, name: &str, value: usize, whole_name: &str, whole: usize) -> Result<(), ArchitectureError> {
        if whole.is_multiple_of(value) {
            Ok(())
        } else {
            Err(invalid(&self.path(name), &value, &format!("a divisor of {whole_name} ({whole})")))
        }
    }
}

/// `value`, when it is between `min` and `max`.
pub fn bounded(field: &str, value: i64, min: i64, max: i64) -> Result<i64, ArchitectureError> {
    if (min..=max).contains(&value) {
        Ok(value)
    } else {
        Err(invalid(field, &value, &format!("between {min} and {max}")))
    }
}

/// A list for an error's text.
pub fn shortened<T: std::fmt::Debug>(list: &[T]) -> String {
    match list {
        [] | [_] | [_, _] | [_, _, _] | [_, _, _, _] => format!("{list:?}"),
        [first, second, ..] => format!("[{first:?}, {second:?}, … of {} in all]", list.len()),
    }
}

/// Characters of a file's own text that an error quotes: it must fit where errors are shown.
const QUOTED: usize = 160;

/// The beginning of a text from a file.
fn brief(text: &str) -> String {
    match text.char_indices().nth(QUOTED) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}… ({} bytes in all)", &text[..end], text.len()),
    }
}

/// An error for what is not served.
pub fn unsupported(what: &str, supported: &'static str) -> ArchitectureError {
    ArchitectureError::Unsupported { what: brief(what), supported }
}

/// An error for a value that makes no model.
pub fn invalid(field: &str, value: &impl ToString, expected: &str) -> ArchitectureError {
    ArchitectureError::Invalid {
        field: field.to_owned(),
        value: brief(&value.to_string()),
        expected: expected.to_owned(),
    }
}
