//! The invariants of ARCHITECTURE.md, as far as imports show them.

use super::{Finding, source::Source};

/// Tested without root, on recorded data.
const PURE: &[&str] = &[
    "profiler/src/heap",
    "profiler/src/leak",
    "profiler/src/probes",
    "profiler/src/profile",
    "profiler/src/report",
    "profiler/src/unwind",
    "profiler/src/window",
];
/// Of those, what feeds a pure module from a live process.
const FEEDING: &[&str] = &["profiler/src/window/sources"];
/// What would make them need a kernel, a runtime or a live process.
const IMPURE: &[&str] = &[
    "aya::",
    "aya_obj::",
    "tokio::",
    "procfs::",
    "\"/proc",
    "File::open",
];

/// The stages that need a live process.
const RECORDING: &[&str] = &["attach", "drain", "session", "unwind"];

/// Invariant "pure core".
pub fn pure_modules_stay_pure(source: &Source) -> Vec<Finding> {
    if !source.is_in(PURE) || source.is_in(FEEDING) {
        return Vec::new();
    }
    mentions(source, IMPURE, |word| {
        format!(
            "`{word}` in a pure module: hand in the data instead, so that it can be tested without root"
        )
    })
}

/// Invariant "reports never symbolize".
pub fn reports_are_made_from_the_profile_alone(source: &Source) -> Vec<Finding> {
    if !source.is_in(&["profiler/src/report"]) {
        return Vec::new();
    }
    mentions(
        source,
        &["crate::symbolize", "crate::capture", "crate::target"],
        |word| format!("a report uses `{word}`: whatever it needs belongs into the profile"),
    )
}

/// Invariant "one meeting place".
pub fn recording_and_reporting_meet_in_the_capture(source: &Source) -> Vec<Finding> {
    if source.is_in(&["profiler/src/profile", "profiler/src/report"]) {
        let recording: Vec<_> = RECORDING
            .iter()
            .map(|stage| format!("crate::{stage}"))
            .collect();
        let recording: Vec<_> = recording.iter().map(String::as_str).collect();
        return mentions(source, &recording, |word| {
            format!("reporting uses `{word}`: they meet only in the capture")
        });
    }
    let is_recording = RECORDING
        .iter()
        .any(|stage| source.is_in(&[&format!("profiler/src/{stage}")]));
    if !is_recording {
        return Vec::new();
    }
    mentions(source, &["crate::profile", "crate::report"], |word| {
        format!("recording uses `{word}`: they meet only in the capture")
    })
}

/// Invariant "nothing is lost in silence": the profile, which every report reads, is filled from
/// the list of all counters, so that a new one cannot be forgotten.
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

/// Whether `word` stands in the line and does not merely end a longer name.
fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        before.is_none_or(|it| !it.is_alphanumeric() && it != '_')
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
    fn what_feeds_a_pure_module_may_read_proc() {
        let text = "use aya::maps::Map;\n";
        let found = |path: &str| lines(pure_modules_stay_pure, path, text);
        assert_eq!(found("profiler/src/window/head.rs"), [1]);
        assert_eq!(found("profiler/src/window/sources/http.rs"), NONE);
        assert_eq!(found("profiler/src/window/sources.rs"), NONE);
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
    fn a_report_that_symbolizes_is_found() {
        let text = "use crate::symbolize::Symbolizer;\nuse crate::profile::Profile;\n";
        let rule = reports_are_made_from_the_profile_alone;
        assert_eq!(lines(rule, "profiler/src/report/text.rs", text), [1]);
    }

    #[test]
    fn recording_and_reporting_that_know_each_other_are_found() {
        let rule = recording_and_reporting_meet_in_the_capture;
        assert_eq!(
            lines(
                rule,
                "profiler/src/report/text.rs",
                "use crate::drain::Drain;\n"
            ),
            [1]
        );
        assert_eq!(
            lines(
                rule,
                "profiler/src/session.rs",
                "use crate::report::Format;\n"
            ),
            [1]
        );
        assert_eq!(
            lines(
                rule,
                "profiler/src/cli/report.rs",
                "use crate::report::Format;\n"
            ),
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
