//! The licence that a model's card names in the YAML before its text.

use serde::Deserialize;

/// Characters of a licence that are shown.
const SHOWN: usize = 200;

#[derive(Deserialize)]
struct Card {
    license: Option<OneOrMany>,
    license_name: Option<String>,
    license_link: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

/// The licence of a card, its own name and its address behind it when it has them.
pub(super) fn of_card(card: &str) -> Option<String> {
    let rest = card.strip_prefix("---")?;
    let (front, _) = rest.split_once("\n---")?;
    let card: Card = serde_yaml::from_str(front).ok()?;
    let licence = match card.license? {
        OneOrMany::One(licence) => licence,
        OneOrMany::Many(licences) => licences.join(", "),
    };
    let more: Vec<_> = [card.license_name, card.license_link].into_iter().flatten().collect();
    let text = if more.is_empty() { licence } else { format!("{licence} ({})", more.join(", ")) };
    let text: String = text.chars().filter(|c| !c.is_control()).take(SHOWN).collect();
    if text.is_empty() { None } else { Some(text) }
}

#[cfg(test)]
mod tests {
    use super::of_card;

    #[test]
    fn licences_are_read_as_cards_write_them() {
        for (card, expected) in [
            ("---\nlicense: mit\n---\n# Model", Some("mit")),
            (
                "---\ntags: [a]\nlicense: other\nlicense_name: qwen\nlicense_link: https://x/LICENSE\n---\n",
                Some("other (qwen, https://x/LICENSE)"),
            ),
            ("---\nlicense: [mit, llama2]\n---\n", Some("mit, llama2")),
            ("---\r\nlicense: apache-2.0\r\n---\r\n", Some("apache-2.0")),
            ("---\ntags: [a]\n---\n", None),
            ("# no front matter\nlicense: mit", None),
            ("---\nlicense: {a: b}\n---\n", None),
            ("---\nlicense: mit", None),
            ("", None),
        ] {
            assert_eq!(of_card(card).as_deref(), expected, "{card}");
        }
        let long = format!("---\nlicense: {}\n---\n", "x".repeat(10_000));
        assert_eq!(of_card(&long).unwrap().len(), 200);
    }
}
