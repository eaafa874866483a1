//! The targets themselves, without residue: their truth has to be true.

use anyhow::Result;
use residue_tests::{fixtures::Fixture, machine, target::Target, truth::Truth};

fn truth_of(fixture: Fixture, arguments: &[&str]) -> Result<Truth> {
    let mut target = Target::start(&fixture.build()?, arguments)?;
    let truth = target.go()?;
    truth.assert_unharmed();
    assert!(target.finish()?.success());
    Ok(truth)
}

#[test]
fn calls_that_fail_hold_nothing() -> Result<()> {
    let _turn = machine::beside_others();
    let truth = truth_of(Fixture::HeapWalk, &["8000"])?;
    let failing = truth.sites.iter().filter(|(site, _)| {
        site.ends_with("_fails") || site.ends_with("_overflows") || *site == "site_abandoned"
    });
    let (count, held) = failing.fold((0, 0), |(n, objects), (_, held)| {
        (n + 1, objects + held.objects)
    });
    assert_eq!((count, held), (7, 0));
    Ok(())
}

#[test]
fn every_other_site_of_the_family_holds_something() -> Result<()> {
    let _turn = machine::beside_others();
    let truth = truth_of(Fixture::HeapWalk, &["8000"])?;
    for site in [
        "malloc",
        "calloc",
        "realloc_grow",
        "reallocarray",
        "posix_memalign",
        "aligned_alloc",
    ] {
        assert!(
            truth.sites[&format!("site_{site}")].objects > 0,
            "site_{site} holds nothing"
        );
    }
    assert!(
        truth
            .mappings
            .values()
            .all(|held| held.bytes > 0 && held.bytes % 4096 == 0)
    );
    Ok(())
}

#[test]
fn chains_of_calls_hold_together_what_sites_hold() -> Result<()> {
    let _turn = machine::beside_others();
    Fixture::SteppedLibrary.build()?;
    for (fixture, arguments) in [
        (Fixture::Chains, &[][..]),
        (Fixture::ChainsCpp, &[]),
        (Fixture::Signals, &[]),
        (Fixture::Stepped, &[]),
        (Fixture::Outermost, &["thread"]),
    ] {
        let truth = truth_of(fixture, arguments)?;
        let bytes: u64 = truth.chains.iter().map(|chain| chain.bytes).sum();
        let objects: u64 = truth.chains.iter().map(|chain| chain.objects).sum();
        assert!(objects > 0, "{fixture:?} holds nothing");
        assert_eq!(
            (bytes, objects),
            (truth.bytes(), truth.objects()),
            "{fixture:?}"
        );
    }
    Ok(())
}

#[test]
fn the_single_threaded_walk_ends_the_same_in_every_run() -> Result<()> {
    let _turn = machine::beside_others();
    let (first, second) = (
        truth_of(Fixture::HeapWalk, &["0"])?,
        truth_of(Fixture::HeapWalk, &["0"])?,
    );
    assert_eq!(first.sites, second.sites);
    assert_eq!(first.mappings, second.mappings);
    Ok(())
}

#[test]
fn churn_holds_as_many_blocks_as_it_is_told() -> Result<()> {
    let _turn = machine::beside_others();
    let mut target = Target::start(&Fixture::Churn.build()?, &["2", "1000", "10"])?;
    target.ask("fill", "filled")?;
    target.ask("run 10000", "ns_per_pair")?;
    let truth = target.ask_truth()?;
    truth.assert_unharmed();
    assert_eq!(truth.objects(), 1000);
    assert!(target.finish()?.success());
    Ok(())
}
