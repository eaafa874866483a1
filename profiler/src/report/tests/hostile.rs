//! Tests of every output, with a capture that has a hostile name wherever a stranger can put one.

use std::collections::BTreeSet;

use super::requests::request;
use super::*;
use crate::printable::hostile::{NAMES, is_unclean};
use crate::requests::head::Method;
use crate::requests::record::{Amount, LeftBehind, Stage as At};
use crate::requests::route::Route;

/// Makes a process, a module, a native and a Python frame, a stack, a counter, a note and a request
/// for each name.
fn hostile() -> Capture {
    let mut capture = started();
    for (id, name) in (0..).zip(NAMES) {
        add(&mut capture, id, name);
    }
    capture
}

/// Puts all names into one process, so that the outermost frame comes first in a folded stack.
fn hostile_process() -> Capture {
    let mut capture = hostile();
    capture.processes.truncate(1);
    capture
        .stacks
        .iter_mut()
        .for_each(|stack| stack.process = ProcessNumber(0));
    capture
}

fn add(capture: &mut Capture, id: u32, name: &str) {
    let text = name.to_owned();
    let process = Process {
        number: ProcessNumber(id),
        pid: id + 1,
        comm: text.clone(),
        exe: text.clone(),
        cmdline: text.clone(),
        started_ns: 0,
    };
    let reason = text.clone();
    capture
        .processes
        .push((process, Some(Ended { at_ns: 9, reason })));
    let path = text.clone();
    capture.modules.push(Module {
        id,
        path,
        build_id: None,
        interpreter: false,
    });
    for (frame, kind, module) in [
        (2 * id, FrameKind::Native, Some(id)),
        (2 * id + 1, FrameKind::Python, None),
    ] {
        capture.frames.push(Frame {
            id: frame,
            kind,
            module,
            offset: 0x100,
            symbols: vec![symbol(name, name, 1 + frame)],
        });
    }
    add_figures(capture, id, text);
}

fn add_figures(capture: &mut Capture, id: u32, text: String) {
    let process = ProcessNumber(id);
    let stack = StackId(id + 1);
    capture.stacks.push(Stack {
        id: stack,
        process,
        frames: vec![2 * id, 2 * id + 1],
        left_out: 0,
        end: WalkEnd::Bottom,
        kind: StackKind::Full,
        context: None,
    });
    capture.totals.push((stack, totals(1, 0, 1 << 20)));
    capture
        .mappings
        .push(mapping(stack, MappingOwner::Application, 4096));
    let route = Route::stored(Some(Method::Get), Some(&text));
    let amount = Amount {
        bytes: 1 << 20,
        objects: 1,
    };
    let mut window = request(u64::from(stack.0), route.clone(), 200, amount);
    window.process = process;
    capture.windows.records.push((window, Some(amount)));
    capture.windows.left_behind.push(LeftBehind {
        process,
        route,
        status: Some(200),
        stage: At::Survivors,
        stack,
        amount,
    });
    capture.counters.push((text.clone(), 1));
    capture.notes.push(Note { at_ns: 9, text });
}

const MEASURES: [Measure; 2] = [Measure::Outstanding, Measure::Survivors];

fn assert_clean(text: &str, what: &str) {
    let unclean = text.lines().find(|line| line.contains(is_unclean));
    assert_eq!(unclean, None, "{what}");
}

#[test]
fn no_hostile_name_reaches_the_text() -> TestResult {
    for by in MEASURES {
        assert_clean(&render_text(&hostile(), Format::Text, by)?, "text");
    }
    let mut out = Vec::new();
    let options = Options {
        colour: true,
        ..Options::default()
    };
    Format::Text.write(&Profile::from(&hostile()), options, &mut out)?;
    let mut text = String::from_utf8(out)?;
    for colour in ["\x1b[1m", "\x1b[2m", "\x1b[1;31m", "\x1b[0m"] {
        text = text.replace(colour, "");
    }
    assert_clean(&text, "text in colours");
    Ok(())
}

