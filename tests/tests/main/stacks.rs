//! Every native stack is whole, from the allocator to where its thread began, in code that is
//! compiled without frame pointers.

use std::{fs, iter, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use residue_tests::{
    chains::{assert_callers, assert_whole, blocks_at_cut_stacks, left_out},
    code_bytes::assert_clean,
    exact::assert_exact,
    fixtures::Fixture,
    machine::{self, Knobs},
    recorder::Recorder,
    report::Report,
    target::Target,
    truth::Truth,
};

/// Several processes, recorded by one residue.
struct Recorded {
    targets: Vec<Target>,
    recorder: Recorder,
}

impl Recorded {
    fn start(targets: Vec<Target>) -> Result<Self> {
        let pids: Vec<_> = targets.iter().map(Target::pid).collect();
        let recorder = Recorder::start(&pids, &[])?;
        Ok(Self { targets, recorder })
    }

    /// Lets the targets do their work, and returns what they hold and what residue says.
    fn compare_sites(mut self) -> Result<(Truth, Report)> {
        let truths: Result<Vec<_>> = self.targets.iter_mut().map(Target::go).collect();
        let (truth, report) = (Truth::of_all(&truths?), self.recorder.stop()?.report()?);
        // What the C library takes for itself is in no site.
        let of_sites = report.clone().only_sites();
        let exact = if truth.chains.is_empty() {
            &report
        } else {
            &of_sites
        };
        assert_exact(&truth, exact);
        for target in self.targets {
            assert_clean(target.pid())?;
            ensure!(target.finish()?.success(), "the target did not exit well");
        }
        Ok((truth, of_sites))
    }

    /// Compares whole stacks, too.
    fn compare(self) -> Result<Report> {
        let (truth, report) = self.compare_sites()?;
        assert_whole(&truth, &report);
        Ok(report)
    }
}

/// Records the fixture's whole run, `runs` times, and checks each recording.
fn record(
    fixture: Fixture,
    arguments: &[&str],
    runs: u32,
    check: impl Fn(Recorded) -> Result<()>,
) -> Result<()> {
    let _turn = machine::beside_others();
    if !fixture.can_be_had() {
        return Ok(());
    }
    let program = fixture.build()?;
    (0..runs).try_for_each(|_| check(Recorded::start(vec![Target::start(&program, arguments)?])?))
}

/// All figures by site, and nothing beside.
fn sites_are_exact(fixture: Fixture, arguments: &[&str], runs: u32) -> Result<()> {
    record(fixture, arguments, runs, |it| it.compare_sites().map(drop))
}

/// The same, and each site with all of its callers.
fn heap_walk_is_exact(fixture: Fixture, calls: &str, runs: u32) -> Result<()> {
    let callers = callers_in_heap_walk();
    record(fixture, &[calls], runs, |it| {
        let (_, report) = it.compare_sites()?;
        assert_callers(&callers, &report);
        Ok(())
    })
}

/// Who calls sites in heap_walk.c, whether or not the compiler inlines it.
fn callers_in_heap_walk() -> Vec<Vec<&'static str>> {
    let through = [
        "walk_round < walk_family < main",
        "walk_failures < walk_round < walk_family < main",
        "walk_reallocations < walk_round < walk_family < main",
        "jump_out_of_calls < main",
        "allocate_somehow < exchange_blocks",
        "walk_ranges < main",
        "walk_reserve < walk_ranges < main",
        "remap_something < walk_reserve < walk_ranges < main",
    ];
    let mut callers: Vec<Vec<_>> = through.iter().map(|it| it.split(" < ").collect()).collect();
    // These call themselves, less deep than this.
    for (function, outer) in [
        ("allocate_below", "jump_out_of_calls < main"),
        ("abandon_below", "abandon < jump_out_of_calls < main"),
    ] {
        callers.extend((1..=16).map(|depth| {
            let outer = outer.split(" < ");
            iter::repeat_n(function, depth).chain(outer).collect()
        }));
    }
    callers
}

