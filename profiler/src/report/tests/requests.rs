//! Tests of request windows in every format, with a capture that is written as a recording writes
//! it.

use super::*;
use crate::capture::{Interval, Meta, Writer, read};
use crate::profile::Tier;
use crate::report::{Refusal, Selection};
use crate::requests::head::Method;
use crate::requests::record::{
    Amount, Binding, LeftBehind, MemoryAt, ProcessUnbound, RssPair, Stage, Survived, Unbound,
    WindowEnd, WindowRecord,
};
use crate::requests::route::Route;

const BEGUN: u64 = 1_800_000_000 * SECOND;
/// The number of intervals, of one second each.
const INTERVALS: u64 = 40;

/// Makes one context with the stacks 1 and 2, and one context of which the recorder walked no
/// stack.
const CONTEXT: StackId = StackId(5);
const BARE_CONTEXT: StackId = StackId(6);

fn amount(bytes: u64, objects: u64) -> Amount {
    Amount { bytes, objects }
}

fn get(template: &str) -> Route {
    Route::stored(Some(Method::Get), Some(template))
}

fn users() -> Route {
    get("/users/{id}")
}

/// Makes a request of the first process, which serves one request at a time.
pub(super) fn request(window: u64, route: Route, status: u16, retained: Amount) -> WindowRecord {
    let closed_ns = BEGUN + window * SECOND;
    WindowRecord {
        window: WindowNumber(window),
        process: ProcessNumber(0),
        pid: 4242,
        tid: 4242,
        opened_ns: closed_ns - SECOND / 10,
        closed_ns,
        duration_ns: Some(SECOND / 20),
        route,
        status: Some(status),
        request_id: Some("abc123".into()),
        rss: Some(RssPair {
            open: 125 << 20,
            close: 126 << 20,
        }),
        allocated: amount(50_000, 100),
        retained,
        binding: Binding::Exact,
        end: WindowEnd::Done,
    }
}

/// Makes a request of the second process, which serves many requests at a time.
fn concurrent(window: u64, route: Route, at: u64) -> WindowRecord {
    let closed_ns = BEGUN + at * SECOND - SECOND / 2;
    WindowRecord {
        process: ProcessNumber(1),
        pid: 4243,
        tid: 4243,
        opened_ns: closed_ns - SECOND / 10,
        closed_ns,
        binding: Binding::Candidates(3),
        ..request(window, route, 200, Amount::default())
    }
}

fn left(route: Route, status: u16, stage: Stage, stack: StackId, amount: Amount) -> LeftBehind {
    LeftBehind {
        process: ProcessNumber(0),
        route,
        status: Some(status),
        stage,
        stack,
        amount,
    }
}

fn survived(window: u64) -> Survived {
    Survived {
        window: WindowNumber(window),
        route: users(),
        amount: amount(1_100, 3),
    }
}

/// Makes ten requests for users and two chats, one of which failed.
fn first_requests() -> Interval {
    use Stage::{Retained, Survivors};
    let chat = || Route::stored(Some(Method::Post), Some("/api/chat"));
    let of_users = |number| request(number, users(), 200, amount(4_000, 10));
    let mut windows: Vec<_> = (1..=10).map(of_users).collect();
    windows.push(request(11, chat(), 200, amount(2_900_000, 5)));
    windows.push(request(12, chat(), 500, amount(100, 1)));
    Interval {
        windows,
        survivors: (1..=10).map(survived).collect(),
        left_behind: vec![
            left(users(), 200, Retained, StackId(1), amount(9_000, 20)),
            left(users(), 200, Retained, CONTEXT, amount(20_000, 40)),
            left(users(), 200, Survivors, StackId(1), amount(2_000, 4)),
            left(users(), 200, Survivors, StackId(2), amount(1_000, 4)),
            left(users(), 200, Survivors, CONTEXT, amount(6_000, 16)),
            left(users(), 200, Survivors, StackId(3), amount(1_000, 1)),
            left(users(), 200, Survivors, BARE_CONTEXT, amount(500, 2)),
            left(chat(), 200, Retained, StackId(3), amount(2_900_000, 5)),
            left(chat(), 500, Retained, StackId(1), amount(100, 1)),
        ],
        ..Interval::default()
    }
}

/// Makes what the second process serves in a second. A stream leaves 1,000 bytes behind, a poll
/// leaves nothing.
fn concurrent_requests(second: u64, number: &mut u64) -> Vec<WindowRecord> {
    let streams = (second * 7) % 5;
    let polls = (second * second) % 4;
    let routes = [(streams, "/stream"), (polls, "/poll")];
    let routes = routes
        .iter()
        .flat_map(|(count, route)| (0..*count).map(|_| get(route)));
    let windows = routes.map(|route| {
        *number += 1;
        concurrent(*number, route, second)
    });
    windows.collect()
}

