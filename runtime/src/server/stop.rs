//! Stop strings in a text that arrives in pieces. What could be the beginning of one is held back
//! until it is sure, so that no part of a stop string is ever sent.

/// Watches for the first of several strings.
#[derive(Debug)]
pub struct StopStrings {
    stops: Vec<String>,
    held: String,
}

/// What a piece brought.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Text that may be sent; perhaps empty.
    More(String),
    /// A stop string is complete; this is the last text, without it.
    Stopped(String),
}

impl StopStrings {
    /// Watches for `stops`; empty ones are left out.
    pub fn new(mut stops: Vec<String>) -> Self {
        stops.retain(|stop| !stop.is_empty());
        Self { stops, held: String::new() }
    }

    /// Adds a piece of text.
    pub fn push(&mut self, piece: &str) -> Step {
        if self.stops.is_empty() {
            return Step::More(piece.to_owned());
        }
        self.held.push_str(piece);
        let first = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min();
        if let Some(at) = first {
            self.held.truncate(at);
            return Step::Stopped(std::mem::take(&mut self.held));
        }
        let keep = self.undecided();
        let rest = self.held.split_off(self.held.len() - keep);
        Step::More(std::mem::replace(&mut self.held, rest))
    }

    /// The text that is still held back; call it when no more will come.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Bytes of the longest end of the held text with which a stop string begins.
    fn undecided(&self) -> usize {
        let held = self.held.as_bytes();
        let longest = |stop: &String| {
            let most = held.len().min(stop.len() - 1);
            (1..=most).rev().find(|&n| held.ends_with(&stop.as_bytes()[..n]) && stop.is_char_boundary(n))
        };
        self.stops.iter().filter_map(longest).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(stops: &[&str], pieces: &[&str]) -> (Vec<String>, bool) {
        let mut watch = StopStrings::new(stops.iter().map(ToString::to_string).collect());
        let mut sent = Vec::new();
        for piece in pieces {
            match watch.push(piece) {
                Step::More(text) => sent.push(text),
                Step::Stopped(text) => {
                    sent.push(text);
                    return (sent, true);
                }
            }
        }
        sent.push(watch.finish());
        (sent, false)
    }

    #[test]
    fn a_stop_string_over_several_pieces_is_never_sent() {
        assert_eq!(run(&["END"], &["one E", "N", "D two"]).0, ["one ", "", ""]);
        assert!(run(&["END"], &["one E", "N", "D two"]).1);
    }

    #[test]
    fn what_turns_out_not_to_be_a_stop_string_is_sent() {
        assert_eq!(run(&["END"], &["E", "N", "E"]).0, ["", "", "EN", "E"]);
        assert_eq!(run(&["aab"], &["aa", "ab!"]), (vec![String::new(), "a".into()], true));
    }

    #[test]
    fn the_earliest_of_several_counts() {
        assert_eq!(run(&["three", "tw"], &["one two three"]), (vec!["one ".into()], true));
    }

    #[test]
    fn characters_of_several_bytes_stay_whole() {
        // 好 and 女 begin with the same byte; é and è too.
        assert_eq!(run(&["好的"], &["你女", "好", "的!"]).0.concat(), "你女");
        assert_eq!(
            run(&["é!"], &["è", "é", "?"]),
            (vec!["è".into(), String::new(), "é?".into(), String::new()], false)
        );
    }

    #[test]
    fn without_stop_strings_nothing_is_held() {
        assert_eq!(run(&[""], &["a", "b"]).0, ["a", "b", ""]);
    }

    proptest! {
        #[test]
        fn any_cut_of_a_text_gives_what_the_whole_text_gives(
            text in "[abé女]{0,24}",
            stops in prop::collection::vec("[abé女]{1,4}", 1..4),
            cuts in prop::collection::vec(0usize..24, 0..8),
        ) {
            let expected = stops.iter().filter_map(|stop| text.find(stop.as_str())).min();
            let expected_text = expected.map_or(text.as_str(), |at| &text[..at]);
            let mut bounds: Vec<usize> =
                cuts.into_iter().filter(|&cut| text.is_char_boundary(cut) && cut <= text.len()).collect();
            bounds.extend([0, text.len()]);
            bounds.sort_unstable();
            let pieces: Vec<&str> = bounds.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect();
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            let (sent, stopped) = run(&stops, &pieces);
            // A longer stop string that begins earlier may complete only after a shorter one.
            if stopped == expected.is_some() && sent.concat() == expected_text {
                return Ok(());
            }
            prop_assert!(stopped);
            prop_assert!(stops.iter().any(|stop| text[sent.concat().len()..].starts_with(stop)));
        }
    }
}
