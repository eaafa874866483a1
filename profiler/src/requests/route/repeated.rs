//! Counts which segments come again and again, at the same place in paths.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};

use hashlink::LruCache;

/// The number of requests from which on a segment is known.
pub(super) const KNOWN_FROM: u32 = 100;
/// How many segments are counted at a time, 16 bytes each, and how many are known, 32 bytes each.
pub(super) const MAX_PLACES: usize = 4096;

/// Counts segments in bounded memory. The memory holds only hashes, and no text of a segment.
#[derive(Debug)]
pub(super) struct Repeated {
    hasher: RandomState,
    counts: HashMap<u64, u32>,
    /// Those that were counted often enough. Where there are too many, the one goes that was not asked for the longest.
    known: LruCache<u64, ()>,
}

impl Default for Repeated {
    fn default() -> Self {
        Self {
            hasher: RandomState::new(),
            counts: HashMap::new(),
            known: LruCache::new(MAX_PLACES),
        }
    }
}

impl Repeated {
    /// Counts one more request with this segment at this place. Returns whether that makes the
    /// segment known.
    pub(super) fn count(&mut self, place: usize, segment: &str) -> bool {
        let key = self.hasher.hash_one((place, segment));
        if self.known.get(&key).is_some() {
            return true;
        }
        if !self.counts.contains_key(&key) && self.counts.len() >= MAX_PLACES {
            self.age();
        }
        if let Some(count) = self.counts.get_mut(&key) {
            *count += 1;
            let is_known = *count == KNOWN_FROM;
            if is_known {
                self.counts.remove(&key);
                self.known.insert(key, ());
            }
            return is_known;
        }
        if self.counts.len() < MAX_PLACES {
            self.counts.insert(key, 1);
        }
        false
    }

    /// Takes one off the count of each unknown segment. A segment that more than one of
    /// [`MAX_PLACES`] requests has stays, whatever else comes in between (Misra and Gries, "Finding
    /// repeated elements", Science of Computer Programming 2, 1982).
    fn age(&mut self) {
        self.counts.retain(|_, count| {
            *count -= 1;
            *count > 0
        });
    }

    #[cfg(test)]
    pub(super) fn places(&self) -> usize {
        self.counts.len().max(self.known.len())
    }
}
