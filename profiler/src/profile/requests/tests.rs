//! Tests of requests in a profile: windows go in, rows come out.

use residue_ebpf::abi::event::WalkEnd;
use residue_ebpf::abi::heap::StackKind;

use super::*;
use crate::capture::{Frame, FrameKind, Stack, Windows};
use crate::ids::{StackId, WindowNumber};
use crate::profile::Profile;
use crate::requests::head::Method;
use crate::requests::record::{Binding, LeftBehind, MemoryAt};
use crate::symbolize::Symbol;
use crate::{estimate::EstimatedFrom, requests::table::RowEstimate};

const SECOND: u64 = 1_000_000_000;

fn amount(bytes: u64) -> Amount {
    Amount {
        bytes,
        objects: bytes / 10,
    }
}

fn route(template: &str) -> Route {
    Route::stored(Some(Method::Get), Some(template))
}

fn window(route: &Route, status: u16, retained: u64) -> WindowRecord {
    WindowRecord {
        window: WindowNumber(1),
        process: ProcessNumber(0),
        pid: 1,
        tid: 1,
        opened_ns: 0,
        closed_ns: 1,
        duration_ns: None,
        route: route.clone(),
        status: Some(status),
        request_id: None,
        rss: None,
        allocated: amount(retained),
        retained: amount(retained),
        binding: Binding::Exact,
        end: WindowEnd::Done,
    }
}

fn left(route: &Route, status: u16, stack: u32, bytes: u64) -> LeftBehind {
    LeftBehind {
        process: ProcessNumber(0),
        route: route.clone(),
        status: Some(status),
        stage: Stage::Retained,
        stack: StackId(stack),
        amount: amount(bytes),
    }
}

/// Makes context 1 with the stacks 2 and 3. Each stack has one frame, whose name is its number.
fn capture(records: Vec<WindowRecord>, left_behind: Vec<LeftBehind>) -> Capture {
    let stack = |id, kind, context: Option<u32>| Stack {
        id: StackId(id),
        process: ProcessNumber(0),
        frames: vec![id],
        left_out: 0,
        end: WalkEnd::Bottom,
        kind,
        context: context.map(StackId),
    };
    let frame = |id: u32| Frame {
        id,
        kind: FrameKind::Native,
        module: None,
        offset: 0,
        symbols: vec![Symbol {
            name: id.to_string(),
            file: None,
            line: None,
        }],
    };
    Capture {
        frames: (1..=3).map(frame).collect(),
        stacks: vec![
            stack(1, StackKind::Context, None),
            stack(2, StackKind::Full, Some(1)),
            stack(3, StackKind::Full, Some(1)),
        ],
        windows: Windows {
            records: records.into_iter().map(|record| (record, None)).collect(),
            left_behind,
            ..Windows::default()
        },
        ..Capture::default()
    }
}

/// Returns the name of the innermost frame, the status, the bytes, and how many of them are
/// estimated.
fn rows(capture: &Capture) -> Vec<(String, u16, u64, u64)> {
    let profile = Profile::from(capture);
    let requests = profile.requests.as_ref().expect("there are windows");
    let rows = requests.left_behind.iter().map(|row| {
        (
            profile.frame(row.frames[0]).name.clone(),
            row.status.unwrap_or_default(),
            row.amount.bytes,
            row.estimated.bytes,
        )
    });
    rows.collect()
}

#[test]
fn what_was_not_walked_is_shared_out_among_requests_that_are_alike() {
    let home = route("/");
    let left_behind = vec![
        left(&home, 200, 1, 4_000),
        left(&home, 200, 2, 100),
        left(&home, 200, 3, 300),
        // Another status has its own proportions.
        left(&home, 500, 1, 50),
        left(&home, 500, 3, 10),
    ];
    let expected = [
        ("3", 200, 3_300, 3_000),
        ("2", 200, 1_100, 1_000),
        ("3", 500, 60, 50),
    ];
    let expected = expected.map(|(name, status, bytes, of_it)| (name.into(), status, bytes, of_it));
    assert_eq!(
        rows(&capture(vec![window(&home, 200, 0)], left_behind)),
        expected
    );
}

