//! The line for programs.

use serde::Serialize;

use super::{LineRules, evidence, passing};
use crate::requests::growth::{Evidence, Known};
use crate::requests::head::Method;
use crate::requests::record::{Binding, WindowRecord};

/// One window as a JSON object. Names and meanings stay as they are, and new names may come. Sizes
/// are in bytes, times in nanoseconds, and null is an unknown figure.
#[derive(Clone, Debug, Serialize)]
pub struct JsonLine<'a> {
    window: u64,
    pid: u32,
    tid: u32,
    request_id: Option<&'a str>,
    method: Option<Method>,
    route: &'a str,
    status: Option<u16>,
    opened_ns: u64,
    closed_ns: u64,
    duration_ns: Option<u64>,
    rss_open_bytes: Option<u64>,
    rss_close_bytes: Option<u64>,
    delta_bytes: Option<i64>,
    alloc_bytes: Option<u64>,
    alloc_objects: Option<u64>,
    retained_bytes: Option<u64>,
    retained_objects: Option<u64>,
    passing_bytes: Option<u64>,
    scope: Option<&'static str>,
    confidence: &'static str,
    candidates: Option<u8>,
    ended: &'static str,
    leak_suspected: bool,
    survivors_grow: Option<Evidence>,
}

impl<'a> JsonLine<'a> {
    /// Makes the line of a window from what is known about its route.
    #[must_use]
    pub fn new(record: &'a WindowRecord, rules: &LineRules, of_route: Known) -> Self {
        let WindowRecord {
            window,
            process: _,
            pid,
            tid,
            opened_ns,
            closed_ns,
            duration_ns,
            route,
            status,
            request_id,
            rss,
            allocated,
            retained,
            binding,
            end,
        } = record;
        let grow = evidence(record, of_route);
        let known = |figure| (*binding != Binding::None).then_some(figure);
        Self {
            window: window.0,
            pid: *pid,
            tid: *tid,
            request_id: request_id.as_deref(),
            method: route.method(),
            route: route.template(),
            status: *status,
            opened_ns: *opened_ns,
            closed_ns: *closed_ns,
            duration_ns: *duration_ns,
            rss_open_bytes: rss.map(|rss| rss.open),
            rss_close_bytes: rss.map(|rss| rss.close),
            delta_bytes: record.delta(),
            alloc_bytes: known(allocated.bytes),
            alloc_objects: known(allocated.objects),
            retained_bytes: known(retained.bytes),
            retained_objects: known(retained.objects),
            passing_bytes: passing(record, of_route),
            scope: (*binding != Binding::None).then_some("blocks"),
            confidence: binding.name(),
            candidates: binding.candidates(),
            ended: end.name(),
            leak_suspected: grow.is_some() || rules.passes_threshold(record),
            survivors_grow: grow,
        }
    }
}
