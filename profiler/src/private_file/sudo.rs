//! Whose files are that residue makes as root.

use std::{env, io, os::fd::AsFd};

use rustix::{
    fs::{Gid, Uid, fchown},
    process::geteuid,
};

/// Gives an open file to the user who called sudo, if somebody did: who may record by sudo may read what was
/// recorded.
///
/// # Errors
///
/// When the file system refuses.
pub fn give_to_sudo_user(file: impl AsFd) -> io::Result<()> {
    let number = |name| env::var(name).ok();
    let ids = (number("SUDO_UID"), number("SUDO_GID"));
    match sudo_user(geteuid().is_root(), (ids.0.as_deref(), ids.1.as_deref())) {
        Some((uid, gid)) => Ok(fchown(file, Some(uid), Some(gid))?),
        None => Ok(()),
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
        let ids = |user: Option<(Uid, Gid)>| user.map(|it| (it.0.as_raw(), it.1.as_raw()));
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
}
