//! The whole file system of the guest: residue, the tests, their targets, the libraries of all of
//! them, and a shell and busybox to start them with.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};

use crate::{command, workspace};

/// The script that the guest runs first. The script says where it looks for things.
const INIT: &str = include_str!("init.sh");

/// Programs that the guest gets from the host as they are. The shell is also the target of a test.
/// Busybox cannot be that target, because it is static and has no symbols.
const TOOLS: [&str; 2] = ["/bin/busybox", "/bin/sh"];

/// The directories on which `init` mounts what the kernel provides.
const MOUNT_POINTS: [&str; 4] = ["dev", "proc", "sys", "tmp"];

/// The programs that the guest needs.
pub struct Programs {
    pub residue: PathBuf,
    /// The test binary of the package `residue-tests`.
    pub tests: PathBuf,
    pub fixtures: Vec<PathBuf>,
}

/// Writes the archive, and returns its path.
pub fn write(programs: &Programs) -> Result<PathBuf> {
    let vm = workspace::target_dir().join("vm");
    let root = vm.join("root");
    // Removing fails only if the directory is not there.
    drop(fs::remove_dir_all(&root));
    fill(&root, programs).with_context(|| format!("failed to fill {}", root.display()))?;
    let archive = vm.join("initramfs.cpio");
    let script = "find . | busybox cpio -o -H newc -R 0:0";
    command::run(
        command::new("sh", &["-ec", script])
            .current_dir(&root)
            .stdout(File::create(&archive).context("failed to create the archive")?)
            .stderr(Stdio::null()),
    )?;
    Ok(archive)
}

fn fill(root: &Path, programs: &Programs) -> Result<()> {
    let Programs {
        residue,
        tests,
        fixtures,
    } = programs;
    let mut libraries = BTreeSet::new();
    let mut put = |from: &Path, to: &Path| {
        libraries.extend(libraries_of(from));
        copy(from, &inside(root, to))
    };
    for tool in TOOLS.map(Path::new) {
        put(tool, tool)?;
    }
    put(residue, Path::new("/residue"))?;
    put(tests, Path::new("/tests"))?;
    for fixture in fixtures {
        let name = fixture.file_name().context("a fixture is a file")?;
        put(fixture, &Path::new("/fixtures").join(name))?;
    }
    for library in libraries {
        copy(&library, &inside(root, &library))?;
    }
    for directory in MOUNT_POINTS {
        fs::create_dir(root.join(directory))?;
    }
    let init = root.join("init");
    fs::write(&init, INIT)?;
    command::run(command::new("chmod", &["755"]).arg(init))
}

/// Returns the path that `path` has on the host if `root` is `/` in the guest.
fn inside(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let directory = to.parent().context("a file is in a directory")?;
    fs::create_dir_all(directory)?;
    fs::copy(from, to).with_context(|| format!("failed to copy {}", from.display()))?;
    Ok(())
}

/// Lists the shared libraries and the loader of a program, as the loader itself finds them. A
/// static program has none.
fn libraries_of(program: &Path) -> Vec<PathBuf> {
    let listed = Command::new("ldd").arg(program).output();
    let listed = listed.map_or_else(|_| Vec::new(), |output| output.stdout);
    parse(&String::from_utf8_lossy(&listed))
}

/// Reads lines such as `libc.so.6 => /lib/libc.so.6 (0x…)`, or `/lib64/ld-linux-x86-64.so.2 (0x…)`
/// for the loader.
fn parse(listed: &str) -> Vec<PathBuf> {
    let paths = listed
        .lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    paths.map(PathBuf::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_the_loader_are_files_and_the_vdso_is_none() {
        let listed =
            "\tlinux-vdso.so.1 (0x1)\n\tlibc.so.6 => /lib/libc.so.6 (0x2)\n\t/lib64/ld.so (0x3)\n";
        assert_eq!(
            parse(listed),
            [Path::new("/lib/libc.so.6"), Path::new("/lib64/ld.so")]
        );
        assert!(parse("\tstatically linked\n").is_empty());
    }
}
