//! Counts which segments come again and again, at the same place in paths.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};

/// The number of requests from which on a segment is known.
pub(super) const KNOWN_FROM: u32 = 100;
/// How many segments are counted at a time, 16 bytes each.
pub(super) const MAX_PLACES: usize = 4096;

/// Counts segments in bounded memory. The memory holds only hashes, and no text of a segment.
#[derive(Debug, Default)]
pub(super) struct Repeated {
    hasher: RandomState,
    counts: HashMap<u64, u32>,
}

impl Repeated {
    /// Counts one more request with this segment at this place. Returns whether that makes the
    /// segment known.
    pub(super) fn count(&mut self, place: usize, segment: &str) -> bool {
        let key = self.hasher.hash_one((place, segment));
        if !self.counts.contains_key(&key) && self.counts.len() >= MAX_PLACES {
            self.age();
        }
        if let Some(count) = self.counts.get_mut(&key) {
            *count = count.saturating_add(1).min(KNOWN_FROM);
            return *count == KNOWN_FROM;
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
            *count -= u32::from(*count < KNOWN_FROM);
            *count > 0
        });
    }

    #[cfg(test)]
    pub(super) fn places(&self) -> usize {
        self.counts.len()
    }
}
