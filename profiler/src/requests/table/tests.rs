//! Tests of tables: records go in, rows come out.

use super::*;
use crate::ids::{ProcessNumber, WindowNumber};
use crate::report::routes_table::write;
use crate::requests::head::{Method, Target};
use crate::requests::record::RssPair;
use crate::requests::route::{RouteRules, Routes};

fn get(path: &str) -> Route {
    let target = Target::Path {
        text: path.into(),
        cut: false,
    };
    Routes::default().route(Method::Get, &target)
}

fn amount(bytes: u64) -> Amount {
    Amount {
        bytes,
        objects: bytes / 100,
    }
}

fn record(route: &Route, number: u64) -> WindowRecord {
    WindowRecord {
        window: WindowNumber(number),
        process: ProcessNumber(0),
        pid: 1,
        tid: 1,
        opened_ns: 0,
        closed_ns: 1_000_000,
        duration_ns: Some(number * 1_000_000),
        route: route.clone(),
        status: Some(200),
        request_id: None,
        rss: Some(RssPair {
            open: 1 << 30,
            close: (1 << 30) + number * 4096,
        }),
        allocated: amount(10_000),
        retained: amount(number * 100),
        binding: Binding::Exact,
        end: WindowEnd::Done,
    }
}

fn table(builder: &TableBuilder) -> RouteTable {
    let background = Unbound {
        allocated: amount(5 << 20),
        outstanding: amount(3 << 10),
    };
    builder.build(Some(background), Some(Unbound::default()))
}

fn text(table: &RouteTable) -> String {
    let mut out = Vec::new();
    write(table, &mut out).expect("a vector takes everything");
    String::from_utf8(out).expect("it is text")
}

#[test]
fn a_row_has_percentiles_of_what_differs_and_means_of_what_adds_up() {
    let mut builder = TableBuilder::default();
    (1..=100).for_each(|number| builder.add(&record(&get("/users/7"), number)));
    (1..=4).for_each(|survived| builder.add_survivors(&get("/users/8"), amount(survived)));
    let table = table(&builder);
    let [row] = &table.routes[..] else {
        panic!("{table:?}");
    };
    let off = |told: Option<u64>, exact: u64| told.expect("it is known").abs_diff(exact) * 256;
    assert_eq!(
        (row.route.to_string().as_str(), row.requests),
        ("GET /users/{id}", 100)
    );
    assert!(off(row.duration_p50, 50_000_000) <= 50_000_000);
    assert!(off(row.duration_p95, 95_000_000) <= 95_000_000);
    assert!(off(row.delta_p50.map(i64::unsigned_abs), 50 * 4096) <= 50 * 4096);
    assert_eq!(row.delta_max, Some(100 * 4096));
    assert_eq!(row.alloc_bytes_per_request, Some(10_000.0));
    assert_eq!(row.retained_bytes_per_request, Some(5_050.0));
    assert_eq!(row.survivor_bytes_per_request, Some(2.5));
    assert_eq!(row.confidence, "exact");
}

#[test]
fn what_is_not_bound_or_not_closed_is_in_no_mean() {
    let mut builder = TableBuilder::default();
    builder.add(&record(&get("/"), 1));
    let mut other = record(&get("/"), 1_000_000);
    for binding in [Binding::Candidates(3), Binding::None] {
        other.binding = binding;
        builder.add(&other);
    }
    other.binding = Binding::Exact;
    other.end = WindowEnd::StillOpen;
    builder.add(&other);
    let row = &table(&builder).routes[0];
    assert_eq!(
        (row.requests, row.retained_bytes_per_request),
        (4, Some(100.0))
    );
    assert_eq!(row.confidence, "none");
    let counts = row.confidences;
    assert_eq!((counts.exact, counts.candidates, counts.none), (2, 1, 1));
}

