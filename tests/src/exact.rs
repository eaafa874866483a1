//! Compares what a target holds with what residue says, site by site.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs::{self, File},
    path::Path,
    process::Stdio,
};

use anyhow::{Context as _, Result};

use crate::{
    machine::PATIENCE,
    recorder::Recorder,
    report::Report,
    truth::{Held, Truth},
};

/// Panics with a table of the differences unless every site's outstanding bytes and blocks, and
/// the mappings' bytes, are those of the target, nothing is outstanding anywhere else, and nothing
/// was lost. Totals ever allocated are compared where the target counts them.
pub fn assert_exact(truth: &Truth, report: &Report) {
    truth.assert_unharmed();
    let mut differences = heap_differences(truth, report);
    differences.extend(mapping_differences(truth, report));
    let losses = report.losses();
    if differences.is_empty() && losses.is_empty() {
        return;
    }
    let notes: BTreeMap<_, _> = report.notes.iter().filter(|&(_, &n)| n != 0).collect();
    panic!(
        "residue's report is not the target's truth\n{}lost: {losses:?}\nnotes: {notes:?}",
        table(&differences)
    );
}

/// Has residue start a fixture that counts sites, and compares the whole run. Panics as [`assert_exact`] does.
///
/// # Errors
///
/// When the program cannot be recorded, or tells no truth.
pub fn assert_exact_command(program: &Path) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let (input, output) = (directory.path().join("in"), directory.path().join("out"));
    fs::write(&input, "go\nexit\n")?;
    let arguments = [program.as_os_str(), "8000".as_ref()];
    let stdio = (
        Stdio::from(File::open(&input)?),
        Stdio::from(File::create(&output)?),
    );
    let recording = Recorder::launch(&arguments, stdio)?.wait(PATIENCE)?;
    let said = fs::read_to_string(&output)?;
    let line = said.lines().find(|line| line.starts_with('{'));
    let truth = serde_json::from_str(line.context("the target told no truth")?)?;
    assert_exact(&truth, &recording.report()?.only_sites());
    Ok(())
}

/// One figure that is not what it should be.
#[derive(Debug, PartialEq, Eq)]
struct Difference {
    site: String,
    figure: &'static str,
    truth: u64,
    residue: u64,
}

fn heap_differences(truth: &Truth, report: &Report) -> Vec<Difference> {
    compare(&truth.sites, &report.by_site(), |site, truth, residue| {
        let mut differences = vec![
            difference(site, "bytes", truth.bytes, residue.bytes),
            difference(site, "objects", truth.objects, residue.objects),
        ];
        if let (Some(bytes), Some(objects)) = (truth.allocated_bytes, truth.allocated_objects) {
            let seen_bytes = residue.allocated_bytes.unwrap_or(0);
            let seen_objects = residue.allocated_objects.unwrap_or(0);
            differences.push(difference(site, "allocated bytes", bytes, seen_bytes));
            differences.push(difference(site, "allocated objects", objects, seen_objects));
        }
        differences
    })
}

fn mapping_differences(truth: &Truth, report: &Report) -> Vec<Difference> {
    compare(
        &truth.mappings,
        &report.mappings_by_site(),
        |site, truth, residue| vec![difference(site, "mapped bytes", truth.bytes, residue.bytes)],
    )
}

fn difference(site: &str, figure: &'static str, truth: u64, residue: u64) -> Option<Difference> {
    (truth != residue).then(|| Difference {
        site: site.to_owned(),
        figure,
        truth,
        residue,
    })
}

fn compare(
    truth: &BTreeMap<String, Held>,
    residue: &BTreeMap<String, Held>,
    figures: impl Fn(&str, Held, Held) -> Vec<Option<Difference>>,
) -> Vec<Difference> {
    let sites: BTreeSet<&String> = truth.keys().chain(residue.keys()).collect();
    let of = |held: &BTreeMap<String, Held>, site| held.get(site).copied().unwrap_or_default();
    sites
        .into_iter()
        .flat_map(|site| figures(site, of(truth, site), of(residue, site)))
        .flatten()
        .collect()
}

fn table(differences: &[Difference]) -> String {
    let mut table = format!(
        "{:<34} {:<18} {:>15} {:>15} {:>16}\n",
        "site", "figure", "truth", "residue", "residue - truth"
    );
    for Difference {
        site,
        figure,
        truth,
        residue,
    } in differences
    {
        let off = i128::from(*residue) - i128::from(*truth);
        writeln!(
            table,
            "{site:<34} {figure:<18} {truth:>15} {residue:>15} {off:>+16}"
        )
        .expect("a String takes everything");
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn truth(json: &str) -> Truth {
        serde_json::from_str(json).expect("the test's JSON is well formed")
    }

    fn report(json: &str) -> Report {
        serde_json::from_str(json).expect("the test's JSON is well formed")
    }

    const TRUTH: &str = r#"{"sites": {"site_a": {"bytes": 10, "objects": 2}},
        "mappings": {"site_m": {"bytes": 4096, "objects": 0}}, "checksum": "right"}"#;

    fn seen(heap: &str, lost: u64) -> Report {
        report(&format!(
            r#"{{"lost": {{"missed_free": {lost}}}, "notes": {{}}, "stacks": [{heap}],
            "mappings": [{{"frames": [{{"name": "site_m"}}], "inuse_bytes": 4096, "inuse_objects": 1,
            "alloc_bytes": 4096, "alloc_objects": 1, "owner": "application"}}]}}"#
        ))
    }

    const EXACT: &str = r#"{"frames": [{"name": "site_a"}], "inuse_bytes": 10, "inuse_objects": 2,
        "alloc_bytes": 99, "alloc_objects": 9}"#;

    #[test]
    fn equal_figures_pass() {
        assert_exact(&truth(TRUTH), &seen(EXACT, 0));
    }

    #[test]
    #[should_panic(expected = "missed_free")]
    fn a_loss_fails_even_with_equal_figures() {
        assert_exact(&truth(TRUTH), &seen(EXACT, 1));
    }

    #[test]
    fn every_differing_figure_is_a_row_of_its_own() {
        let off_by_one = EXACT.replace("\"inuse_bytes\": 10", "\"inuse_bytes\": 11");
        let differences = heap_differences(&truth(TRUTH), &seen(&off_by_one, 0));
        let rows = table(&differences);
        assert_eq!(rows.lines().count(), 2, "a header and one row:\n{rows}");
        assert!(rows.lines().nth(1).is_some_and(|row| row.ends_with("+1")));
    }

    #[test]
    #[should_panic(expected = "(no site)")]
    fn bytes_that_no_site_holds_fail() {
        let stray = EXACT.replace("site_a", "elsewhere");
        assert_exact(&truth(TRUTH), &seen(&format!("{EXACT},{stray}"), 0));
    }
}
