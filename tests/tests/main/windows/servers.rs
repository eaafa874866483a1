//! What requests leave behind in servers that give each of them a thread: route by route what the servers
//! say themselves, to the byte.

use std::{collections::BTreeMap, thread, time::Duration};

use anyhow::{Context as _, Result};
use residue_tests::{
    http::{Answer, Load},
    machine,
    python::pythons,
    recorder::Recorder,
    report::{Report, Stack},
    servers::{
        BACKGROUND_BLOCKS, BACKGROUND_BYTES, BACKGROUND_SITE, DEFERRED, INDEPENDENT, Kind, ROUTES,
        Route, Server,
    },
    windows::{Amount, RouteRow, Unbound, Watcher, Window, matched},
};

/// The version that gunicorn and Flask run on.
pub const PYTHON: &str = "3.11";
/// From PyPI.
pub const PACKAGES: [&str; 2] = ["flask", "gunicorn"];

const CLIENTS: usize = 8;
/// More than the grace, which is ten requests.
const FURTHER: usize = 12;

/// A request is over a second after its connection was closed, at the latest, and that is looked at once a
/// second: the thread that served it may have nothing to do since.
const QUIET: Duration = Duration::from_millis(2500);

/// Those whose blocks are released by later requests, and behind them as many as it takes for that.
const ONE_BY_ONE: [&str; 5] = [DEFERRED[0], DEFERRED[1], "/clean", "/clean", "/clean"];

/// Eight clients side by side, then one whose blocks are released by its later requests; in the end what
/// it takes until every grace is over.
fn load(server: &Server, kind: Kind) -> Result<Vec<Answer>> {
    let mut answers = server.begin_background()?;
    if kind.keeps_alive() {
        answers.extend(side_by_side("many-kept", true).run(server.port)?);
        answers.extend(one_by_one("one-kept", true).run(server.port)?);
    }
    answers.extend(side_by_side("many", false).run(server.port)?);
    if kind.turns_on_close() {
        answers.extend(one_by_one("one", false).run(server.port)?);
    }
    answers.extend(server.await_background()?);
    thread::sleep(QUIET);
    let further = Load {
        rounds: FURTHER,
        paths: &["/clean"],
        ..one_by_one("further", false)
    };
    answers.extend(further.run(server.port)?);
    Ok(answers)
}

const fn side_by_side(name: &str, keep_alive: bool) -> Load<'_> {
    Load {
        name,
        clients: CLIENTS,
        rounds: 8,
        paths: &INDEPENDENT,
        keep_alive,
    }
}

const fn one_by_one(name: &str, keep_alive: bool) -> Load<'_> {
    Load {
        name,
        clients: 1,
        rounds: 12,
        paths: &ONE_BY_ONE,
        keep_alive,
    }
}

/// Before anything is recorded, so that caches are full and threads started.
fn warm_up(server: &Server, kind: Kind) -> Result<()> {
    side_by_side("warm-up", kind.keeps_alive()).run(server.port)?;
    Ok(())
}

fn recorded(server: &Server, kind: Kind) -> Result<(Report, Vec<Answer>)> {
    warm_up(server, kind)?;
    let recorder = Recorder::start(&[server.pid], &[])?;
    let answers = load(server, kind)?;
    let report = recorder.stop()?.report()?;
    assert_eq!(report.losses(), BTreeMap::new(), "{kind:?}");
    Ok((report, answers))
}

/// The same server once more, which is warm by now.
fn watched(server: &Server, kind: Kind) -> Result<Vec<(Window, &'static Route)>> {
    let watcher = Watcher::json(server.pid)?;
    let load = side_by_side("watched", kind.keeps_alive());
    let answers = load.run(server.port)?;
    watcher.await_lines(answers.len())?;
    let windows = watcher.stop()?.windows()?;
    let found = matched(&windows, &answers)?;
    let with_route = |window: &Window| Some((window.clone(), route_of(&window.route)?));
    let windows = found.into_iter().map(with_route);
    windows.collect::<Option<_>>().context("routes are known")
}

