//! The merges of `SentencePiece`'s byte-pair encoding: again and again the neighbours that make the piece
//! of the highest score, the leftmost of equals. Follows `bpe_model.cc`.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap};

use super::super::symbols::Symbols;

/// What the merges ask of a vocabulary.
pub trait Vocabulary {
    /// Score of the text piece `piece`, and whether it is one of those taken apart again.
    fn score(&self, piece: &str) -> Option<(f32, bool)>;
}

/// A stretch of the text; empty once it was merged into its left neighbour.
struct Symbol {
    start: usize,
    end: usize,
    prev: Option<usize>,
    next: Option<usize>,
    frozen: bool,
}

/// Two neighbours that could become one.
struct Candidate {
    left: usize,
    right: usize,
    score: f32,
    len: usize,
}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        self.score.total_cmp(&other.score).then_with(|| other.left.cmp(&self.left))
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Candidate {}

/// The work of one text.
struct Merging<'a, V> {
    text: &'a str,
    vocabulary: &'a V,
    symbols: Vec<Symbol>,
    agenda: BinaryHeap<Candidate>,
    /// Where the pieces that are taken apart again were joined: the length of their left part.
    joints: HashMap<&'a str, usize>,
}

/// Splits normalised `text` into pieces and characters. User-defined symbols that `admitted` takes stay whole.
/// `n` bytes take O(n log n) look-ups.
pub fn merge<'a>(
    text: &'a str,
    vocabulary: &'a impl Vocabulary,
    symbols: &Symbols,
    admitted: impl Fn(u32) -> bool,
) -> Vec<&'a str> {
    let mut merging = Merging {
        text,
        vocabulary,
        symbols: split(text, symbols, admitted),
        agenda: BinaryHeap::new(),
        joints: HashMap::new(),
    };
    for right in 1..merging.symbols.len() {
        merging.consider(Some(right - 1), Some(right));
    }
    while let Some(top) = merging.agenda.pop() {
        merging.join(&top);
    }
    let mut out = Vec::new();
    for symbol in merging.symbols.iter().filter(|symbol| symbol.start < symbol.end) {
        merging.take_apart(&text[symbol.start..symbol.end], &mut out);
    }
    out
}

fn split(text: &str, symbols: &Symbols, admitted: impl Fn(u32) -> bool) -> Vec<Symbol> {
    let mut out: Vec<Symbol> = Vec::new();
    let mut start = 0;
    while let Some(first) = text[start..].chars().next() {
        let whole = symbols.prefix(&text[start..], &admitted);
        let end = start + whole.unwrap_or(first.len_utf8());
        let number = out.len();
        let next = (end < text.len()).then_some(number + 1);
        out.push(Symbol { start, end, prev: number.checked_sub(1), next, frozen: whole.is_some() });
        start = end;
    }
    out
}

impl<'a, V: Vocabulary> Merging<'a, V> {
    fn consider(&mut self, left: Option<usize>, right: Option<usize>) {
        let (Some(left), Some(right)) = (left, right) else { return };
        let (a, b) = (&self.symbols[left], &self.symbols[right]);
        if a.frozen || b.frozen {
            return;
        }
        let piece = &self.text[a.start..b.end];
        let Some((score, unused)) = self.vocabulary.score(piece) else { return };
        if unused {
            self.joints.insert(piece, a.end - a.start);
        }
        self.agenda.push(Candidate { left, right, score, len: piece.len() });
    }

    fn join(&mut self, pair: &Candidate) {
        let (left, right) = (&self.symbols[pair.left], &self.symbols[pair.right]);
        let lens = (left.end - left.start, right.end - right.start);
        if lens.0 == 0 || lens.1 == 0 || lens.0 + lens.1 != pair.len {
            return;
        }
        let (end, next) = (right.end, right.next);
        self.symbols[pair.right].start = end;
        self.symbols[pair.left].end = end;
        self.symbols[pair.left].next = next;
        if let Some(next) = next {
            self.symbols[next].prev = Some(pair.left);
        }
        self.consider(self.symbols[pair.left].prev, Some(pair.left));
        self.consider(Some(pair.left), next);
    }

    /// Adds `piece`, or its parts where it is one of the unused.
    fn take_apart(&self, piece: &'a str, out: &mut Vec<&'a str>) {
        let mut left_to_do = vec![piece];
        while let Some(piece) = left_to_do.pop() {
            let unused = self.vocabulary.score(piece).is_some_and(|(_, unused)| unused);
            match self.joints.get(piece).filter(|_| unused) {
                Some(joint) => left_to_do.extend([&piece[*joint..], &piece[..*joint]]),
                None => out.push(piece),
            }
        }
    }
}
