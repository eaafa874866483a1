//! Packages of Debian and Ubuntu.

use std::process::Stdio;

use anyhow::{Context as _, Result, bail};

use crate::command;

/// Updates the lists of packages and installs packages, without starting a service. The script says
/// how.
const INSTALL: &str = include_str!("apt-install.sh");

/// Lists the packages that are not installed. The list is empty where there is no dpkg to ask.
pub fn missing<'a>(packages: &[&'a str]) -> Vec<&'a str> {
    let query = command::new("dpkg-query", &["-W", "-f=${Package} ${db:Status-Status}\n"])
        .args(packages)
        .stderr(Stdio::null())
        .output();
    let Ok(query) = query else { return Vec::new() };
    let known = String::from_utf8_lossy(&query.stdout);
    let is_installed = |name: &&&str| {
        !known
            .lines()
            .any(|line| line.strip_suffix(" installed") == Some(**name))
    };
    packages.iter().filter(is_installed).copied().collect()
}

/// Installs packages, as root or through a sudo that asks for no password.
pub fn install(packages: &[&str]) -> Result<()> {
    let by_hand = format!(
        "apt-get update && apt-get install -y {}",
        packages.join(" ")
    );
    if !command::succeeds(&mut command::new("apt-get", &["--version"])) {
        bail!(
            "there is no apt-get here: install these with your own package manager: {packages:?}"
        );
    }
    let mut command = if is_root() {
        command::new("sh", &[])
    } else if command::succeeds(&mut command::new("sudo", &["-n", "true"])) {
        command::new("sudo", &["-n", "sh"])
    } else {
        bail!("this needs root. Run: sudo sh -c '{by_hand}'");
    };
    println!("setup: apt-get install {}", packages.join(" "));
    command.args(["-ec", INSTALL, "apt-install"]).args(packages);
    command::run(command.stdout(Stdio::null()))
        .with_context(|| format!("failed to install packages. Run as root: {by_hand}"))
}

/// Whether this process may do what root may.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_that_does_not_exist_is_missing_and_dpkg_itself_is_not() {
        if command::succeeds(&mut command::new("dpkg-query", &["--version"])) {
            assert_eq!(missing(&["dpkg", "no-such-package"]), ["no-such-package"]);
        }
    }
}