/// All figures by chain of calls.
fn stacks_are_whole(fixture: Fixture, arguments: &[&str], runs: u32) -> Result<()> {
    record(fixture, arguments, runs, |it| it.compare().map(drop))
}

/// Where chance has a part: threads at once, and the places of stacks and libraries.
fn often() -> u32 {
    Knobs::from_env().runs
}

fn calls() -> String {
    Knobs::from_env().calls.to_string()
}

#[test]
fn the_malloc_family_is_exact_without_frame_pointers() -> Result<()> {
    heap_walk_is_exact(Fixture::HeapWalkFrameless, &calls(), often())
}

#[test]
fn the_malloc_family_is_exact_at_the_highest_optimization() -> Result<()> {
    heap_walk_is_exact(Fixture::HeapWalkFramelessO3, "20000", 1)
}

#[test]
fn new_and_delete_are_exact_without_frame_pointers() -> Result<()> {
    sites_are_exact(Fixture::HeapWalkCppFrameless, &[], 1)
}

#[test]
fn rust_is_exact_without_frame_pointers() -> Result<()> {
    sites_are_exact(Fixture::RustSystemFrameless, &["20000"], 1)
}

#[test]
fn frames_of_every_shape_are_walked_to_the_outermost() -> Result<()> {
    stacks_are_whole(Fixture::Chains, &[], often())
}

/// Where each page of a big frame is touched before it is used.
#[test]
fn frames_with_stack_clash_protection_are_walked_to_the_outermost() -> Result<()> {
    stacks_are_whole(Fixture::ChainsO3, &[], 1)
}

#[test]
fn stacks_are_whole_while_exceptions_pass() -> Result<()> {
    stacks_are_whole(Fixture::ChainsCpp, &[], often())
}

#[test]
fn stacks_of_rust_are_whole() -> Result<()> {
    stacks_are_whole(Fixture::RustChains, &[], 1)
}

#[test]
fn signal_handlers_are_walked_through_to_who_was_interrupted() -> Result<()> {
    stacks_are_whole(Fixture::Signals, &[], 1)
}

/// Prologues, epilogues, linkage stubs: a handler runs at each of them.
#[test]
fn stacks_are_whole_at_every_instruction() -> Result<()> {
    Fixture::SteppedLibrary.build()?;
    stacks_are_whole(Fixture::Stepped, &[], 1)
}

#[test]
fn stacks_are_whole_at_every_instruction_at_a_fixed_address() -> Result<()> {
    Fixture::SteppedLibrary.build()?;
    stacks_are_whole(Fixture::SteppedNoPie, &[], 1)
}

/// OpenSSL is told by a variable which instructions it may not use, so that it takes other routines
/// (OPENSSL_ia32cap(3)): all that there are; without SHA; without AVX2; without AVX and SSSE3.
#[test]
fn assembly_written_by_hand_is_walked_through() -> Result<()> {
    let _turn = machine::beside_others();
    let program = Fixture::Crypto.build()?;
    let mut targets = Vec::new();
    for without in [
        "",
        ":~0x20000000",
        ":~0x20000020",
        "~0x1000020000000000:~0x20000020",
    ] {
        let mut command = Command::new(&program);
        if !without.is_empty() {
            command.env("OPENSSL_ia32cap", without);
        }
        let target = Target::spawn(&mut command)?;
        if target.await_line("")? == "no libcrypto" {
            machine::skipped("the package libssl3");
            return Ok(());
        }
        targets.push(target);
    }
    let report = Recorded::start(targets)?.compare()?;
    let (cut, all) = (blocks_at_cut_stacks(&report), report.outstanding_objects());
    assert!(cut * 20 < all, "{cut} of {all} stacks are cut");
    Ok(())
}

#[test]
fn a_deep_recursion_keeps_both_ends_and_says_what_is_left_out() -> Result<()> {
    record(Fixture::Outermost, &["recursion"], 1, |it| {
        let left_out = left_out(&it.compare()?);
        assert!(
            matches!(left_out[..], [some] if some > 0),
            "one stack lacks some of its 600 frames; left out are {left_out:?}"
        );
        Ok(())
    })
}

