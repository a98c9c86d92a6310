//! Prepared pictures that requests in progress use. A picture that one of them has, or is getting, is not decoded
//! again for another, nor for a second place in the same one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::image::{ImageKey, PreparedImage};

/// Fewer pictures than this are never swept.
const FEW: usize = 64;

/// Whoever prepares a picture holds its lock; others wait for it.
type Slot = tokio::sync::Mutex<Weak<PreparedImage>>;

/// The pictures in use, by key. None of them is kept alive here.
#[derive(Debug, Default)]
pub struct Pictures {
    slots: Mutex<Slots>,
}

#[derive(Debug, Default)]
struct Slots {
    by_key: HashMap<ImageKey, Arc<Slot>>,
    /// Number of slots from which on unused ones are let go of.
    sweep_at: usize,
}

/// A picture, and whether it was there.
#[derive(Debug)]
pub struct Found {
    /// The picture.
    pub image: Arc<PreparedImage>,
    /// Another request, or another place of this one, had it.
    pub shared: bool,
}

impl Pictures {
    /// The picture `key`, made by `make` when nobody has it. When that fails, the next who asks tries again.
    pub async fn get<E>(
        &self,
        key: ImageKey,
        make: impl Future<Output = Result<PreparedImage, E>>,
    ) -> Result<Found, E> {
        let slot = self.slot(key);
        let mut held = slot.lock().await;
        if let Some(image) = held.upgrade() {
            return Ok(Found { image, shared: true });
        }
        let image = Arc::new(make.await?);
        *held = Arc::downgrade(&image);
        Ok(Found { image, shared: false })
    }

    fn slot(&self, key: ImageKey) -> Arc<Slot> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.by_key.len() >= slots.sweep_at.max(FEW) {
            slots.by_key.retain(|_, slot| {
                Arc::strong_count(slot) > 1 || slot.try_lock().is_ok_and(|image| image.strong_count() > 0)
            });
            slots.sweep_at = 2 * slots.by_key.len();
        }
        Arc::clone(slots.by_key.entry(key).or_default())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::future::join_all;

    use super::*;

    fn picture(key: ImageKey) -> PreparedImage {
        PreparedImage { tiles: 1, height: 1, width: 1, pixels: Vec::new(), tokens: 1, kept: None, key }
    }

    #[tokio::test]
    async fn a_picture_is_made_once_for_all_who_use_it_at_the_same_time() {
        let (pictures, count, key) = (Pictures::default(), AtomicUsize::new(0), ImageKey::of_pixels(&[1.0]));
        let make = async || {
            count.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            Ok::<_, ()>(picture(key))
        };
        let all = join_all((0..8).map(|_| pictures.get(key, make()))).await;
        assert_eq!(count.load(Ordering::Relaxed), 1);
        assert_eq!(all.iter().filter(|found| found.as_ref().unwrap().shared).count(), 7);
        drop(all);
        assert!(!pictures.get(key, make()).await.unwrap().shared);
    }

    #[tokio::test]
    async fn a_failure_is_not_kept() {
        let (pictures, key) = (Pictures::default(), ImageKey::of_pixels(&[1.0]));
        assert_eq!(pictures.get(key, async { Err::<PreparedImage, _>("broken") }).await.unwrap_err(), "broken");
        assert!(!pictures.get(key, async { Ok::<_, ()>(picture(key)) }).await.unwrap().shared);
    }

    #[tokio::test]
    async fn unused_pictures_leave_no_trace() {
        let pictures = Pictures::default();
        for n in 0..1000 {
            let key = ImageKey::of_pixels(&[n as f32]);
            pictures.get(key, async { Ok::<_, ()>(picture(key)) }).await.unwrap();
        }
        assert!(pictures.slots.lock().unwrap().by_key.len() <= FEW);
    }
}
