//! The helper: a process of residue's own that looks names up, so that no file of a target can hurt the
//! recorder. Somebody may make debug information so that reading it takes all memory, never ends, or overflows
//! the stack. The recorder may kill the helper at any moment, limits its memory, and starts it again when it
//! needs one.
//!
//! Both sides send messages: a length in four bytes, little-endian, and then that many bytes of JSON. An
//! answer follows each question.

use std::{
    io::{self, Read, Write},
    os::{fd::AsFd, unix::process::CommandExt as _},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{
        DumpableBehavior, Resource, Rlimit, Signal, getrlimit, set_dumpable_behavior,
        set_parent_process_death_signal, setrlimit,
    },
};
use serde::{Serialize, de::DeserializeOwned};

use super::look_up::{Answer, Found, Here, LookUp, NoAnswer, Question};

/// The subcommand that runs the helper. Users do not give it.
pub const COMMAND: &str = "look-up-names";
/// How long the helper may take for one answer. The largest debug files of real programs take some seconds,
/// once.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many bytes of address space the helper may take, mapped files included.
const MEMORY: u64 = 4 << 30;
/// The longest answer, in bytes: names of 16 MiB, which JSON makes six times as long at most.
const MAX_ANSWER_BYTES: u32 = 128 << 20;

/// Looks names up in a helper.
#[derive(Debug, Default)]
pub(super) struct Helper(Option<Running>);

impl LookUp for Helper {
    fn look_up(&mut self, question: &Question) -> Answer {
        let mut running = match self.0.take() {
            Some(running) => running,
            None => Running::start().map_err(NoAnswer::Nobody)?,
        };
        // If the helper gives no answer, this drops it, which kills it.
        let answer = running.ask(question)?;
        self.0 = Some(running);
        match answer {
            Ok(found) if found.functions.len() == question.places.len() => Ok(found),
            Ok(_) => Err(NoAnswer::Lost),
            Err(text) => Err(NoAnswer::Unreadable(text)),
        }
    }
}

/// The answer: the functions at each place, or why there are none.
type Message = Result<Found, String>;

/// A running helper. Dropping it kills it.
#[derive(Debug)]
struct Running {
    child: Child,
    questions: ChildStdin,
    answers: ChildStdout,
}

impl Running {
    fn start() -> io::Result<Self> {
        let mut child = Command::new("/proc/self/exe")
            .arg(COMMAND)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // Ctrl-C is for the recorder, which still has questions.
            .process_group(0)
            .spawn()?;
        let pipes = (child.stdin.take(), child.stdout.take());
        let (Some(questions), Some(answers)) = pipes else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        Ok(Self {
            child,
            questions,
            answers,
        })
    }

    fn ask(&mut self, question: &Question) -> Result<Message, NoAnswer> {
        let deadline = Instant::now() + PATIENCE;
        send(&mut self.questions, question).map_err(|_| NoAnswer::Lost)?;
        let mut answers = Timed {
            from: &mut self.answers,
            deadline,
        };
        receive(&mut answers).map_err(|error| match error.kind() {
            io::ErrorKind::TimedOut => NoAnswer::TooSlow,
            _ => NoAnswer::Lost,
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // This fails only when the helper is gone already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A reader with a deadline.
struct Timed<'a, R> {
    from: &'a mut R,
    deadline: Instant,
}

impl<R: Read + AsFd> Read for Timed<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        let mut ready = [PollFd::new(self.from, PollFlags::IN)];
        match poll(&mut ready, Some(&left))? {
            0 => Err(io::ErrorKind::TimedOut.into()),
            _ => self.from.read(into),
        }
    }
}

/// The helper's side: answers questions until there are no more.
///
/// # Errors
///
/// When the recorder is gone.
pub fn answer_all(mut questions: impl Read, mut answers: impl Write) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // The limit is never above the one that the recorder has.
    let most = getrlimit(Resource::As).maximum;
    let memory = Some(most.map_or(MEMORY, |most| most.min(MEMORY)));
    let limit = Rlimit {
        current: memory,
        maximum: memory,
    };
    setrlimit(Resource::As, limit)?;
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none)?;
    // The kernel sends a core dump to a program without any limit on its size.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let mut here = Here::new();
    loop {
        let question: Question = match receive(&mut questions) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            question => question?,
        };
        let answer = here.look_up(&question).map_err(|error| error.to_string());
        send(&mut answers, &answer)?;
    }
}

fn send(to: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    let json = serde_json::to_vec(message)?;
    let length = u32::try_from(json.len()).map_err(io::Error::other)?;
    to.write_all(&length.to_le_bytes())?;
    to.write_all(&json)?;
    to.flush()
}

fn receive<T: DeserializeOwned>(from: &mut impl Read) -> io::Result<T> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length);
    if length > MAX_ANSWER_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut json = vec![0; length as usize];
    from.read_exact(&mut json)?;
    Ok(serde_json::from_slice(&json)?)
}
