//! A file of this repository, as the rules see it.

/// The endings of files that people write. Generated files and recorded data follow their own
/// rules.
const EXTENSIONS: [&str; 13] = [
    "rs", "toml", "md", "py", "c", "cc", "h", "S", "html", "yml", "sh", "txt", "sql",
];

/// One text file.
pub struct Source {
    /// The path from the root of the repository, with `/`.
    pub path: String,
    text: String,
}

/// Whether the rules apply to a file of this name.
pub fn is_ours(path: &str) -> bool {
    let extension = path.rsplit_once('.').map_or("", |(_, extension)| extension);
    (EXTENSIONS.contains(&extension) || path == ".ci/run") && !path.starts_with("tests/data/")
}

impl Source {
    /// Makes a file with this text.
    pub fn new(path: &str, text: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            text: text.into(),
        }
    }

    /// Returns the whole text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether the file is Rust.
    pub fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Whether the file lies in one of these directories, or is the module file beside one.
    pub fn is_in(&self, modules: &[&str]) -> bool {
        modules.iter().any(|module| {
            let rest = self.path.strip_prefix(module);
            rest.is_some_and(|rest| rest.starts_with('/') || rest == ".rs")
        })
    }

    /// The lines with their numbers, counted from 1.
    pub fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, line))
    }

    /// The lines that the compiler puts into the program: without comments, and without test
    /// modules, which stand at the end of a file or in a file of their own.
    pub fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let is_tests = self.path.ends_with("/tests.rs") || self.path.contains("/tests/");
        let end = if is_tests { 0 } else { self.first_test_line() };
        self.lines()
            .take_while(move |(number, _)| *number < end)
            .map(|(number, line)| (number, without_comment(line)))
    }

    /// The number of the first line of the test module, or a number that no line has. A test module in a file of its
    /// own is only named here, before code that is no test.
    fn first_test_line(&self) -> usize {
        let lines: Vec<_> = self.text.lines().map(str::trim).collect();
        let is_for_tests = |line: &str| line == "#[cfg(test)]";
        let opens_module = |line: &str| {
            let declaration = line.strip_prefix("pub(crate) ").unwrap_or(line);
            declaration.starts_with("mod ") && declaration.ends_with('{')
        };
        let mut pairs = lines.windows(2);
        let found = pairs.position(|pair| is_for_tests(pair[0]) && opens_module(pair[1]));
        found.map_or(usize::MAX, |index| index + 1)
    }
}

/// Returns the line up to `//`, unless `//` stands in a string, as in `"https://…"`.
fn without_comment(line: &str) -> &str {
    let is_comment = |at: &usize| line[..*at].matches('"').count().is_multiple_of(2);
    let found = line.match_indices("//").map(|(at, _)| at).find(is_comment);
    found.map_or(line, |at| &line[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_has_neither_comments_nor_tests() {
        let text =
            "//! docs\nfn a() {} // why\nlet u = \"https://x\";\n#[cfg(test)]\nmod tests {\n}\n";
        let code: Vec<_> = Source::new("a.rs", text)
            .code()
            .map(|(n, l)| (n, l.to_owned()))
            .collect();
        let expected = [(1, ""), (2, "fn a() {} "), (3, "let u = \"https://x\";")];
        assert_eq!(code, expected.map(|(n, l)| (n, l.to_owned())));
    }

    #[test]
    fn what_follows_the_name_of_a_test_file_is_code() {
        let text = "mod a;\n#[cfg(test)]\nmod tests;\n\nfn b() {}\n#[cfg(test)]\nmod more {\n}\n";
        let source = Source::new("a.rs", text);
        let code: Vec<_> = source.code().filter(|it| it.1.contains("fn")).collect();
        assert_eq!(code, [(5, "fn b() {}")]);
        assert_eq!(source.code().count(), 5);
    }

    #[test]
    fn a_module_is_its_directory_and_its_file_and_no_other() {
        let is_in = |path| Source::new(path, "").is_in(&["profiler/src/heap"]);
        assert!(is_in("profiler/src/heap/mod.rs") && is_in("profiler/src/heap.rs"));
        assert!(!is_in("profiler/src/heapster.rs"));
    }

    #[test]
    fn recorded_data_and_lock_files_are_not_ours() {
        assert!(is_ours("profiler/src/main.rs") && is_ours(".ci/run"));
        assert!(!is_ours("tests/data/golden.txt") && !is_ours("Cargo.lock"));
    }
}
