//! Text to token ids and back, from the checkpoint's `tokenizer.json`.

/// Turns the ids of one answer into text, complete characters only.
pub struct Detokenizer(());

impl Detokenizer {
    /// Text that became certain with `id`; empty while a character is incomplete. Special tokens give none.
    pub fn push(&mut self, id: u32) -> String {
        let _ = id;
        todo!()
    }

    /// What was held back.
    pub fn finish(&mut self) -> String {
        todo!()
    }
}
