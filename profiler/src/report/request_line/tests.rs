//! Tests of lines: records go in, lines come out.

use super::*;
use crate::ids::{ProcessNumber, WindowNumber};
use crate::requests::growth::{Evidence, Known};
use crate::requests::head::{Method, Target};
use crate::requests::record::{Amount, Binding, RssPair, WindowEnd};
use crate::requests::route::Routes;

fn record() -> WindowRecord {
    let target = Target::Path {
        text: "/api/chat".into(),
        cut: false,
    };
    WindowRecord {
        window: WindowNumber(9),
        process: ProcessNumber(0),
        pid: 12345,
        tid: 12346,
        opened_ns: 1_000_000_000,
        closed_ns: 2_300_000_000,
        duration_ns: Some(1_234_000_000),
        route: Routes::default().route(Method::Post, &target),
        status: Some(200),
        request_id: Some("abc123".into()),
        rss: Some(RssPair {
            open: 125_000_000,
            close: 128_000_000,
        }),
        allocated: Amount {
            bytes: 9_000_000,
            objects: 70,
        },
        retained: Amount {
            bytes: 2_900_000,
            objects: 5,
        },
        binding: Binding::Exact,
        end: WindowEnd::Done,
    }
}

fn line(record: &WindowRecord) -> String {
    TextLine::new(record, &LineRules::default(), Known::default()).to_string()
}

#[test]
fn a_request_is_one_line() {
    assert_eq!(
        line(&record()),
        "INFO [abc123] [pid-12345] POST /api/chat | duration=1234ms | memory=125MB->128MB \
         | delta=+3.0MB | retained=2.9MB"
    );
}

#[test]
fn growth_beyond_the_threshold_is_suspected() {
    let mut grown = record();
    grown.rss = Some(RssPair {
        open: 128_000_000,
        close: 144_000_000,
    });
    assert_eq!(
        line(&grown),
        "WARNING [abc123] [pid-12345] POST /api/chat | duration=1234ms | memory=128MB->144MB \
         | delta=+16.0MB | retained=2.9MB | LEAK_SUSPECTED"
    );
    let mut keeps = record();
    keeps.retained.bytes = THRESHOLD_BYTES;
    assert!(line(&keeps).ends_with("retained=16.0MB | LEAK_SUSPECTED"));
    keeps.retained.bytes -= 1;
    assert!(line(&keeps).starts_with("INFO"));
}

#[test]
fn what_is_not_sure_is_marked_and_not_suspected() {
    let ending = |binding| {
        let mut record = record();
        record.binding = binding;
        record.retained.bytes = 20_900_000;
        let line = line(&record);
        let at = line.find("retained").expect("it is there");
        line[at..].to_owned()
    };
    assert_eq!(
        ending(Binding::Lineage),
        "retained=20.9MB (lineage) | LEAK_SUSPECTED"
    );
    assert_eq!(
        ending(Binding::Single),
        "retained=20.9MB (single) | LEAK_SUSPECTED"
    );
    assert_eq!(
        ending(Binding::Candidates(3)),
        "retained=~20.9MB (3 candidates)"
    );
    assert_eq!(ending(Binding::None), "retained=?");
}

#[test]
fn what_is_not_known_is_a_question_mark() {
    let mut record = record();
    record.request_id = None;
    record.duration_ns = None;
    record.rss = None;
    record.end = WindowEnd::Reset;
    assert_eq!(
        line(&record),
        "INFO [-] [pid-12345] POST /api/chat | duration=? | memory=? | delta=? | retained=2.9MB \
         | ended=reset"
    );
}

#[test]
fn small_amounts_do_not_read_as_none() {
    let shown = |bytes, open, close| {
        let mut record = record();
        record.retained.bytes = bytes;
        record.rss = Some(RssPair { open, close });
        let line = line(&record);
        let at = line.find("delta").expect("it is there");
        line[at..].to_owned()
    };
    assert_eq!(shown(0, 0, 0), "delta=+0.0MB | retained=0.0MB");
    assert_eq!(shown(999, 4096, 0), "delta=-0.0041MB | retained=0.00100MB");
    assert_eq!(shown(104, 0, 0), "delta=+0.0MB | retained=0.00010MB");
    assert_eq!(shown(8, 0, 0), "delta=+0.0MB | retained=0.000008MB");
    assert_eq!(shown(49_200, 0, 100_000), "delta=+0.1MB | retained=0.049MB");
    assert_eq!(
        shown(1_500_000_000, 0, u64::MAX).split(' ').next_back(),
        Some("LEAK_SUSPECTED")
    );
}

#[test]
fn slow_and_grown_requests_can_be_shown_alone() {
    let rules = LineRules {
        min_duration_ns: 1_234_000_000,
        min_delta_bytes: Some(3_000_000),
        ..LineRules::default()
    };
    assert!(LineRules::default().shows(&record()) && rules.shows(&record()));
    let mut fast = record();
    fast.duration_ns = Some(1_233_999_999);
    assert!(!rules.shows(&fast));
    // Without a response, the window was still open for 1.3 s.
    fast.duration_ns = None;
    assert!(rules.shows(&fast));
    let mut unknown = record();
    unknown.rss = None;
    assert!(!rules.shows(&unknown));
    let mut shrunk = record();
    shrunk.rss = Some(RssPair { open: 9, close: 0 });
    let any_growth = LineRules {
        min_delta_bytes: Some(0),
        ..LineRules::default()
    };
    assert!(!any_growth.shows(&shrunk) && LineRules::default().shows(&shrunk));
}