fn route_of(path: &str) -> Option<&'static Route> {
    ROUTES.iter().find(|route| route.path == path)
}

/// Requests of each route, with how often they were answered.
fn counted(answers: &[Answer]) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for answer in answers {
        *counts.entry(format!("GET {}", answer.path)).or_default() += 1;
    }
    counts
}

/// One window for each answer, all of them bound for sure; and memory that belongs to none has its row.
fn assert_all_counted(report: &Report, answers: &[Answer]) {
    let rows = report.routes.iter();
    let windows: BTreeMap<_, _> = rows.map(|it| (it.route.clone(), it.requests)).collect();
    assert_eq!(windows, counted(answers));
    for row in &report.routes {
        assert_eq!(row.confidences["exact"], row.requests, "{row:#?}");
    }
    assert_eq!(report.ambiguous, Some(Unbound::default()));
    let background = report.background.expect("there were windows");
    let of_thread = held_by(report, BACKGROUND_SITE);
    assert_eq!(of_thread, of(BACKGROUND_BLOCKS, BACKGROUND_BYTES));
    assert!(
        background.outstanding.bytes >= of_thread.bytes,
        "{background:?}"
    );
    assert!(
        background.outstanding.objects >= of_thread.objects,
        "{background:?}"
    );
}

fn of(objects: u64, size: u64) -> Amount {
    let objects = if size == 0 { 0 } else { objects };
    Amount {
        bytes: objects * size,
        objects,
    }
}

fn sum<'a>(stacks: impl Iterator<Item = &'a Stack>) -> Amount {
    stacks.fold(Amount::default(), |sum, stack| Amount {
        bytes: sum.bytes + stack.inuse_bytes,
        objects: sum.objects + stack.inuse_objects,
    })
}

fn held_by(report: &Report, site: &str) -> Amount {
    sum((report.stacks.iter()).filter(|stack| stack.site() == Some(site)))
}

/// By stack, what survived of native code is what the server says, and is nowhere else.
fn assert_survivors_by_stack(row: &RouteRow, route: &Route) {
    let kept = of(row.requests, route.survivors);
    assert_eq!(row.survivors_of(route.site), kept, "{row:#?}");
    let sites = ROUTES.iter().map(|route| route.site);
    for site in sites
        .chain([BACKGROUND_SITE])
        .filter(|it| *it != route.site)
    {
        assert_eq!(
            row.survivors_of(site),
            Amount::default(),
            "{site}: {row:#?}"
        );
    }
}

fn for_each_route(report: &Report, assert: impl Fn(&RouteRow, &Route)) {
    for route in &ROUTES {
        let row = report.route(&format!("GET {}", route.path));
        assert(row.expect("it was asked for"), route);
    }
}

/// Of a server that allocates nothing else: its windows are the truth.
fn assert_exact(report: &Report, answers: &[Answer]) {
    assert_all_counted(report, answers);
    let exactly = |bytes: u64| Some(bytes as f64);
    for_each_route(report, |row, route| {
        assert_eq!(
            row.alloc_bytes_per_request,
            exactly(route.allocated),
            "{row:#?}"
        );
        assert_eq!(
            row.retained_bytes_per_request,
            exactly(route.retained),
            "{row:#?}"
        );
        assert_eq!(
            row.survivor_bytes_per_request,
            exactly(route.survivors),
            "{row:#?}"
        );
        assert_eq!(
            row.survivors,
            Some(of(row.requests, route.survivors)),
            "{row:#?}"
        );
        assert_eq!(row.without_stack, Amount::default(), "{row:#?}");
        assert_survivors_by_stack(row, route);
    });
    assert_nothing_is_between(report);
}

/// What is outstanding is some route's, or the background's: nothing counts twice or not at all.
fn assert_nothing_is_between(report: &Report) {
    let of_routes = report.routes.iter().filter_map(|row| row.survivors);
    let background = report.background.expect("there were windows").outstanding;
    let parts = of_routes.chain([background]);
    let all = parts.fold(Amount::default(), |sum, part| Amount {
        bytes: sum.bytes + part.bytes,
        objects: sum.objects + part.objects,
    });
    assert_eq!(all, sum(report.stacks.iter()));
}

