//! Captures that one program reads while another writes.

use std::os::unix::fs::chown;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::*;
use crate::capture::image::Image;
use crate::capture::lock::{Level, Locked};
use crate::capture::snapshot;

/// The id of a user who is not root; `nobody` on most systems.
const STRANGER: u32 = 65534;
/// The pause between two intervals, in which a reader finds its moment.
const PAUSE: Duration = Duration::from_millis(5);

#[test]
fn a_recorder_does_not_wait_for_a_reader_and_loses_nothing_to_it() -> TestResult {
    let (_directory, path) = place()?;
    let mut writer = Writer::create(&path, &Meta::default())?;
    writer.write_interval(interval(1))?;
    let reader = Locked::new(File::open(&path)?);
    assert!(reader.wait_to_read(Duration::from_secs(1))?);
    let began = Instant::now();
    writer.add_process(Process {
        number: ProcessNumber(3),
        ..Process::default()
    })?;
    writer.write_interval(first_interval())?;
    writer.note(2, "held up")?;
    writer.end_process(ProcessNumber(3), 2, "exited")?;
    writer.write_interval(interval(3))?;
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "the recorder waited"
    );
    reader.lower(Level::None)?;
    assert_eq!(read(&path)?.last_ns, 1);
    writer.write_interval(interval(4))?;
    let capture = read(&path)?;
    assert_eq!(capture.last_ns, 4);
    assert_eq!(capture.stacks, first_interval().stacks);
    assert_eq!(capture.frames, first_interval().frames);
    assert_eq!(capture.notes[0].text, "held up");
    assert!(capture.processes[0].1.is_some());
    Ok(())
}

/// A reader also gets a sound capture if reading takes longer than anybody may lock the file.
#[test]
fn a_capture_that_is_read_without_a_lock_is_read_whole_or_again() -> TestResult {
    let (_directory, path) = place()?;
    let mut writer = Writer::create(&path, &Meta::default())?;
    writer.write_interval(first_interval())?;
    let unlocked = || snapshot::take_while(&path, Duration::ZERO);
    assert_eq!(unlocked()?, fs::read(&path)?);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let read = (0..40).map(|_| unlocked());
            let sound = |bytes| Image::open(&path, bytes).is_ok_and(|image| is_sound(&image));
            let (mut whole, mut changing) = (0, 0);
            for read in read {
                match read {
                    Ok(bytes) if sound(bytes.clone()) => whole += 1,
                    Err(CaptureError::Changing { .. }) => changing += 1,
                    _ => break,
                }
            }
            over.store(true, Ordering::Relaxed);
            (whole, changing)
        });
        for at_ns in 2.. {
            if over.load(Ordering::Relaxed) {
                break;
            }
            let totals = (1..500)
                .map(|stack| (StackId(stack), allocated(at_ns)))
                .collect();
            writer.write_interval(Interval {
                totals,
                ..interval(at_ns)
            })?;
            std::thread::sleep(PAUSE);
        }
        let (whole, changing) = reader.join().map_err(|_| "the reader panicked")?;
        assert_eq!(whole + changing, 40, "one was neither");
        Ok(())
    })
}

fn is_sound(image: &Image) -> bool {
    let sound: rusqlite::Result<String> =
        (image.db()).query_row("PRAGMA integrity_check", [], |row| row.get(0));
    sound.is_ok_and(|answer| answer == "ok")
}

/// The recorder's journal belongs to root, and may be there or not at any moment.
#[test]
fn a_report_of_another_user_never_minds_the_recorders_journal() -> TestResult {
    let (directory, path) = place()?;
    if !rustix::process::geteuid().is_root() {
        crate::machine::skipped(
            "a_report_of_another_user_never_minds_the_recorders_journal",
            "root",
        );
        return Ok(());
    }
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
    let mut writer = Writer::create(&path, &Meta::default())?;
    chown(&path, Some(STRANGER), Some(STRANGER))?;
    writer.write_interval(interval(1))?;
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            // SAFETY: a plain system call about this thread, which ends soon.
            unsafe { libc::syscall(libc::SYS_setfsuid, STRANGER) };
            let failed = (0..150).find_map(|_| read(&path).err());
            over.store(true, Ordering::Relaxed);
            failed.map(|error| crate::error_text::in_full(&error))
        });
        for at_ns in 2.. {
            if over.load(Ordering::Relaxed) {
                break;
            }
            writer.write_interval(interval(at_ns))?;
            std::thread::sleep(PAUSE);
        }
        let failed = reader.join().map_err(|_| "the reader panicked")?;
        assert_eq!(failed, None);
        Ok(())
    })
}
