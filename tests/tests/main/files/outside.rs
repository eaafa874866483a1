//! A container's root, and what lies beside it.

use std::{
    fs,
    os::unix::{
        fs::{PermissionsExt as _, symlink},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use object::{Object as _, ObjectSection as _};
use residue_tests::{fixtures::Fixture, machine, target::Target};
use tempfile::TempDir;

use super::{assert_counted, copy_of, directory, names, record_one_call, run, split};

/// Debian's uid and gid of nobody.
const NOBODY: u32 = 65_534;

/// A root directory with the fixture and the libraries that it needs. Beside it lies what only root may read.
struct Container {
    directory: TempDir,
}

impl Container {
    fn new() -> Result<Self> {
        let directory = directory()?;
        for inside in ["root/srv", "root/lib64", "root/proc", "secret"] {
            fs::create_dir_all(directory.path().join(inside))?;
        }
        let container = Self { directory };
        let program = copy_of(Fixture::Named, &container.root().join("srv"), "named")?;
        for library in libraries(&program)? {
            let inside = container.root().join(library.strip_prefix("/")?);
            fs::create_dir_all(inside.parent().context("it is in a directory")?)?;
            machine::copy_program(&library, &inside)?;
        }
        Ok(container)
    }

    fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    fn program(&self) -> PathBuf {
        self.root().join("srv/named")
    }

    /// Splits the program, and puts its debug file where it is none of the container's business.
    fn hide_debug_file(&self) -> Result<PathBuf> {
        let debug = split(&self.program())?;
        let secret = self.directory.path().join("secret/named.debug");
        fs::rename(debug, &secret)?;
        Ok(secret)
    }

    fn start(&self) -> Result<Target> {
        let target = Target::spawn(Command::new("chroot").arg(self.root()).arg("/srv/named"))?;
        target.await_line("ready")?;
        Ok(target)
    }
}

/// What the dynamic linker says that a program needs.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).output()?;
    let said = String::from_utf8(output.stdout)?;
    let words = said.split_whitespace();
    Ok(words
        .filter(|it| it.starts_with('/'))
        .map(PathBuf::from)
        .collect())
}

/// Where the debug file of a build lies: `.build-id/xx/yyyy.debug`.
fn build_id_path(program: &Path) -> Result<PathBuf> {
    let whole = fs::read(program)?;
    let elf = object::File::parse(&*whole)?;
    let id = elf.build_id()?.context("it has a build id")?;
    let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    let (first, rest) = hex.split_at(2);
    let directory = Path::new("usr/lib/debug/.build-id").join(first);
    Ok(directory.join(format!("{rest}.debug")))
}

#[test]
fn a_debug_file_in_a_container_names_its_functions() -> Result<()> {
    let _turn = machine::beside_others();
    let container = Container::new()?;
    let debug = container.hide_debug_file()?;
    let inside = container.root().join(build_id_path(&container.program())?);
    fs::create_dir_all(inside.parent().context("it is in a directory")?)?;
    fs::rename(debug, container.root().join("srv/anything"))?;
    // Absolute as the container sees it.
    symlink("/srv/anything", inside)?;
    let mut target = container.start()?;
    let report = record_one_call(&mut target, "0 in_program")?.report()?;
    assert_counted(&report, 1);
    assert!(names(&report, "in_program"), "{:?}", report.stacks);
    Ok(())
}

#[test]
fn a_fifo_for_a_build_id_does_not_hang_a_recording() -> Result<()> {
    let _turn = machine::beside_others();
    let container = Container::new()?;
    container.hide_debug_file()?;
    let inside = container.root().join(build_id_path(&container.program())?);
    fs::create_dir_all(inside.parent().context("it is in a directory")?)?;
    rustix::fs::mkfifoat(rustix::fs::CWD, inside, rustix::fs::Mode::RWXU)?;
    let mut target = container.start()?;
    let report = record_one_call(&mut target, "0 in_program")?.report()?;
    assert_counted(&report, 1);
    Ok(())
}

#[test]
fn an_absolute_link_does_not_lead_out_of_a_container() -> Result<()> {
    let _turn = machine::beside_others();
    let container = Container::new()?;
    let secret = container.hide_debug_file()?;
    let inside = container.root().join(build_id_path(&container.program())?);
    fs::create_dir_all(inside.parent().context("it is in a directory")?)?;
    symlink(&secret, inside)?;
    symlink(&secret, container.root().join("srv/named.debug"))?;
    let mut target = container.start()?;
    let report = record_one_call(&mut target, "0 in_program")?.report()?;
    assert_counted(&report, 1);
    assert!(!names(&report, "in_program"), "the name is from outside");
    Ok(())
}

#[test]
fn a_debug_link_does_not_lead_out_of_a_container() -> Result<()> {
    let _turn = machine::beside_others();
    let container = Container::new()?;
    container.hide_debug_file()?;
    lead_to(&container.program(), "../../secret/named.debug")?;
    let mut target = container.start()?;
    let report = record_one_call(&mut target, "0 in_program")?.report()?;
    assert_counted(&report, 1);
    assert!(!names(&report, "in_program"), "the name is from outside");
    Ok(())
}

#[test]
fn a_debug_file_beside_a_program_in_a_container_names_its_functions() -> Result<()> {
    let _turn = machine::beside_others();
    let container = Container::new()?;
    split(&container.program())?;
    let mut target = container.start()?;
    let report = record_one_call(&mut target, "0 in_program")?.report()?;
    assert_counted(&report, 1);
    assert!(names(&report, "in_program"), "{:?}", report.stacks);
    Ok(())
}

/// No container: the target's root is ours, but it may not read everything.
#[test]
fn what_a_target_may_not_read_is_not_read_for_it() -> Result<()> {
    let _turn = machine::beside_others();
    let container = Container::new()?;
    let secret = container.hide_debug_file()?;
    for (path, mode) in [(container.directory.path(), 0o755), (&*secret, 0o600)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    }
    symlink(&secret, container.root().join("srv/named.debug"))?;
    let mut nobody = Command::new(container.program());
    let mut target = Target::spawn(nobody.uid(NOBODY).gid(NOBODY))?;
    target.await_line("ready")?;
    let report = record_one_call(&mut target, "0 in_program")?.report()?;
    assert_counted(&report, 1);
    assert!(!names(&report, "in_program"), "the name is only root's");
    Ok(())
}

/// Has a program's debug link name this file, with the checksum as it was.
fn lead_to(program: &Path, name: &str) -> Result<()> {
    let whole = fs::read(program)?;
    let elf = object::File::parse(&*whole)?;
    let link = elf
        .section_by_name(".gnu_debuglink")
        .context("it has a link")?;
    let checksum = *link
        .data()?
        .last_chunk::<4>()
        .context("it has a checksum")?;
    let mut link = name.as_bytes().to_vec();
    link.resize((name.len() + 1).next_multiple_of(4), 0);
    link.extend_from_slice(&checksum);
    let section = program.with_extension("link");
    fs::write(&section, link)?;
    let update = format!("--update-section=.gnu_debuglink={}", section.display());
    run(Command::new("objcopy").arg(update).arg(program))
}