#[test]
fn a_status_of_which_nothing_was_walked_goes_by_the_route() {
    let home = route("/");
    let left_behind = vec![left(&home, 500, 1, 400), left(&home, 200, 2, 100)];
    let expected = [("2".into(), 500, 400, 400), ("2".into(), 200, 100, 0)];
    assert_eq!(
        rows(&capture(vec![window(&home, 200, 0)], left_behind)),
        expected
    );
}

#[test]
fn nothing_goes_to_stacks_of_another_route() {
    let (walked, not_walked) = (route("/walked"), route("/not-walked"));
    let left_behind = vec![left(&not_walked, 200, 1, 400), left(&walked, 200, 2, 100)];
    let capture = capture(vec![window(&walked, 200, 0)], left_behind);
    let expected = [("1".into(), 200, 400, 0), ("2".into(), 200, 100, 0)];
    assert_eq!(rows(&capture), expected);
    let profile = Profile::from(&capture);
    let requests = profile.requests.expect("there are windows");
    assert_eq!(requests.left_behind[0].walk, Walk::Shallow);
}

#[test]
fn what_was_freed_before_it_was_looked_at_has_a_row_of_its_own() {
    let home = route("/");
    let records = vec![
        window(&home, 200, 1_000),
        window(&home, 200, 500),
        window(&home, 500, 70),
    ];
    let expected = [
        ("[stack not looked at in time]".into(), 200, 1_400, 0),
        ("2".into(), 200, 100, 0),
        ("[stack not looked at in time]".into(), 500, 70, 0),
    ];
    assert_eq!(
        rows(&capture(records, vec![left(&home, 200, 2, 100)])),
        expected
    );
}

#[test]
fn windows_that_are_not_bound_or_not_closed_leave_nothing_for_sure() {
    let home = route("/");
    let mut records = vec![window(&home, 200, 1_000); 2];
    records[0].binding = Binding::Candidates(2);
    records[1].end = WindowEnd::StillOpen;
    assert_eq!(rows(&capture(records, Vec::new())), []);
}

#[test]
fn routes_beyond_the_cap_are_one() {
    let others = [Method::Get, Method::Post].map(|method| Route::stored(Some(method), None));
    let records = others.iter().map(|other| window(other, 200, 10)).collect();
    let expected = [("[stack not looked at in time]".into(), 200, 20, 0)];
    assert_eq!(rows(&capture(records, Vec::new())), expected);
}

/// Makes a server whose allocations nobody can bind, with so many routes. A request of the first
/// route leaves 500 bytes behind, other requests nothing. The server begins with 1 MB, and grows by
/// 100 bytes a second.
fn concurrent(seconds: u64, routes: u64) -> Capture {
    let mut capture = capture(Vec::new(), Vec::new());
    let mut outstanding = 1_000_000;
    for second in 0..seconds {
        let at_ns = (second + 1) * SECOND;
        outstanding += 100;
        for number in 0..routes {
            // The counts are as good as random. Each further route has fewer requests.
            let requests = ((second + 1) * (2 * number + 7) * 7919 / 13) % (routes + 2 - number);
            for _ in 0..requests {
                let record = WindowRecord {
                    opened_ns: at_ns.saturating_sub(SECOND / 2),
                    duration_ns: Some(SECOND / 4),
                    // The recorder may see the end of a window late.
                    closed_ns: at_ns + SECOND / 10,
                    binding: Binding::Candidates(2),
                    ..window(&route(&format!("/{number}")), 200, 9)
                };
                capture.windows.records.push((record, None));
                outstanding += if number == 0 { 500 } else { 0 };
            }
        }
        capture.windows.memory.push(MemoryAt {
            process: ProcessNumber(0),
            at_ns,
            unbound_bytes: Some(outstanding),
            resident_bytes: Some(7),
        });
    }
    capture
}

fn estimate(capture: &Capture, name: &str) -> RowEstimate {
    let profile = Profile::from(capture);
    let requests = profile.requests.expect("there are windows");
    let mut rows = requests.table.routes.into_iter();
    let row = rows.find(|row| row.route == route(name));
    row.expect("the route is there").estimate
}

fn told(capture: &Capture, name: &str) -> (f64, f64) {
    match estimate(capture, name) {
        RowEstimate::Told {
            bytes_per_request,
            standard_error,
            from: EstimatedFrom::Blocks,
        } => (bytes_per_request, standard_error),
        other => panic!("{other:?}"),
    }
}

