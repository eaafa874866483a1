//! Starts a command so that its very first allocation counts.
//!
//! The child waits before its exec until the kernel side knows it as *launching*. From then on the kernel side
//! stops the child (SIGSTOP) at exec and whenever the child maps code, until the C library is there: nothing can
//! allocate before that, and after it the probes are in.

use std::{
    ffi::OsString,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::{CommandExt as _, ExitStatusExt as _},
    },
    process::{Child, Command, ExitStatus},
    sync::atomic::{AtomicI32, Ordering},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::{
    pipe::{PipeFlags, pipe_with},
    process::{Pid, Signal, WaitId, WaitIdOptions, getpid, kill_process, waitid},
};

use super::{SessionError, discovered::Discovered, limits};
use crate::{probes::SitePolicy, process::Process, signal_mask};

/// How long a program may take from exec until its C library is mapped. Loading hundreds of
/// libraries, each with a stop, takes under a second.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often residue looks at the child's state.
const POLL: Duration = Duration::from_micros(500);
/// File names of C libraries: glibc's, and musl's, which is its dynamic linker as well.
const C_LIBRARIES: [&str; 3] = ["libc.so", "ld-musl", "libc.musl"];

/// The pid of the command that does not run its program yet; 0 if there is none.
static HELD: AtomicI32 = AtomicI32::new(0);

/// Ends the command that does not run its program yet. Returns whether there is one.
pub fn end_held() -> bool {
    let held = Pid::from_raw(HELD.load(Ordering::Relaxed));
    held.is_some_and(|pid| kill_process(pid, Signal::KILL).is_ok())
}

/// A child that does not run its program yet. Dropping this value lets the child go on: otherwise it would stand
/// still for ever.
struct Hold(Pid);

impl Hold {
    fn of(pid: Pid) -> Self {
        HELD.store(pid.as_raw_nonzero().get(), Ordering::Relaxed);
        Self(pid)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        HELD.store(0, Ordering::Relaxed);
        resume(self.0);
    }
}

/// A child that has not run its program yet.
pub struct Launch {
    hold: Hold,
    name: String,
    go: OwnedFd,
    /// `Command::spawn` returns only after the exec, so a thread of its own waits for it.
    spawned: JoinHandle<io::Result<Child>>,
}

impl Launch {
    /// Forks the child, which then waits.
    ///
    /// # Errors
    ///
    /// When there is no room for another process.
    pub fn prepare(command: &[OsString]) -> Result<Self, SessionError> {
        let (program, arguments) = command.split_first().ok_or(SessionError::NoCommand)?;
        let name = program.to_string_lossy().into_owned();
        let mut command = Command::new(program);
        command.args(arguments);
        match Self::spawn(command) {
            Ok((pid, go, spawned)) => Ok(Self {
                hold: Hold::of(pid),
                name,
                go,
                spawned,
            }),
            Err(source) => Err(SessionError::Launch { name, source }),
        }
    }

    /// Returns the child's pid, the pipe by which residue lets the child go on, and the thread that waits for the
    /// exec.
    fn spawn(mut command: Command) -> io::Result<(Pid, OwnedFd, JoinHandle<io::Result<Child>>)> {
        let (pid_out, pid_in) = pipe_with(PipeFlags::CLOEXEC)?;
        let (wait, go) = pipe_with(PipeFlags::CLOEXEC)?;
        let tell_and_wait = move || {
            limits::restore()?;
            rustix::io::write(&pid_in, &getpid().as_raw_nonzero().get().to_ne_bytes())?;
            match rustix::io::read(&wait, &mut [0])? {
                0 => Err(io::ErrorKind::Interrupted.into()),
                // The command is to get the signals that somebody has sent meanwhile.
                _ => signal_mask::restore(),
            }
        };
        // SAFETY: the closure makes only system calls, on descriptors that the child has inherited.
        unsafe { command.pre_exec(tell_and_wait) };
        let spawned = thread::Builder::new()
            .name("launch".to_owned())
            .spawn(move || command.spawn())?;
        let mut pid = [0; 4];
        let read = rustix::io::read(&pid_out, &mut pid)?;
        let pid = Pid::from_raw(i32::from_ne_bytes(pid)).filter(|_| read == pid.len());
        Ok((pid.ok_or(io::ErrorKind::UnexpectedEof)?, go, spawned))
    }

