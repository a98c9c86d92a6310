//! The name of a picture's file, and of a prepared picture: what it was made of, so that two of one name need not be
//! computed twice.

use super::TileBudget;

/// Hash (BLAKE3) of a picture's file, or of that and how it was prepared. It does not name the model: what is kept under
/// it must not outlive the process, which has one model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageKey([u8; 32]);

impl ImageKey {
    /// Of a file with these `bytes`.
    pub fn of_file(bytes: &[u8]) -> Self {
        Self(blake3::hash(bytes).into())
    }

    /// Of the picture in the file of this name, prepared within `budget`; `preparation` stands for the settings that
    /// are the same for every picture.
    #[must_use]
    pub fn prepared(&self, preparation: &[u8; 32], budget: TileBudget) -> Self {
        let mut hasher = blake3::Hasher::new_keyed(preparation);
        hasher.update(&budget.0.map_or([0; 5], |tiles| {
            let [a, b, c, d] = tiles.to_le_bytes();
            [1, a, b, c, d]
        }));
        hasher.update(&self.0);
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
        let (x, y) = (ImageKey::of_file(b"x"), ImageKey::of_file(b"y"));
        let keys = [
            x,
            y,
            x.prepared(&a, TileBudget(None)),
            y.prepared(&a, TileBudget(None)),
            x.prepared(&b, TileBudget(None)),
            x.prepared(&a, TileBudget(Some(0))),
            x.prepared(&a, TileBudget(Some(6))),
            ImageKey::of_pixels(&vec![0.0; 5000]),
            ImageKey::of_pixels(&vec![0.0; 5001]),
            ImageKey::default(),
        ];
        let mut different = keys.to_vec();
        different.sort_unstable();
        different.dedup();
        assert_eq!(different.len(), keys.len());
        assert_eq!(keys[2], ImageKey::of_file(b"x").prepared(&a, TileBudget(None)));
    }
}
