//! A file system that never answers, as FUSE or NFS may be.

use std::{
    fs::File,
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// Lies over a directory: whoever follows a name in it waits, until this is dropped.
#[derive(Debug)]
pub struct Hanging {
    over: PathBuf,
    /// Nobody reads from it. When it is closed, everybody who waits is told that the file system is gone.
    _device: File,
}

impl Hanging {
    /// Puts one over `directory`. Files below it that are open stay as they are.
    ///
    /// # Errors
    ///
    /// When the kernel has no FUSE.
    pub fn over(directory: &Path) -> Result<Self> {
        let device = File::options().read(true).write(true).open("/dev/fuse");
        let device = device.context("failed to open /dev/fuse")?;
        let options = format!(
            "fd={},rootmode=40000,user_id=0,group_id=0\0",
            device.as_raw_fd()
        );
        let options = std::ffi::CString::from_vec_with_nul(options.into_bytes())?;
        mount(
            "hanging",
            directory,
            "fuse",
            MountFlags::NODEV,
            Some(&*options),
        )
        .context("failed to mount a FUSE file system")?;
        Ok(Self {
            over: directory.to_owned(),
            _device: device,
        })
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        // If it cannot be unmounted, the end of the device still lets everybody go.
        let _ = unmount(&self.over, UnmountFlags::DETACH);
    }
}
