//! Checks that only `profiler/src/process/file.rs` opens files of a target.

use super::{Finding, architecture::mentions, source::Source};

/// The only file that opens what a target may have made or named.
const OPENS: &[&str] = &["profiler/src/process/file"];
/// Modules that read our own files or the kernel's, and therefore open files themselves.
const READS_OTHERS: &[&str] = &[
    // Captures and reports. The user gives their names.
    "profiler/src/capture",
    "profiler/src/cli/output",
    "profiler/src/private_file",
    // Files of the kernel: BTF, tracefs, and what it tells about residue itself.
    "profiler/src/attach",
];
/// Words that open, read or map a file by its name, or that lead to such a call.
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
/// Words that write to standard error past the module that does so, and that wait for whoever reads.
const STANDARD_ERROR: &[&str] = &["io::stderr", "eprintln!", "eprint!", "dbg!"];
/// The module that writes to standard error, and the one that tells those who run unit tests.
const SAYS: &[&str] = &["profiler/src/messages", "profiler/src/machine"];
/// blazesym opens and maps the files that it is given, and follows what they name.
const SYMBOLIZER: &[&str] = &["blazesym::"];
const ASKS_SYMBOLIZER: &[&str] = &["profiler/src/symbolize/look_up"];

/// Checks the invariant "files of targets are opened in one way".
pub fn files_of_targets_are_opened_in_one_way(source: &Source) -> Vec<Finding> {
    if !source.is_in(&["profiler/src"]) || source.is_in(OPENS) || source.is_in(READS_OTHERS) {
        return Vec::new();
    }
    let mut found = mentions(source, WORDS, |word| {
        format!(
            "`{word}` outside of process/file.rs: open what a target may name by `Root::open` or \
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
        assert_eq!(lines("profiler/src/process/process.rs", text), [1, 2, 3]);
        assert_eq!(lines("profiler/src/process/file.rs", text), NONE);
        assert_eq!(lines("profiler/src/process/file/root.rs", text), NONE);
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
        assert_eq!(lines("profiler/src/messages.rs"), NONE);
        assert_eq!(lines("xtask/src/main.rs"), NONE);
    }

    #[test]
    fn prose_and_tests_may_open_files() {
        let text = "//! As `File::open` does.\n#[cfg(test)]\nmod tests {\n    fn a() { fs::read(x); }\n}\n";
        assert_eq!(lines("profiler/src/process/elf.rs", text), NONE);
    }
}
