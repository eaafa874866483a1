//! Debug information that was made to hurt whoever reads it.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result};
use object::{Object as _, ObjectSymbol as _};
use residue_tests::{
    fixtures::Fixture, machine, recorder::Recording, report::Report, target::Target,
};

use super::{assert_counted, copy_of, directory, names, path, record_one_call, run};

/// The function whose debug information it is.
const FUNCTION: &str = "called_early";
/// Functions that are inlined in each other. Whoever follows them by calling itself needs a GiB of stack.
const DEPTH: usize = 4 << 20;
/// Functions that are inlined side by side, each in as many places, all of them empty: 10^11 in all.
const BESIDE: usize = 400_000;

#[test]
fn debug_information_that_ends_its_reader_does_not_end_a_recording() -> Result<()> {
    let _turn = machine::beside_others();
    let inlined = [vec![CHILDREN; DEPTH], vec![0; DEPTH]].concat();
    let (recording, report) = record(&inlined, &[])?;
    let said = "cannot be read: it confuses the symbolizer";
    assert!(recording.stderr.contains(said), "{}", recording.stderr);
    assert!(report.notes["frames_nameless"] > 0, "{:?}", report.notes);
    Ok(())
}

/// It is given up after a while, in which the recording can be ended.
#[test]
fn debug_information_without_end_does_not_keep_a_recording_from_its_end() -> Result<()> {
    let _turn = machine::beside_others();
    let ranges = [vec![8; 16 * BESIDE], vec![0; 16]].concat();
    let (_, report) = record(&[RANGES, 0, 0, 0, 0].repeat(BESIDE), &ranges)?;
    assert!(report.notes["frames_nameless"] > 0, "{:?}", report.notes);
    Ok(())
}

/// Records a call of a function in which these functions are inlined. Everything else is as always.
fn record(inlined: &[u8], ranges: &[u8]) -> Result<(Recording, Report)> {
    let directory = directory()?;
    let library = copy_of(Fixture::NamedLibrary, directory.path(), "libnamed.so")?;
    inline(&library, inlined, ranges)?;
    let mut target = Target::start(&Fixture::Named.build()?, &[path(&library)?])?;
    let recording = record_one_call(&mut target, &format!("1 {FUNCTION}"))?;
    let report = recording.report()?;
    assert_counted(&report, 1);
    assert!(names(&report, "main"), "{:?}", report.stacks);
    Ok((recording, report))
}

/// An inlined function that has children, and nothing else.
const CHILDREN: u8 = 3;
/// An inlined function that has no children, and four bytes: where its ranges are.
const RANGES: u8 = 4;
/// What the entries have (DWARF 4, section 7.5.3).
#[rustfmt::skip]
const ABBREVIATIONS: [u8; 36] = [
    // DW_TAG_compile_unit, has children: DW_AT_low_pc, DW_AT_high_pc, DW_AT_stmt_list.
    1, 0x11, 1, 0x11, 0x01, 0x12, 0x07, 0x10, 0x17, 0, 0,
    // DW_TAG_subprogram, has children: DW_AT_low_pc, DW_AT_high_pc, DW_AT_name.
    2, 0x2e, 1, 0x11, 0x01, 0x12, 0x07, 0x03, 0x08, 0, 0,
    // DW_TAG_inlined_subroutine, has children.
    CHILDREN, 0x1d, 1, 0, 0,
    // DW_TAG_inlined_subroutine: DW_AT_ranges.
    RANGES, 0x1d, 0, 0x55, 0x17, 0, 0,
    0, 0,
];

/// Replaces the debug information by one of a single function.
fn inline(library: &Path, inlined: &[u8], ranges: &[u8]) -> Result<()> {
    let whole = fs::read(library)?;
    let elf = object::File::parse(&*whole)?;
    let symbol = elf.symbols().find(|it| it.name() == Ok(FUNCTION));
    let symbol = symbol.context("it has the function")?;
    let place = [symbol.address().to_le_bytes(), symbol.size().to_le_bytes()].concat();
    // The lines are at the beginning of .debug_line.
    let unit = [&[1], &*place, &[0; 4]].concat();
    let function = [&[2], &*place, FUNCTION.as_bytes(), &[0]].concat();
    // Version 4, abbreviations at the beginning, addresses of 8 bytes.
    let after_length = [&[4, 0, 0, 0, 0, 0, 8], &*unit, &function, inlined, &[0; 2]].concat();
    let length = u32::try_from(after_length.len())?.to_le_bytes();
    let information = [&length[..], &after_length].concat();
    replace(library, "--update-section", ".debug_info", &information)?;
    replace(library, "--update-section", ".debug_abbrev", &ABBREVIATIONS)?;
    replace(library, "--add-section", ".debug_ranges", ranges)
}

fn replace(library: &Path, how: &str, section: &str, contents: &[u8]) -> Result<()> {
    let file = library.with_extension("section");
    fs::write(&file, contents)?;
    let change = format!("{how}={section}={}", file.display());
    run(Command::new("objcopy").arg(change).arg(library))
}
