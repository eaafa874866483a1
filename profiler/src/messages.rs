//! What residue says to a person, on standard error. A thread of its own writes the messages: if nobody empties
//! the pipe, or somebody holds the terminal, the recording goes on, and also if the pipe or the terminal is gone.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    io::{self, IsTerminal as _, Write as _},
    panic::{self, PanicHookInfo},
    sync::{
        LazyLock,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

use crate::printable::{lines, message, printable};

/// How many messages wait for the reader. Residue leaves out any beyond that.
const WAITING: usize = 1024;
/// How long residue waits for the reader when it ends.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a sender that waits for room pauses before it tries again.
const PAUSE: Duration = Duration::from_millis(5);
/// How often the spinner turns.
const TICK: Duration = Duration::from_millis(200);

/// The name of the thread that writes.
const WRITER: &str = "messages";

static QUEUE: LazyLock<SyncSender<Message>> = LazyLock::new(start);

enum Message {
    /// A line that stays.
    Line(String),
    /// What residue is doing: the last line of a terminal, and nothing elsewhere.
    Status(String),
    /// Takes the status away.
    Clear,
    /// Asks for an answer once the thread has written all messages before this one.
    Written(SyncSender<()>),
}

/// Says one line or several. Never waits and never fails: leaves out what does not fit into the queue.
pub fn say(text: impl Into<String>) {
    send(Message::Line(text.into()));
}

/// Says what is wrong. The text may have several lines; a name in it cannot forge one. A message of why residue
/// ends must not get lost among many others, so this waits for room.
pub fn complain(text: &str) {
    let line = Message::Line(format!("residue: {}", message(text)));
    send_until(&QUEUE, line, Instant::now() + PATIENCE);
}

/// Makes a panic say where residue is wrong, as a message: printable, and without waiting for a reader that holds
/// residue up. Unwinding drops values, which takes the probes out; the exit code of a panic in `main` is 101.
pub fn tell_of_panics() {
    panic::set_hook(Box::new(|info| {
        let text = describe_panic(info);
        // The thread that writes would wait for itself.
        match thread::current().name() {
            Some(WRITER) => write_line(&text),
            _ => {
                say(text);
                flush();
            }
        }
    }));
}

fn describe_panic(info: &PanicHookInfo<'_>) -> String {
    let place = info.location().map(ToString::to_string);
    let text = message(&format!(
        "residue: internal error at {}: {}; no process that is recorded is harmed by it. Please report this line on \
         the project's page, with what you ran",
        place.unwrap_or_default(),
        info.payload_as_str().unwrap_or("no text"),
    ));
    match Backtrace::capture() {
        trace if trace.status() == BacktraceStatus::Captured => format!("{text}\n{trace}"),
        _ => text,
    }
}

/// Writes log records to standard error, as `RUST_LOG` asks.
pub fn log() {
    let write = |out: &mut env_logger::fmt::Formatter, record: &log::Record<'_>| {
        let text = printable(&record.args().to_string());
        writeln!(out, "[{} {}] {text}", record.level(), record.target())
    };
    env_logger::builder().format(write).init();
}

/// Shows what residue is doing, if standard error is a terminal.
pub fn show_status(text: impl Into<String>) {
    send(Message::Status(text.into()));
}

/// Takes the last status away.
pub fn clear_status() {
    send(Message::Clear);
}

/// Whether somebody can see a status.
pub fn is_interactive() -> bool {
    io::stderr().is_terminal()
}

/// Waits until the thread has written everything; at most for a second, if nobody reads.
pub fn flush() {
    let deadline = Instant::now() + PATIENCE;
    let (written, is_written) = sync_channel(1);
    if send_until(&QUEUE, Message::Written(written), deadline) {
        // Nobody reads, or the thread has ended: nothing more can be done.
        let _ = is_written.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}

/// Sends a message once the queue has room. Returns whether there was room in time.
fn send_until(queue: &SyncSender<Message>, mut message: Message, deadline: Instant) -> bool {
    loop {
        match queue.try_send(message) {
            Ok(()) => return true,
            Err(TrySendError::Full(back)) if Instant::now() < deadline => message = back,
            // The thread could not be started.
            Err(TrySendError::Disconnected(Message::Line(text))) => {
                write_line(&text);
                return false;
            }
            Err(_) => return false,
        }
        thread::sleep(PAUSE);
    }
}

fn send(message: Message) {
    match QUEUE.try_send(message) {
        Ok(()) | Err(TrySendError::Full(_)) => {}
        // The thread could not be started.
        Err(TrySendError::Disconnected(Message::Line(text))) => write_line(&text),
        Err(TrySendError::Disconnected(_)) => {}
    }
}

fn start() -> SyncSender<Message> {
    let (sender, messages) = sync_channel(WAITING);
    let thread = thread::Builder::new().name(WRITER.to_owned());
    // If the thread cannot be started, the channel is closed, and senders write their lines at once.
    let _ = thread.spawn(move || write(&messages));
    sender
}

fn write(messages: &Receiver<Message>) {
    let mut bar = None;
    for message in messages {
        match message {
            Message::Line(text) => match &bar {
                Some(bar) => ProgressBar::suspend(bar, || write_line(&text)),
                None => write_line(&text),
            },
            Message::Status(text) if is_interactive() => {
                bar.get_or_insert_with(spinner)
                    .set_message(printable(&text));
            }
            Message::Status(_) => {}
            Message::Clear => {
                if let Some(bar) = bar.take() {
                    bar.finish_and_clear();
                }
            }
            // The one who asked may have lost patience.
            Message::Written(written) => drop(written.try_send(())),
        }
    }
}

fn spinner() -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {elapsed} {msg}")
        .expect("the template is well formed");
    let bar = ProgressBar::new_spinner().with_style(style);
    bar.enable_steady_tick(TICK);
    bar
}

