//! Says why a report shows nothing.

use crate::profile::{Profile, Tier};
use crate::report::rows::{rows, total};
use crate::report::{Measure, Options};

/// Says in a sentence why the report is empty. None if at least one byte is there to show.
#[must_use]
pub fn why_empty(profile: &Profile, shown: Options<'_>) -> Option<&'static str> {
    let is_empty = total(&rows(profile, shown)).bytes == 0;
    is_empty.then(|| match shown.by {
        Measure::Retained => "Nothing was retained by these requests.",
        Measure::Survivors => "Nothing survived these requests.",
        Measure::Allocated => never(profile, shown.tier),
        Measure::Outstanding if profile.total_of(shown.tier).alloc_bytes == 0 => {
            never(profile, shown.tier)
        }
        Measure::Outstanding => freed(shown.tier),
    })
}

fn never(profile: &Profile, tier: Tier) -> &'static str {
    match (tier, profile.python_interval) {
        (Tier::Blocks, _) => "No block was counted in this recording.",
        (Tier::PythonObjects, None) => {
            "No Python objects were sampled: record with --python-objects."
        }
        (Tier::PythonObjects, Some(_)) => "No Python object was sampled in this recording.",
        (Tier::PythonPools, _) => "Python's allocator took no pool in this recording.",
    }
}

const fn freed(tier: Tier) -> &'static str {
    match tier {
        Tier::Blocks => {
            "Nothing is outstanding: every block that was allocated since attach was freed."
        }
        Tier::PythonObjects => "No sampled Python object is outstanding.",
        Tier::PythonPools => "No pool is outstanding: each was given back.",
    }
}
