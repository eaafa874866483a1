//! A disk that is easily full.

use std::process::Command;

use anyhow::{Result, ensure};
use tempfile::TempDir;

/// A small file system, unmounted when dropped.
#[derive(Debug)]
pub struct SmallDisk(TempDir);

impl SmallDisk {
    /// Mounts a file system of this size, such as `64k`.
    ///
    /// # Errors
    ///
    /// When this user may not mount anything.
    pub fn mount(size: &str) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "residue-test"])
            .arg(directory.path())
            .status()?;
        ensure!(
            mounted.success(),
            "failed to mount a tmpfs: run the tests as root"
        );
        Ok(Self(directory))
    }

    /// A directory on the file system, for one recorder.
    ///
    /// # Errors
    ///
    /// When there is no room for the directory.
    pub fn directory(&self) -> Result<TempDir> {
        Ok(TempDir::new_in(self.0.path())?)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // What fails here leaves a few KiB behind.
        drop(Command::new("umount").arg(self.0.path()).status());
    }
}
