//! One live process, held so that its PID cannot come to mean another.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use procfs::ProcResult;
use procfs::process::{FDTarget, Stat};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{PidfdFlags, pidfd_open};

use super::elf::{ElfFacts, NotUsable};
use super::file::read_status;
use super::{Mapping, Mappings, Refusal, Root, TargetFile, sandbox};

/// A process id in residue's own PID namespace.
pub type Pid = i32;

/// `PF_KTHREAD` (include/linux/sched.h).
const KERNEL_THREAD: u32 = 0x0020_0000;
/// Far more bytes than `/proc/PID/maps` holds at the default limit of 65,530 mappings.
const MAX_MAPS_BYTES: u64 = 256 << 20;
/// Far more bytes than the kernel's vDSO takes.
const MAX_IMAGE_BYTES: u64 = 1 << 20;
/// The longest command line that residue keeps, in bytes; it cuts a longer one, because it only shows command
/// lines in titles.
const MAX_CMDLINE_BYTES: u64 = 64 << 10;

/// A live 64-bit process that residue may look into.
#[derive(Debug)]
pub struct Process {
    pid: Pid,
    pidfd: OwnedFd,
    pub(super) proc: procfs::process::Process,
    root: Arc<Root>,
    comm: String,
    exe: PathBuf,
    executable: ElfFacts,
    cmdline: Vec<String>,
    start_time: u64,
    mappings: Mappings,
    has_more_mappings: bool,
}

impl Process {
    /// Checks that there is such a process.
    ///
    /// # Errors
    /// When there is none, or when the number is a thread's.
    pub fn exists(pid: Pid) -> Result<(), Refusal> {
        match open_proc(pid) {
            Err(wrong @ (Refusal::NoSuchProcess { .. } | Refusal::Thread { .. })) => Err(wrong),
            // `open` reports whatever else is wrong with the process.
            _ => Ok(()),
        }
    }

    /// Opens a process and takes a snapshot of it.
    ///
    /// # Errors
    /// A [`Refusal`] for whatever residue cannot or must not profile.
    pub fn open(pid: Pid) -> Result<Self, Refusal> {
        let process = Self::open_unprobed(pid)?;
        refuse_by_sandbox(pid, &process.proc, &process.comm)?;
        if process.executable.is_go {
            let exe = process.exe;
            return Err(Refusal::GoProgram { pid, exe });
        }
        Ok(process)
    }

    /// As [`open`](Self::open), for callers that put no probe into the process.
    ///
    /// # Errors
    /// A [`Refusal`] for what residue cannot look into.
    pub fn open_unprobed(pid: Pid) -> Result<Self, Refusal> {
        let proc = open_proc(pid)?;
        let pidfd = open_pidfd(pid)?;
        let stat = refuse_by_state(pid, &proc)?;
        let exe = proc.exe().map_err(|error| Refusal::from_proc(pid, error))?;
        let executable = refuse_by_executable(pid, &exe)?;
        let root = Root::of(pid).map_err(|error| Refusal::from_io(pid, error))?;
        let mut process = Self {
            cmdline: read_cmdline(&proc).map_err(|error| Refusal::from_proc(pid, error))?,
            comm: stat.comm,
            start_time: stat.starttime,
            mappings: Mappings::default(),
            has_more_mappings: false,
            pid,
            pidfd,
            proc,
            root: Arc::new(root),
            exe,
            executable,
        };
        process.refresh()?;
        Ok(process)
    }

    /// Takes a new snapshot of the mappings, for example after a library was loaded.
    ///
    /// # Errors
    /// When the process has exited meanwhile.
    pub fn refresh(&mut self) -> Result<(), Refusal> {
        let pid = self.pid;
        let mut text = read_bounded(&self.proc, "maps", MAX_MAPS_BYTES)
            .map_err(|error| Refusal::from_proc(pid, error))?;
        self.has_more_mappings = text.len() as u64 == MAX_MAPS_BYTES;
        if self.has_more_mappings {
            cut_off_last_line(&mut text);
        }
        let mappings = Mappings::parse(&text).filter(|mappings| !mappings.is_empty());
        // A process without mappings is about to exit.
        let Some(mappings) = mappings.filter(|_| !self.has_exited()) else {
            return Err(Refusal::Vanished { pid });
        };
        self.mappings = mappings;
        Ok(())
    }

