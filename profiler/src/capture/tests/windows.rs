//! Request windows, written and read again.

use std::time::{Duration, Instant};

use super::*;
use crate::capture::{UnboundAt, Windows};
use crate::requests::head::Method;
use crate::requests::record::{
    Amount, Binding, LeftBehind, MemoryAt, ProcessUnbound, RssPair, Stage, Survived, Unbound,
    WindowEnd, WindowRecord,
};
use crate::requests::route::Route;

fn amount(bytes: u64) -> Amount {
    Amount { bytes, objects: 1 }
}

fn survived(window: u64, bytes: u64) -> Survived {
    Survived {
        window: WindowNumber(window),
        route: users(),
        amount: amount(bytes),
    }
}

fn users() -> Route {
    Route::stored(Some(Method::Get), Some("/users/{id}"))
}

fn record(window: u64) -> WindowRecord {
    WindowRecord {
        window: WindowNumber(window),
        process: ProcessNumber(3),
        pid: 7,
        tid: 8,
        opened_ns: 1_000,
        closed_ns: 3_000,
        duration_ns: Some(1_500),
        route: users(),
        status: Some(200),
        request_id: Some("abc123".into()),
        rss: Some(RssPair {
            open: 4096,
            close: 8192,
        }),
        allocated: amount(900),
        retained: amount(90),
        binding: Binding::Exact,
        end: WindowEnd::Done,
    }
}

/// A window about which as little as possible is known.
fn bare(window: u64) -> WindowRecord {
    WindowRecord {
        duration_ns: None,
        status: None,
        request_id: None,
        rss: None,
        route: Route::OTHER,
        binding: Binding::Candidates(4),
        end: WindowEnd::Reset,
        ..record(window)
    }
}

fn left(status: Option<u16>, stage: Stage, bytes: u64) -> LeftBehind {
    LeftBehind {
        process: ProcessNumber(3),
        route: users(),
        status,
        stage,
        stack: StackId(1),
        amount: amount(bytes),
    }
}

fn write(path: &Path, intervals: &[Interval]) -> Result<Windows, Box<dyn Error>> {
    let mut writer = Writer::create(path, &Meta::default())?;
    for interval in intervals {
        writer.write_interval(interval.clone())?;
    }
    writer.finish(9)?;
    Ok(read(path)?.windows)
}

#[test]
fn windows_are_read_as_they_were_written() -> TestResult {
    let (_directory, path) = place()?;
    let job = WindowRecord {
        route: Route::named("fn:other"),
        binding: Binding::Lineage,
        end: WindowEnd::StillOpen,
        ..record(3)
    };
    let none = WindowRecord {
        binding: Binding::None,
        end: WindowEnd::CutOff,
        ..record(4)
    };
    let records = [record(1), bare(2), job, none];
    let first = Interval {
        windows: records[..2].to_vec(),
        ..interval(1)
    };
    let second = Interval {
        windows: records[2..].to_vec(),
        ..interval(2)
    };
    let windows = write(&path, &[first, second])?;
    assert_eq!(windows.records, records.map(|record| (record, None)));
    Ok(())
}

#[test]
fn survivors_are_filled_in_once_they_are_known() -> TestResult {
    let (_directory, path) = place()?;
    let first = Interval {
        windows: vec![record(1), record(2)],
        ..interval(1)
    };
    // The second window has no row, and has survivors all the same.
    let second = Interval {
        survivors: vec![survived(1, 40), survived(99, 5)],
        ..interval(2)
    };
    let windows = write(&path, &[first, second])?;
    let survivors: Vec<_> = windows.records.iter().map(|record| record.1).collect();
    assert_eq!(survivors, [Some(amount(40)), None]);
    Ok(())
}

#[test]
fn memory_is_read_in_the_order_of_time() -> TestResult {
    let (_directory, path) = place()?;
    let at = |process, at_ns, unbound_bytes, resident_bytes| MemoryAt {
        process: ProcessNumber(process),
        at_ns,
        unbound_bytes,
        resident_bytes,
    };
    let first = Interval {
        memory: vec![at(1, 10, Some(5), None), at(0, 20, None, Some(6))],
        ..interval(1)
    };
    let second = Interval {
        memory: vec![at(1, 30, Some(7), Some(u64::MAX >> 1))],
        ..interval(2)
    };
    let expected = [first.memory.clone(), second.memory.clone()].concat();
    assert_eq!(write(&path, &[first, second])?.memory, expected);
    Ok(())
}

#[test]
fn what_is_left_behind_adds_up_by_status_and_stage() -> TestResult {
    let (_directory, path) = place()?;
    let part = |bytes| Interval {
        left_behind: vec![
            left(Some(200), Stage::Retained, bytes),
            left(Some(500), Stage::Retained, 1),
            left(None, Stage::Survivors, u64::MAX),
        ],
        ..interval(bytes)
    };
    let windows = write(&path, &[part(10), part(20)])?;
    let told = windows.left_behind.iter();
    let told: Vec<_> = told
        .map(|left| {
            (
                left.status,
                left.stage,
                left.amount.bytes,
                left.amount.objects,
            )
        })
        .collect();
    // The largest number that the file can hold.
    let most = i64::MAX as u64;
    let expected = [
        (None, Stage::Survivors, most, 2),
        (Some(200), Stage::Retained, 30, 2),
        (Some(500), Stage::Retained, 2, 2),
    ];
    assert_eq!(told, expected);
    Ok(())
}

