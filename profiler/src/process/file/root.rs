//! A process's root: the directory that it takes for `/`.

use std::{
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{
        AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxFlags, fstat, makedev, openat, openat2,
        readlinkat, statx,
    },
    io::Errno,
};

use super::{TargetFile, owner::Owner};
use crate::process::{FileKey, Pid};

/// How often residue follows a name again when somebody has renamed something meanwhile: the kernel then cannot
/// tell whether the name has stayed inside (openat2(2), `EAGAIN`).
const TRIES: u32 = 16;

/// The identity of a root, which holds as long as residue holds the root open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RootId {
    device: u64,
    inode: u64,
    mount: u64,
}

impl RootId {
    fn of(directory: &OwnedFd) -> io::Result<Self> {
        let wanted = StatxFlags::INO | StatxFlags::MNT_ID;
        let found = statx(directory, "", AtFlags::EMPTY_PATH, wanted)?;
        Ok(Self {
            device: makedev(found.stx_dev_major, found.stx_dev_minor),
            inode: found.stx_ino,
            mount: found.stx_mnt_id,
        })
    }
}

/// A root directory, held open: residue can reach it when the process is gone.
#[derive(Debug)]
pub struct Root {
    directory: OwnedFd,
    id: RootId,
    /// Where the directory is in residue's own root, if it is below that: the kernel names the process's files
    /// that way.
    place: PathBuf,
    /// The owner for whom residue opens files here, if not for itself.
    owner: Option<Owner>,
}

impl Root {
    /// The root of a process.
    ///
    /// # Errors
    ///
    /// When the process is gone, or residue may not look into it.
    pub fn of(pid: Pid) -> io::Result<Self> {
        let link = Path::new("/proc").join(pid.to_string()).join("root");
        Ok(Self {
            place: std::fs::read_link(&link)?,
            owner: Some(Owner::of(pid)?),
            ..Self::at(&link)?
        })
    }

    /// Residue's own root.
    ///
    /// # Errors
    ///
    /// When residue has no descriptor left.
    pub fn host() -> io::Result<Self> {
        Self::at(Path::new("/"))
    }

    /// A directory as a root.
    ///
    /// # Errors
    ///
    /// When there is no such directory.
    pub fn at(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat(CWD, path, flags, Mode::empty())?;
        Ok(Self {
            id: RootId::of(&directory)?,
            directory,
            place: PathBuf::from("/"),
            owner: None,
        })
    }

    /// Opens the regular file that `path` leads to for a process with this root: absolute links and `..` stay
    /// inside, and residue does not follow links that only the kernel makes (`/proc/PID/fd/N`). Residue opens no
    /// file that the process may not read.
    ///
    /// # Errors
    ///
    /// When there is no such file, it is no regular file, or the process may not read it.
    pub fn open(&self, path: &Path) -> io::Result<TargetFile> {
        let open = || TargetFile::at(&self.find(path)?);
        match &self.owner {
            Some(owner) => owner.act(open),
            None => open(),
        }
    }

    /// Whether residue can open nothing here, because the kernel does not let it act for the process: residue
    /// has neither `CAP_SETUID` nor `CAP_SETGID`.
    #[must_use]
    pub fn is_barred(&self) -> bool {
        self.owner
            .as_ref()
            .is_some_and(|owner| !owner.can_be_acted_for())
    }

    /// The identity of the root, with its mount namespace: a process with another root may have other files by
    /// the same names.
    #[must_use]
    pub fn id(&self) -> RootId {
        self.id
    }

    /// What the symbolic link at `path` says. Does not follow the link.
    ///
    /// # Errors
    ///
    /// When there is no symbolic link, or what it says is not UTF-8.
    pub fn read_link(&self, path: &Path) -> io::Result<String> {
        let link = self.resolve(path, OFlags::NOFOLLOW)?;
        let said = readlinkat(&link, "", Vec::new())?;
        said.into_string().map_err(io::Error::other)
    }

    /// The name inside the root of a file that has this name outside.
    #[must_use]
    pub fn inside<'a>(&self, path: &'a Path) -> &'a Path {
        path.strip_prefix(&self.place).unwrap_or(path)
    }

    /// Opens a file that the process has mapped, by the name that the kernel states, if the file has this inode;
    /// else opens nothing. The device may differ: some file systems state it differently.
    pub(in crate::process) fn open_if(
        &self,
        path: &Path,
        wanted: FileKey,
    ) -> io::Result<Option<TargetFile>> {
        let place = self.find(self.inside(path))?;
        let found = fstat(&place)?;
        match found.st_ino == wanted.inode {
            true => TargetFile::at(&place).map(Some),
            false => Ok(None),
        }
    }

    fn find(&self, path: &Path) -> io::Result<OwnedFd> {
        self.resolve(path, OFlags::empty())
    }

    fn resolve(&self, path: &Path, more: OFlags) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::CLOEXEC | more;
        let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let open = || openat2(&self.directory, path, flags, Mode::empty(), inside);
        let mut tries = (0..TRIES).map(|_| open());
        let found = tries.find(|opened| !matches!(opened, Err(Errno::AGAIN | Errno::INTR)));
        Ok(found.unwrap_or(Err(Errno::AGAIN))?)
    }
}

/// The path by which the kernel shows the file of one mapping, whatever its name is by now.
pub(in crate::process) fn map_file(pid: Pid, start: u64, end: u64) -> PathBuf {
    let directory = Path::new("/proc").join(pid.to_string()).join("map_files");
    directory.join(format!("{start:x}-{end:x}"))
}
