//! The owner of a target, with whose rights residue opens files.
//!
//! Residue runs as root, and a target chooses the names of files that residue reads for it. If residue did
//! not look at who asks, it would follow a link to a file that only root may read.

use std::{fs::File, io, io::Read, path::Path};

use crate::process::Pid;

/// More bytes than `/proc/PID/status` holds: a process in the largest number of groups has 700 KB of them.
const MAX_STATUS_BYTES: u64 = 1 << 20;
/// The most groups that the kernel allows (limits.h, `NGROUPS_MAX`).
const MAX_GROUPS: usize = 1 << 16;

/// The user and the groups as whom the kernel lets a process open files (credentials(7), "filesystem user
/// ID").
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    user: u32,
    group: u32,
    groups: Vec<u32>,
}

impl Owner {
    /// The owner of a process.
    ///
    /// # Errors
    ///
    /// When the process is gone.
    pub(super) fn of(pid: Pid) -> io::Result<Self> {
        let path = Path::new("/proc").join(pid.to_string()).join("status");
        Self::parse(&read_status(File::open(path)?)?)
            .ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// `Uid` and `Gid` list the real, effective, saved and filesystem ids (proc_pid_status(5)).
    fn parse(status: &[u8]) -> Option<Self> {
        let numbers = |name: &[u8]| -> Option<Vec<u32>> {
            let mut lines = status.split(|byte| *byte == b'\n');
            let value = lines.find_map(|line| line.strip_prefix(name))?;
            let words = str::from_utf8(value).ok()?.split_whitespace();
            words
                .take(MAX_GROUPS)
                .map(|word| word.parse().ok())
                .collect()
        };
        Some(Self {
            user: *numbers(b"Uid:")?.get(3)?,
            group: *numbers(b"Gid:")?.get(3)?,
            groups: numbers(b"Groups:")?,
        })
    }

    /// Does something that the kernel judges as if this owner did it. Changes only this thread, and only
    /// until `act` has returned.
    ///
    /// # Errors
    ///
    /// When the kernel does not let residue be somebody else, though residue is root.
    pub(super) fn act<T>(&self, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        // Without root, residue has no rights beyond its own to give away.
        if !rustix::process::geteuid().is_root() {
            return act();
        }
        let ours = Self {
            user: rustix::process::geteuid().as_raw(),
            group: rustix::process::getegid().as_raw(),
            groups: groups()?,
        };
        if *self == ours {
            return act();
        }
        let _back = Back(ours);
        self.become_it()?;
        act()
    }

    /// Whether the kernel lets residue act for this owner.
    pub(super) fn can_be_acted_for(&self) -> bool {
        self.act(|| Ok(())).is_ok()
    }

    /// Sets the groups first: a thread that is no longer root may not choose them. The C library's functions
    /// for this change all threads, so this makes the system calls itself.
    fn become_it(&self) -> io::Result<()> {
        if groups()? != self.groups {
            let (count, list) = (self.groups.len(), self.groups.as_ptr());
            // SAFETY: the list holds `count` ids and outlives the call.
            if unsafe { libc::syscall(libc::SYS_setgroups, count, list) } != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        // SAFETY: plain system calls about the current thread, without pointers.
        let now = unsafe {
            libc::syscall(libc::SYS_setfsgid, self.group);
            libc::syscall(libc::SYS_setfsuid, self.user);
            // The calls return whom they replaced; nobody has the id -1, so these calls only ask.
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

/// All of `/proc/PID/status`: in a part of it, the last number could be cut off.
///
/// # Errors
///
/// When the process is gone, or the file is longer than that of any process.
pub(in crate::process) fn read_status(file: impl Read) -> io::Result<Vec<u8>> {
    let mut status = Vec::new();
    file.take(MAX_STATUS_BYTES).read_to_end(&mut status)?;
    match (status.len() as u64) < MAX_STATUS_BYTES {
        true => Ok(status),
        false => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn groups() -> io::Result<Vec<u32>> {
    let groups = rustix::process::getgroups()?;
    Ok(groups
        .into_iter()
        .map(rustix::process::Gid::as_raw)
        .collect())
}

/// The owner that this thread becomes again.
struct Back(Owner);

impl Drop for Back {
    fn drop(&mut self) {
        let Owner { user, group, .. } = self.0;
        // SAFETY: plain system calls about the current thread, without pointers. The user comes first: the
        // right to choose the groups comes back with the user.
        unsafe {
            libc::syscall(libc::SYS_setfsuid, user);
            libc::syscall(libc::SYS_setfsgid, group);
        }
        // This cannot fail where the change succeeded. If it did, this thread could read fewer files.
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
        let denied = nobody
            .act(|| File::open(&secret))
            .map_err(|error| error.kind());
        assert_eq!(denied.err(), Some(io::ErrorKind::PermissionDenied));
        assert!(File::open(&secret).is_ok(), "we are root again");
        Ok(())
    }

    /// As many groups as the kernel takes, with the longest numbers.
    #[test]
    fn all_groups_of_a_process_are_known() -> io::Result<()> {
        let groups: Vec<u32> = (0..MAX_GROUPS as u32)
            .map(|group| 4_000_000_000 + group)
            .collect();
        let of_thread = std::thread::spawn(move || {
            // SAFETY: the list holds so many ids and outlives the call, which changes this thread alone.
            let set = unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) };
            let id = rustix::thread::gettid().as_raw_nonzero().get();
            (set == 0).then(|| Owner::of(id).map(|owner| owner.groups == groups))
        });
        let known = of_thread.join().expect("it does not panic");
        let Some(known) = known else {
            crate::machine::skipped("all_groups_of_a_process_are_known", "root");
            return Ok(());
        };
        assert!(known?);
        Ok(())
    }

    /// In a container that may not choose groups, a change that changes nothing works.
    #[test]
    fn who_is_us_already_needs_no_privilege() -> io::Result<()> {
        if !rustix::process::geteuid().is_root() {
            return Ok(());
        }
        let us = Owner {
            user: 0,
            group: rustix::process::getegid().as_raw(),
            groups: groups()?,
        };
        let nobody = Owner {
            user: 65_534,
            ..us.clone()
        };
        let done = std::thread::spawn(move || -> io::Result<[bool; 2]> {
            use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
            let mut ours = capabilities(None)?;
            ours.effective &= !(CapabilitySet::SETGID | CapabilitySet::SETUID);
            set_capabilities(None, ours)?;
            Ok([us.can_be_acted_for(), nobody.can_be_acted_for()])
        });
        let done = done.join().expect("it does not panic")?;
        assert_eq!(done, [true, false]);
        Ok(())
    }
}
