//! `residue inspect unwind`: shows how residue walks stacks through an object.

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::Context as _;
use residue_ebpf::abi::unwind::{Page, Row, Rule, RuleKind};

use super::equation::Equation;
use super::write_table;
use crate::process::address::TextSegments;
use crate::process::elf::text_segments;
use crate::process::{FileOffset, Svma, TargetFile};
use crate::unwind::{NoRoom, StoreLimits, StoreUsage, TableStore, UnwindTable};

const EXAMPLES: &str = "\
Examples:
  How large is the table of the C library, and what does it leave out?
    residue inspect unwind /lib/x86_64-linux-gnu/libc.so.6
  How is the caller found from an instruction, by the address that objdump shows?
    residue inspect unwind /lib/x86_64-linux-gnu/libc.so.6 --at 0x26380
  The same for the program of a process, though it was replaced or is in a container:
    sudo residue inspect unwind /proc/4242/exe";

/// Show the unwind table of an object: its size, what it covers, and the rule at an address
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The ELF file: a program or a shared library
    object: PathBuf,
    /// Show the rule that holds at this address of the file, in hexadecimal
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    at: Option<Svma>,
}

fn address(text: &str) -> Result<Svma, std::num::ParseIntError> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    u64::from_str_radix(digits, 16).map(Svma)
}

/// Writes what residue knows of the object, unless the object has no table.
pub(super) fn run(args: &Args, out: &mut impl Write) -> anyhow::Result<io::Result<()>> {
    let name = args.object.display();
    let file = TargetFile::behind(&args.object).with_context(|| format!("cannot open {name}"))?;
    let data = &file.data();
    let no_table = || format!("{name} has no unwind table");
    let table = UnwindTable::read(data).with_context(no_table)?;
    let Some(at) = args.at else {
        let lines = summary(&table).with_context(no_table)?;
        return Ok(write_table(out, &lines));
    };
    let text = text_segments(data).with_context(no_table)?;
    let lines = rule_at(&table, &text, at);
    let lines = lines.with_context(|| format!("{at} is in no executable segment of {name}"))?;
    Ok(write_table(out, &lines))
}

fn summary(table: &UnwindTable) -> Result<Vec<[String; 2]>, NoRoom> {
    let (used, stats) = (laid_out(table)?, table.stats());
    let bytes = bytes(used);
    let code: usize = table.text().iter().map(ExactSizeIterator::len).sum();
    let per_mib = bytes as f64 * f64::from(1 << 20) / code as f64;
    let covered = stats.covered_bytes as f64 * 100.0 / code as f64;
    let (rows, rules) = (table.rows().len(), used.rules);
    let (unsupported, unsupported_bytes) = rows_of(table, RuleKind::Unsupported);
    let (unsound, entries) = (stats.unsound, stats.entries);
    let size = format!("{bytes} bytes, {per_mib:.0} per MiB of code");
    let fdes = format!("{}; {unsound} of {entries} entries left out", stats.fdes);
    let unsupported = format!("{unsupported} rows, {unsupported_bytes} bytes of code");
    Ok(lines([
        ("size", size),
        ("rows", format!("{rows}, with {rules} distinct rules")),
        ("pages", format!("{}, with {} rows", used.pages, used.rows)),
        ("FDEs", fdes),
        (
            "code",
            format!("{code} bytes, {covered:.1}% covered by FDEs"),
        ),
        ("unsupported", unsupported),
    ]))
}

fn lines<const N: usize>(lines: [(&str, String); N]) -> Vec<[String; 2]> {
    lines.map(|(name, value)| [name.to_owned(), value]).to_vec()
}

/// Tells how much of the kernel side's maps the table takes.
fn laid_out(table: &UnwindTable) -> Result<StoreUsage, NoRoom> {
    let mut store = TableStore::new(StoreLimits {
        row_chunks: u32::MAX,
        page_chunks: u32::MAX,
    });
    store.insert(table)?;
    Ok(store.usage())
}

fn bytes(used: StoreUsage) -> usize {
    let (rows, pages) = (used.rows * size_of::<Row>(), used.pages * size_of::<Page>());
    rows + pages + used.rules * size_of::<Rule>()
}

/// Counts the rows that have a rule of this kind, and the bytes of code that those rows cover.
fn rows_of(table: &UnwindTable, kind: RuleKind) -> (usize, u64) {
    let rows = table
        .rows()
        .iter()
        .filter(|row| row.rule.kind == kind as u8);
    let bytes = rows.filter_map(|row| Some(table.row_at(row.offset)?.0.len() as u64));
    bytes.fold((0, 0), |(rows, all), bytes| (rows + 1, all + bytes))
}

/// Writes the rule at an address. `None` when the address is in no executable segment.
fn rule_at(table: &UnwindTable, text: &TextSegments, at: Svma) -> Option<Vec<[String; 2]>> {
    let offset = text.file_offset(at)?;
    let (range, rule) = table.row_at(u32::try_from(offset.0).ok()?)?;
    let first = text.svma(FileOffset(range.start.into()))?;
    let end = first.checked_add((range.end - range.start).into())?;
    Some(lines([
        ("rule", Equation(rule).to_string()),
        ("from", format!("{first}, file offset {:#x}", range.start)),
        ("to", format!("{end}, not included")),
    ]))
}
