use proptest::collection::vec;
use proptest::prelude::*;
use residue_ebpf::abi::window::{WindowStage, id_and_stage};

mod tasks;

use super::*;
use crate::requests::head::HEAD_BYTES;
use crate::requests::route::RouteRules;

use WindowEventKind::{Closed, Opened, Request, Response};

const SLOT: Slot = Slot(3);
const NUMBER: ProcessNumber = ProcessNumber(5);
const TID: u32 = 77;

fn tracker() -> Tracker {
    let routes = Routes::new(RouteRules::default());
    let mut tracker = Tracker::new(IdHeader::default(), routes, 1_000_000, true);
    tracker.add_process(SLOT, NUMBER, 4242);
    tracker
}

/// A window that a thread is bound to.
fn bound(id: u32) -> WindowState {
    WindowState {
        id_and_stage: id_and_stage(id, WindowStage::Open),
        process: SLOT.index(),
        tid: TID,
        bound_and_flags: TID.into(),
        opened_ns: 1000,
        rss_open: 4096,
        ..WindowState::default()
    }
}

fn event(kind: WindowEventKind, state: WindowState, fragment: &[u8]) -> WindowEvent {
    WindowEvent {
        kind: kind as u32,
        window: state.id(),
        state,
        at_ns: 2000,
        rss: 8192,
        transferred: fragment.len() as u64,
        fragment_len: fragment.len() as u64,
        ..WindowEvent::default()
    }
}

/// Feeds a conversation, and returns the window as it is then.
fn converse(tracker: &mut Tracker, messages: &[(WindowEventKind, &[u8])]) -> WindowState {
    let mut state = bound(1);
    let mut responses = 0;
    for (kind, fragment) in messages {
        if *kind == Response {
            state.sent_bytes += fragment.len() as u64;
            state.responded_ns = 1500;
            state.bound_and_flags &= !WINDOW_NEXT_RESPONSE;
            if responses > 0 && fragment.starts_with(b"HTTP/1.") {
                state.bound_and_flags |= WINDOW_NEXT_RESPONSE;
            }
            responses += 1;
        }
        let finished = tracker.take(&event(*kind, state, fragment), fragment);
        assert!(finished.is_empty());
    }
    state
}

fn close(tracker: &mut Tracker, state: WindowState) -> Vec<WindowRecord> {
    tracker.take(&event(Closed, state, b""), b"")
}

#[test]
fn a_request_and_its_response_make_a_record() {
    let mut tracker = tracker();
    let mut state = converse(
        &mut tracker,
        &[
            (Opened, b"POST /users/7?secret HTTP/1.1\r\nX-Requ"),
            (Request, b"est-ID: abc\r\nContent-Length: 3\r\n\r\nfoo"),
            (Response, b"HTTP/1.1 201 Created\r\n\r\n"),
        ],
    );
    state.amounts = Amounts {
        alloc_bytes: 100,
        alloc_objects: 3,
        freed_bytes: 60,
        freed_objects: 2,
    };
    let records = close(&mut tracker, state);
    let [record] = &records[..] else {
        panic!("one request: {records:?}");
    };
    assert_eq!(record.route.to_string(), "POST /users/{id}");
    assert_eq!(record.status, Some(201));
    assert_eq!(record.request_id.as_deref(), Some("abc"));
    assert_eq!(
        (record.pid, record.tid, record.process),
        (4242, TID, NUMBER)
    );
    assert_eq!((record.opened_ns, record.closed_ns), (1_001_000, 1_002_000));
    assert_eq!(record.duration_ns, Some(500));
    assert_eq!(record.delta(), Some(4096));
    let (allocated, retained) = (record.allocated, record.retained);
    assert_eq!((allocated.bytes, allocated.objects), (100, 3));
    assert_eq!((retained.bytes, retained.objects), (40, 1));
    assert_eq!(
        (record.binding, record.end),
        (Binding::Exact, WindowEnd::Done)
    );
    assert!(
        close(&mut tracker, state).is_empty(),
        "it is over only once"
    );
}

#[test]
fn a_request_without_response_is_cut_off() {
    let mut tracker = tracker();
    let mut state = converse(&mut tracker, &[(Opened, b"GET / HTTP/1.1\r\n\r\n")]);
    let [record] = &close(&mut tracker, state)[..] else {
        panic!("one request");
    };
    assert_eq!((record.end, record.duration_ns), (WindowEnd::CutOff, None));
    converse(&mut tracker, &[(Opened, b"GET / HTTP/1.1\r\n\r\n")]);
    state.bound_and_flags |= WINDOW_RESET;
    assert_eq!(close(&mut tracker, state)[0].end, WindowEnd::Reset);
}

