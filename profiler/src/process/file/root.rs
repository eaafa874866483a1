//! The directory that a process takes for `/`.

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

/// How often a name is followed again when something was renamed meanwhile, in which case the kernel
/// cannot tell whether the name has stayed inside (openat2(2), `EAGAIN`).
const TRIES: u32 = 16;

/// Tells roots apart, while one of each is held open.
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

/// A root directory, held open: it stays reachable when the process is gone.
#[derive(Debug)]
pub struct Root {
    directory: OwnedFd,
    id: RootId,
    /// Where it is in our root, if it is below that: the kernel names files of the process by that.
    place: PathBuf,
    /// For whom files are opened in it, if not for ourselves.
    owner: Option<Owner>,
}

impl Root {
    /// That of a process.
    ///
    /// # Errors
    ///
    /// When the process is gone, or may not be looked into.
    pub fn of(pid: Pid) -> io::Result<Self> {
        let link = Path::new("/proc").join(pid.to_string()).join("root");
        Ok(Self {
            place: std::fs::read_link(&link)?,
            owner: Some(Owner::of(pid)?),
            ..Self::at(&link)?
        })
    }

    /// Our own.
    ///
    /// # Errors
    ///
    /// When the kernel has no descriptor left for us.
    pub fn host() -> io::Result<Self> {
        Self::at(Path::new("/"))
    }

    /// Some directory, taken for a root.
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

    /// Opens the regular file that `path` leads to for a process with this root: absolute links and `..`
    /// stay inside, and links that only the kernel makes (`/proc/PID/fd/N`) are not followed. What the process
    /// may not read is not read for it.
    ///
    /// # Errors
    ///
    /// When there is no such file, it is no regular file, or it may not be read.
    pub fn open(&self, path: &Path) -> io::Result<TargetFile> {
        let open = || TargetFile::at(&self.find(path)?);
        match &self.owner {
            Some(owner) => owner.act(open),
            None => open(),
        }
    }

    /// Whether nothing can be opened in it, because the kernel does not let us act for the process: a residue
    /// without `CAP_SETUID` or `CAP_SETGID` is only as free as that.
    #[must_use]
    pub fn is_barred(&self) -> bool {
        self.owner.as_ref().is_some_and(|it| !it.can_be_acted_for())
    }

    /// Which root it is, in which mount namespace: what has another root may have other files by the same names.
    #[must_use]
    pub fn id(&self) -> RootId {
        self.id
    }

    /// What the symbolic link at `path` says, which is not followed.
    ///
    /// # Errors
    ///
    /// When there is no symbolic link, or what it says is not UTF-8.
    pub fn read_link(&self, path: &Path) -> io::Result<String> {
        let link = self.resolve(path, OFlags::NOFOLLOW)?;
        let said = readlinkat(&link, "", Vec::new())?;
        said.into_string().map_err(io::Error::other)
    }

    /// The name inside of a file that has this name outside.
    #[must_use]
    pub fn inside<'a>(&self, path: &'a Path) -> &'a Path {
        path.strip_prefix(&self.place).unwrap_or(path)
    }

    /// Opens a file that the process has mapped, by the name that the kernel states, if it is of this inode;
    /// else nothing is opened. The device may be another one: some file systems state it differently.
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
        let found = tries.find(|it| !matches!(it, Err(Errno::AGAIN | Errno::INTR)));
        Ok(found.unwrap_or(Err(Errno::AGAIN))?)
    }
}

/// Where the kernel shows the file of one mapping, whatever its name is by now.
pub(in crate::process) fn map_file(pid: Pid, start: u64, end: u64) -> PathBuf {
    let directory = Path::new("/proc").join(pid.to_string()).join("map_files");
    directory.join(format!("{start:x}-{end:x}"))
}
