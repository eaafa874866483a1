//! Checks that the demo found the leaks that it planted.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// The least bytes that must be outstanding after the load. The load leaves some tens of megabytes.
const LEAST_OUTSTANDING: u64 = 4 << 20;
/// The most blocks that the clean twin may hold: each of the few workers may be in the middle of a
/// request.
const MOST_IN_FLIGHT: u64 = 4;

/// The views that leak, and the call by which each leaks.
const LEAKS: [(&str, &str); 4] = [
    ("login", "sessions.open_session("),
    ("tools", "TOOLS.connect("),
    ("chat", "agents.Agent("),
    ("thumbnail", "thumbnails.make("),
];
/// The least bytes that a request of each view leaves behind.
const LEFT_BEHIND: [(&str, f64); 5] = [
    ("login", 48.0 * 1024.0),
    ("tools", 32.0 * 1024.0),
    ("chat", 96.0 * 1024.0),
    ("thumbnail", 64_000.0),
    ("preview", 0.0),
];
/// How much more than the leak itself may be left behind, as a factor. The lists that hold what
/// leaks grow, too.
const MOST_BESIDE: f64 = 1.1;
/// The source of the views.
const VIEWS: &str = include_str!("../../demo/assistant/views.py");

/// What one function and everything it calls hold and have allocated.
#[derive(Debug, Default, PartialEq)]
struct Held {
    inuse_bytes: u64,
    inuse_objects: u64,
    alloc_objects: u64,
}

/// Reads the reports as any other program would.
pub fn reports(out: &Path) -> Result<()> {
    let report = fs::read(out.join("report.json")).context("failed to read report.json")?;
    let report = serde_json::from_slice(&report).context("report.json is no JSON")?;
    findings(&report)?;
    leaking_views(&report)?;
    leaking_routes(&report)?;
    is_like(out, "leak.svg", |bytes| contains(bytes, b"<svg"))?;
    is_like(out, "chat.svg", |bytes| contains(bytes, b"GET /api/chat"))?;
    is_like(out, "leak.folded", |bytes| {
        contains(bytes, b"leak_thumbnail")
    })?;
    is_like(out, "leak.pb.gz", |bytes| bytes.starts_with(&[0x1f, 0x8b]))
}

fn findings(report: &Value) -> Result<()> {
    let all = held(report, |_| true)?;
    ensure!(
        all.inuse_bytes >= LEAST_OUTSTANDING,
        "only {} bytes are outstanding, where tens of megabytes were leaked",
        all.inuse_bytes
    );
    let leak = held(report, |name| name.starts_with("leak_thumbnail"))?;
    ensure!(
        leak.inuse_bytes > 0,
        "the native leak `leak_thumbnail` was not found"
    );
    let clean = held(report, |name| name.starts_with("draw_thumbnail"))?;
    ensure!(
        clean.alloc_objects > 0,
        "the clean twin `draw_thumbnail` was not seen"
    );
    ensure!(
        clean.inuse_objects <= MOST_IN_FLIGHT,
        "the clean twin `draw_thumbnail` seems to hold memory: {clean:?}"
    );
    let (bytes, objects) = (all.inuse_bytes, all.inuse_objects);
    println!("    outstanding {bytes} bytes in {objects} objects");
    let bytes = leak.inuse_bytes;
    println!("    leak_thumbnail holds {bytes} bytes of them");
    let bytes = clean.inuse_bytes;
    println!("    draw_thumbnail, its clean twin, holds {bytes}");
    Ok(())
}

/// Checks that each leak is held by the very line of its view that makes it.
fn leaking_views(report: &Value) -> Result<()> {
    for (view, call) in LEAKS {
        let line =
            line_of(view, call).with_context(|| format!("views.py has no {view}: {call}"))?;
        let held = held_by(report, |frame| {
            frame["name"] == view
                && frame["line"] == line
                && frame["file"]
                    .as_str()
                    .is_some_and(|file| file.ends_with("/views.py"))
        })?;
        ensure!(
            held.inuse_bytes > 0,
            "the leak of `{view}` was not found at views.py:{line}"
        );
        println!(
            "    {view} (views.py:{line}) holds {} bytes in {} blocks",
            held.inuse_bytes, held.inuse_objects
        );
    }
    Ok(())
}

/// Checks that each leaky endpoint is named with what its requests leave behind, which is about
/// what the leak itself holds, and the clean endpoint with nothing.
fn leaking_routes(report: &Value) -> Result<()> {
    for (view, least) in LEFT_BEHIND {
        let route = format!("GET /api/{view}");
        let row = report["routes"]
            .as_array()
            .and_then(|rows| rows.iter().find(|row| row["route"] == route))
            .with_context(|| format!("report.json has no route `{route}`"))?;
        let survived = row["survivor_bytes_per_request"].as_f64();
        let survived =
            survived.with_context(|| format!("it is not known what `{route}` leaves behind"))?;
        ensure!(
            survived >= least && survived <= least * MOST_BESIDE,
            "a request of `{route}` leaves {survived} bytes behind, where its leak is {least}"
        );
        println!("    {route} leaves {survived:.0} bytes behind a request");
    }
    Ok(())
}

