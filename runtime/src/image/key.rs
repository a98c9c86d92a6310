//! The name of a prepared picture: what it was made of, so that two of one name need not be computed twice.

use super::TileBudget;

/// Hash (BLAKE3) of a picture's file and of how it was prepared. It does not name the model: what is kept under it
/// must not outlive the process, which has one model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageKey([u8; 32]);

impl ImageKey {
    /// Of the file's `bytes`, prepared within `budget`; `preparation` stands for the settings that are the
    /// same for every picture.
    pub fn of_file(bytes: &[u8], preparation: &[u8; 32], budget: TileBudget) -> Self {
        let mut hasher = blake3::Hasher::new_keyed(preparation);
        hasher.update(&budget.0.map_or([0; 5], |tiles| {
            let [a, b, c, d] = tiles.to_le_bytes();
            [1, a, b, c, d]
        }));
        hasher.update(bytes);
        Self(hasher.finalize().into())
    }

    /// Of a picture that came from no file: of its normalised pixels.
    pub fn of_pixels(pixels: &[f32]) -> Self {
        let mut hasher = blake3::Hasher::new();
        for some in pixels.chunks(4096) {
            let bytes: Vec<u8> = some.iter().flat_map(|value| value.to_le_bytes()).collect();
            hasher.update(&bytes);
        }
        Self(hasher.finalize().into())
    }

    /// The hash.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_changes_the_pixels_changes_the_key() {
        let (a, b) = ([1; 32], [2; 32]);
        let keys = [
            ImageKey::of_file(b"x", &a, TileBudget(None)),
            ImageKey::of_file(b"y", &a, TileBudget(None)),
            ImageKey::of_file(b"x", &b, TileBudget(None)),
            ImageKey::of_file(b"x", &a, TileBudget(Some(0))),
            ImageKey::of_file(b"x", &a, TileBudget(Some(6))),
            ImageKey::of_pixels(&vec![0.0; 5000]),
            ImageKey::of_pixels(&vec![0.0; 5001]),
            ImageKey::default(),
        ];
        let mut different = keys.to_vec();
        different.sort_unstable();
        different.dedup();
        assert_eq!(different.len(), keys.len());
        assert_eq!(keys[0], ImageKey::of_file(b"x", &a, TileBudget(None)));
    }
}
