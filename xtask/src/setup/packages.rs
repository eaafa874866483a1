//! Installs the programs that tests run against, and the compilers of their fixtures.

use std::{fs, path::Path};

use anyhow::Result;

use crate::{setup::apt, workspace};

/// The list of packages, one on each line. `#` begins a comment.
const LIST: &str = "tests/packages.txt";

/// Installs what `tests/packages.txt` lists. Returns a line that says what there is.
pub fn ensure() -> Result<String> {
    let list = fs::read_to_string(workspace::root().join(LIST)).unwrap_or_default();
    let wanted = parse(&list);
    let missing = apt::missing(&wanted);
    if missing.is_empty() {
        return Ok(format!("{} packages for tests", wanted.len()));
    }
    apt::install(&missing)?;
    if Path::new("/run/systemd/system").exists() {
        println!(
            "setup: no service was started, but systemd will start new ones at the next boot; to \
             keep them off: systemctl disable redis-server prometheus-node-exporter nginx"
        );
    }
    Ok(format!("{} packages installed", missing.len()))
}

fn parse(list: &str) -> Vec<&str> {
    list.lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim())
        .filter(|name| !name.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_blank_lines_are_no_packages() {
        assert_eq!(parse("# for tests\ng++\n\n gcc # C\n"), ["g++", "gcc"]);
    }
}