    /// The process's PID.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Readable once the process has exited: poll it.
    #[must_use]
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Whether the process has exited, zombies included.
    #[must_use]
    pub fn has_exited(&self) -> bool {
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        let now = rustix::event::Timespec::default();
        poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0)
    }

    /// The name of the process's first thread, as `ps` shows it.
    #[must_use]
    pub fn comm(&self) -> &str {
        &self.comm
    }

    /// The process's executable, as the target names it.
    #[must_use]
    pub fn exe(&self) -> &Path {
        &self.exe
    }

    /// The process's arguments, as far as they are UTF-8; empty when the process has overwritten them.
    #[must_use]
    pub fn cmdline(&self) -> &[String] {
        &self.cmdline
    }

    /// When the process started: clock ticks since boot. With the PID, this identifies a process for good.
    #[must_use]
    pub fn start_time(&self) -> u64 {
        self.start_time
    }

    /// The process's mappings at the last snapshot.
    #[must_use]
    pub fn mappings(&self) -> &Mappings {
        &self.mappings
    }

    /// Whether the process had more mappings than residue read: residue does not know the code and memory in the
    /// rest.
    #[must_use]
    pub fn has_more_mappings(&self) -> bool {
        self.has_more_mappings
    }

    /// The process's resident set, in bytes; `None` once it has exited.
    #[must_use]
    pub fn resident_set(&self) -> Option<u64> {
        let pages = self.proc.statm().ok()?.resident;
        (pages != 0).then(|| pages.saturating_mul(procfs::page_size()))
    }

    /// The processor time that all threads of the process have used so far, ended ones included; `None` once the
    /// process has exited. The time comes in steps of 10 ms.
    #[must_use]
    pub fn cpu_time(&self) -> Option<Duration> {
        let stat = self.proc.stat().ok()?;
        let ticks = stat.utime.saturating_add(stat.stime);
        let seconds = ticks as f64 / procfs::ticks_per_second() as f64;
        Duration::try_from_secs_f64(seconds).ok()
    }

    /// Whether the process has an io_uring, by which it may read and send without system calls.
    #[must_use]
    pub fn has_io_uring(&self) -> bool {
        let descriptors = self.proc.fd().into_iter().flatten().flatten();
        let mut targets = descriptors.map(|descriptor| descriptor.target);
        targets
            .any(|target| matches!(target, FDTarget::AnonInode(name) if name.contains("io_uring")))
    }

    /// The headers of the process's executable.
    pub(super) fn executable(&self) -> &ElfFacts {
        &self.executable
    }

    /// The process's root directory.
    #[must_use]
    pub fn root(&self) -> &Arc<Root> {
        &self.root
    }

    /// The memory of a mapping that holds an ELF file without a file behind it: the vDSO.
    #[must_use]
    pub fn image(&self, mapping: &Mapping) -> Option<Vec<u8>> {
        let bytes = mapping.end.0.checked_sub(mapping.start.0)?;
        let mut image = vec![0; usize::try_from(bytes.min(MAX_IMAGE_BYTES)).ok()?];
        self.memory()?
            .read_exact_at(&mut image, mapping.start.0)
            .ok()?;
        Some(image)
    }

    /// `/proc/PID/mem`, for bounded reads.
    pub(super) fn memory(&self) -> Option<File> {
        self.proc.mem().ok()
    }
}

fn open_proc(pid: Pid) -> Result<procfs::process::Process, Refusal> {
    let refuse = |error| match Refusal::from_proc(pid, error) {
        Refusal::Vanished { .. } => Refusal::NoSuchProcess { pid },
        refusal => refusal,
    };
    if pid <= 0 {
        return Err(Refusal::NoSuchProcess { pid });
    }
    let proc = procfs::process::Process::new(pid).map_err(refuse)?;
    let status = status(&proc).map_err(refuse)?;
    match thread_group(&status) {
        Some(tgid) if tgid != pid => Err(Refusal::Thread {
            tid: pid,
            pid: tgid,
        }),
        _ => Ok(proc),
    }
}