fn assert_exact_lines(windows: &[(Window, &Route)]) {
    for (window, route) in windows {
        assert_bound(window);
        let allocated = (window.alloc_bytes, window.alloc_objects);
        let retained = (window.retained_bytes, window.retained_objects);
        assert_eq!(allocated, (Some(route.allocated), Some(1)), "{window:#?}");
        assert_eq!(
            retained,
            (Some(route.retained), Some((route.retained > 0).into())),
            "{window:#?}"
        );
    }
}

fn assert_bound(window: &Window) {
    assert_eq!(window.confidence, "exact", "{window:#?}");
    assert_eq!(window.ended, "done", "{window:#?}");
    assert!(window.opened_ns < window.closed_ns, "{window:#?}");
    assert!(window.duration_ns.is_some_and(|it| it > 0), "{window:#?}");
}

#[test]
fn a_thread_a_connection_in_c_is_counted_to_the_byte() -> Result<()> {
    let _turn = machine::beside_others();
    let server = Server::thread_per_connection(&[])?;
    let (report, answers) = recorded(&server, Kind::ThreadPerConnection)?;
    assert_exact(&report, &answers);
    assert_exact_lines(&watched(&server, Kind::ThreadPerConnection)?);
    Ok(())
}

#[test]
fn a_pool_of_threads_in_rust_is_counted_to_the_byte() -> Result<()> {
    let _turn = machine::beside_others();
    let server = Server::thread_pool()?;
    let (report, answers) = recorded(&server, Kind::ThreadPool)?;
    assert_exact(&report, &answers);
    // Its threads were there before: the one in the background is the only one that allocates by itself.
    let background = report.background.map(|it| it.outstanding);
    assert_eq!(background, Some(of(BACKGROUND_BLOCKS, BACKGROUND_BYTES)));
    assert_exact_lines(&watched(&server, Kind::ThreadPool)?);
    Ok(())
}

/// Python allocates as well, so that windows are compared by stack.
fn assert_exact_in_native_code(report: &Report, answers: &[Answer]) {
    assert_all_counted(report, answers);
    for_each_route(report, |row, route| {
        let retained = row.retained_bytes_per_request.unwrap_or(0.0);
        assert!(retained >= route.retained as f64, "{row:#?}");
        assert_survivors_by_stack(row, route);
    });
    let clean = report.route("GET /clean").expect("it was asked for");
    assert_eq!(
        clean.survivors,
        Some(Amount::default()),
        "the clean route keeps {clean:#?}"
    );
}

fn assert_python_server(kind: Kind) -> Result<()> {
    let _turn = machine::beside_others();
    let python = pythons().into_iter().find(|it| it.name == PYTHON);
    let Some(python) = python.map(|it| it.with_packages(&PACKAGES)).transpose()? else {
        return Ok(());
    };
    let Some(python) = python else {
        return Ok(());
    };
    let server = Server::python(&python, kind)?;
    let (report, answers) = recorded(&server, kind)?;
    assert_exact_in_native_code(&report, &answers);
    for (window, route) in watched(&server, kind)? {
        assert_bound(&window);
        assert!(window.alloc_bytes >= Some(route.allocated), "{window:#?}");
        assert!(window.retained_bytes >= Some(route.retained), "{window:#?}");
    }
    Ok(())
}

#[test]
fn gunicorns_sync_workers_are_counted_to_the_byte() -> Result<()> {
    assert_python_server(Kind::GunicornSync)
}

#[test]
fn gunicorns_threads_are_counted_to_the_byte() -> Result<()> {
    assert_python_server(Kind::GunicornThreads)
}

#[test]
fn flasks_own_server_is_counted_to_the_byte() -> Result<()> {
    assert_python_server(Kind::Flask)
}
