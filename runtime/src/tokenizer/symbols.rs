//! Sets of strings that are taken out of a text before anything else, the longest first.

/// A set of strings that finds the longest which starts a text.
#[derive(Debug, Default)]
pub struct Symbols {
    sorted: Vec<(Box<str>, u32)>,
}

impl Symbols {
    /// From texts and their ids.
    pub fn new(symbols: impl Iterator<Item = (Box<str>, u32)>) -> Self {
        let mut sorted: Vec<_> = symbols.collect();
        sorted.sort();
        Self { sorted }
    }

    /// Length of the longest symbol at the start of `text` that `admitted` takes.
    /// Time grows with the length of the symbol and the logarithm of their number.
    pub fn prefix(&self, text: &str, admitted: impl Fn(u32) -> bool) -> Option<usize> {
        let mut range = &self.sorted[..];
        let mut longest = None;
        for (depth, byte) in text.bytes().enumerate() {
            let at = |symbol: &(Box<str>, u32)| symbol.0.as_bytes().get(depth).copied();
            let low = range.partition_point(|symbol| at(symbol) < Some(byte));
            let high = range.partition_point(|symbol| at(symbol) <= Some(byte));
            range = &range[low..high];
            // The shortest of a range comes first.
            let Some((first, id)) = range.first() else { break };
            if first.len() == depth + 1 && admitted(*id) {
                longest = Some(depth + 1);
            }
        }
        longest
    }
}
