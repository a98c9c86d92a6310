//! Where the parts of a model are among its tensor names. Chosen by looking for keys, never by the
//! name of a repository.

/// Prefixes of the parts of a `LLaVA` checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Before `layers.0…`, `embed_tokens`, `norm`.
    pub text: String,
    /// Full name of the output head, if stored.
    pub head: String,
    /// Before `embeddings…`, `encoder…`.
    pub vision: String,
    /// Before `linear_1`, `linear_2`.
    pub projector: String,
}

impl Layout {
    /// Finds the layout of the tensors that `has` knows.
    pub fn probe(has: impl Fn(&str) -> bool) -> Option<Self> {
        let (outer, text, head) = if has("multi_modal_projector.linear_1.weight") {
            ("", "language_model.model.", "language_model.lm_head.weight")
        } else if has("model.multi_modal_projector.linear_1.weight") {
            ("model.", "model.language_model.", "lm_head.weight")
        } else {
            return None;
        };
        let vision = ["vision_tower.vision_model.", "vision_tower."]
            .map(|tower| format!("{outer}{tower}"))
            .into_iter()
            .find(|prefix| has(&format!("{prefix}embeddings.class_embedding")))?;
        Some(Self {
            text: text.to_owned(),
            head: head.to_owned(),
            vision,
            projector: format!("{outer}multi_modal_projector."),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(keys: &[&str]) -> Option<Layout> {
        Layout::probe(|name| keys.contains(&name))
    }

    #[test]
    fn three_generations_of_names_are_told_apart() {
        let hub =
            probe(&["multi_modal_projector.linear_1.weight", "vision_tower.vision_model.embeddings.class_embedding"])
                .unwrap();
        assert_eq!((hub.text.as_str(), hub.vision.as_str()), ("language_model.model.", "vision_tower.vision_model."));
        let saved =
            probe(&["multi_modal_projector.linear_1.weight", "vision_tower.embeddings.class_embedding"]).unwrap();
        assert_eq!(saved.vision, "vision_tower.");
        let nested =
            probe(&["model.multi_modal_projector.linear_1.weight", "model.vision_tower.embeddings.class_embedding"])
                .unwrap();
        assert_eq!((nested.text.as_str(), nested.head.as_str()), ("model.language_model.", "lm_head.weight"));
        assert_eq!(
            (nested.vision.as_str(), nested.projector.as_str()),
            ("model.vision_tower.", "model.multi_modal_projector.")
        );
    }

    #[test]
    fn original_names_are_no_known_layout() {
        assert_eq!(probe(&["model.mm_projector.0.weight"]), None);
        assert_eq!(probe(&["multi_modal_projector.linear_1.weight"]), None);
    }
}
