//! What is made of pictures, by its name: what requests in progress use, and as much of the last as there is room for.
//! What is here, or on its way, is not made again, neither for another request nor for a second place in the same one.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use image::RgbImage;

use crate::image::{ImageKey, PreparedImage};

/// Fewer than this are never swept.
const FEW: usize = 64;
/// Most that are kept although nobody uses them.
const KEPT: usize = 256;

/// Something made of a picture.
pub trait Made {
    /// Bytes that it takes.
    fn bytes(&self) -> usize;
}

impl Made for PreparedImage {
    fn bytes(&self) -> usize {
        self.pixels.size_bytes()
    }
}

impl Made for RgbImage {
    fn bytes(&self) -> usize {
        self.as_raw().len()
    }
}

/// Whoever makes it holds its lock; others wait for it.
type Slot<T> = tokio::sync::Mutex<Weak<T>>;

/// All of one kind, by key.
#[derive(Debug)]
pub struct Pictures<T> {
    slots: Mutex<Slots<T>>,
    last: Mutex<Last<T>>,
}

#[derive(Debug)]
struct Slots<T> {
    by_key: HashMap<ImageKey, Arc<Slot<T>>>,
    /// Number of slots from which on unused ones are let go of.
    sweep_at: usize,
}

/// Those that were asked for last, the very last at the end. Only these are kept alive here.
#[derive(Debug)]
struct Last<T> {
    most_bytes: usize,
    bytes: usize,
    kept: VecDeque<(ImageKey, Arc<T>)>,
}

impl<T: Made> Last<T> {
    fn keep(&mut self, key: ImageKey, made: &Arc<T>) {
        if let Some(place) = self.kept.iter().position(|(kept, _)| *kept == key) {
            self.kept.remove(place);
        } else if made.bytes() > self.most_bytes {
            return;
        } else {
            self.bytes += made.bytes();
        }
        self.kept.push_back((key, Arc::clone(made)));
        while self.bytes > self.most_bytes || self.kept.len() > KEPT {
            let Some((_, oldest)) = self.kept.pop_front() else { break };
            self.bytes -= oldest.bytes();
        }
    }
}

/// Something made of a picture, and whether it was there.
#[derive(Debug)]
pub struct Found<T> {
    /// What was asked for.
    pub made: Arc<T>,
    /// Another request has or had it, or another place of this one.
    pub shared: bool,
}

impl<T: Made> Pictures<T> {
    /// None yet; of those that nobody uses any more `most_bytes` are kept.
    pub fn new(most_bytes: usize) -> Self {
        Self {
            slots: Mutex::new(Slots { by_key: HashMap::new(), sweep_at: 0 }),
            last: Mutex::new(Last { most_bytes, bytes: 0, kept: VecDeque::new() }),
        }
    }

    /// What is known as `key`, made by `make` when nobody has it. When that fails, the next who asks tries again.
    pub async fn get<E>(&self, key: ImageKey, make: impl Future<Output = Result<T, E>>) -> Result<Found<T>, E> {
        let slot = self.slot(key);
        let mut held = slot.lock().await;
        let found = match held.upgrade() {
            Some(held) => Found { made: held, shared: true },
            None => Found { made: Arc::new(make.await?), shared: false },
        };
        *held = Arc::downgrade(&found.made);
        self.last.lock().unwrap_or_else(PoisonError::into_inner).keep(key, &found.made);
        Ok(found)
    }

    fn slot(&self, key: ImageKey) -> Arc<Slot<T>> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.by_key.len() >= slots.sweep_at.max(FEW) {
            slots.by_key.retain(|_, slot| {
                Arc::strong_count(slot) > 1 || slot.try_lock().is_ok_and(|made| made.strong_count() > 0)
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
        // One that alone is too much drives nothing out.
        let key = ImageKey::of_pixels(&[9.0]);
        let large = PreparedImage { pixels: vec![0.0; 31].into(), ..picture(key) };
        pictures.get(key, async { Ok::<_, ()>(large) }).await.unwrap();
        assert_eq!(pictures.last.lock().unwrap().bytes, 120);
        assert!(shared(1).await);
    }
}