#[test]
fn the_json_line_says_the_same() {
    let mut record = record();
    record.binding = Binding::Candidates(3);
    let json = serde_json::to_string(&JsonLine::new(
        &record,
        &LineRules::default(),
        Known::default(),
    ));
    assert_eq!(
        json.expect("it is plain data"),
        r#"{"window":9,"pid":12345,"tid":12346,"request_id":"abc123","method":"POST","#.to_owned()
            + r#""route":"/api/chat","status":200,"opened_ns":1000000000,"closed_ns":2300000000,"#
            + r#""duration_ns":1234000000,"rss_open_bytes":125000000,"rss_close_bytes":128000000,"#
            + r#""delta_bytes":3000000,"alloc_bytes":9000000,"alloc_objects":70,"#
            + r#""retained_bytes":2900000,"retained_objects":5,"passing_bytes":null,"scope":"blocks","#
            + r#""confidence":"candidates","candidates":3,"ended":"done","leak_suspected":false,"#
            + r#""survivors_grow":null}"#
    );
}

#[test]
fn nothing_that_nobody_counted_reads_as_zero() {
    let mut record = record();
    record.binding = Binding::None;
    let json = serde_json::to_value(JsonLine::new(
        &record,
        &LineRules::default(),
        Known::default(),
    ));
    let json = json.expect("it is plain data");
    for figure in [
        "alloc_bytes",
        "alloc_objects",
        "retained_bytes",
        "retained_objects",
    ] {
        assert!(json[figure].is_null(), "{json}");
    }
}

#[test]
fn the_sizes_of_a_line_have_one_unit() {
    let mut sizes = record();
    for bytes in [
        0,
        8,
        104,
        2_800,
        49_200,
        99_999,
        2_900_000,
        16_000_000,
        u64::MAX,
    ] {
        sizes.retained.bytes = bytes;
        sizes.rss = Some(RssPair {
            open: 0,
            close: bytes / 3,
        });
        let line = line(&sizes);
        let mut sizes = line
            .split(['=', '>', '|', ' '])
            .filter(|size| size.ends_with('B'));
        assert!(sizes.all(|size| size.ends_with("MB")), "{line}");
        assert!(!line.contains("kB"), "{line}");
    }
}

fn known(evidence: Option<Evidence>, passing: Option<u64>) -> Known {
    Known { evidence, passing }
}

fn retained(record: &WindowRecord, known: Known) -> String {
    let line = TextLine::new(record, &LineRules::default(), known).to_string();
    let at = line.find("retained").expect("it is there");
    line[at..].to_owned()
}

#[test]
fn what_passes_whenever_it_is_retained_is_not_called_retained() {
    let mut passes = record();
    passes.retained.bytes = 2_800;
    let usual = known(None, Some(2_800));
    assert_eq!(
        retained(&passes, usual),
        "retained=0.0MB (+0.0028MB passing)"
    );
    let json = serde_json::to_value(JsonLine::new(&passes, &LineRules::default(), usual));
    let json = json.expect("it is plain data");
    assert_eq!(
        (&json["retained_bytes"], &json["passing_bytes"]),
        (&2_800.into(), &2_800.into())
    );
    passes.retained.bytes = 2_801;
    assert_eq!(
        retained(&passes, usual),
        "retained=0.0028MB",
        "more than ever"
    );
    passes.binding = Binding::Candidates(2);
    assert!(!retained(&passes, usual).contains("passing"));
    passes.binding = Binding::Exact;
    passes.retained.bytes = 0;
    assert_eq!(retained(&passes, usual), "retained=0.0MB");
}

#[test]
fn a_request_of_a_route_that_goes_on_growing_is_marked_with_the_evidence() {
    let mut leaks = record();
    leaks.retained.bytes = 98_304;
    let evidence = Evidence {
        requests: 15,
        left: 14,
        bytes: 14 * 98_304,
    };
    let grows = known(Some(evidence), None);
    let line = TextLine::new(&leaks, &LineRules::default(), grows).to_string();
    assert!(line.starts_with("WARNING"), "{line}");
    assert!(
        line.ends_with("retained=0.098MB | LEAK_SUSPECTED (14 of the last 15 left 0.098MB each)"),
        "{line}"
    );
    let json = serde_json::to_value(JsonLine::new(&leaks, &LineRules::default(), grows));
    let json = json.expect("it is plain data");
    assert_eq!(json["leak_suspected"], true);
    assert_eq!(json["survivors_grow"]["left"], 14);
    // A request that has kept nothing is none of those.
    leaks.retained.bytes = 0;
    assert_eq!(retained(&leaks, grows), "retained=0.0MB");
}
