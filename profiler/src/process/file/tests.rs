//! Files that a target may have.

use std::{
    error::Error,
    fs, io,
    os::unix::{fs::symlink, net::UnixListener},
    path::Path,
};

use object::read::ReadRef as _;
use rustix::fs::{CWD, Mode, mkfifoat};

use super::*;

type Outcome = Result<(), Box<dyn Error>>;

/// A directory that is a root, one beside it that is not, and a file in each.
fn roots() -> io::Result<(tempfile::TempDir, Root)> {
    let both = tempfile::tempdir()?;
    fs::create_dir_all(both.path().join("root/lib"))?;
    fs::create_dir(both.path().join("outside"))?;
    fs::write(both.path().join("root/lib/libx.so"), "inside")?;
    fs::write(both.path().join("outside/libx.so"), "outside")?;
    let root = Root::at(&both.path().join("root"))?;
    Ok((both, root))
}

fn text(file: io::Result<TargetFile>) -> io::Result<String> {
    let whole = file?.read_whole(100)?;
    String::from_utf8(whole).map_err(io::Error::other)
}

#[test]
fn names_lead_to_what_the_root_has() -> Outcome {
    let (both, root) = roots()?;
    let inside = both.path().join("root");
    symlink("/lib", inside.join("usr"))?;
    symlink("../../../../../../lib/libx.so", inside.join("up.so"))?;
    for name in [
        "/lib/libx.so",
        "lib/libx.so",
        "/usr/libx.so",
        "/up.so",
        "/../lib/libx.so",
    ] {
        assert_eq!(text(root.open(Path::new(name)))?, "inside", "{name}");
    }
    Ok(())
}

#[test]
fn no_name_leads_out_of_the_root() -> Outcome {
    let (both, root) = roots()?;
    let (inside, outside) = (both.path().join("root"), both.path().join("outside"));
    symlink(outside.join("libx.so"), inside.join("absolute.so"))?;
    symlink("../outside/libx.so", inside.join("relative.so"))?;
    symlink(&outside, inside.join("directory"))?;
    let itself = TargetFile::behind(&outside.join("libx.so"))?;
    symlink(itself.path(), inside.join("descriptor.so"))?;
    let names = [
        "/absolute.so",
        "/relative.so",
        "/directory/libx.so",
        "/descriptor.so",
        "/../outside/libx.so",
        "../outside/libx.so",
    ];
    for name in names {
        assert!(root.open(Path::new(name)).is_err(), "{name}");
    }
    Ok(())
}

/// If residue opened a FIFO without a writer, it would wait.
#[test]
fn only_regular_files_are_opened() -> Outcome {
    let (both, root) = roots()?;
    let inside = both.path().join("root");
    mkfifoat(CWD, inside.join("fifo"), Mode::RWXU)?;
    let _socket = UnixListener::bind(inside.join("socket"))?;
    symlink("/fifo", inside.join("link"))?;
    for name in ["/fifo", "/socket", "/lib", "/link", "/"] {
        assert!(root.open(Path::new(name)).is_err(), "{name}");
    }
    for device in ["/dev/null", "/dev/zero", "/proc/self/root"] {
        assert!(TargetFile::behind(Path::new(device)).is_err(), "{device}");
    }
    Ok(())
}

#[test]
fn a_file_that_is_cut_off_is_an_error_and_not_the_end() -> Outcome {
    let (both, root) = roots()?;
    let path = both.path().join("root/lib/long.so");
    fs::write(&path, vec![1; 1 << 20])?;
    let file = root.open(Path::new("/lib/long.so"))?;
    let data = file.data();
    assert!((&data).read_bytes_at(0, 1 << 16).is_ok());
    File::options().write(true).open(&path)?.set_len(1 << 16)?;
    assert!(!file.is_as_opened());
    assert!((&data).read_bytes_at(1 << 17, 1 << 16).is_err());
    assert!(file.read_whole(1 << 30).is_err());
    Ok(())
}

/// A sparse file of a terabyte takes no room on a disk, and must take none in memory.
#[test]
fn a_file_without_end_is_read_up_to_a_bound() -> Outcome {
    let (both, root) = roots()?;
    let path = both.path().join("root/lib/endless.so");
    File::create(&path)?.set_len(1 << 40)?;
    let file = root.open(Path::new("/lib/endless.so"))?;
    assert!(file.read_whole(1 << 30).is_err());
    let data = file.data();
    assert!((&data).read_bytes_at(0, 1 << 39).is_err());
    let parts = (0..100_u64).map(|part| (&data).read_bytes_at(part << 24, 1 << 24));
    assert_eq!(parts.filter(Result::is_ok).count(), 32, "half a GiB");
    Ok(())
}

/// Somebody who overwrites a file may also set when it was written.
#[test]
fn a_file_that_was_written_over_is_not_as_it_was_whatever_its_time_says() -> Outcome {
    let (both, root) = roots()?;
    let path = both.path().join("root/lib/libx.so");
    let file = root.open(Path::new("/lib/libx.so"))?;
    let before = fs::metadata(&path)?.modified()?;
    // The clock of files goes in steps of some milliseconds.
    std::thread::sleep(std::time::Duration::from_millis(20));
    fs::write(&path, "INSIDE")?;
    File::options()
        .write(true)
        .open(&path)?
        .set_modified(before)?;
    assert!(!file.is_as_opened());
    Ok(())
}

#[test]
fn roots_are_told_apart() -> Outcome {
    let (both, root) = roots()?;
    let same = Root::at(&both.path().join("root/../root"))?;
    assert_eq!(root.id(), same.id());
    assert_ne!(root.id(), Root::at(&both.path().join("outside"))?.id());
    Ok(())
}

#[test]
fn several_files_are_read_up_to_a_bound() -> Outcome {
    let (_both, root) = roots()?;
    let file = root.open(Path::new("/lib/libx.so"))?;
    let budget = ReadBudget::new(10);
    let read = || (&file.data_within(&budget)).read_bytes_at(0, 6).is_ok();
    assert_eq!([read(), read()], [true, false]);
    assert!((&file.data()).read_bytes_at(0, 6).is_ok());
    Ok(())
}
