//! What residue says to a person, on standard error. A thread of its own writes it: a pipe that nobody
//! empties, or a terminal that is held, holds up no recording, and one that is gone ends none.

use std::{
    io::{self, IsTerminal as _, Write as _},
    sync::{
        LazyLock,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

use crate::printable::{lines, message, printable};

/// How many messages wait for whoever reads. What comes on top is left out.
const WAITING: usize = 1024;
/// How long the end of residue waits for whoever reads.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often somebody who waits for room looks again.
const PAUSE: Duration = Duration::from_millis(5);
/// How often the spinner turns.
const TICK: Duration = Duration::from_millis(200);

static QUEUE: LazyLock<SyncSender<Message>> = LazyLock::new(start);

enum Message {
    /// A line that stays.
    Line(String),
    /// What goes on now: the last line of a terminal, and nothing elsewhere.
    Status(String),
    /// Nothing goes on any more.
    Clear,
    /// Asks for an answer once all before it is written.
    Written(SyncSender<()>),
}

/// Says a line, or several. Never waits and never fails: what cannot be said is left out.
pub fn say(text: impl Into<String>) {
    send(Message::Line(text.into()));
}

/// Says what is wrong. It may be of several lines, none of which a name in it can forge. Why residue ends is not
/// left out because much is said: there is time to wait for whoever reads.
pub fn complain(text: &str) {
    let line = Message::Line(format!("residue: {}", message(text)));
    send_until(&QUEUE, line, Instant::now() + PATIENCE);
}

/// Has log records written to standard error, as `RUST_LOG` asks.
pub fn log() {
    let write = |out: &mut env_logger::fmt::Formatter, record: &log::Record<'_>| {
        let text = printable(&record.args().to_string());
        writeln!(out, "[{} {}] {text}", record.level(), record.target())
    };
    env_logger::builder().format(write).init();
}

/// Shows what goes on, if standard error is a terminal.
pub fn show_status(text: impl Into<String>) {
    send(Message::Status(text.into()));
}

/// Takes the last status away.
pub fn clear_status() {
    send(Message::Clear);
}

/// Whether a status is seen.
pub fn is_interactive() -> bool {
    io::stderr().is_terminal()
}

/// Waits until all is written, or for a second, if nobody reads.
pub fn flush() {
    let deadline = Instant::now() + PATIENCE;
    let (written, is_written) = sync_channel(1);
    if send_until(&QUEUE, Message::Written(written), deadline) {
        // Nobody reads, or the thread has ended: there is nothing more to be done.
        let _ = is_written.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}

/// Sends once there is room in the queue. Returns whether there was any in time.
fn send_until(queue: &SyncSender<Message>, mut message: Message, deadline: Instant) -> bool {
    loop {
        match queue.try_send(message) {
            Ok(()) => return true,
            Err(TrySendError::Full(back)) if Instant::now() < deadline => message = back,
            // There was no room for a thread.
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
        // There was no room for a thread.
        Err(TrySendError::Disconnected(Message::Line(text))) => write_line(&text),
        Err(TrySendError::Disconnected(_)) => {}
    }
}

fn start() -> SyncSender<Message> {
    let (sender, messages) = sync_channel(WAITING);
    let thread = thread::Builder::new().name("messages".to_owned());
    // Without the thread, the channel is closed, and lines are written at once.
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
            // Whoever asked may have lost patience.
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

/// A terminal or pipe that is gone is nobody's loss but its own.
fn write_line(text: &str) {
    let _ = io::stderr().write_all(format!("{}\n", lines(text)).as_bytes());
}

#[cfg(test)]
mod tests {
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
}