#[test]
fn the_least_confidence_is_told() {
    let least = |bindings: &[Binding]| {
        let mut confidences = Confidences::default();
        bindings
            .iter()
            .for_each(|binding| confidences.add(*binding));
        confidences.least().name()
    };
    assert_eq!(least(&[Binding::Exact, Binding::Lineage]), "lineage");
    assert_eq!(least(&[Binding::Lineage]), "lineage");
    assert_eq!(least(&[Binding::Single, Binding::Lineage]), "single");
    assert_eq!(least(&[Binding::Single, Binding::None]), "none");
    assert_eq!(
        least(&[Binding::Candidates(2), Binding::Exact]),
        "candidates"
    );
    assert_eq!(least(&[]), "none");
}

#[test]
fn nothing_bound_is_nothing_known() {
    let mut builder = TableBuilder::default();
    let mut bare = record(&get("/"), 1);
    (bare.duration_ns, bare.rss, bare.binding) = (None, None, Binding::None);
    builder.add(&bare);
    let row = &table(&builder).routes[0];
    assert_eq!((row.duration_p95, row.delta_max), (None, None));
    assert_eq!(
        (row.alloc_bytes_per_request, row.survivor_bytes_per_request),
        (None, None)
    );
}

#[test]
fn routes_beyond_the_cap_share_one_row() {
    let mut routes = Routes::new(RouteRules {
        max_routes: 0,
        ..RouteRules::default()
    });
    let mut builder = TableBuilder::default();
    for method in [Method::Get, Method::Post] {
        builder.add(&record(&routes.route(method, &Target::Asterisk), 1));
    }
    let table = table(&builder);
    assert_eq!((table.routes.len(), table.routes[0].requests), (1, 2));
    assert_eq!(table.routes[0].route.to_string(), "other");
}

#[test]
fn the_text_fits_its_columns_and_the_worst_comes_first() {
    let mut builder = TableBuilder::default();
    builder.add(&record(&get("/little"), 1));
    builder.add(&record(&get(&"/a-long-path".repeat(20)), 1_000_000));
    let mut doubtful = record(&get("/users/1"), 500);
    builder.add(&doubtful);
    doubtful.binding = Binding::Candidates(2);
    builder.add(&doubtful);
    builder.add_survivors(&get("/users/1"), amount(3));
    let text = text(&table(&builder));
    assert!(
        text.lines().all(|line| line.chars().count() <= 80),
        "{text}"
    );
    insta::assert_snapshot!(text);
}

#[test]
fn estimates_stand_below_their_route_and_each_reason_for_none_once() {
    let mut builder = TableBuilder::default();
    let long = format!("/{}", "long/".repeat(40));
    let routes = ["/stream", "/a", "/b", "/c", &long].map(get);
    for route in &routes {
        let mut doubtful = record(route, 10);
        doubtful.binding = Binding::Candidates(2);
        builder.add(&doubtful);
    }
    let mut table = table(&builder);
    let told = RowEstimate::Told {
        bytes_per_request: 1_234.5,
        standard_error: 56.7,
        from: EstimatedFrom::ResidentSet,
    };
    let missing = |why: &str| RowEstimate::Missing(why.to_owned());
    let tied = format!(
        "its requests came along with those of {}",
        ["GET /x"; 20].join(", ")
    );
    let estimates = [
        told,
        missing("too few"),
        missing("too few"),
        missing(&tied),
        missing("none"),
    ];
    table.estimate(&routes.into_iter().zip(estimates).collect());
    let text = text(&table);
    assert!(
        text.lines().all(|line| line.chars().count() <= 80),
        "{text}"
    );
    insta::assert_snapshot!(text);
}

