//! Prepared pictures: those that requests in progress use, and as many of the last ones as there is room for. A picture
//! that is here, or on its way, is not decoded again, neither for another request nor for a second place in the same one.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::image::{ImageKey, PreparedImage};

/// Fewer pictures than this are never swept.
const FEW: usize = 64;
/// Bytes of prepared pictures that are kept although nobody uses them: four of the largest of InternVL, or 99 of LLaVA-1.5.
pub const KEPT_BYTES: usize = 32 << 20;
/// The most of them.
const KEPT: usize = 256;

/// Whoever prepares a picture holds its lock; others wait for it.
type Slot = tokio::sync::Mutex<Weak<PreparedImage>>;

/// Pictures by key.
#[derive(Debug)]
pub struct Pictures {
    slots: Mutex<Slots>,
    last: Mutex<Last>,
}

#[derive(Debug, Default)]
struct Slots {
    by_key: HashMap<ImageKey, Arc<Slot>>,
    /// Number of slots from which on unused ones are let go of.
    sweep_at: usize,
}

/// The pictures that were asked for last, the very last at the end. Only these are kept alive here.
#[derive(Debug)]
struct Last {
    most_bytes: usize,
    bytes: usize,
    pictures: VecDeque<Arc<PreparedImage>>,
}

impl Last {
    fn keep(&mut self, image: &Arc<PreparedImage>) {
        if let Some(place) = self.pictures.iter().position(|kept| kept.key == image.key) {
            self.pictures.remove(place);
        } else {
            self.bytes += size(image);
        }
        self.pictures.push_back(Arc::clone(image));
        while self.bytes > self.most_bytes || self.pictures.len() > KEPT {
            let Some(oldest) = self.pictures.pop_front() else { break };
            self.bytes -= size(&oldest);
        }
    }
}

fn size(image: &PreparedImage) -> usize {
    image.pixels.size_bytes()
}

/// A picture, and whether it was there.
#[derive(Debug)]
pub struct Found {
    /// The picture.
    pub image: Arc<PreparedImage>,
    /// Another request has or had it, or another place of this one.
    pub shared: bool,
}

impl Pictures {
    /// None yet; of those that nobody uses any more `most_bytes` of pixels are kept.
    pub fn new(most_bytes: usize) -> Self {
        Self { slots: Mutex::default(), last: Mutex::new(Last { most_bytes, bytes: 0, pictures: VecDeque::new() }) }
    }

    /// The picture `key`, made by `make` when nobody has it. When that fails, the next who asks tries again.
    pub async fn get<E>(
        &self,
        key: ImageKey,
        make: impl Future<Output = Result<PreparedImage, E>>,
    ) -> Result<Found, E> {
        let slot = self.slot(key);
        let mut held = slot.lock().await;
        let found = match held.upgrade() {
            Some(image) => Found { image, shared: true },
            None => Found { image: Arc::new(make.await?), shared: false },
        };
        *held = Arc::downgrade(&found.image);
        self.last.lock().unwrap_or_else(PoisonError::into_inner).keep(&found.image);
        Ok(found)
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
        PreparedImage { tiles: 1, height: 1, width: 1, pixels: Vec::new().into(), tokens: 1, kept: None, key }
    }

    #[tokio::test]
    async fn a_picture_is_made_once_for_all_who_use_it_at_the_same_time() {
        let (pictures, count, key) = (Pictures::new(0), AtomicUsize::new(0), ImageKey::of_pixels(&[1.0]));
        let make = async || {
            count.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            Ok::<_, ()>(picture(key))
        };
        let all = join_all((0..8).map(|_| pictures.get(key, make()))).await;
        assert_eq!(count.load(Ordering::Relaxed), 1);
        assert_eq!(all.iter().filter(|found| found.as_ref().unwrap().shared).count(), 7);
        drop(all);
        assert!(pictures.get(key, make()).await.unwrap().shared);
    }

    #[tokio::test]
    async fn a_failure_is_not_kept() {
        let (pictures, key) = (Pictures::new(0), ImageKey::of_pixels(&[1.0]));
        assert_eq!(pictures.get(key, async { Err::<PreparedImage, _>("broken") }).await.unwrap_err(), "broken");
        assert!(!pictures.get(key, async { Ok::<_, ()>(picture(key)) }).await.unwrap().shared);
    }

    #[tokio::test]
    async fn unused_pictures_leave_no_trace() {
        let pictures = Pictures::new(0);
        for n in 0..1000 {
            let key = ImageKey::of_pixels(&[n as f32]);
            let made = PreparedImage { pixels: vec![0.0; 4].into(), ..picture(key) };
            pictures.get(key, async { Ok::<_, ()>(made) }).await.unwrap();
        }
        assert!(pictures.slots.lock().unwrap().by_key.len() <= FEW);
    }

    #[tokio::test]
    async fn the_last_pictures_are_kept_within_their_bytes() {
        let pictures = Pictures::new(3 * 40);
        let shared = async |n: usize| {
            let key = ImageKey::of_pixels(&[n as f32]);
            let made = PreparedImage { pixels: vec![0.0; 10].into(), ..picture(key) };
            pictures.get(key, async { Ok::<_, ()>(made) }).await.unwrap().shared
        };
        let mut seen = Vec::new();
        // The first is asked for again before there is too much, so that it is the second that goes.
        for n in [0, 1, 2, 0, 3, 0, 2, 1] {
            seen.push(shared(n).await);
        }
        assert_eq!(seen, [false, false, false, true, false, true, true, false]);
        assert_eq!(pictures.last.lock().unwrap().bytes, 120);
    }
}
