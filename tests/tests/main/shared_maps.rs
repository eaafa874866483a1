//! Memory that several processes may map is counted, and told from what a process has for itself.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};
use residue_tests::{
    exact::assert_exact,
    fixtures::Fixture,
    machine,
    recorder::Recorder,
    report::{Report, Stack},
    target::Target,
};

/// The owners of what the sites of a report still have mapped.
fn owners(report: &Report) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut owners: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let held = |mapping: &&Stack| mapping.inuse_bytes > 0;
    for mapping in report.mappings.iter().filter(held) {
        if let (Some(site), Some(owner)) = (mapping.site(), mapping.owner.as_deref()) {
            owners.entry(site).or_default().insert(owner);
        }
    }
    owners
}

/// memfds, POSIX and System V shared memory, `MAP_SHARED` without a file; moved, copied and cut.
#[test]
fn shared_memory_is_counted_to_the_page_and_has_its_own_owner() -> Result<()> {
    let _turn = machine::beside_others();
    let mut target = Target::start(&Fixture::SharedMaps.build()?, &[])?;
    let recorder = Recorder::start(&[target.pid()], &[])?;
    let truth = target.go()?;
    let recording = recorder.stop()?;
    let report = recording.report()?.only_sites();
    assert_exact(&truth, &report);
    for (site, owners) in owners(&report) {
        let owner = match site.starts_with("site_private") {
            true => "application",
            false => "shared",
        };
        assert_eq!(owners, BTreeSet::from([owner]), "{site}");
    }
    let text = recording.render("text")?;
    assert!(text.contains("of shared memory"), "{text}");
    ensure!(target.finish()?.success(), "the target did not exit well");
    Ok(())
}