#[test]
fn growth_tells_what_requests_leave_that_nothing_is_bound_to() {
    for seconds in [60, 3_000] {
        let capture = concurrent(seconds, 3);
        let (bytes, error) = told(&capture, "/0");
        assert!(
            (bytes - 500.0).abs() < 1.0 && error < 1.0,
            "{bytes} ± {error}"
        );
        assert!(told(&capture, "/1").0 < 1.0);
    }
}

/// Of the requests of each route, so many in a hundred are bound, though the memory is of all of them.
fn with_bound(percent: usize) -> Capture {
    let mut capture = concurrent(60, 3);
    for (number, (record, _)) in capture.windows.records.iter_mut().enumerate() {
        if (number * 37) % 100 < percent {
            record.binding = Binding::Lineage;
        }
    }
    capture
}

#[test]
fn memory_of_requests_that_were_taken_for_bound_is_not_blamed_on_the_others() {
    for percent in [5, 20, 40] {
        let (bytes, error) = told(&with_bound(percent), "/0");
        assert!((bytes - 500.0).abs() <= 2.0 * error, "{bytes} ± {error}");
    }
    let RowEstimate::Missing(why) = estimate(&with_bound(70), "/0") else {
        panic!("most requests are bound");
    };
    assert!(why.contains("requests are bound"), "{why}");
}

#[test]
fn routes_with_few_requests_share_what_the_data_cannot_tell_apart() {
    let capture = concurrent(30, 20);
    let (bytes, error) = told(&capture, "/0");
    assert!(
        (bytes - 500.0).abs() < 3.0 * error.max(1.0),
        "{bytes} ± {error}"
    );
    let RowEstimate::Missing(why) = estimate(&capture, "/19") else {
        panic!("it cannot be told");
    };
    assert!(why.contains("too few"), "{why}");
}

#[test]
fn what_is_left_behind_now_and_then_is_told_from_time() {
    let mut capture = concurrent(0, 0);
    let mut outstanding = 0;
    let at = |second: u64, outstanding| MemoryAt {
        process: ProcessNumber(0),
        at_ns: second * SECOND,
        unbound_bytes: Some(outstanding),
        resident_bytes: None,
    };
    capture.windows.memory.push(at(0, outstanding));
    for second in 1..=60 {
        // Two requests leave something, then three do not. Each growth is stored with the look
        // before.
        let leaves = second % 5 < 2;
        let name = if leaves { "/leaves" } else { "/clean" };
        let record = WindowRecord {
            opened_ns: second * SECOND - SECOND / 20,
            duration_ns: Some(SECOND / 100),
            closed_ns: second * SECOND - SECOND / 30,
            binding: Binding::Candidates(2),
            ..window(&route(name), 200, 9)
        };
        capture.windows.records.push((record, None));
        if leaves {
            let before = at(second, outstanding).at_ns - SECOND / 10;
            capture.windows.memory.push(MemoryAt {
                at_ns: before,
                ..at(second, outstanding)
            });
            outstanding += 1000;
            capture.windows.memory.push(at(second, outstanding));
        }
    }
    let (bytes, error) = told(&capture, "/leaves");
    assert!((bytes - 1000.0).abs() < 1.0, "{bytes} ± {error}");
    assert!(told(&capture, "/clean").0 < 1.0);
}

#[test]
fn requests_that_always_arrive_together_are_not_told_apart() {
    let mut capture = concurrent(60, 1);
    let records = capture.windows.records.clone().into_iter();
    let behind = records.map(|(record, survived)| {
        let record = WindowRecord {
            window: WindowNumber::new(record.window.window(), 1),
            route: route("/behind"),
            ..record
        };
        (record, survived)
    });
    let behind: Vec<_> = behind.collect();
    capture.windows.records.extend(behind);
    let RowEstimate::Missing(why) = estimate(&capture, "/behind") else {
        panic!("it cannot be told");
    };
    assert!(why.contains("came along with"), "{why}");
}

