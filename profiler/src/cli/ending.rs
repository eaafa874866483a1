//! The end of a recording, for the person who waits for it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use libc::c_int;
use tokio::sync::oneshot;

use super::signals::Signals;
use crate::{
    attach::{Remaining, leave_probes_behind},
    messages::{clear_status, flush, is_interactive, say, show_status},
    session::end_held_command,
};

/// How often a terminal shows how far it is.
const SHOWN: Duration = Duration::from_millis(200);
/// How often a line says so elsewhere.
const SAID: Duration = Duration::from_secs(10);

/// Takes the probes out, and says so. Whoever asks once more leaves at once.
pub async fn take_out(probes: Remaining, signals: &Signals, quiet: bool) {
    let all = probes.count();
    // The first time ends the recording, unless that has ended by itself.
    let asked = signals.count().min(1);
    if !quiet {
        announce(all);
    }
    let gone = Arc::new(AtomicUsize::new(0));
    let taken = start(probes, &gone);
    tokio::pin!(taken);
    let left = || all.saturating_sub(gone.load(Ordering::Relaxed));
    let mut tick = tokio::time::interval(if is_interactive() { SHOWN } else { SAID });
    tick.tick().await;
    loop {
        tokio::select! {
            biased;
            () = signals.more_than(asked) => {
                leave(left());
                break;
            }
            _ = &mut taken => break,
            _ = tick.tick(), if !quiet => show(left(), all),
        }
    }
    clear_status();
}

/// Ready once all are out.
fn start(probes: Remaining, gone: &Arc<AtomicUsize>) -> oneshot::Receiver<()> {
    let (done, taken) = oneshot::channel::<()>();
    let gone = Arc::clone(gone);
    let thread = thread::Builder::new().name("detach".to_owned());
    // Without room for a thread they are dropped here and now, with the closure.
    let _ = thread.spawn(move || {
        probes.take_out(&gone);
        drop(done);
    });
    taken
}

fn announce(all: usize) {
    let text = format!(
        "taking {all} probes out; Ctrl-C leaves at once, and the kernel takes out the rest"
    );
    match is_interactive() {
        true => show_status(text),
        false => say(text),
    }
}

fn show(left: usize, all: usize) {
    let text = format!("{left} of {all} probes are still to be taken out; Ctrl-C leaves at once");
    match is_interactive() {
        true => show_status(text),
        false => say(text),
    }
}

/// What is closed from here on is not closed for good, and is quick.
fn leave(left: usize) {
    let text = match leave_probes_behind() {
        Ok(()) => format!("leaving: the kernel takes the remaining {left} probes out by itself"),
        Err(error) => {
            format!("taking out the remaining {left} probes first: cannot fork ({error})")
        }
    };
    clear_status();
    say(text);
}

/// Leaves from the middle of the start. A command of ours has not begun either, and is ended.
pub fn leave_before_the_beginning(signal: c_int) -> ! {
    let command = match end_held_command() {
        true => ", and the command was not run",
        false => "",
    };
    let text = format!("ended before the recording began; nothing was recorded{command}");
    leave_from_anywhere(text, signal)
}

/// Leaves from the middle of a recording, or of its last writing.
pub fn leave_unfinished(signal: c_int) -> ! {
    end_held_command();
    let text = "leaving at once, as asked again: what was written until now stays, and the kernel takes the probes \
                out by itself";
    leave_from_anywhere(text.to_owned(), signal)
}

/// Ends residue, whatever its other threads wait for.
fn leave_from_anywhere(text: String, signal: c_int) -> ! {
    clear_status();
    say(text);
    flush();
    // As late as can be: what the other threads open from here on, this process must close itself.
    if let Err(error) = leave_probes_behind() {
        say(format!(
            "taking the probes out first: cannot fork ({error})"
        ));
        flush();
    }
    std::process::exit(128 + signal)
}
