//! The output for pprof, read by another parser.

use super::*;

fn decoded(capture: &Capture) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut bytes = Vec::new();
    let pprof = render(capture, Format::Pprof, Measure::Outstanding)?;
    GzDecoder::new(&*pprof).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The name of the function, the file and the line.
type NamedLine<'a> = (&'a str, &'a str, u64);

/// Reads a profile by the field numbers of the published profile.proto.
#[test]
fn pprof_read_by_another_parser_says_the_same() -> TestResult {
    let bytes = decoded(&capture())?;
    let profile = Message::parse(&bytes)?;
    let strings: Vec<String> = profile
        .all(6)
        .map(|bytes| String::from_utf8(bytes.bytes().to_vec()))
        .collect::<Result<_, _>>()?;
    let string = |index: u64| strings[index as usize].as_str();
    assert_eq!(string(0), "");

    let types: Vec<(&str, &str)> = profile
        .messages(1)?
        .iter()
        .map(|kind| (string(kind.number(1)), string(kind.number(2))))
        .collect();
    let expected = [
        ("alloc_objects", "count"),
        ("alloc_space", "bytes"),
        ("inuse_objects", "count"),
        ("inuse_space", "bytes"),
    ];
    assert_eq!(types, expected);
    assert_eq!(string(profile.number(14)), "inuse_space");
    assert_eq!(profile.number(10), 60 * SECOND);
    assert_eq!(profile.number(9), 1_800_000_000 * SECOND);
    let comments: Vec<&str> = profile.packed(13)?.into_iter().map(string).collect();
    assert!(
        comments
            .iter()
            .any(|comment| comment.starts_with("lost: 10 allocations not tracked"))
    );

    let samples = profile.messages(2)?;
    assert_eq!(samples[0].packed(2)?, [1000, 4_096_000, 900, 3_686_400]);
    let labels = samples[0].messages(3)?;
    assert_eq!(
        (string(labels[0].number(1)), labels[0].number(3)),
        ("pid", 4242)
    );

    let functions = profile.messages(5)?;
    let locations = profile.messages(4)?;
    let lines_at = |location: u64| -> Result<Vec<NamedLine<'_>>, Box<dyn Error>> {
        let location = locations
            .iter()
            .find(|found| found.number(1) == location)
            .ok_or("no location")?;
        let lines = location.messages(4)?;
        lines
            .iter()
            .map(|line| {
                let function = functions
                    .iter()
                    .find(|function| function.number(1) == line.number(1));
                let function = function.ok_or("no function")?;
                Ok((
                    string(function.number(2)),
                    string(function.number(4)),
                    line.number(2),
                ))
            })
            .collect()
    };
    let stack = samples[0].packed(1)?;
    assert_eq!(stack.len(), 3);
    let inlined = [
        ("copy", "/src/copy.h", 3),
        ("Session::open", "/src/session.cc", 88),
    ];
    assert_eq!(lines_at(stack[0])?, inlined);
    assert_eq!(lines_at(stack[2])?, [("libc.so.6+0x102", "", 0)]);
    let mappings = profile.messages(3)?;
    assert_eq!(string(mappings[0].number(5)), "/srv/app/libsession.so");
    Ok(())
}