#[test]
fn memory_of_no_window_is_written_when_it_changes() -> TestResult {
    let (_directory, path) = place()?;
    let of = |process, bytes| ProcessUnbound {
        process: ProcessNumber(process),
        background: Unbound {
            allocated: amount(bytes),
            outstanding: amount(1),
        },
        ambiguous: Unbound {
            allocated: amount(4),
            outstanding: amount(3),
        },
    };
    let at = |at_ns, unbound: &[ProcessUnbound]| Interval {
        unbound: unbound.to_vec(),
        ..interval(at_ns)
    };
    let intervals = [
        at(1, &[of(0, 10), of(1, 20)]),
        at(2, &[of(0, 10), of(1, 30)]),
        at(3, &[of(0, 10), of(1, 30)]),
    ];
    let windows = write(&path, &intervals)?;
    let expected = [(1, of(0, 10)), (1, of(1, 20)), (2, of(1, 30))];
    let expected = expected.map(|(at_ns, unbound)| UnboundAt { at_ns, unbound });
    assert_eq!(windows.unbound, expected);
    assert_eq!(read(&path)?.snapshots, [1, 2, 3]);
    Ok(())
}

/// An interval with something in every table of windows.
pub(super) fn everything(at_ns: u64) -> Interval {
    let of_process = |bytes| ProcessUnbound {
        process: ProcessNumber(3),
        background: Unbound {
            allocated: amount(bytes),
            outstanding: amount(bytes),
        },
        ambiguous: Unbound::default(),
    };
    Interval {
        windows: vec![record(1), bare(2), record(3)],
        survivors: vec![survived(1, 9)],
        left_behind: vec![
            left(Some(200), Stage::Retained, 90),
            left(None, Stage::Survivors, 9),
        ],
        unbound: vec![of_process(5)],
        memory: (0..20)
            .map(|at_ns| MemoryAt {
                process: ProcessNumber(3),
                at_ns: 1_000 + at_ns,
                unbound_bytes: Some(7 * at_ns),
                resident_bytes: Some(4096 * at_ns),
            })
            .collect(),
        ..interval(at_ns)
    }
}

#[test]
fn a_capture_from_before_windows_is_read_without_them() -> TestResult {
    let (_directory, path) = place()?;
    samples::write_version_2(&path)?;
    let capture = read(&path)?;
    assert_eq!(capture.totals, [(StackId(1), allocated(3900))]);
    assert_eq!(capture.ended_ns, Some(50));
    assert!(capture.windows.records.is_empty());
    Ok(())
}

#[test]
fn the_views_say_what_they_are_documented_to() -> TestResult {
    let (_directory, path) = place()?;
    let windows = vec![record(1), bare(2)];
    write(
        &path,
        &[Interval {
            windows,
            ..interval(1)
        }],
    )?;
    let db = rusqlite::Connection::open(&path)?;
    let routes = "SELECT group_concat(route, ' | ') FROM request ORDER BY id";
    let routes: String = db.query_row(routes, [], |row| row.get(0))?;
    assert_eq!(routes, "GET /users/{id} | other");
    Ok(())
}

#[test]
fn windows_that_cannot_be_are_refused() -> TestResult {
    for damage in [
        "UPDATE window SET confidence = 'sure'",
        "UPDATE window SET confidence = 'candidates', candidates = NULL",
        "UPDATE window SET ended = 'never'",
        "UPDATE window SET route_id = 77",
        "UPDATE window SET survivor_bytes = -1, survivor_objects = 0",
        "UPDATE left_behind SET stage = 'later'",
        "UPDATE left_behind SET status = 70000",
    ] {
        let (_directory, path) = place()?;
        let interval = Interval {
            windows: vec![record(1)],
            left_behind: vec![left(None, Stage::Survivors, 1)],
            ..interval(1)
        };
        write(&path, &[interval])?;
        rusqlite::Connection::open(&path)?.execute_batch(damage)?;
        let error = read(&path).unwrap_err();
        assert!(
            matches!(error, CaptureError::Damaged { .. }),
            "{damage}: {error}"
        );
    }
    Ok(())
}

/// A server of 10,000 requests a second takes a tenth of each second to write; a debug build, or a busy
/// machine, gets five times as long.
#[test]
fn ten_thousand_windows_are_written_in_a_fraction_of_a_second() -> TestResult {
    let (_directory, path) = place()?;
    let mut writer = Writer::create(&path, &Meta::default())?;
    let mut slowest = Duration::ZERO;
    for second in 0..5_u64 {
        let numbers = second * 10_000 + 1..(second + 1) * 10_000 + 1;
        let before = numbers.start.saturating_sub(10_000)..numbers.start;
        let interval = Interval {
            windows: numbers.map(record).collect(),
            survivors: before.map(|window| survived(window, 40)).collect(),
            ..interval(second)
        };
        let begun = Instant::now();
        writer.write_interval(interval)?;
        slowest = slowest.max(begun.elapsed());
    }
    println!("the slowest interval took {slowest:?}");
    assert!(slowest < Duration::from_millis(500), "{slowest:?}");
    let survived = read(&path)?
        .windows
        .records
        .iter()
        .filter(|record| record.1.is_some())
        .count();
    assert_eq!(survived, 40_000);
    Ok(())
}