#[test]
fn json_is_clean_and_names_stay_apart() -> TestResult {
    let json = render_text(&hostile(), Format::Json, Measure::Outstanding)?;
    assert_clean(&json, "json");
    let report: serde_json::Value = serde_json::from_str(&json)?;
    let processes = report["target"]["processes"].as_array().ok_or("no list")?;
    let names: BTreeSet<_> = processes
        .iter()
        .map(|process| process["comm"].as_str())
        .collect();
    assert_eq!(names.len(), NAMES.len());
    Ok(())
}

#[test]
fn folded_stacks_are_clean_and_lose_no_frame() -> TestResult {
    for (capture, by_process, frames) in [
        (hostile(), true, 3),
        (hostile(), false, 2),
        (hostile_process(), false, 2),
    ] {
        let options = Options {
            by_process,
            ..Options::default()
        };
        let mut folded = Vec::new();
        Format::Folded.write(&Profile::from(&capture), options, &mut folded)?;
        let folded = String::from_utf8(folded)?;
        assert_clean(&folded, "folded");
        assert_eq!(folded.lines().count(), NAMES.len());
        for line in folded.lines() {
            let (stack, count) = line.rsplit_once(' ').ok_or("no count")?;
            assert_eq!(count.parse::<u64>()?, 1 << 20);
            assert_eq!(stack.split(';').count(), frames, "{line}");
            assert!(stack.split(';').all(|frame| !frame.is_empty()), "{line}");
            assert!(!line.starts_with('#') && line.trim() == line, "{line}");
        }
    }
    Ok(())
}

#[test]
fn the_svg_is_well_formed_and_every_byte_of_hostile_names_is_drawn() -> TestResult {
    for capture in [hostile(), hostile_process()] {
        for by in MEASURES {
            let svg = render_text(&capture, Format::Flamegraph, by)?;
            assert_clean(&svg, "svg");
            let parsed = strictly_parsed(&svg)?;
            let root = parsed.root_element();
            let frames = root
                .descendants()
                .find(|element| element.attribute("id") == Some("frames"));
            let total = frames.and_then(|frames| frames.attribute("total_samples"));
            let expected = (NAMES.len() << 20).to_string();
            assert_eq!(total, Some(&*expected));
        }
    }
    Ok(())
}

/// Checks that a hostile SVG has the elements of a harmless one, so that no name has added any.
#[test]
fn no_name_brings_markup_into_the_svg() -> TestResult {
    let kinds = |capture: &Capture| -> Result<BTreeSet<String>, Box<dyn Error>> {
        let svg = render_text(capture, Format::Flamegraph, Measure::Outstanding)?;
        let parsed = strictly_parsed(&svg)?;
        let elements = parsed.descendants().filter(|element| element.is_element());
        let name = |node: roxmltree::Node<'_, '_>| node.tag_name().name().to_owned();
        let attributes = parsed
            .descendants()
            .flat_map(|element| element.attributes());
        let attributes = attributes.map(|attribute| format!("@{}", attribute.name()));
        let names: BTreeSet<String> = elements.map(name).chain(attributes).collect();
        Ok(names)
    };
    assert_eq!(kinds(&hostile())?, kinds(&capture())?);
    let svg = render_text(&hostile(), Format::Flamegraph, Measure::Outstanding)?;
    assert_eq!(svg.matches("<script").count(), 1);
    Ok(())
}

fn strictly_parsed(svg: &str) -> Result<roxmltree::Document<'_>, roxmltree::Error> {
    let options = roxmltree::ParsingOptions {
        allow_dtd: true,
        ..roxmltree::ParsingOptions::default()
    };
    roxmltree::Document::parse_with_options(svg, options)
}

#[test]
fn pprof_holds_clean_strings() -> TestResult {
    for by in MEASURES {
        let mut bytes = Vec::new();
        GzDecoder::new(&*render(&hostile(), Format::Pprof, by)?).read_to_end(&mut bytes)?;
        let profile = Message::parse(&bytes)?;
        for text in profile.all(6) {
            let text = std::str::from_utf8(text.bytes())?;
            assert!(!text.contains(is_unclean), "{text:?}");
        }
    }
    Ok(())
}
