//! Tests of the flamegraph as a browser gets it.

use super::*;
use crate::profile::Tier;

fn svg(capture: &Capture, options: Options<'_>) -> Result<String, Box<dyn Error>> {
    let mut out = Vec::new();
    Format::Flamegraph.write(&Profile::from(capture), options, &mut out)?;
    Ok(String::from_utf8(out)?)
}

fn drawn(capture: &Capture) -> Result<String, Box<dyn Error>> {
    svg(capture, Options::default())
}

/// Collects all text in an element, with blanks between the lines.
fn text(node: roxmltree::Node<'_, '_>) -> String {
    let texts = node.descendants().filter(roxmltree::Node::is_text);
    texts
        .filter_map(|node| node.text())
        .collect::<Vec<_>>()
        .join(" ")
}

fn by_id<'a, 'i>(
    document: &'a roxmltree::Document<'i>,
    id: &str,
) -> Result<roxmltree::Node<'a, 'i>, String> {
    let found = document
        .descendants()
        .find(|element| element.attribute("id") == Some(id));
    found.ok_or(format!("nothing is {id}"))
}

#[test]
fn it_says_what_it_is_and_that_width_is_bytes() -> TestResult {
    let svg = drawn(&capture())?;
    let document = roxmltree::Document::parse(&svg)?;
    let root = document.root_element();
    let title = "Outstanding memory of gunicorn (pid 4242)";
    assert_eq!(root.attribute("role"), Some("img"));
    let label = root.attribute("aria-label").ok_or("no label")?;
    let name = root.first_element_child().ok_or("no child")?;
    assert_eq!(name.tag_name().name(), "title");
    for said in [label, &text(name), &text(by_id(&document, "title")?)] {
        assert!(said.starts_with(title) && said.contains("bytes"), "{said}");
    }
    assert!(label.contains("lost: 10 live_set_full"), "{label}");
    Ok(())
}

#[test]
fn it_is_as_wide_as_its_window_and_search_is_seen() -> TestResult {
    let svg = drawn(&capture())?;
    assert!(svg.contains("var fluiddrawing = true;"));
    let hidden = svg.find("#search { text-anchor:end; opacity:0.1;");
    let shown = svg.find("#search, #unzoom { opacity:1;");
    assert!(hidden.is_some() && hidden < shown, "the last one counts");
    let document = roxmltree::Document::parse(&svg)?;
    assert_eq!(text(by_id(&document, "search")?), "Search");
    // inferno's script looks for these.
    for id in ["details", "unzoom", "matched", "frames"] {
        by_id(&document, id)?;
    }
    Ok(())
}

fn parts(colour: &str) -> Option<Vec<f64>> {
    if let Some(hex) = colour.strip_prefix('#') {
        let part = |at: usize| {
            Some(f64::from(
                u8::from_str_radix(hex.get(at..at + 2)?, 16).ok()?,
            ))
        };
        return [0, 2, 4].into_iter().map(part).collect();
    }
    let inner = colour.strip_prefix("rgb(")?.strip_suffix(')')?;
    inner
        .split(',')
        .map(|part| part.trim().parse().ok())
        .collect()
}

/// Checks that the colours of frames are shades of the colours in the legend.
#[test]
fn colours_say_whose_code_it_is() -> TestResult {
    let svg = drawn(&capture())?;
    let document = roxmltree::Document::parse(&svg)?;
    let fill = |group: roxmltree::Node<'_, '_>| {
        let rect = group.children().find(|child| child.has_tag_name("rect"));
        rect.and_then(|rect| parts(rect.attribute("fill")?))
    };
    let groups = || {
        document
            .descendants()
            .filter(|element| element.tag_name().name() == "g")
    };
    let legend = |name: &str| {
        groups()
            .find(|group| text(*group).ends_with(name))
            .and_then(fill)
    };
    let frame = |name: &str| {
        groups()
            .find(|group| text(*group).starts_with(name))
            .and_then(fill)
    };
    let is_shade = |of: &[f64], shade: &[f64]| {
        let close = |(of, shade): (&f64, &f64)| *shade <= *of && *shade >= of * 0.9 - 1.0;
        of.iter().zip(shade).all(close)
    };
    let (application, native) = (legend("application"), legend("native"));
    let (application, native) = (application.ok_or("no legend")?, native.ok_or("no legend")?);
    let opened = frame("Session::open").ok_or("no frame")?;
    assert!(is_shade(&application, &opened), "{opened:?}");
    let libc = frame("libc.so.6+0x102").ok_or("no frame")?;
    assert!(is_shade(&native, &libc), "{libc:?}");
    assert!(!is_shade(&application, &libc), "{libc:?}");
    assert_eq!(legend("kernel"), None, "it names what is there");
    Ok(())
}

#[test]
fn an_empty_selection_says_why() -> TestResult {
    let freed = Capture {
        totals: vec![(StackId(4), totals(9, 9, 16))],
        ..capture()
    };
    for (capture, by, tier, why) in [
        (
            started(),
            Measure::Outstanding,
            Tier::Blocks,
            "No block was counted",
        ),
        (
            started(),
            Measure::Allocated,
            Tier::Blocks,
            "No block was counted",
        ),
        (
            freed,
            Measure::Outstanding,
            Tier::Blocks,
            "every block that was allocated since attach was freed",
        ),
        (
            capture(),
            Measure::Outstanding,
            Tier::PythonObjects,
            "record with --python-objects",
        ),
        (
            capture(),
            Measure::Outstanding,
            Tier::PythonPools,
            "took no pool",
        ),
        (
            capture(),
            Measure::Survivors,
            Tier::Blocks,
            "Nothing survived",
        ),
    ] {
        let options = Options {
            by,
            tier,
            ..Options::default()
        };
        let svg = svg(&capture, options)?;
        let document = roxmltree::Document::parse(&svg)?;
        let said = text(by_id(&document, "subtitle")?);
        assert!(said.contains(why), "{said}");
        let label = document.root_element().attribute("aria-label");
        assert!(label.is_some_and(|label| label.contains(why)), "{label:?}");
    }
    Ok(())
}

/// Makes figures whose sum does not fit into 64 bits.
#[test]
fn figures_that_no_memory_could_have_are_not_drawn() -> TestResult {
    let mut capture = capture();
    capture.totals = (1..=4)
        .map(|stack| (StackId(stack), totals(1, 0, u64::MAX / 3)))
        .collect();
    assert!(drawn(&capture)?.contains("the capture is damaged"));
    Ok(())
}

#[test]
fn any_number_of_counters_leaves_room_for_the_frames() -> TestResult {
    let mut capture = capture();
    let counters = (0..1000).map(|number| (format!("{number}  {}", "x".repeat(500)), 1));
    capture.counters = counters.collect();
    let svg = drawn(&capture)?;
    let document = roxmltree::Document::parse(&svg)?;
    let y = by_id(&document, "frames")?.attribute("y").ok_or("no y")?;
    assert!(y.parse::<u32>()? < 400, "{y}");
    assert!(svg.contains("and 992 more"));
    Ok(())
}

#[test]
fn a_gap_in_a_name_is_no_place_to_begin_lines_at() {
    let text = format!("note         {} a  b c d", "x".repeat(60));
    let lines = wording::wrap(&text, 80);
    assert!(lines.len() <= 2, "{lines:?}");
    let lines = wording::wrap(&format!("{}  b c d e f", "x".repeat(78)), 80);
    assert!(lines.len() <= 2, "{lines:?}");
}