/// Finds the line at which a view makes a call, counted from one.
fn line_of(view: &str, call: &str) -> Option<usize> {
    let definition = format!("def {view}(");
    let mut lines = (1..).zip(VIEWS.lines());
    lines.find(|(_, line)| line.starts_with(&definition))?;
    let (number, _) = lines.find(|(_, line)| line.contains(call))?;
    Some(number)
}

/// Sums up the stacks that have a frame whose name is wanted.
fn held(report: &Value, is_wanted: impl Fn(&str) -> bool) -> Result<Held> {
    held_by(report, |frame| {
        frame["name"].as_str().is_some_and(&is_wanted)
    })
}

/// Sums up the stacks that have a frame that is wanted.
fn held_by(report: &Value, is_wanted: impl Fn(&Value) -> bool) -> Result<Held> {
    let stacks = report["stacks"]
        .as_array()
        .context("report.json has no list `stacks`")?;
    let mut sum = Held::default();
    for stack in stacks {
        let frames = stack["frames"]
            .as_array()
            .context("a stack in report.json has no frames")?;
        if !frames.iter().any(&is_wanted) {
            continue;
        }
        sum.inuse_bytes += number(stack, "inuse_bytes")?;
        sum.inuse_objects += number(stack, "inuse_objects")?;
        sum.alloc_objects += number(stack, "alloc_objects")?;
    }
    Ok(sum)
}

fn number(stack: &Value, name: &str) -> Result<u64> {
    let number = stack[name].as_u64();
    number.with_context(|| format!("a stack in report.json has no number `{name}`"))
}

fn is_like(out: &Path, name: &str, looks_right: impl Fn(&[u8]) -> bool) -> Result<()> {
    let bytes = fs::read(out.join(name)).with_context(|| format!("failed to read {name}"))?;
    ensure!(
        looks_right(&bytes),
        "{name} does not look like what it should be"
    );
    Ok(())
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn stack(function: &str, inuse: u64) -> Value {
        json!({
            "frames": [{"name": "allocate_pixels"}, {"name": function}],
            "inuse_bytes": inuse << 20, "inuse_objects": inuse, "alloc_objects": 100,
        })
    }

    fn report(leaked: u64, clean: u64) -> Value {
        let stacks = [
            stack("leak_thumbnail", leaked),
            stack("draw_thumbnail", clean),
        ];
        json!({ "stacks": stacks })
    }

    #[test]
    fn a_leak_and_a_clean_twin_pass() {
        assert!(findings(&report(30, 1)).is_ok());
    }

    #[test]
    fn a_view_is_found_by_its_line_alone() {
        let leak = |line: usize| {
            let frame = |view| json!({"name": view, "file": "/srv/views.py", "line": line});
            let frames: Vec<_> = LEAKS.iter().map(|(view, _)| frame(view)).collect();
            json!({ "stacks": [{
                "frames": frames, "inuse_bytes": 1, "inuse_objects": 1, "alloc_objects": 1,
            }] })
        };
        let error = leaking_views(&leak(1)).unwrap_err();
        assert!(error.to_string().contains("`login`"));
        for (view, call) in LEAKS {
            assert!(line_of(view, call).is_some(), "{view}");
        }
    }

    #[test]
    fn a_route_passes_by_what_it_leaves_behind_alone() {
        let routes = |beside: f64| {
            let row = |(view, least): &(&str, f64)| {
                json!({
                    "route": format!("GET /api/{view}"),
                    "survivor_bytes_per_request": least + beside,
                })
            };
            json!({ "routes": LEFT_BEHIND.iter().map(row).collect::<Vec<_>>() })
        };
        assert!(leaking_routes(&routes(0.0)).is_ok());
        let error = leaking_routes(&routes(1.0)).unwrap_err();
        assert!(error.to_string().contains("`GET /api/preview`"));
        assert!(leaking_routes(&json!({ "routes": [] })).is_err());
    }

    #[test]
    fn nothing_outstanding_fails() {
        let error = findings(&report(0, 0)).unwrap_err();
        assert!(error.to_string().contains("only 0 bytes"));
    }

    #[test]
    fn a_clean_twin_that_holds_memory_fails() {
        let error = findings(&report(30, 90)).unwrap_err();
        assert!(error.to_string().contains("draw_thumbnail"));
    }

    #[test]
    fn a_report_of_another_shape_fails() {
        assert!(findings(&json!({"stacks": [{"frames": []}]})).is_err());
        assert!(findings(&json!([])).is_err());
    }
}
