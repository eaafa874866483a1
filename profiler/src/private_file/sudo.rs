//! Gives the files that residue makes as root to the user who called sudo.

use std::{env, io, os::fd::AsFd};

use rustix::{
    fs::{Gid, Uid, fchown},
    io::Errno,
    process::geteuid,
};

/// Whether a file belongs to the right user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Given {
    /// The file belongs to the right user.
    Done,
    /// The file system gives no file away: the file stays root's.
    Refused,
}

/// Gives an open file to the user who called sudo, if somebody did: whoever may record by sudo may read the
/// recording.
///
/// # Errors
///
/// When the file system fails. A file system that knows no owners, or lets nobody change them (FAT, CIFS,
/// NFS with `root_squash`), is no failure.
pub fn give_to_sudo_user(file: impl AsFd) -> io::Result<Given> {
    let number = |name| env::var(name).ok();
    let ids = (number("SUDO_UID"), number("SUDO_GID"));
    let user = sudo_user(geteuid().is_root(), (ids.0.as_deref(), ids.1.as_deref()));
    give(file, user)
}

fn give(file: impl AsFd, user: Option<(Uid, Gid)>) -> io::Result<Given> {
    let Some((uid, gid)) = user else {
        return Ok(Given::Done);
    };
    match fchown(file, Some(uid), Some(gid)) {
        Ok(()) => Ok(Given::Done),
        Err(Errno::PERM | Errno::ACCESS | Errno::NOTSUP | Errno::NOSYS | Errno::INVAL) => {
            Ok(Given::Refused)
        }
        Err(error) => Err(error.into()),
    }
}

/// The user and the group, if sudo has named both.
fn sudo_user(is_root: bool, named: (Option<&str>, Option<&str>)) -> Option<(Uid, Gid)> {
    // chown takes the largest number for "no change".
    let id = |text: &str| text.parse().ok().filter(|id| *id != u32::MAX);
    let (uid, gid) = (id(named.0?)?, id(named.1?)?);
    is_root.then(|| (Uid::from_raw(uid), Gid::from_raw(gid)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_gives_files_away_and_only_to_whom_sudo_names() {
        let ids =
            |user: Option<(Uid, Gid)>| user.map(|(user, group)| (user.as_raw(), group.as_raw()));
        let named = (Some("1000"), Some("100"));
        assert_eq!(ids(sudo_user(true, named)), Some((1000, 100)));
        assert_eq!(ids(sudo_user(false, named)), None);
        for wrong in [
            "",
            "-1",
            "4294967295",
            "4294967296",
            "root",
            " 1000",
            "1000\n",
        ] {
            assert_eq!(ids(sudo_user(true, (Some(wrong), Some("100")))), None);
            assert_eq!(ids(sudo_user(true, (Some("1000"), Some(wrong)))), None);
        }
        assert_eq!(ids(sudo_user(true, (Some("1000"), None))), None);
    }

    /// ext4 refuses for an immutable file what FAT refuses for all files.
    #[test]
    fn what_cannot_be_given_away_stays_roots() -> io::Result<()> {
        let file = tempfile::NamedTempFile::new()?;
        let immutable = |set: &str| {
            let chattr = std::process::Command::new("chattr")
                .arg(set)
                .arg(file.path())
                .output();
            chattr.is_ok_and(|output| output.status.success())
        };
        if !geteuid().is_root() || !immutable("+i") {
            crate::machine::skipped("what_cannot_be_given_away_stays_roots", "root, and chattr");
            return Ok(());
        }
        let given = give(&file, Some((Uid::from_raw(65_534), Gid::from_raw(65_534))));
        assert!(immutable("-i"));
        assert_eq!(given?, Given::Refused);
        assert_eq!(give(&file, None)?, Given::Done);
        Ok(())
    }
}