fn status(proc: &procfs::process::Process) -> ProcResult<Vec<u8>> {
    Ok(read_status(proc.open_relative("status")?)?)
}

/// `Tgid` in `/proc/PID/status`. Residue parses it here, because a thread's name is in the same file, and the
/// procfs crate fails where the name is not UTF-8. The kernel escapes newlines in names.
fn thread_group(status: &[u8]) -> Option<Pid> {
    let mut lines = status.split(|byte| *byte == b'\n');
    let value = lines.find_map(|line| line.strip_prefix(b"Tgid:"))?;
    str::from_utf8(value).ok()?.trim().parse().ok()
}

fn open_pidfd(pid: Pid) -> Result<OwnedFd, Refusal> {
    let id = rustix::process::Pid::from_raw(pid).ok_or(Refusal::NoSuchProcess { pid })?;
    pidfd_open(id, PidfdFlags::empty()).map_err(|error| Refusal::from_io(pid, error.into()))
}

/// Refuses a process by its state. The caller has opened the pidfd before: as the directory still answers, both
/// are the same process.
fn refuse_by_state(pid: Pid, proc: &procfs::process::Process) -> Result<Stat, Refusal> {
    let stat = proc
        .stat()
        .map_err(|error| Refusal::from_proc(pid, error))?;
    let comm = stat.comm.clone();
    if stat.flags & KERNEL_THREAD != 0 {
        return Err(Refusal::KernelThread { pid, comm });
    }
    match stat.state {
        'Z' | 'X' => Err(Refusal::Zombie { pid, comm }),
        _ => Ok(stat),
    }
}

fn refuse_by_sandbox(pid: Pid, proc: &procfs::process::Process, comm: &str) -> Result<(), Refusal> {
    let status = status(proc).map_err(|error| Refusal::from_proc(pid, error))?;
    let kernel = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    if sandbox::is_filtered(&status) && sandbox::filters_return_probes(&kernel) {
        let comm = comm.to_owned();
        return Err(Refusal::Sandboxed { pid, comm, kernel });
    }
    Ok(())
}

fn refuse_by_executable(pid: Pid, exe: &Path) -> Result<ElfFacts, Refusal> {
    let link = Path::new("/proc").join(pid.to_string()).join("exe");
    let file = TargetFile::behind(&link).map_err(|error| Refusal::from_io(pid, error))?;
    let exe = exe.to_path_buf();
    match ElfFacts::read(&file.data()) {
        Ok(facts) => Ok(facts),
        Err(NotUsable::ThirtyTwoBit) => Err(Refusal::ThirtyTwoBit { pid, exe }),
        Err(reason) => Err(Refusal::Unsupported { pid, exe, reason }),
    }
}

fn read_cmdline(proc: &procfs::process::Process) -> ProcResult<Vec<String>> {
    let text = read_bounded(proc, "cmdline", MAX_CMDLINE_BYTES)?;
    let arguments = text.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    let mut arguments: Vec<_> = arguments.map(String::from).collect();
    while arguments.last().is_some_and(String::is_empty) {
        arguments.pop();
    }
    Ok(arguments)
}

/// Drops the last line of a text that was cut, because the line is not whole.
fn cut_off_last_line(text: &mut Vec<u8>) {
    let end = text.iter().rposition(|byte| *byte == b'\n');
    text.truncate(end.map_or(0, |at| at + 1));
}

