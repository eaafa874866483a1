//! What a target may read itself.
//!
//! residue runs as root, and a target chooses the names of files that are read for it: without a look at who
//! asks, a link to a file that only root may read would be read like any other.

use std::{fs::File, io, io::Read as _, path::Path};

use crate::target::Pid;

/// Well above what `/proc/PID/status` holds.
const MAX_STATUS_BYTES: u64 = 64 << 10;
/// The kernel takes no more groups (limits.h, `NGROUPS_MAX`).
const MAX_GROUPS: usize = 1 << 16;

/// As whom the kernel lets a process open files (credentials(7), "filesystem user ID").
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    user: u32,
    group: u32,
    groups: Vec<u32>,
}

impl Owner {
    /// Whom a process is.
    ///
    /// # Errors
    ///
    /// When the process is gone.
    pub(super) fn of(pid: Pid) -> io::Result<Self> {
        let path = Path::new("/proc").join(pid.to_string()).join("status");
        let mut status = Vec::new();
        let file = File::open(path)?;
        file.take(MAX_STATUS_BYTES).read_to_end(&mut status)?;
        Self::parse(&status).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// `Uid` and `Gid` list the real, effective, saved and filesystem ids (proc_pid_status(5)).
    fn parse(status: &[u8]) -> Option<Self> {
        let numbers = |name: &[u8]| -> Option<Vec<u32>> {
            let mut lines = status.split(|byte| *byte == b'\n');
            let value = lines.find_map(|line| line.strip_prefix(name))?;
            let words = str::from_utf8(value).ok()?.split_whitespace();
            words.take(MAX_GROUPS).map(|it| it.parse().ok()).collect()
        };
        Some(Self {
            user: *numbers(b"Uid:")?.get(3)?,
            group: *numbers(b"Gid:")?.get(3)?,
            groups: numbers(b"Groups:")?,
        })
    }

    /// Does something that the kernel judges as if this owner did it. Only this thread is changed, and only
    /// until that is done.
    ///
    /// # Errors
    ///
    /// When the kernel does not let us be somebody else, though we are root.
    pub(super) fn act<T>(&self, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        // Who is not root has no more than its own rights to give away.
        if !rustix::process::geteuid().is_root() {
            return act();
        }
        let ours = Self {
            user: rustix::process::geteuid().as_raw(),
            group: rustix::process::getegid().as_raw(),
            groups: groups()?,
        };
        let _back = Back(ours);
        self.become_it()?;
        act()
    }

    /// Groups first: who is no longer root may not choose them. The C library's functions for it change all
    /// threads, so the system calls are made here.
    fn become_it(&self) -> io::Result<()> {
        let (count, list) = (self.groups.len(), self.groups.as_ptr());
        // SAFETY: the list holds so many ids and outlives the call.
        if unsafe { libc::syscall(libc::SYS_setgroups, count, list) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: plain system calls about the current thread, without pointers.
        let now = unsafe {
            libc::syscall(libc::SYS_setfsgid, self.group);
            libc::syscall(libc::SYS_setfsuid, self.user);
            // They say whom they replaced; nobody has the id -1, so these only ask.
            (
                libc::syscall(libc::SYS_setfsgid, u32::MAX),
                libc::syscall(libc::SYS_setfsuid, u32::MAX),
            )
        };
        match now == (i64::from(self.group), i64::from(self.user)) {
            true => Ok(()),
            false => Err(io::ErrorKind::PermissionDenied.into()),
        }
    }
}

fn groups() -> io::Result<Vec<u32>> {
    let groups = rustix::process::getgroups()?;
    Ok(groups
        .into_iter()
        .map(rustix::process::Gid::as_raw)
        .collect())
}

/// Whom this thread becomes again.
struct Back(Owner);

impl Drop for Back {
    fn drop(&mut self) {
        let Owner { user, group, .. } = self.0;
        // SAFETY: plain system calls about the current thread, without pointers. The user first: with it the
        // right to choose the others comes back.
        unsafe {
            libc::syscall(libc::SYS_setfsuid, user);
            libc::syscall(libc::SYS_setfsgid, group);
        }
        // Cannot fail where it could be changed. If it did, fewer files could be read.
        let _ = self.0.become_it();
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    #[test]
    fn ids_are_those_by_which_files_are_opened() {
        let status = b"Name:\tx\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t9 10 \n";
        let owner = Owner {
            user: 4,
            group: 8,
            groups: vec![9, 10],
        };
        assert_eq!(Owner::parse(status), Some(owner));
        assert_eq!(Owner::parse(b"Uid:\t1\n"), None);
        assert_eq!(Owner::parse(b""), None);
    }

    /// Only root can be somebody else.
    #[test]
    fn what_an_owner_may_not_read_is_not_read_for_it() -> io::Result<()> {
        if !rustix::process::geteuid().is_root() {
            return Ok(());
        }
        let directory = tempfile::tempdir()?;
        let secret = directory.path().join("secret");
        fs::write(&secret, "secret")?;
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600))?;
        let nobody = Owner {
            user: 65_534,
            group: 65_534,
            groups: Vec::new(),
        };
        let denied = nobody.act(|| File::open(&secret)).map_err(|it| it.kind());
        assert_eq!(denied.err(), Some(io::ErrorKind::PermissionDenied));
        assert!(File::open(&secret).is_ok(), "we are root again");
        Ok(())
    }
}