fn unbound(streams: u64, second: u64) -> Vec<ProcessUnbound> {
    let pair = |bytes| Unbound {
        allocated: amount(bytes * 4, 40),
        outstanding: amount(bytes, 10),
    };
    let of = |process, background, ambiguous| ProcessUnbound {
        process: ProcessNumber(process),
        background: pair(background),
        ambiguous: pair(ambiguous),
    };
    let noise = (second * 37) % 11 * 60;
    vec![
        of(0, 5_000, 0),
        of(1, second * 100 + noise, streams * 1_000),
    ]
}

fn memory(streams: u64, second: u64) -> Vec<MemoryAt> {
    let of = |unbound: &ProcessUnbound| MemoryAt {
        process: unbound.process,
        at_ns: BEGUN + second * SECOND,
        unbound_bytes: Some(
            unbound.background.outstanding.bytes + unbound.ambiguous.outstanding.bytes,
        ),
        resident_bytes: None,
    };
    unbound(streams, second).iter().map(of).collect()
}

fn write(path: &std::path::Path) -> TestResult {
    let mut base = capture();
    base.stacks[0].context = Some(CONTEXT);
    base.stacks[1].context = Some(CONTEXT);
    for id in [CONTEXT, BARE_CONTEXT] {
        base.stacks.push(Stack {
            id,
            frames: vec![1],
            kind: StackKind::Context,
            ..base.stacks[0].clone()
        });
    }
    let meta = Meta {
        started_ns: BEGUN,
        ..Meta::default()
    };
    let mut writer = Writer::create(path, &meta)?;
    let (first, _) = base.processes.remove(0);
    writer.add_process(first.clone())?;
    writer.add_process(Process {
        number: ProcessNumber(1),
        pid: 4243,
        comm: "uvicorn".into(),
        ..first
    })?;
    let (mut number, mut streams) = (1_000, 0);
    for second in 0..INTERVALS {
        let first = match second {
            0 => Interval {
                modules: base.modules.clone(),
                frames: base.frames.clone(),
                stacks: base.stacks.clone(),
                totals: base.totals.clone(),
                ..first_requests()
            },
            _ => Interval::default(),
        };
        let mut windows = concurrent_requests(second, &mut number);
        streams += windows
            .iter()
            .filter(|window| window.route == get("/stream"))
            .count() as u64;
        windows.extend(first.windows);
        writer.write_interval(Interval {
            at_ns: BEGUN + second * SECOND,
            windows,
            memory: memory(streams, second),
            unbound: unbound(streams, second),
            ..first
        })?;
    }
    writer.finish(BEGUN + INTERVALS * SECOND)?;
    Ok(())
}

fn profile() -> Result<Profile, Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("out.residue");
    write(&path)?;
    Ok(Profile::from(&read(&path)?))
}

fn selection(format: Format, by: impl Into<Option<Measure>>, route: Option<&str>) -> Selection<'_> {
    Selection {
        format,
        by: by.into(),
        tier: Tier::Blocks,
        route,
    }
}

fn rendered(profile: &Profile, selection: Selection<'_>) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut out = Vec::new();
    let options = selection.options(profile)?;
    selection.format.write(profile, options, &mut out)?;
    Ok(out)
}

fn text_of(selection: Selection<'_>) -> Result<String, Box<dyn Error>> {
    Ok(String::from_utf8(rendered(&profile()?, selection)?)?)
}

#[test]
fn text_has_the_table_by_route() -> TestResult {
    let text = text_of(selection(Format::Text, None, None))?;
    for line in text.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
    insta::assert_snapshot!(text);
    Ok(())
}

#[test]
fn text_by_survivors_names_the_routes() -> TestResult {
    let text = text_of(selection(Format::Text, Measure::Survivors, None))?;
    let (stacks, _) = text
        .split_once("REQUESTS BY ROUTE")
        .ok_or("no table by route")?;
    insta::assert_snapshot!(stacks);
    Ok(())
}

#[test]
fn json_has_routes_with_the_stacks_of_their_survivors() -> TestResult {
    let json = text_of(selection(Format::Json, None, None))?;
    let json: serde_json::Value = serde_json::from_str(&json)?;
    let of_requests = ["routes", "background", "ambiguous"].map(|key| (key, &json[key]));
    let of_requests: std::collections::BTreeMap<_, _> = of_requests.into_iter().collect();
    insta::assert_snapshot!(serde_json::to_string_pretty(&of_requests)?);
    Ok(())
}

#[test]
fn what_a_route_of_the_json_lists_adds_up_to_its_survivors() -> TestResult {
    let json = text_of(selection(Format::Json, None, None))?;
    let json: serde_json::Value = serde_json::from_str(&json)?;
    let routes = json["routes"].as_array().ok_or("no routes")?;
    let users = routes
        .iter()
        .find(|route| route["route"] == "GET /users/{id}");
    let users = users.ok_or("no users")?;
    let bytes = |value: &serde_json::Value| value["bytes"].as_u64().unwrap_or_default();
    let stacks = users["stacks"].as_array().ok_or("no stacks")?.iter();
    let parts = [&users["further_stacks"], &users["without_stack"]];
    let sum: u64 = stacks.chain(parts).map(bytes).sum();
    assert_eq!((sum, bytes(&users["survivors"])), (11_000, 11_000));
    Ok(())
}

