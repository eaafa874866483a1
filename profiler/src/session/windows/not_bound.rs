//! What is left of windows that are over and are not bound: nobody adds it up, so that estimates are made from it.
//!
//! Such a window has amounts of its own where a thread or tasks were bound to it, or where it was alone under way for a
//! time. They are not *all* that it did, and so they are no figure of its route.

use std::collections::HashMap;

use crate::ids::{ProcessNumber, WindowId};

/// See the module documentation.
#[derive(Debug, Default)]
pub struct NotBound {
    by_process: HashMap<ProcessNumber, Left>,
}

#[derive(Debug, Default)]
struct Left {
    /// Bytes outstanding by window, as of the last look.
    windows: HashMap<WindowId, u64>,
    /// The same of all windows whose places others have taken: what is freed of it after that, nobody sees.
    displaced: u64,
}

impl NotBound {
    /// A window of the process is over, and is not bound.
    pub fn add(&mut self, process: ProcessNumber, window: WindowId) {
        let left = self.by_process.entry(process).or_default();
        left.windows.entry(window).or_default();
    }

    /// Bytes outstanding in such windows of the process, by what `look` says of each.
    pub fn outstanding(
        &mut self,
        process: ProcessNumber,
        look: impl Fn(WindowId) -> Option<u64>,
    ) -> u64 {
        let Some(left) = self.by_process.get_mut(&process) else {
            return 0;
        };
        let Left { windows, displaced } = left;
        windows.retain(|window, bytes| match look(*window) {
            Some(now) => {
                *bytes = now;
                now > 0
            }
            None => {
                *displaced += *bytes;
                false
            }
        });
        *displaced + windows.values().sum::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_window_left_goes_when_it_is_freed_and_stays_when_nobody_sees_that() {
        let mut not_bound = NotBound::default();
        for window in 1..=3 {
            not_bound.add(ProcessNumber(0), WindowId(window));
        }
        not_bound.add(ProcessNumber(1), WindowId(4));
        let at_first = |window: WindowId| Some(u64::from(window.0) * 10);
        assert_eq!(not_bound.outstanding(ProcessNumber(0), at_first), 60);
        // The first is freed, in part the second; another one has the place of the third.
        let later = |window: WindowId| [None, Some(0), Some(5), None][window.0 as usize];
        assert_eq!(not_bound.outstanding(ProcessNumber(0), later), 35);
        assert_eq!(not_bound.outstanding(ProcessNumber(0), |_| None), 35);
        assert_eq!(not_bound.outstanding(ProcessNumber(1), at_first), 40);
        assert_eq!(not_bound.outstanding(ProcessNumber(2), at_first), 0);
    }
}
