//! Which pictures' rows are kept, how far those under way are, and which are dropped when there is no room. Counts
//! bytes and names pictures; the rows themselves are the executor's.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use super::prefix::Picture;
use crate::image::ImageKey;

/// Pictures by name. One is in use from the moment that a sequence claims it until the sequence has read its rows;
/// afterwards it is kept for as long as there is room.
#[derive(Debug)]
pub struct EncoderCache {
    most_bytes: u64,
    row_bytes: u64,
    bytes: u64,
    bytes_in_use: u64,
    entries: HashMap<ImageKey, Entry>,
    /// Complete pictures that nobody uses, by when that began.
    idle: BTreeMap<u64, ImageKey>,
    clock: u64,
    dropped: Vec<ImageKey>,
}

#[derive(Debug)]
struct Entry {
    bytes: u64,
    tiles: usize,
    /// Tiles that are computed, or are to be in this step.
    done: usize,
    users: usize,
    idle_since: u64,
}

/// What a claim found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The rows are there, or another sequence has them computed.
    Hit,
    /// The rows are to be computed.
    Miss,
    /// There is no room until other sequences have read theirs.
    NoRoom,
}

impl EncoderCache {
    /// Room for `most_bytes` bytes of rows of `row_bytes` bytes. A single picture that is larger is let in alone.
    pub fn new(most_bytes: u64, row_bytes: u64) -> Self {
        Self {
            most_bytes,
            row_bytes,
            bytes: 0,
            bytes_in_use: 0,
            entries: HashMap::new(),
            idle: BTreeMap::new(),
            clock: 0,
            dropped: Vec::new(),
        }
    }

    /// Bytes of all rows that are there or under way.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Pictures in use.
    pub fn in_use(&self) -> usize {
        self.entries.len() - self.idle.len()
    }

    /// Uses a picture for one sequence more.
    pub fn claim(&mut self, picture: &Picture) -> Claim {
        if let Some(entry) = self.entries.get_mut(&picture.key) {
            if entry.users == 0 {
                self.idle.remove(&entry.idle_since);
                self.bytes_in_use += entry.bytes;
            }
            entry.users += 1;
            return Claim::Hit;
        }
        let bytes = self.row_bytes.saturating_mul(picture.rows as u64);
        if self.bytes_in_use > 0 && self.bytes_in_use.saturating_add(bytes) > self.most_bytes {
            return Claim::NoRoom;
        }
        self.shrink(self.most_bytes.saturating_sub(bytes));
        (self.bytes, self.bytes_in_use) = (self.bytes + bytes, self.bytes_in_use + bytes);
        let entry = Entry { bytes, tiles: picture.tiles, done: 0, users: 1, idle_since: 0 };
        self.entries.insert(picture.key, entry);
        Claim::Miss
    }

    /// Tiles that are still to be computed.
    pub fn missing(&self, key: &ImageKey) -> usize {
        self.entries.get(key).map_or(0, |entry| entry.tiles - entry.done)
    }

    /// The next tiles, at most `most`, which are taken for done.
    pub fn advance(&mut self, key: &ImageKey, most: usize) -> Range<usize> {
        let Some(entry) = self.entries.get_mut(key) else { return 0..0 };
        let first = entry.done;
        entry.done = entry.tiles.min(first.saturating_add(most));
        first..entry.done
    }

    /// One sequence less uses a picture; one that is not complete is then of no use to anyone.
    pub fn release(&mut self, key: &ImageKey) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        entry.users -= 1;
        if entry.users > 0 {
            return;
        }
        self.bytes_in_use -= entry.bytes;
        if entry.done < entry.tiles {
            self.drop_entry(*key);
            return;
        }
        self.clock += 1;
        entry.idle_since = self.clock;
        self.idle.insert(self.clock, *key);
        self.shrink(self.most_bytes);
    }

    /// What was computed of a picture is of no use: it begins anew for those who use it.
    pub fn restart(&mut self, key: &ImageKey) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.done = 0;
            self.dropped.push(*key);
        }
    }

    /// The pictures whose rows are to be dropped since the last call.
    pub fn dropped(&mut self) -> Vec<ImageKey> {
        std::mem::take(&mut self.dropped)
    }

    /// Drops idle pictures, the longest idle first, until all take no more than `most` bytes.
    fn shrink(&mut self, most: u64) {
        while self.bytes > most {
            let Some((_, key)) = self.idle.pop_first() else { return };
            self.drop_entry(key);
        }
    }

    fn drop_entry(&mut self, key: ImageKey) {
        if let Some(entry) = self.entries.remove(&key) {
            self.bytes -= entry.bytes;
            self.dropped.push(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(n: u8, rows: usize) -> Picture {
        Picture { key: ImageKey::of_pixels(&[f32::from(n)]), tiles: 3, start: 0, rows }
    }

    fn compute(cache: &mut EncoderCache, picture: &Picture) {
        assert_eq!(cache.advance(&picture.key, 2), 0..2);
        assert_eq!(cache.advance(&picture.key, 2), 2..3);
        assert_eq!(cache.missing(&picture.key), 0);
    }

    #[test]
    fn a_picture_is_kept_until_another_needs_its_room() {
        let mut cache = EncoderCache::new(100, 10);
        let [a, b, c] = [1, 2, 3].map(|n| picture(n, 4));
        for picture in [&a, &b] {
            assert_eq!(cache.claim(picture), Claim::Miss);
            compute(&mut cache, picture);
        }
        cache.release(&a.key);
        cache.release(&b.key);
        assert_eq!((cache.claim(&a), cache.bytes(), cache.in_use()), (Claim::Hit, 80, 1));
        cache.release(&a.key);
        assert_eq!(cache.claim(&c), Claim::Miss);
        assert_eq!((cache.dropped(), cache.bytes()), (vec![b.key], 80));
    }

    #[test]
    fn what_is_in_use_is_never_dropped_and_one_picture_always_goes() {
        let mut cache = EncoderCache::new(100, 10);
        let (a, large) = (picture(1, 4), picture(2, 40));
        assert_eq!((cache.claim(&a), cache.claim(&large)), (Claim::Miss, Claim::NoRoom));
        compute(&mut cache, &a);
        cache.release(&a.key);
        assert_eq!((cache.claim(&large), cache.dropped()), (Claim::Miss, vec![a.key]));
        compute(&mut cache, &large);
        assert_eq!(cache.claim(&a), Claim::NoRoom);
        cache.release(&large.key);
        assert_eq!((cache.dropped(), cache.bytes()), (vec![large.key], 0));
    }

    #[test]
    fn half_a_picture_is_dropped_with_its_last_user_or_begun_anew() {
        let mut cache = EncoderCache::new(100, 10);
        let a = picture(1, 4);
        assert_eq!((cache.claim(&a), cache.claim(&a)), (Claim::Miss, Claim::Hit));
        cache.advance(&a.key, 2);
        cache.release(&a.key);
        assert_eq!((cache.missing(&a.key), cache.dropped()), (1, vec![]));
        cache.restart(&a.key);
        assert_eq!((cache.missing(&a.key), cache.dropped()), (3, vec![a.key]));
        cache.advance(&a.key, 2);
        cache.release(&a.key);
        assert_eq!((cache.bytes(), cache.in_use(), cache.dropped()), (0, 0, vec![a.key]));
    }
}