/// Writes a line, and ignores an error: only the terminal or the pipe that is gone loses it.
fn write_line(text: &str) {
    let _ = io::stderr().write_all(format!("{}\n", lines(text)).as_bytes());
}

#[cfg(test)]
mod tests {
    use std::{
        env,
        fs::File,
        io::{Read as _, Write as _},
        process::{Command, ExitStatus},
        time::{Duration, Instant},
    };

    use rustix::pipe::{fcntl_getpipe_size, pipe};

    use super::*;

    #[test]
    fn what_must_be_said_waits_for_room_and_not_for_ever() {
        let (queue, waiting) = sync_channel(1);
        let line = || Message::Line(String::new());
        let soon = || Instant::now() + Duration::from_millis(50);
        assert!(send_until(&queue, line(), soon()));
        assert!(!send_until(&queue, line(), soon()), "it is full");
        let reader = thread::spawn(move || {
            thread::sleep(Duration::from_millis(50));
            (waiting.recv().is_ok(), waiting)
        });
        let later = Instant::now() + Duration::from_secs(60);
        assert!(send_until(&queue, line(), later));
        assert!(reader.join().expect("it does not panic").0);
    }

    /// The name of the test `panics`, which is run in a process of its own.
    fn child() -> String {
        let (_, module) = module_path!().split_once("::").expect("it is in a crate");
        format!("{module}::panics")
    }

    #[test]
    #[ignore = "is what the other tests start"]
    fn panics() {
        tell_of_panics();
        panic!("\u{1b}[31mred\u{202e}");
    }

    /// Panics in a process whose standard error is `stderr`.
    fn panic_with(stderr: impl Into<std::process::Stdio>) -> ExitStatus {
        let mut child = Command::new(env::current_exe().expect("a test is a program"))
            .arg(child())
            .args(["--exact", "--ignored", "--nocapture"])
            .env_remove("RUST_BACKTRACE")
            .stdout(std::process::Stdio::null())
            .stderr(stderr)
            .spawn()
            .expect("a test can be started");
        let began = Instant::now();
        while child.try_wait().expect("a child of ours").is_none() {
            if began.elapsed() > Duration::from_secs(20) {
                child.kill().expect("a child of ours");
            }
            thread::sleep(Duration::from_millis(10));
        }
        child.wait().expect("a child of ours")
    }

    #[test]
    fn a_panic_says_where_it_was_in_printable_text() {
        let (reader, writer) = pipe().expect("a pipe");
        let status = panic_with(writer);
        let mut said = String::new();
        File::from(reader)
            .read_to_string(&mut said)
            .expect("it is UTF-8");
        assert_eq!(status.code(), Some(101), "{said}");
        assert!(said.starts_with("residue: internal error at"), "{said}");
        assert!(said.contains(file!()), "{said}");
        assert!(said.contains(r"\u{1b}[31mred\u{202e}"), "{said}");
    }

    #[test]
    fn a_panic_ends_although_nobody_reads_what_it_says() {
        let (reader, writer) = pipe().expect("a pipe");
        let room = fcntl_getpipe_size(&reader).expect("it is a pipe");
        let mut full = File::from(writer.try_clone().expect("a descriptor is free"));
        full.write_all(&vec![b'.'; room])
            .expect("there is so much room");
        assert_eq!(panic_with(writer).code(), Some(101));
        drop(reader);
    }

    #[test]
    fn a_panic_ends_although_standard_error_is_gone() {
        let (reader, writer) = pipe().expect("a pipe");
        drop(reader);
        assert_eq!(panic_with(writer).code(), Some(101));
    }
}