#[test]
fn requests_that_arrive_together_are_all_counted() {
    let mut tracker = tracker();
    let state = converse(
        &mut tracker,
        &[
            (Opened, b"GET /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n\r\n"),
            (Response, b"HTTP/1.1 200 OK\r\n\r\n"),
            (Response, b"HTTP/1.1 404 Not Found\r\n\r\n"),
        ],
    );
    let records = close(&mut tracker, state);
    let routes = records.iter().map(|record| record.route.to_string());
    assert_eq!(routes.collect::<Vec<_>>(), ["GET /a", "GET /b"]);
    let statuses = records.iter().map(|record| record.status);
    assert_eq!(statuses.collect::<Vec<_>>(), [Some(200), Some(404)]);
    assert!(
        records
            .iter()
            .all(|it| it.binding == Binding::Candidates(2))
    );
    assert_ne!(records[0].window, records[1].window);
}

#[test]
fn a_second_response_shows_a_request_that_was_not_sent_to_us() {
    let mut tracker = tracker();
    let state = bound(1);
    let opened = WindowEvent {
        transferred: 900,
        ..event(Opened, state, b"GET /long HTTP/1.1\r\n\r\n")
    };
    tracker.take(&opened, b"GET /long HTTP/1.1\r\n");
    let ok = b"HTTP/1.1 200 OK\r\n\r\n";
    tracker.take(&event(Response, state, ok), ok);
    let mut next = state;
    next.bound_and_flags |= WINDOW_NEXT_RESPONSE;
    tracker.take(&event(Response, next, ok), ok);
    let records = close(&mut tracker, state);
    let routes = records.iter().map(|record| record.route.to_string());
    assert_eq!(routes.collect::<Vec<_>>(), ["GET /long", "{pipelined}"]);
}

#[test]
fn a_body_that_looks_like_a_response_is_none() {
    let mut tracker = tracker();
    let state = converse(
        &mut tracker,
        &[
            (Opened, b"GET /a HTTP/1.1\r\n\r\n"),
            (Response, b"HTTP/1.1 200 OK\r\n\r\n"),
            (Response, b"HTTP/1.1 500 says the log\r\n\r\n"),
        ],
    );
    let records = close(&mut tracker, state);
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].status, Some(200));
}

#[test]
fn a_command_of_another_protocol_is_no_request() {
    for (command, answer) in [
        (&b"GET key\r\n"[..], &b"$-1\r\n"[..]),
        (b"OPTIONS rtsp://host RTSP/1.0\r\n", b"RTSP/1.0 200 OK\r\n"),
    ] {
        let mut tracker = tracker();
        let messages = [(Opened, command), (Response, answer)];
        let state = converse(&mut tracker, &messages);
        assert!(close(&mut tracker, state).is_empty());
        assert_eq!(tracker.not_http(), 1);
    }
    let mut tracker = tracker();
    let messages: [(_, &[u8]); 2] = [
        (Opened, b"GET nonsense\r\n"),
        (Response, b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    ];
    let state = converse(&mut tracker, &messages);
    let records = close(&mut tracker, state);
    assert_eq!(records[0].route.to_string(), "{malformed}");
}

#[test]
fn early_hints_are_no_response() {
    let mut tracker = tracker();
    let state = converse(
        &mut tracker,
        &[
            (Opened, b"GET /a HTTP/1.1\r\n\r\n"),
            (
                Response,
                b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n",
            ),
            (Response, b"HTTP/1.1 200 OK\r\n\r\n"),
        ],
    );
    let records = close(&mut tracker, state);
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].status, Some(200));
}

/// Whether the window is taken to be over, so long after the last byte was sent.
fn is_over(tracker: &mut Tracker, state: WindowState, after_ns: u64) -> bool {
    let over = tracker.over(state.responded_ns + after_ns, |_| Some(state));
    !over.is_empty()
}

fn unbound(mut state: WindowState) -> WindowState {
    state.bound_and_flags &= !u64::from(u32::MAX);
    state
}

#[test]
fn a_whole_response_ends_a_window_that_no_thread_is_bound_to() {
    let head: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
    for (method, sent, is_whole) in [("GET", 4, false), ("GET", 5, true), ("HEAD", 0, true)] {
        let mut tracker = tracker();
        let request = format!("{method} / HTTP/1.1\r\n\r\n");
        let messages = [(Opened, request.as_bytes()), (Response, head)];
        let mut state = unbound(converse(&mut tracker, &messages));
        state.sent_bytes += sent;
        assert_eq!(is_over(&mut tracker, state, 0), is_whole, "{method} {sent}");
    }
}

#[test]
fn the_last_chunk_ends_a_response() {
    let mut tracker = tracker();
    let head: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let messages: [(_, &[u8]); 2] = [(Opened, b"GET / HTTP/1.1\r\n\r\n"), (Response, head)];
    let mut state = unbound(converse(&mut tracker, &messages));
    assert!(
        !is_over(&mut tracker, state, 1_000 * QUIET_NS),
        "a stream pauses"
    );
    state.bound_and_flags |= WINDOW_CHUNKS_ENDED;
    assert!(is_over(&mut tracker, state, 0));
}

