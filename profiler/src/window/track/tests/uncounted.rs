//! Windows of a process whose probes were taken out.

use super::*;

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
