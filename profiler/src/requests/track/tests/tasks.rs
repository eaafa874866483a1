//! Windows that tasks work for, and what escapes from windows.

use residue_ebpf::abi::window::ProcessWindows;

use super::*;

/// A window whose response is whole, that tasks were bound to.
fn of_tasks(tracker: &mut Tracker, tasks: u64, flags: u64) -> WindowState {
    let request = b"GET /a HTTP/1.1\r\n\r\n";
    let response = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let mut state = converse(tracker, &[(Opened, request), (Response, response)]);
    state.bound_and_flags = flags;
    state.tasks = tasks;
    state
}

#[test]
fn a_window_that_tasks_are_bound_to_has_its_own_amounts_alone() {
    for (flags, binding) in [
        (WINDOW_HAS_TASKS, Binding::Exact),
        (WINDOW_HAS_TASKS | WINDOW_TASKS_INHERITED, Binding::Lineage),
    ] {
        let mut tracker = tracker();
        let mut state = of_tasks(&mut tracker, 0, flags);
        state.amounts.alloc_bytes = 100;
        let mut closed = event(Closed, state, b"");
        closed.unbound_open = 7;
        closed.ambiguous.alloc_bytes = 5000;
        let records = tracker.take(&closed, b"");
        let [record] = &records[..] else {
            panic!("one request: {records:?}");
        };
        assert_eq!((record.binding, record.allocated.bytes), (binding, 100));
    }
}

#[test]
fn what_has_escaped_is_said_of_every_window_meanwhile() {
    for flags in [0, WINDOW_HAS_TASKS, 7] {
        let (mut tracker, mut state) = (tracker(), bound(1));
        state.bound_and_flags = flags;
        let mut opened = event(Opened, state, b"");
        (opened.under_way, opened.opened, opened.escaped) = (2, 10, 3);
        tracker.take(&opened, b"GET /a HTTP/1.1\r\n\r\n");
        state.amounts.alloc_bytes = 100;
        let mut closed = event(Closed, state, b"");
        (closed.opened, closed.escaped) = (13, 4);
        closed.ambiguous.alloc_bytes = 500;
        let record = &tracker.take(&closed, b"")[0];
        let found = (record.binding, record.allocated.bytes);
        assert_eq!(found, (Binding::Candidates(5), 600));
    }
}

#[test]
fn what_others_have_allocated_is_the_only_windows() {
    for (flags, others, binding) in [
        (0, 0, Binding::Single),
        (7, 1, Binding::Single),
        (WINDOW_HAS_TASKS, 1, Binding::Single),
    ] {
        let (mut tracker, mut state) = (tracker(), bound(1));
        state.bound_and_flags = flags;
        tracker.take(&event(Opened, state, b""), b"GET /a HTTP/1.1\r\n\r\n");
        state.others = others;
        let record = &tracker.take(&event(Closed, state, b""), b"")[0];
        assert_eq!(record.binding, binding, "{flags} {others}");
    }
}

#[test]
fn a_window_is_not_over_while_tasks_work_for_it() {
    let is_over =
        |tracker: &mut Tracker, state, now_ns| !tracker.over(now_ns, |_| Some(state)).is_empty();
    let mut tracker = tracker();
    let mut state = of_tasks(&mut tracker, 1, WINDOW_HAS_TASKS);
    assert!(!is_over(&mut tracker, state, SECOND_NS / 2));
    state.tasks = 0;
    assert!(is_over(&mut tracker, state, SECOND_NS / 2));
}

#[test]
fn a_task_that_never_ends_does_not_keep_its_window_for_ever() {
    // Whether the connection is closed by then or not.
    for stage in [WindowStage::Finished, WindowStage::Responding] {
        let mut tracker = tracker();
        let mut state = of_tasks(&mut tracker, 1, WINDOW_HAS_TASKS);
        state.id_and_stage = id_and_stage(1, stage);
        for second in 1..=30 {
            // It is never quiet.
            state.amounts.alloc_bytes += 1;
            let over = tracker.over(second * SECOND_NS, |_| Some(state));
            assert!(over.is_empty(), "after {second} s");
        }
        state.amounts.alloc_bytes += 1;
        assert_eq!(tracker.over(31 * SECOND_NS, |_| Some(state)).len(), 1);
    }
}

#[test]
fn a_client_does_not_choose_how_much_is_kept() {
    let mut tracker = tracker();
    let mut state = bound(1);
    let opened = WindowEvent {
        transferred: 900,
        ..event(Opened, state, b"GET /long HTTP/1.1\r\n\r\n")
    };
    tracker.take(&opened, b"GET /long HTTP/1.1\r\n");
    state.bound_and_flags |= WINDOW_NEXT_RESPONSE;
    for _ in 0..1000 {
        let ok = b"HTTP/1.1 200 OK\r\n\r\n";
        tracker.take(&event(Response, state, ok), ok);
    }
    assert_eq!(close(&mut tracker, state).len(), MOST_TOGETHER);
    assert_eq!(tracker.crowded_out(), 1000 - MOST_TOGETHER as u64);
}

#[test]
fn memory_is_not_known_of_a_request_that_ended_unseen() {
    let mut tracker = tracker();
    let state = WindowState {
        rss_responded: 4096,
        ..converse(&mut tracker, &[(Opened, b"GET / HTTP/1.1\r\n\r\n")])
    };
    let last = Last::looked_at(state, &ProcessWindows::default(), 9000);
    let records = tracker.finish(WindowId(1), &last, Some(WindowEnd::StillOpen));
    assert_eq!(records[0].delta(), None);
}

#[test]
fn what_was_over_before_nobody_counted_any_more_is_bound() {
    let mut tracker = tracker();
    let messages: [(_, &[u8]); 2] = [
        (Opened, b"GET / HTTP/1.1\r\n\r\n"),
        (Response, b"HTTP/1.1 200 OK\r\n\r\n"),
    ];
    let state = converse(&mut tracker, &messages);
    tracker.no_longer_counts(SLOT, 2001);
    assert_eq!(close(&mut tracker, state)[0].binding, Binding::Exact);
    let state = converse(&mut tracker, &messages);
    tracker.no_longer_counts(SLOT, 2000);
    assert_eq!(close(&mut tracker, state)[0].binding, Binding::None);
}