#[test]
fn what_is_estimated_counts_for_the_order() {
    let mut builder = TableBuilder::default();
    builder.add(&record(&get("/bound"), 10));
    for _ in 0..3 {
        let mut doubtful = record(&get("/stream"), 1);
        doubtful.binding = Binding::None;
        builder.add(&doubtful);
    }
    let mut table = table(&builder);
    let estimate = RowEstimate::Told {
        bytes_per_request: 400.0,
        standard_error: 1.0,
        from: EstimatedFrom::Blocks,
    };
    table.estimate(&HashMap::from([(get("/stream"), estimate)]));
    assert_eq!(
        table.routes[0].route,
        get("/stream"),
        "1,200 bytes against 1,000"
    );
}

#[test]
fn the_json_has_the_documented_names() {
    let mut builder = TableBuilder::default();
    builder.add(&record(&get("/users/1"), 2));
    let json = serde_json::to_value(table(&builder)).expect("it is plain data");
    assert_eq!(
        json,
        serde_json::json!({
            "routes": [{
                "route": "GET /users/{id}", "requests": 1,
                "duration_p50": 2_000_000, "duration_p95": 2_000_000,
                "delta_p50": 8192, "delta_p95": 8192, "delta_max": 8192,
                "alloc_bytes_per_request": 10_000.0, "retained_bytes_per_request": 200.0,
                "survivor_bytes_per_request": null,
                "confidence": "exact",
                "confidences": {"exact": 1, "lineage": 0, "single": 0, "candidates": 0, "none": 0},
                "scope": "blocks", "suspected": null,
                "estimated_bytes_per_request": null, "estimate_standard_error": null, "estimated_from": null,
                "no_estimate": null,
            }],
            "background": {
                "allocated": {"bytes": 5 << 20, "objects": (5 << 20) / 100},
                "outstanding": {"bytes": 3072, "objects": 30},
            },
            "ambiguous": {
                "allocated": {"bytes": 0, "objects": 0},
                "outstanding": {"bytes": 0, "objects": 0},
            },
        })
    );
}

#[test]
fn a_route_whose_survivors_go_on_growing_is_marked_with_its_evidence() {
    let mut builder = TableBuilder::default();
    for number in 1..=20 {
        for path in ["/leak", "/clean"] {
            builder.add(&record(&get(path), number));
            let survived = if path == "/leak" { 98_304 } else { 0 };
            builder.add_survivors(&get(path), amount(survived));
        }
    }
    let table = table(&builder);
    let suspected = table.routes.iter().map(|row| row.suspected.is_some());
    assert_eq!(suspected.collect::<Vec<_>>(), [true, false]);
    let text = text(&table);
    assert_eq!(text.matches("LEAK_SUSPECTED").count(), 1, "{text}");
    assert!(
        text.contains("LEAK_SUSPECTED  15 of the last 15 requests"),
        "{text}"
    );
    assert!(text.contains("96.0 KiB each"), "{text}");
}

#[test]
fn nothing_in_the_text_is_exact_since_there_is_more_than_blocks() {
    let mut builder = TableBuilder::default();
    builder.add(&record(&get("/bound"), 1));
    let mut mixed = record(&get("/mixed"), 1);
    builder.add(&mixed);
    mixed.binding = Binding::None;
    builder.add(&mixed);
    let mut none = record(&get("/none"), 1);
    none.binding = Binding::None;
    builder.add(&none);
    let table = table(&builder);
    let text = text(&table);
    assert!(!text.contains("exact"), "{text}");
    for scope in [
        "  blocks only\n",
        "  blocks only; bound 50%, not bound 50%\n",
        "  nothing bound\n",
    ] {
        assert!(text.contains(scope), "{scope:?} is missing:\n{text}");
    }
    let scopes = table
        .routes
        .iter()
        .map(|row| (row.route.template(), row.scope));
    let scopes: HashMap<_, _> = scopes.collect();
    assert_eq!((scopes["/bound"], scopes["/none"]), (Some("blocks"), None));
}

#[test]
fn what_nobody_counted_has_no_row() {
    let table = TableBuilder::default().build(None, None);
    let text = text(&table);
    assert!(
        !text.contains("background") && !text.contains("0 B"),
        "{text}"
    );
}
