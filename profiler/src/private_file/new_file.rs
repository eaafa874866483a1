//! A file that has no name before it is complete.

use std::{
    fs::{File, Permissions},
    io::{self, Seek as _, Write},
    os::{fd::AsRawFd as _, unix::fs::PermissionsExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, CWD, linkat};
use tempfile::{Builder, NamedTempFile, tempfile_in};

use super::{Given, MODE, give_to_sudo_user};

/// The prefix of the name that the file has for the moment before it takes its own.
const PREFIX: &str = ".residue-";

/// A new file, whatever its name led to before. However residue ends before the file is complete, nothing of the
/// file remains.
#[derive(Debug)]
pub struct NewFile {
    file: File,
    path: PathBuf,
    given: Given,
}

impl NewFile {
    /// Makes the file, without a name, on the file system where it is to be.
    ///
    /// # Errors
    ///
    /// When residue can make no file there.
    pub fn at(path: &Path) -> io::Result<Self> {
        let file = tempfile_in(directory(path))?;
        file.set_permissions(Permissions::from_mode(MODE))?;
        let given = give_to_sudo_user(&file)?;
        Ok(Self {
            given,
            file,
            path: path.to_owned(),
        })
    }

    /// Whether the file belongs to the user who called sudo, if somebody did.
    #[must_use]
    pub fn given(&self) -> Given {
        self.given
    }

    /// Gives the file its name. Replaces a file or a link of that name, and does not write to it.
    ///
    /// # Errors
    ///
    /// When the file cannot take the name.
    pub fn complete(mut self) -> io::Result<()> {
        let named = match self.linked() {
            Ok(named) => named,
            // On some file systems a file without a name cannot get one later.
            Err(_) => self.copied()?,
        };
        named.persist(&self.path).map_err(|error| error.error)
    }

    fn linked(&self) -> io::Result<NamedTempFile<()>> {
        let ours = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        let link = |name: &Path| Ok(linkat(CWD, &ours, CWD, name, AtFlags::SYMLINK_FOLLOW)?);
        let directory = directory(&self.path);
        Builder::new().prefix(PREFIX).make_in(directory, link)
    }

    fn copied(&mut self) -> io::Result<NamedTempFile<()>> {
        let mut named = Builder::new()
            .prefix(PREFIX)
            .tempfile_in(directory(&self.path))?;
        give_to_sudo_user(named.as_file())?;
        self.file.rewind()?;
        io::copy(&mut self.file, named.as_file_mut())?;
        let (_, path) = named.into_parts();
        Ok(NamedTempFile::from_parts((), path))
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    type TestResult = Result<(), Box<dyn std::error::Error>>;

    fn names(directory: &Path) -> io::Result<Vec<String>> {
        let entries = fs::read_dir(directory)?.filter_map(Result::ok);
        let mut names: Vec<_> = entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        Ok(names)
    }

    #[test]
    fn it_takes_the_place_of_a_link_and_not_of_what_that_leads_to() -> TestResult {
        let directory = tempfile::tempdir()?;
        let [victim, link] = ["victim", "link"].map(|name| directory.path().join(name));
        fs::write(&victim, "precious")?;
        symlink(&victim, &link)?;
        let mut file = NewFile::at(&link)?;
        file.write_all(b"report")?;
        file.complete()?;
        assert_eq!(fs::read(&victim)?, b"precious");
        assert_eq!(fs::read(&link)?, b"report");
        assert!(fs::symlink_metadata(&link)?.is_file());
        assert_eq!(names(directory.path())?, ["link", "victim"]);
        Ok(())
    }

    #[test]
    fn nobody_else_may_read_it_though_everybody_could_the_one_before() -> TestResult {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("report");
        fs::write(&path, "old")?;
        fs::set_permissions(&path, Permissions::from_mode(0o666))?;
        NewFile::at(&path)?.complete()?;
        assert_eq!(fs::metadata(&path)?.permissions().mode() & 0o777, MODE);
        Ok(())
    }

    #[test]
    fn one_that_is_not_completed_leaves_nothing() -> TestResult {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("report");
        let mut file = NewFile::at(&path)?;
        file.write_all(b"half a rep")?;
        assert_eq!(names(directory.path())?, Vec::<String>::new());
        drop(file);
        fs::create_dir(&path)?;
        assert!(NewFile::at(&path)?.complete().is_err());
        assert_eq!(names(directory.path())?, ["report"]);
        Ok(())
    }

    #[test]
    fn what_cannot_be_linked_is_copied() -> TestResult {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("report");
        let mut file = NewFile::at(&path)?;
        file.write_all(b"report")?;
        file.copied()?.persist(&path)?;
        assert_eq!(fs::read(&path)?, b"report");
        assert_eq!(fs::metadata(&path)?.permissions().mode() & 0o777, MODE);
        assert_eq!(names(directory.path())?, ["report"]);
        Ok(())
    }
}
