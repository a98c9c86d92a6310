//! A list of conditions in the making. Times move only when a status does.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// Longest message that the definition admits.
const MESSAGE_MAX: usize = 4096;

pub(super) struct Conditions<'a> {
    previous: &'a [Condition],
    generation: i64,
    now: Timestamp,
    list: Vec<Condition>,
}

impl<'a> Conditions<'a> {
    pub fn new(previous: &'a [Condition], generation: i64, now: Timestamp) -> Self {
        Self { previous, generation, now, list: Vec::new() }
    }

    pub fn set(&mut self, kind: &str, holds: bool, reason: &str, message: &str) {
        self.push(kind, if holds { "True" } else { "False" }, reason, message);
    }

    pub fn set_unknown(&mut self, kind: &str, reason: &str, message: &str) {
        self.push(kind, "Unknown", reason, message);
    }

    /// Says what was said before, if anything was.
    pub fn keep(&mut self, kind: &str) {
        if let Some(before) = self.previous.iter().find(|c| c.type_ == kind) {
            self.list.push(Condition { observed_generation: Some(self.generation), ..before.clone() });
        }
    }

    pub fn finish(self) -> Vec<Condition> {
        self.list
    }

    fn push(&mut self, kind: &str, status: &str, reason: &str, message: &str) {
        let before = self.previous.iter().find(|c| c.type_ == kind && c.status == status);
        self.list.push(Condition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: shorten(message, MESSAGE_MAX),
            observed_generation: Some(self.generation),
            last_transition_time: before.map_or(Time(self.now), |c| c.last_transition_time.clone()),
        });
    }
}

/// Cuts a text to at most `most` characters.
pub(super) fn shorten(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}
