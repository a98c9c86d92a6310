//! Carries a person's text through a chat template so that nothing in it can be taken for a
//! special token afterwards: each occurrence is replaced by a numbered mark, and put back as text.

/// Noncharacters, which text has no use for; occurrences in the text are protected as well.
const OPEN: char = '\u{FDD0}';
const CLOSE: char = '\u{FDD1}';

/// The strings that were replaced so far.
pub struct Protected<'a> {
    added: &'a [String],
    /// What any of them begins with.
    starts: String,
    taken: Vec<String>,
}

impl<'a> Protected<'a> {
    pub(super) fn new(added: &'a [String]) -> Self {
        let mut starts = String::from_iter([OPEN, CLOSE]);
        for start in added.iter().filter_map(|content| content.chars().next()) {
            if !starts.contains(start) {
                starts.push(start);
            }
        }
        Self { added, starts, taken: Vec::new() }
    }

    /// Whether no text had anything to protect.
    pub fn is_empty(&self) -> bool {
        self.taken.is_empty()
    }

    /// `text` with a mark for each special string in it.
    pub fn take(&mut self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find(|character| self.starts.contains(character)) {
            out.push_str(&rest[..at]);
            rest = &rest[at..];
            let Some(first) = rest.chars().next() else { break };
            if let Some(len) = self.special(rest, first) {
                out.extend([OPEN.to_string(), self.taken.len().to_string(), CLOSE.to_string()]);
                self.taken.push(rest[..len].to_owned());
                rest = &rest[len..];
            } else {
                out.push(first);
                rest = &rest[first.len_utf8()..];
            }
        }
        out.push_str(rest);
        out
    }

    /// Length of what must not stand as it is at the start of `rest`: a special string, or the beginning
    /// of one that what follows in the template might complete.
    fn special(&self, rest: &str, first: char) -> Option<usize> {
        if first == OPEN || first == CLOSE {
            return Some(first.len_utf8());
        }
        let added = || self.added.iter().map(String::as_str).filter(|content| !content.is_empty());
        let whole = added().find(|content| rest.starts_with(content)).map(str::len);
        whole.or_else(|| added().any(|content| content.starts_with(rest)).then_some(rest.len()))
    }

    /// `text` with the special strings back in the place of their marks.
    pub fn restore(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once(OPEN) {
            out.push_str(before);
            let Some((number, after)) = after.split_once(CLOSE) else {
                rest = after;
                continue;
            };
            let taken = number.parse::<usize>().ok().and_then(|n| self.taken.get(n));
            out.push_str(taken.map_or("", String::as_str));
            rest = after;
        }
        out.push_str(rest);
        out
    }
}