    /// The child's pid.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.hold.0
    }

    /// Lets the child run its program up to where its C library is mapped. There the child stands still until
    /// [`Held::release`].
    ///
    /// # Errors
    ///
    /// When residue cannot run the program, or must not record it.
    pub fn run_to_c_library(
        self,
        sites: SitePolicy,
    ) -> Result<((Process, Discovered), Held), SessionError> {
        rustix::io::write(self.go.as_fd(), &[1]).map_err(|error| self.failed(error))?;
        let ready = self.wait_for_c_library(sites);
        if ready.is_err() {
            // The child is residue's own, has not begun its work, and would stand still for ever.
            let _ = kill_process(self.pid(), Signal::KILL);
        }
        let Self {
            hold,
            name,
            spawned,
            ..
        } = self;
        let child = spawned
            .join()
            .unwrap_or_else(|_| Err(io::ErrorKind::Other.into()));
        let child = child.map_err(|source| SessionError::Launch { name, source })?;
        let launched = Launched {
            child,
            status: None,
        };
        Ok((ready?, Held { launched, hold }))
    }

    fn wait_for_c_library(&self, sites: SitePolicy) -> Result<(Process, Discovered), SessionError> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() <= deadline {
            if stopped(self.pid()).map_err(|gone| self.failed(gone))? {
                match look(self.pid(), sites)? {
                    None => resume(self.pid()),
                    Some(ready) => return Ok(ready),
                }
            }
            thread::sleep(POLL);
        }
        Err(self.failed(io::ErrorKind::TimedOut))
    }

    fn failed(&self, source: impl Into<io::Error>) -> SessionError {
        SessionError::Launch {
            name: self.name.clone(),
            source: source.into(),
        }
    }
}

/// A command that stands still where its program begins.
pub struct Held {
    launched: Launched,
    hold: Hold,
}

impl Held {
    /// Lets the command go on.
    pub fn release(self) -> Launched {
        drop(self.hold);
        self.launched
    }
}

/// A command that runs its program.
pub struct Launched {
    child: Child,
    status: Option<ExitStatus>,
}

impl Launched {
    /// How the command ended; `None` while it runs.
    pub fn status(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().ok().flatten();
        }
        self.status
    }

    /// Whether the command is the process with this PID.
    pub fn is(&self, pid: i32) -> bool {
        self.child.id().cast_signed() == pid
    }
}

/// How a process ended, for a person. Only of a command of ours does the kernel tell more than that.
pub fn how_it_ended(command: Option<&mut Launched>, pid: i32) -> String {
    let command = command.filter(|command| command.is(pid));
    let status = command.and_then(Launched::status);
    status.map_or_else(|| "ended".to_owned(), describe_status)
}

/// How a process ended, for a person.
fn describe_status(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with status {code}"),
        (None, Some(signal)) => match SIGNALS.iter().find(|(number, _)| *number == signal) {
            Some((_, name)) => format!("was killed by signal {signal} ({name})"),
            None => format!("was killed by signal {signal}"),
        },
        (None, None) => "ended".to_owned(),
    }
}

/// The signals that usually kill programs, and their names.
const SIGNALS: [(i32, &str); 12] = [
    (libc::SIGHUP, "SIGHUP"),
    (libc::SIGINT, "SIGINT"),
    (libc::SIGQUIT, "SIGQUIT"),
    (libc::SIGILL, "SIGILL"),
    (libc::SIGTRAP, "SIGTRAP"),
    (libc::SIGABRT, "SIGABRT"),
    (libc::SIGBUS, "SIGBUS"),
    (libc::SIGFPE, "SIGFPE"),
    (libc::SIGKILL, "SIGKILL"),
    (libc::SIGSEGV, "SIGSEGV"),
    (libc::SIGPIPE, "SIGPIPE"),
    (libc::SIGTERM, "SIGTERM"),
];

/// Lets a stopped child go on.
fn resume(pid: Pid) {
    // If the child is gone, the wait for it finds that out.
    let _ = kill_process(pid, Signal::CONT);
}

/// Whether the child stands still; an error when it has ended.
fn stopped(pid: Pid) -> io::Result<bool> {
    let options = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG;
    match waitid(WaitId::Pid(pid), options)? {
        Some(_) => Ok(true),
        None => {
            let ended = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
            match waitid(WaitId::Pid(pid), ended)? {
                Some(_) => Err(io::Error::other("it ended before it could be recorded")),
                None => Ok(false),
            }
        }
    }
}

/// The process and what to probe there, if its C library is mapped.
fn look(pid: Pid, sites: SitePolicy) -> Result<Option<(Process, Discovered)>, SessionError> {
    let process = Process::open(pid.as_raw_nonzero().get())?;
    let objects = process.loaded_objects().objects;
    let is_static = objects
        .first()
        .is_some_and(|executable| executable.facts.is_static());
    let has_c_library = objects.iter().any(|object| {
        let name = object.path.file_name().map(|name| name.to_string_lossy());
        name.is_some_and(|name| C_LIBRARIES.iter().any(|library| name.starts_with(library)))
    });
    if !is_static && !has_c_library {
        return Ok(None);
    }
    let discovered = Discovered::of(&process, sites)?;
    Ok(Some((process, discovered)))
}
