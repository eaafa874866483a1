//! Files of a target are opened in `profiler/src/target/file.rs` and nowhere else.

use super::{Finding, architecture::mentions, source::Source};

/// The only place that opens a file which a target may have made or named.
const OPENS: &[&str] = &["profiler/src/target/file"];
/// What reads files of ours, or the kernel's, and for that reason alone opens them itself.
const READS_OTHERS: &[&str] = &[
    // Captures and reports, whose names the user gives.
    "profiler/src/capture",
    "profiler/src/cli/output",
    "profiler/src/private_file",
    // The kernel's own: BTF, tracefs, what it tells of us.
    "profiler/src/attach",
];
/// What opens, reads or maps a file by its name, or leads to one.
const WORDS: &[&str] = &[
    "File::open",
    "File::options",
    "OpenOptions",
    "fs::read",
    "fs::read_dir",
    "fs::read_link",
    "fs::read_to_string",
    "fs::metadata",
    "symlink_metadata(",
    "fs::canonicalize",
    "fs::open",
    "openat",
    "openat2",
    "memmap2",
    "mmap(",
    "map_exec(",
];
/// What writes to standard error past the one that does, and waits for whoever reads.
const STANDARD_ERROR: &[&str] = &["io::stderr", "eprintln!", "eprint!", "dbg!"];
/// The one, and what tells those who run unit tests.
const SAYS: &[&str] = &["profiler/src/cli/messages", "profiler/src/machine"];
/// blazesym opens, maps and follows what it is given.
const SYMBOLIZER: &[&str] = &["blazesym::"];
const ASKS_SYMBOLIZER: &[&str] = &["profiler/src/symbolize/look_up"];

/// Invariant "files of targets are opened in one way".
pub fn files_of_targets_are_opened_in_one_way(source: &Source) -> Vec<Finding> {
    if !source.is_in(&["profiler/src"]) || source.is_in(OPENS) || source.is_in(READS_OTHERS) {
        return Vec::new();
    }
    let mut found = mentions(source, WORDS, |word| {
        format!(
            "`{word}` outside of target/file.rs: open what a target may name by `Root::open` or \
             `TargetFile::behind`, which neither wait nor lead outside, and read it by `TargetFile::data`"
        )
    });
    if !source.is_in(ASKS_SYMBOLIZER) {
        found.extend(mentions(source, SYMBOLIZER, |word| {
            format!("`{word}` opens files by their names: hand it a copy in symbolize/look_up.rs")
        }));
    }
    found
}

/// Whoever does not read what residue says holds nothing up.
pub fn messages_alone_writes_to_standard_error(source: &Source) -> Vec<Finding> {
    if !source.is_in(&["profiler/src"]) || source.is_in(SAYS) {
        return Vec::new();
    }
    mentions(source, STANDARD_ERROR, |word| {
        format!("`{word}` waits for whoever reads: say it by `cli::messages`")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: [usize; 0] = [];

    fn lines(path: &str, text: &str) -> Vec<usize> {
        let found = files_of_targets_are_opened_in_one_way(&Source::new(path, text));
        found.iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn a_file_that_is_opened_elsewhere_is_found() {
        let text = "let a = File::open(path);\nlet b = std::fs::read(path);\nlet c = OpenOptions::new();\n";
        assert_eq!(lines("profiler/src/session/python.rs", text), [1, 2, 3]);
        assert_eq!(lines("profiler/src/target/process.rs", text), [1, 2, 3]);
        assert_eq!(lines("profiler/src/target/file.rs", text), NONE);
        assert_eq!(lines("profiler/src/target/file/root.rs", text), NONE);
        assert_eq!(lines("profiler/src/capture/file.rs", text), NONE);
        assert_eq!(lines("tests/src/recorder.rs", text), NONE);
    }

    #[test]
    fn a_symbolizer_that_is_asked_elsewhere_is_found() {
        let text = "use blazesym::symbolize::Symbolizer;\n";
        assert_eq!(lines("profiler/src/session/frames.rs", text), [1]);
        assert_eq!(lines("profiler/src/symbolize/look_up.rs", text), NONE);
    }

    #[test]
    fn what_is_said_past_messages_is_found() {
        let text = "writeln!(io::stderr().lock(), \"x\");\neprintln!(\"x\");\n";
        let lines = |path| {
            let found = messages_alone_writes_to_standard_error(&Source::new(path, text));
            found.iter().map(|it| it.line).collect::<Vec<_>>()
        };
        assert_eq!(lines("profiler/src/cli/watch.rs"), [1, 2]);
        assert_eq!(lines("profiler/src/cli/messages.rs"), NONE);
        assert_eq!(lines("xtask/src/main.rs"), NONE);
    }

    #[test]
    fn prose_and_tests_may_open_files() {
        let text = "//! As `File::open` does.\n#[cfg(test)]\nmod tests {\n    fn a() { fs::read(x); }\n}\n";
        assert_eq!(lines("profiler/src/target/elf.rs", text), NONE);
    }
}