/// Before Linux 5.17 there is no `bpf_loop`, and a walk has few steps.
#[test]
fn without_loops_in_the_kernel_deep_stacks_are_cut_and_counted() -> Result<()> {
    let _turn = machine::beside_others();
    let mut target = Target::start(&Fixture::Outermost.build()?, &["recursion"])?;
    let recorder = Recorder::start(&[target.pid()], &["--few-steps"])?;
    let (truth, report) = (target.go()?, recorder.stop()?.report()?);
    assert_eq!(report.outstanding_bytes(), truth.bytes());
    let deep = report.stacks.iter().max_by_key(|stack| stack.frames.len());
    let deep = deep.context("residue saw no allocation")?;
    let outermost = deep.frames.last().map(|frame| frame.name.as_str());
    assert_eq!(outermost, Some("[stack cut: too many frames]"));
    assert!(report.notes["stacks_too_deep"] > 0);
    Ok(())
}

/// Unwind tables belong to files, not to processes.
#[test]
fn workers_of_one_program_share_its_unwind_tables() -> Result<()> {
    let _turn = machine::beside_others();
    let program = Fixture::Churn.build()?;
    let start = || Target::start(&program, &["1", "10", "1"]);
    let targets = [start()?, start()?, start()?];
    let pids: Vec<u32> = targets.iter().map(Target::pid).collect();
    let alone = tables(&Recorder::start(&pids[..1], &[])?.stop()?.stderr)?;
    let together = tables(&Recorder::start(&pids, &[])?.stop()?.stderr)?;
    assert_eq!(alone, together);
    Ok(())
}

/// From `recording …, N unwind tables (SIZE) …`: `N unwind tables (SIZE)`.
fn tables(said: &str) -> Result<String> {
    let (before, after) = said
        .split_once(" unwind tables (")
        .context("residue did not say what its tables take")?;
    let count = before.rsplit(' ').next().unwrap_or_default();
    let size = after.split(')').next().unwrap_or_default();
    Ok(format!("{count} unwind tables ({size})"))
}

#[test]
fn a_thread_is_walked_to_its_first_function() -> Result<()> {
    stacks_are_whole(Fixture::Outermost, &["thread"], 1)
}

/// One child is recorded by its own pid, another as a descendant of the process that forked it.
#[test]
fn the_stacks_of_a_forked_child_are_whole() -> Result<()> {
    let _turn = machine::beside_others();
    let program = Fixture::Outermost.build()?;
    let start = || Target::start(&program, &["child"]);
    let targets = vec![start()?, start()?];
    let pids = [targets[0].pid(), only_child(targets[1].pid())?];
    let recorder = Recorder::start(&pids, &["--children"])?;
    Recorded { targets, recorder }.compare().map(drop)
}

fn only_child(pid: u32) -> Result<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    children.trim().parse().context("the target has one child")
}

/// What a program does below a library that says nothing about its frames.
fn below_an_object_without_table(library: Fixture, case: &str) -> Result<()> {
    let library = library.build()?;
    stacks_are_whole(Fixture::Tableless, &[path(&library)?, case], 1)
}

fn path(file: &Path) -> Result<&str> {
    file.to_str()
        .context("the target directory's name is UTF-8")
}

#[test]
fn an_object_without_table_is_walked_by_its_frame_pointers() -> Result<()> {
    below_an_object_without_table(Fixture::TablelessLibraryWithFrames, "whole")
}

#[test]
fn a_stack_ends_visibly_at_an_object_that_cannot_be_walked() -> Result<()> {
    below_an_object_without_table(Fixture::TablelessLibrary, "cut")
}

#[test]
fn a_frame_pointer_of_another_function_is_not_followed() -> Result<()> {
    below_an_object_without_table(Fixture::TablelessLibrary, "astray")
}