#[test]
fn a_bound_thread_may_clean_up() {
    let mut tracker = tracker();
    let messages: [(_, &[u8]); 2] = [
        (Opened, b"GET / HTTP/1.1\r\n\r\n"),
        (Response, b"HTTP/1.1 204 No Content\r\n\r\n"),
    ];
    let mut state = converse(&mut tracker, &messages);
    assert!(!is_over(&mut tracker, state, QUIET_NS / 2));
    state.amounts.freed_objects += 1;
    assert!(
        !is_over(&mut tracker, state, QUIET_NS),
        "it has just freed something"
    );
    assert!(is_over(&mut tracker, state, 3 * QUIET_NS));
}

#[test]
fn an_end_that_was_lost_is_found() {
    let mut tracker = tracker();
    let mut state = converse(&mut tracker, &[(Opened, b"GET / HTTP/1.1\r\n\r\n")]);
    state.id_and_stage = id_and_stage(1, WindowStage::Closed);
    assert!(!is_over(&mut tracker, state, 2000));
    assert!(is_over(&mut tracker, state, 2 * QUIET_NS));
    assert!(tracker.over(3 * QUIET_NS, |_| None).is_empty());
    assert!(
        tracker.of_process(SLOT).is_empty(),
        "another window has its place"
    );
}

#[test]
fn windows_at_the_same_time_are_candidates() {
    let mut tracker = tracker();
    let state = unbound(bound(1));
    let opened = WindowEvent {
        unbound_open: 2,
        unbound_opened: 10,
        ..event(Opened, state, b"")
    };
    tracker.take(&opened, b"GET / HTTP/1.1\r\n\r\n");
    let closed = WindowEvent {
        unbound_opened: 13,
        ambiguous: Amounts {
            alloc_bytes: 500,
            alloc_objects: 5,
            freed_bytes: 100,
            freed_objects: 1,
        },
        ..event(Closed, state, b"")
    };
    let records = tracker.take(&closed, b"");
    assert_eq!(records[0].binding, Binding::Candidates(5));
    assert_eq!(records[0].allocated.bytes, 500);
    assert_eq!(records[0].retained.bytes, 400);
}

#[test]
fn without_allocations_nothing_is_bound() {
    let routes = Routes::new(RouteRules::default());
    let mut tracker = Tracker::new(IdHeader::default(), routes, 0, false);
    tracker.add_process(SLOT, NUMBER, 1);
    let state = converse(&mut tracker, &[(Opened, b"GET / HTTP/1.1\r\n\r\n")]);
    assert_eq!(close(&mut tracker, state)[0].binding, Binding::None);
}

fn fragments() -> impl Strategy<Value = Vec<u8>> {
    let known = prop_oneof![
        Just(b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        Just(b"GET /a HTTP/1.1\r\nA: b\r\n\r\nGET /b".to_vec()),
        Just(b"HTTP/1.1 100 Continue\r\n\r\n".to_vec()),
        Just(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n".to_vec()),
        Just(b"HTTP/1.1 101 Switching\r\n\r\n".to_vec()),
    ];
    prop_oneof![known, vec(any::<u8>(), 0..HEAD_BYTES)]
}

proptest! {
    /// Whatever arrives, in whatever order: each window that opens is over once, and none that did not.
    #[test]
    fn every_window_ends_once(
        steps in vec((0..4_u32, 1..6_u32, any::<u64>(), fragments()), 0..60),
    ) {
        let mut tracker = tracker();
        let mut open = std::collections::HashSet::new();
        for (kind, id, bits, fragment) in steps {
            let mut state = bound(id);
            state.bound_and_flags = bits;
            state.sent_bytes = bits;
            state.responded_ns = bits >> 7;
            let mut event = event(Opened, state, &fragment);
            event.kind = kind;
            event.transferred = bits;
            let not_http = tracker.not_http();
            let records = tracker.take(&event, &fragment);
            let ended = !records.is_empty() || tracker.not_http() > not_http;
            match WindowEventKind::from_bits(kind) {
                Some(Opened) => { open.insert(id); }
                Some(Closed) => {
                    prop_assert_eq!(ended, open.remove(&id));
                    continue;
                }
                _ => {}
            }
            prop_assert!(records.is_empty());
            for (id, _) in tracker.over(bits, |_| Some(state)) {
                prop_assert!(open.contains(&id.0));
            }
        }
        prop_assert_eq!(tracker.of_process(SLOT).len(), open.len());
    }
}

const SECOND_NS: u64 = 1_000_000_000;
