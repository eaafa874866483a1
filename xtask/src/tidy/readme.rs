//! Checks that the commands exist which README.md shows.

use clap::CommandFactory as _;

use super::{Finding, source::Source};
use crate::Cli;

/// Checks that every `cargo xtask X` and `residue X` in a fenced block of README.md is a command.
pub fn commands_exist(sources: &[Source]) -> Vec<Finding> {
    let Some(readme) = sources.iter().find(|source| source.path == "README.md") else {
        return vec![Finding::new(1, "there is no README.md")];
    };
    let is_command = |word: &str| {
        let path = format!("profiler/src/cli/{word}.rs");
        word == "help" || sources.iter().any(|source| source.path == path)
    };
    unknown(readme, is_command, |word| {
        Cli::command().find_subcommand(word).is_some()
    })
}

fn unknown(
    readme: &Source,
    is_command: impl Fn(&str) -> bool,
    is_task: impl Fn(&str) -> bool,
) -> Vec<Finding> {
    let mut fenced = false;
    let mut found = Vec::new();
    for (number, line) in readme.lines() {
        if line.starts_with("```") {
            fenced = !fenced;
        } else if fenced {
            let missing =
                |word: &str, what| Finding::new(number, format!("there is no {what} `{word}`"));
            let task = word_after(line, "cargo xtask ").filter(|word| !is_task(word));
            let command = word_after(line, "residue ").filter(|word| !is_command(word));
            found.extend(task.map(|word| missing(word, "task")));
            found.extend(command.map(|word| missing(word, "command")));
        }
    }
    found
}

/// Returns the word that follows the name of a program, if the line runs the program.
fn word_after<'a>(line: &'a str, program: &str) -> Option<&'a str> {
    let line = line.trim_start_matches("$ ").trim_start_matches("sudo ");
    let (path, rest) = line.split_once(program)?;
    let runs = path.is_empty() || (path.ends_with('/') && !path.contains(' '));
    let word = rest.split_whitespace().next()?;
    (runs && word.chars().all(|c| c.is_ascii_lowercase() || c == '-') && !word.starts_with('-'))
        .then_some(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: [usize; 0] = [];

    fn lines(text: &str) -> Vec<usize> {
        let readme = Source::new("README.md", text);
        let found = unknown(&readme, |word| word == "record", |word| word == "demo");
        found.iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn a_command_that_does_not_exist_is_found() {
        let text = "```sh\ncargo xtask demo\ncargo xtask dance\nsudo residue record -p 1\n./target/release/residue watch\n```\n";
        assert_eq!(lines(text), [3, 5]);
    }

    #[test]
    fn prose_and_output_are_no_commands() {
        assert_eq!(
            lines("residue grows\n```text\nwhat residue found\nresidue --version\n```\n"),
            NONE
        );
    }
}