#[test]
fn folded_has_a_root_for_each_route() -> TestResult {
    insta::assert_snapshot!(text_of(selection(Format::Folded, Measure::Retained, None))?);
    Ok(())
}

#[test]
fn one_route_alone_adds_up_to_what_its_requests_retained() -> TestResult {
    let folded = text_of(selection(
        Format::Folded,
        Measure::Retained,
        Some("GET /users/{id}"),
    ))?;
    let counts = folded.lines().filter_map(|line| line.rsplit_once(' '));
    let sum: u64 = counts
        .map(|(_, count)| count.parse::<u64>())
        .sum::<Result<_, _>>()?;
    assert_eq!(sum, 40_000);
    insta::assert_snapshot!(folded);
    Ok(())
}

#[test]
fn a_route_without_a_measure_shows_its_survivors() -> TestResult {
    let users = Some("GET /users/{id}");
    let by_default = text_of(selection(Format::Folded, None, users))?;
    let survivors = text_of(selection(Format::Folded, Measure::Survivors, users))?;
    assert_eq!(by_default, survivors);
    Ok(())
}

#[test]
fn the_flamegraph_names_the_route_and_the_measure() -> TestResult {
    let users = Some("GET /users/{id}");
    let svg = text_of(selection(Format::Flamegraph, Measure::Survivors, users))?;
    for part in [
        "Memory that survived GET /users/{id} · gunicorn (pid 4242) and 1 more",
        "10.7 KiB in 30 blocks not freed within the grace of their request",
        "[stack not looked at in time]",
    ] {
        assert!(svg.contains(part), "{part} is missing");
    }
    let svg = text_of(selection(Format::Flamegraph, Measure::Retained, None))?;
    assert!(svg.contains("Memory retained by requests"));
    Ok(())
}

#[test]
fn pprof_labels_samples_by_route_method_status_and_pid() -> TestResult {
    let gzipped = rendered(
        &profile()?,
        selection(Format::Pprof, Measure::Retained, None),
    )?;
    let mut bytes = Vec::new();
    GzDecoder::new(&*gzipped).read_to_end(&mut bytes)?;
    let profile = Message::parse(&bytes)?;
    let strings: Vec<String> = profile
        .all(6)
        .map(|field| String::from_utf8(field.bytes().to_vec()))
        .collect::<Result<_, _>>()?;
    let string = |index: u64| strings[index as usize].as_str();
    let types = profile.messages(1)?;
    let types: Vec<_> = types.iter().map(|kind| string(kind.number(1))).collect();
    assert_eq!(types, ["retained_objects", "retained_space"]);
    assert_eq!(string(profile.number(14)), "retained_space");
    let samples = profile.messages(2)?;
    assert_eq!(samples[0].packed(2)?, [5, 2_900_000]);
    let labels = samples[0].messages(3)?;
    let labels: Vec<_> = labels
        .iter()
        .map(|label| {
            (
                string(label.number(1)),
                string(label.number(2)),
                label.number(3),
            )
        })
        .collect();
    let expected = [
        ("route", "/api/chat", 0),
        ("method", "POST", 0),
        ("status", "200", 0),
        ("pid", "", 4242),
    ];
    assert_eq!(labels, expected);
    Ok(())
}

fn refusal(profile: &Profile, selection: Selection<'_>) -> Option<Refusal> {
    selection.options(profile).err()
}

#[test]
fn what_makes_no_sense_is_refused_by_name() -> TestResult {
    let profile = profile()?;
    let chat = Some("POST /api/chat");
    let refused = |by: Option<Measure>, route| {
        let refusal = refusal(&profile, selection(Format::Folded, by, route));
        refusal
            .map(|refusal| refusal.to_string())
            .unwrap_or_default()
    };
    let retained = Some(Measure::Retained);
    insta::assert_snapshot!(refused(retained, Some("GET /nowhere")));
    assert!(refused(Some(Measure::Outstanding), chat).contains("--by retained"));
    assert!(refused(retained, Some("GET /stream")).contains("no allocation could be bound"));
    assert!(refused(None, chat).contains("survived of POST /api/chat"));
    let json = refusal(&profile, selection(Format::Json, None, chat));
    assert_eq!(json, Some(Refusal::AllRoutes));
    let tier = Selection {
        tier: Tier::PythonPools,
        ..selection(Format::Folded, Measure::Retained, None)
    };
    assert_eq!(refusal(&profile, tier), Some(Refusal::BlocksOnly));
    Ok(())
}

#[test]
fn a_capture_without_requests_says_so() {
    let profile = Profile::from(&capture());
    for (by, route) in [
        (Some(Measure::Retained), None),
        (Some(Measure::Survivors), None),
        (None, Some("GET /")),
    ] {
        let refused = refusal(&profile, selection(Format::Folded, by, route));
        assert!(
            matches!(refused, Some(Refusal::NoRequests(_))),
            "{refused:?}"
        );
    }
}
