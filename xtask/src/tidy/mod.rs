//! `cargo xtask tidy`: checks the house rules that a program can check.
//!
//! Each rule is a pure function from one file to its findings, and one entry in [`RULES`].

use std::{fmt, fs, path::PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::{command, workspace};

mod architecture;
mod files;
mod imports;
mod readme;
mod rooms;
mod source;
mod text;

use source::Source;

/// Something that a rule does not allow.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    /// The line, counted from 1. Line 1 also stands for the file as a whole.
    line: usize,
    /// What is wrong, and what to do instead.
    message: String,
}

impl Finding {
    fn new(line: usize, message: impl Into<String>) -> Self {
        Self {
            line,
            message: message.into(),
        }
    }
}

type Rule = fn(&Source) -> Vec<Finding>;

/// Every rule. A new rule needs a test that shows the rule finding something.
const RULES: &[Rule] = &[
    architecture::pure_modules_stay_pure,
    architecture::every_counter_reaches_the_profile,
    files::files_of_targets_are_opened_in_one_way,
    files::messages_alone_writes_to_standard_error,
    text::every_unsafe_has_its_safety,
    text::no_unwrap_in_the_profiler,
    text::nothing_is_left_for_later,
    text::no_paths_of_one_machine,
    text::no_trailing_whitespace,
    text::files_stay_short,
    text::no_drawers_for_odds_and_ends,
];

/// Checks every file that is in the repository, or about to be.
pub fn run() -> Result<()> {
    let sources = sources()?;
    let findings = findings(&sources);
    for finding in &findings {
        eprintln!("{finding}");
    }
    ensure!(
        findings.is_empty(),
        "{} findings against the house rules (CONTRIBUTING.md)",
        findings.len()
    );
    println!("tidy: {} files, {} rules", sources.len(), RULES.len() + 3);
    Ok(())
}

fn findings(sources: &[Source]) -> Vec<String> {
    let of_files = sources.iter().flat_map(|source| {
        let findings = RULES.iter().flat_map(move |rule| rule(source));
        findings.map(move |finding| format!("{}:{finding}", source.path))
    });
    let imports = rooms::imports_keep_to_the_table(sources).into_iter();
    let imports = imports.map(|(path, finding)| format!("{path}:{finding}"));
    let readme = readme::commands_exist(sources).into_iter();
    let readme = readme.map(|finding| format!("README.md:{finding}"));
    let page = rooms::architecture_names_what_is_there(sources).into_iter();
    let page = page.map(|finding| format!("ARCHITECTURE.md:{finding}"));
    of_files.chain(imports).chain(readme).chain(page).collect()
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.line, self.message)
    }
}

/// Reads the text files that git tracks, or would track if asked.
fn sources() -> Result<Vec<Source>> {
    let listed = command::output(&mut command::new(
        "git",
        &[
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ],
    ))?;
    let listed = String::from_utf8(listed).context("a file name is not UTF-8")?;
    let names = listed
        .split_terminator('\0')
        .filter(|name| source::is_ours(name));
    names.filter_map(|name| read(name).transpose()).collect()
}

/// Reads a file. `None` if the file was deleted but git still tracks it.
fn read(name: &str) -> Result<Option<Source>> {
    let path: PathBuf = workspace::root().join(name);
    if !path.exists() {
        return Ok(None);
    }
    let text = fs::read_to_string(&path).with_context(|| format!("failed to read {name}"))?;
    Ok(Some(Source::new(name, text)))
}
