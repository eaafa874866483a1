//! Rules about single files, wherever they are.

use super::{Finding, source::Source};

const MAX_LINES: usize = 500;
/// How many lines above an `unsafe` its reason may begin.
const SAFETY_LINES: usize = 8;

/// Every `unsafe` block and implementation says why it is sound.
pub fn every_unsafe_has_its_safety(source: &Source) -> Vec<Finding> {
    if !source.is_rust() {
        return Vec::new();
    }
    let lines: Vec<_> = source.lines().map(|(_, line)| line).collect();
    let opens =
        |line: &str| line.contains("unsafe {") || line.trim_start().starts_with("unsafe impl");
    source
        .code()
        .filter(|(_, line)| opens(line) && !line.contains('"'))
        .filter(|(number, _)| {
            let above = &lines[number.saturating_sub(SAFETY_LINES + 1)..*number];
            !above.iter().any(|line| line.contains("SAFETY:"))
        })
        .map(|(number, _)| Finding::new(number, "`unsafe` without a SAFETY comment right above it"))
        .collect()
}

/// What comes from a target is hostile, so the profiler checks it and never assumes.
pub fn no_unwrap_in_the_profiler(source: &Source) -> Vec<Finding> {
    if !source.is_in(&["profiler/src"]) {
        return Vec::new();
    }
    findings(source.code(), &[".unwrap()"], |word| {
        format!("`{word}`: return an error, or name the invariant with `expect`")
    })
}

/// Work that nobody has done yet is an issue, not a comment.
pub fn nothing_is_left_for_later(source: &Source) -> Vec<Finding> {
    // The marks are written in halves. Otherwise this file would be a finding.
    let marks = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X:"),
        concat!("to", "do!("),
        concat!("unimple", "mented!("),
    ];
    findings(source.lines(), &marks, |mark| {
        format!("`{mark}`: do it, or open an issue")
    })
}

/// A path of one person's machine means nothing on another machine.
pub fn no_paths_of_one_machine(source: &Source) -> Vec<Finding> {
    let roots = [
        concat!("/ro", "ot/"),
        concat!("/wo", "rk/"),
        concat!("/ho", "me/"),
    ];
    let begins_path = |line: &str, root: &str| {
        line.match_indices(root).any(|(at, _)| {
            let before = line[..at].chars().next_back();
            before.is_none_or(|c| c.is_whitespace() || "\"'`(=:".contains(c))
        })
    };
    source
        .lines()
        .filter(|(_, line)| roots.iter().any(|root| begins_path(line, root)))
        .map(|(number, _)| Finding::new(number, "a path of one machine"))
        .collect()
}

/// No line ends with a blank, and a file ends with exactly one newline.
pub fn no_trailing_whitespace(source: &Source) -> Vec<Finding> {
    let mut found: Vec<_> = source
        .lines()
        .filter(|(_, line)| line.ends_with([' ', '\t', '\r']))
        .map(|(number, _)| Finding::new(number, "trailing whitespace"))
        .collect();
    let text = source.text();
    if !text.is_empty() && (!text.ends_with('\n') || text.ends_with("\n\n")) {
        found.push(Finding::new(
            source.lines().count(),
            "a file ends with one newline",
        ));
    }
    found
}

/// A file that is too long to read has to be split.
pub fn files_stay_short(source: &Source) -> Vec<Finding> {
    let lines = source.lines().count();
    if !source.is_rust() || lines <= MAX_LINES {
        return Vec::new();
    }
    vec![Finding::new(
        1,
        format!("{lines} lines: split it, {MAX_LINES} is the most"),
    )]
}

/// A name that says nothing attracts whatever has no place yet.
pub fn no_drawers_for_odds_and_ends(source: &Source) -> Vec<Finding> {
    const DRAWERS: [&str; 6] = ["util", "utils", "helpers", "common", "misc", "manager"];
    let stem = source.path.trim_end_matches(".rs").trim_end_matches("/mod");
    let name = stem.rsplit('/').next().unwrap_or(stem);
    if !source.is_rust() || !DRAWERS.contains(&name) {
        return Vec::new();
    }
    vec![Finding::new(
        1,
        format!("`{name}` says nothing: name the module after what it does"),
    )]
}

fn findings<'a>(
    lines: impl Iterator<Item = (usize, &'a str)>,
    words: &[&str],
    message: impl Fn(&str) -> String,
) -> Vec<Finding> {
    lines
        .filter_map(|(number, line)| {
            let word = words.iter().find(|word| line.contains(**word))?;
            Some(Finding::new(number, message(word)))
        })
        .collect()
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
    fn an_unsafe_block_needs_its_reason_close_above() {
        let with = "// SAFETY: nobody else is here.\nlet x = unsafe { f() };\n";
        let without = "let x = unsafe { f() };\n";
        assert_eq!(lines(every_unsafe_has_its_safety, "a.rs", with), NONE);
        assert_eq!(lines(every_unsafe_has_its_safety, "a.rs", without), [1]);
    }

    #[test]
    fn unwrap_is_for_tests() {
        let text = "fn f() { g().unwrap(); }\n#[cfg(test)]\nmod tests {\n    fn t() { g().unwrap(); }\n}\n";
        assert_eq!(
            lines(no_unwrap_in_the_profiler, "profiler/src/a.rs", text),
            [1]
        );
        assert_eq!(
            lines(no_unwrap_in_the_profiler, "tests/src/a.rs", text),
            NONE
        );
    }

    #[test]
    fn marks_of_unfinished_work_are_found() {
        let text = format!("fine\n// {}: later\n", concat!("TO", "DO"));
        assert_eq!(lines(nothing_is_left_for_later, "a.md", &text), [2]);
    }

    #[test]
    fn the_root_of_a_container_is_no_path_of_a_machine() {
        let text = format!("/proc/PID{0}usr\nsee {0}notes\n", concat!("/ro", "ot/"));
        assert_eq!(lines(no_paths_of_one_machine, "a.md", &text), [2]);
    }

    #[test]
    fn whitespace_at_the_end_of_lines_and_files_is_found() {
        assert_eq!(lines(no_trailing_whitespace, "a.md", "a \nb\n\n"), [1, 3]);
        assert_eq!(lines(no_trailing_whitespace, "a.md", "a\nb"), [2]);
        assert_eq!(lines(no_trailing_whitespace, "a.md", "a\nb\n"), NONE);
    }

    #[test]
    fn a_file_of_more_than_500_lines_is_found() {
        assert_eq!(lines(files_stay_short, "a.rs", &"\n".repeat(501)), [1]);
        assert_eq!(lines(files_stay_short, "a.rs", &"\n".repeat(500)), NONE);
    }

    #[test]
    fn a_module_named_utils_is_found() {
        assert_eq!(
            lines(
                no_drawers_for_odds_and_ends,
                "profiler/src/utils/mod.rs",
                ""
            ),
            [1]
        );
        assert_eq!(
            lines(no_drawers_for_odds_and_ends, "profiler/src/heap/mod.rs", ""),
            NONE
        );
    }
}