#[test]
fn a_recording_that_is_too_short_says_how_long_it_has_to_be() {
    let RowEstimate::Missing(why) = estimate(&concurrent(4, 3), "/0") else {
        panic!("it cannot be told");
    };
    assert_eq!(
        why,
        "3 intervals in which memory was looked at are too few for 3 routes, which take 12: record longer"
    );
}

#[test]
fn where_allocations_are_not_followed_the_resident_set_tells() {
    let mut capture = concurrent(60, 3);
    for memory in &mut capture.windows.memory {
        memory.resident_bytes = memory.unbound_bytes.take();
    }
    match estimate(&capture, "/0") {
        RowEstimate::Told {
            bytes_per_request,
            from: EstimatedFrom::ResidentSet,
            ..
        } => assert!((bytes_per_request - 500.0).abs() < 1.0),
        other => panic!("{other:?}"),
    }
}

/// Of a process whose probes were taken out in the middle.
#[test]
fn the_resident_set_has_what_bound_requests_left_as_well() {
    let mut capture = concurrent(60, 3);
    let half = 30 * SECOND;
    for memory in &mut capture.windows.memory {
        memory.resident_bytes = memory.unbound_bytes;
        memory.unbound_bytes.take_if(|_| memory.at_ns > half);
    }
    for (record, _) in &mut capture.windows.records {
        record.binding = match record.closed_ns < half {
            true => Binding::Exact,
            false => Binding::None,
        };
    }
    match estimate(&capture, "/0") {
        RowEstimate::Told {
            bytes_per_request: bytes,
            standard_error: error,
            from: EstimatedFrom::ResidentSet,
        } => assert!((bytes - 500.0).abs() < 1.0, "{bytes} ± {error}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_process_without_its_probes_leaves_the_estimates_of_others_as_they_were() {
    let mut capture = concurrent(60, 3);
    let of_other = |(record, survived): (WindowRecord, _)| {
        let record = WindowRecord {
            process: ProcessNumber(1),
            route: route("/other"),
            binding: Binding::None,
            ..record
        };
        (record, survived)
    };
    let records = capture.windows.records.clone().into_iter().map(of_other);
    let records: Vec<_> = records.collect();
    capture.windows.records.extend(records);
    let memory = capture.windows.memory.clone().into_iter();
    let memory: Vec<_> = memory
        .map(|it| MemoryAt {
            process: ProcessNumber(1),
            unbound_bytes: None,
            ..it
        })
        .collect();
    capture.windows.memory.extend(memory);
    capture.windows.memory.sort_by_key(|it| it.at_ns);
    assert!((told(&capture, "/0").0 - 500.0).abs() < 1.0);
}

#[test]
fn intervals_begin_when_all_processes_are_there() {
    let mut capture = concurrent(60, 3);
    let memory = &mut capture.windows.memory;
    let others = memory.clone().into_iter().skip(20).map(|look| MemoryAt {
        process: ProcessNumber(1),
        unbound_bytes: Some(1 << 30),
        ..look
    });
    memory.extend(others);
    memory.sort_by_key(|look| look.at_ns);
    for (number, (record, _)) in capture.windows.records.iter_mut().enumerate() {
        record.process = ProcessNumber(number as u32 % 2);
    }
    assert!((told(&capture, "/0").0 - 500.0).abs() < 1.0);
}

#[test]
fn what_is_bound_needs_no_estimate() {
    let mut capture = concurrent(60, 1);
    for (record, _) in &mut capture.windows.records {
        record.binding = Binding::Exact;
    }
    assert_eq!(estimate(&capture, "/0"), RowEstimate::None);
}

#[test]
fn memory_of_no_single_window_is_that_of_all_processes_as_it_was_last() {
    let of = |process, bytes| ProcessUnbound {
        process: ProcessNumber(process),
        background: Unbound {
            allocated: amount(bytes),
            outstanding: amount(bytes / 2),
        },
        ambiguous: Unbound::default(),
    };
    let written = [(1, of(0, 100)), (1, of(1, 40)), (2, of(0, 200))];
    let written = written.map(|(at_ns, unbound)| UnboundAt { at_ns, unbound });
    let [background, ambiguous] = unbound(&written);
    assert_eq!(
        (background.allocated, background.outstanding),
        (amount(240), amount(120))
    );
    assert_eq!(ambiguous, Unbound::default());
}
