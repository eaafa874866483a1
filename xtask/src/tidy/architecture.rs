//! Checks the invariants of ARCHITECTURE.md, as far as imports show them.

use super::{Finding, source::Source};

/// The modules whose tests need no root, because they work on recorded data.
const PURE: &[&str] = &[
    "profiler/src/estimate",
    "profiler/src/heap",
    "profiler/src/probes",
    "profiler/src/profile",
    "profiler/src/python",
    "profiler/src/report",
    "profiler/src/requests",
    "profiler/src/unwind",
];
/// Words that would make a pure module need a kernel, a runtime or a live process.
const IMPURE: &[&str] = &[
    "aya::",
    "aya_obj::",
    "tokio::",
    "procfs::",
    "\"/proc",
    "File::open",
];

/// Checks the invariant "pure core".
pub fn pure_modules_stay_pure(source: &Source) -> Vec<Finding> {
    if !source.is_in(PURE) {
        return Vec::new();
    }
    mentions(source, IMPURE, |word| {
        format!(
            "`{word}` in a pure module: hand in the data instead, so that it can be tested without root"
        )
    })
}

/// Checks the invariant "nothing is lost in silence". Every report reads the profile, and the
/// profile is filled from the list of all counters, so that nobody can forget a new counter.
pub fn every_counter_reaches_the_profile(source: &Source) -> Vec<Finding> {
    let lists_all = source.code().any(|(_, line)| line.contains("Counter::ALL"));
    if source.path != "profiler/src/profile/build.rs" || lists_all {
        return Vec::new();
    }
    vec![Finding::new(
        1,
        "the profile has to be filled from `Counter::ALL`",
    )]
}

pub(super) fn mentions(
    source: &Source,
    words: &[&str],
    message: impl Fn(&str) -> String,
) -> Vec<Finding> {
    let code = source.code().filter(|_| source.is_rust());
    code.flat_map(|(number, line)| words.iter().map(move |word| (number, line, *word)))
        .filter(|(_, line, word)| has_word(line, word))
        .map(|(number, _, word)| Finding::new(number, message(word)))
        .collect()
}

/// Whether `word` stands in the line and is not merely the end of a longer name.
fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        before.is_none_or(|c| !c.is_alphanumeric() && c != '_')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: [usize; 0] = [];

    fn lines(rule: fn(&Source) -> Vec<Finding>, path: &str, text: &str) -> Vec<usize> {
        rule(&Source::new(path, text))
            .iter()
            .map(|finding| finding.line)
            .collect()
    }

    #[test]
    fn a_pure_module_that_imports_aya_or_reads_proc_is_found() {
        let text =
            "use aya::maps::Map;\nuse himalaya::Peak;\nlet p = format!(\"/proc/{pid}/maps\");\n";
        assert_eq!(
            lines(pure_modules_stay_pure, "profiler/src/heap/mod.rs", text),
            [1, 3]
        );
        assert_eq!(
            lines(pure_modules_stay_pure, "profiler/src/attach/mod.rs", text),
            NONE
        );
    }

    #[test]
    fn prose_about_proc_is_fine() {
        let text = "//! Nothing here reads \"/proc\".\n";
        assert_eq!(
            lines(pure_modules_stay_pure, "profiler/src/probes/mod.rs", text),
            NONE
        );
    }

    #[test]
    fn a_profile_that_lists_counters_by_hand_is_found() {
        let rule = every_counter_reaches_the_profile;
        let path = "profiler/src/profile/build.rs";
        assert_eq!(lines(rule, path, "let all = [Counter::MissedFree];\n"), [1]);
        assert_eq!(lines(rule, path, "let all = Counter::ALL.iter();\n"), NONE);
    }
}
