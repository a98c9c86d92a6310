//! Which known names are most like one that is not known.

/// Names that are shown.
const SHOWN: usize = 3;
/// Bytes of a name that are compared; that of a label has at most 63.
const COMPARED: usize = 63;

/// The names most like `name`, most like first: those that it is a part of, then those of few other letters.
pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Vec<String> {
    let lower: String = name.to_ascii_lowercase().chars().filter(char::is_ascii_graphic).take(COMPARED).collect();
    let mut all: Vec<_> = known
        .map(|other| {
            let part = lower.len() > 1 && (other.contains(&lower) || lower.contains(other));
            (!part, strsim::damerau_levenshtein(&lower, other), other)
        })
        .filter(|(apart, distance, other)| !apart || 2 * distance <= other.len().max(lower.len()))
        .collect();
    all.sort_unstable();
    all.into_iter().take(SHOWN).map(|(_, _, other)| other.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn slips_and_short_names_find_what_was_meant() {
        let known =
            ["nvidia-l4", "nvidia-l40s", "nvidia-a100-40gb", "nvidia-a100-80gb", "nvidia-h100", "nvidia-h100-nvl"];
        let first = |name: &str| nearest(name, known.iter().copied()).first().cloned().unwrap_or_default();
        for (name, meant) in [
            ("nvidia-l5", "nvidia-l4"),
            ("L4", "nvidia-l4"),
            ("l40s", "nvidia-l40s"),
            ("nvidia_h100", "nvidia-h100"),
            ("NVIDIA-H100-NVL", "nvidia-h100-nvl"),
            ("nvidia-a100", "nvidia-a100-40gb"),
            ("nivdia-l40s", "nvidia-l40s"),
            ("nvidia-a100-80g", "nvidia-a100-80gb"),
        ] {
            assert_eq!(first(name), meant, "{name}");
        }
        for name in ["", "x", "tpu-v5e-something-else", "\u{1F600}"] {
            assert_eq!(first(name), "", "{name}");
        }
    }
}
