//! What a capture says about the recording itself.

use super::{Config, Followed, SessionError, now};
use crate::capture::{self, Meta, Writer};

/// A process, for a person.
pub fn describe(followed: &Followed) -> String {
    format!("{} ({})", followed.process.pid(), followed.process.comm())
}

/// A process, for the capture.
pub fn row(followed: &Followed) -> capture::Process {
    let process = &followed.process;
    capture::Process {
        slot: followed.slot,
        pid: process.pid().unsigned_abs(),
        comm: process.comm().to_owned(),
        exe: process.exe().display().to_string(),
        cmdline: process.cmdline().join(" "),
        started_ns: now(),
    }
}

/// The capture, if one is to be written.
pub fn writer(config: &Config) -> Result<Option<Writer>, SessionError> {
    let Some(output) = &config.output else {
        return Ok(None);
    };
    Ok(Some(Writer::create(output, &meta(config))?))
}

/// What is known before anything is recorded.
fn meta(config: &Config) -> Meta {
    let mut options = vec![
        ("max-live".to_owned(), config.limits.max_live.to_string()),
        (
            "max-stacks".to_owned(),
            config.limits.max_stacks.to_string(),
        ),
        ("stacks".to_owned(), config.stacks.policy.name().to_owned()),
        (
            "max-unwind-memory".to_owned(),
            config.limits.max_unwind_mib.to_string(),
        ),
    ];
    if config.python_objects {
        let interval = config.limits.python_interval.to_string();
        options.push((capture::PYTHON_OBJECTS_OPTION.to_owned(), interval));
    }
    Meta {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: rustix::system::uname()
            .release()
            .to_string_lossy()
            .into_owned(),
        command: std::env::args().collect::<Vec<_>>().join(" "),
        started_ns: now(),
        options,
    }
}