pub(super) fn read_bounded(
    proc: &procfs::process::Process,
    name: &str,
    most: u64,
) -> ProcResult<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = proc.open_relative(name)?;
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::sync::mpsc;

    use super::*;
    use crate::probes::{ScopeObject, SitePolicy, plan};
    use crate::process::{Avma, Load};

    fn own_pid() -> Pid {
        std::process::id().cast_signed()
    }

    #[test]
    fn this_process_can_be_planned_for() {
        let process = Process::open(own_pid()).expect("it is us");
        assert!(!process.has_exited() && !process.cmdline().is_empty());
        let found = process.loaded_objects();
        assert_eq!(found.objects[0].path, process.exe());
        assert_eq!(found.objects[0].load, Load::Executable);
        assert_eq!(found.unreadable.len(), 0);
        let scope: Result<Vec<_>, _> = found.objects.iter().map(ScopeObject::of).collect();
        let plan = plan(&scope.expect("all is readable"), SitePolicy::Cheapest);
        let plan = plan.expect("a C library is linked");
        assert!(
            plan.functions
                .iter()
                .any(|function| function.symbol == "malloc")
        );
    }

    #[test]
    fn code_is_where_the_load_bias_says() {
        let process = Process::open(own_pid()).expect("it is us");
        let objects = process.loaded_objects().objects;
        let address = Avma(code_is_where_the_load_bias_says as *const () as u64);
        let (mapping, offset) = process.mappings().locate(address).expect("it runs");
        let object = objects
            .iter()
            .find(|o| Some(o.file) == mapping.file)
            .expect("it is listed");
        let svma = object.facts.text.svma(offset).expect("it is text");
        assert_eq!(object.load_bias.avma(svma), address);
    }

    #[test]
    fn a_pid_that_nobody_has_is_refused() {
        for pid in [0, -1, i32::MIN, i32::MAX] {
            let refused = Process::open(pid);
            assert!(
                matches!(refused, Err(Refusal::NoSuchProcess { .. })),
                "{pid}"
            );
        }
    }

    #[test]
    fn a_name_that_is_not_text_does_not_hide_the_thread_group() {
        assert_eq!(
            thread_group(b"Name:\t\xff\xfe\\nTgid:\t1\nTgid:\t42\n"),
            Some(42)
        );
        assert_eq!(thread_group(b""), None);
    }

    #[test]
    fn a_line_that_was_cut_is_left_out() {
        let mut text = b"1000-2000 r-xp 0 0:1 1 /a\n2000-30".to_vec();
        assert!(Mappings::parse(&text).is_none());
        cut_off_last_line(&mut text);
        assert_eq!(
            Mappings::parse(&text).map(|mappings| mappings.iter().len()),
            Some(1)
        );
    }

    #[test]
    fn a_thread_is_refused_with_the_pid_to_use() {
        let (tell, told) = mpsc::channel();
        let (end, ended) = mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            tell.send(rustix::thread::gettid())
                .expect("the test waits for it");
            // The thread ends when the test drops its side.
            ended.recv().unwrap_err();
        });
        let tid = told
            .recv()
            .expect("the thread tells")
            .as_raw_nonzero()
            .get();
        let refused = Process::open(tid).expect_err("not a process");
        drop(end);
        thread.join().expect("it only waited");
        assert!(
            matches!(refused, Refusal::Thread { pid, .. } if pid == own_pid()),
            "{refused}"
        );
    }

    #[test]
    fn a_process_that_exits_is_noticed_and_its_zombie_refused() {
        let mut child = Command::new("cat")
            .stdin(Stdio::piped())
            .spawn()
            .expect("cat runs");
        let pid = child.id().cast_signed();
        let mut process = Process::open(pid).expect("it waits for input");
        drop(child.stdin.take());
        let mut fds = [PollFd::new(&process.pidfd, PollFlags::IN)];
        poll(&mut fds, None).expect("it ends");
        let zombie = Process::open(pid).expect_err("it is not waited for yet");
        assert!(matches!(zombie, Refusal::Zombie { .. }), "{zombie}");
        assert!(matches!(process.refresh(), Err(Refusal::Vanished { .. })));
        child.wait().expect("it has ended");
        assert!(matches!(
            Process::open(pid),
            Err(Refusal::NoSuchProcess { .. })
        ));
    }
}
