//! Fetches kernels of Debian for a virtual machine.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, Result, ensure};

use crate::{command, workspace};

/// Returns the newest kernel of a series such as `6.1`. The kernel is the one for machines in
/// clouds, because the drivers that it needs are built in. A kernel that is already under
/// `target/vm` is used again.
pub fn of_series(series: &str) -> Result<PathBuf> {
    let directory = workspace::target_dir().join("vm").join(series);
    if let Some(kernel) = unpacked(&directory) {
        return Ok(kernel);
    }
    fs::create_dir_all(&directory).context("failed to make a directory under target")?;
    let package = newest_package(series)?;
    println!("    downloading {package}");
    command::run(
        command::new("apt-get", &["-qq", "download", &package])
            .current_dir(&directory)
            .stderr(Stdio::null()),
    )
    .context("is the list of packages old? Run `apt-get update` as root")?;
    unpack(&directory)?;
    unpacked(&directory).with_context(|| format!("there is no kernel in {package}"))
}

fn unpacked(directory: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(directory.join("boot")).ok()?;
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("vmlinuz-")
        })
}

/// Unpacks only `boot/`: the modules are large, and the guest does not need them.
fn unpack(directory: &Path) -> Result<()> {
    let script =
        "for deb in *.deb; do dpkg-deb --fsys-tarfile \"$deb\" | tar -x ./boot; rm \"$deb\"; done";
    command::run(command::new("sh", &["-ec", script]).current_dir(directory))
}

fn newest_package(series: &str) -> Result<String> {
    let pattern = format!(
        r"^linux-image-{}\.[^ ]*-cloud-amd64$",
        series.replace('.', r"\.")
    );
    let found = command::output(&mut command::new(
        "apt-cache",
        &["search", "--names-only", &pattern],
    ))?;
    let found = String::from_utf8(found).context("a package's name is not UTF-8")?;
    let names = found.lines().filter_map(|line| line.split(' ').next());
    let newest = names.max_by_key(|name| numbers(name)).map(str::to_owned);
    ensure!(
        newest.is_some(),
        "apt knows no {pattern}: Linux 6.1 and 6.12 are both in Debian 12 (deb http://deb.debian.org/\
         debian-security bookworm-security main)"
    );
    newest.context("checked above")
}

/// Lists the numbers in a name. Comparing these tells that 6.1.0-9 is older than 6.1.0-10.
fn numbers(name: &str) -> Vec<u32> {
    name.split(|c: char| !c.is_ascii_digit())
        .filter_map(|number| number.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(numbers("linux-image-6.1.0-9-cloud") < numbers("linux-image-6.1.0-10-cloud"));
        assert!(numbers("6.12.99+deb12-cloud") < numbers("6.12.117+deb12-cloud"));
    }
}
