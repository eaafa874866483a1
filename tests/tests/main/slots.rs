//! Processes that come and go in one recording, by the library: more of them than the kernel side has places for.

use std::{fs, path::Path, sync::atomic::AtomicUsize, time::Duration};

use anyhow::{Context as _, Result};
use residue::{
    attach::{Limits, ProgramSet, StackConfig, Tracing, ensure_tracefs},
    probes::SitePolicy,
    session::{Config, Session, WindowRules},
    sink::{CaptureFile, Sinks},
};
use residue_ebpf::abi::heap::{MAX_PROCESSES, StackPolicy};
use residue_tests::{
    fixtures::Fixture,
    machine::{self, PATIENCE, wait_until},
    recorder::report,
    report::Report,
    target::Target,
};

/// More processes than end before the places of those that are over are used again (`Slots`).
const MANY: usize = 24;

/// How many probes this process has in the kernel: each is a descriptor of its own.
fn probes() -> Result<usize> {
    let descriptors = fs::read_dir("/proc/self/fd")?;
    let links = descriptors.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    Ok(links
        .filter(|link| link.as_os_str() == "anon_inode:[perf_event]")
        .count())
}

fn config(pid: u32, allocations: bool) -> Config {
    Config {
        pids: vec![pid.cast_signed()],
        children: false,
        command: Vec::new(),
        duration: None,
        interval: Duration::from_secs(1),
        limits: Limits::DEFAULT,
        programs: ProgramSet::Counting,
        tracing: Tracing {
            allocations,
            sockets: !allocations,
        },
        windows: WindowRules::default(),
        stacks: StackConfig {
            policy: StackPolicy::All,
            ..StackConfig::default()
        },
        samples: None,
        sites: SitePolicy::Cheapest,
        python_objects: false,
        max_slowdown: None,
    }
}

fn start() -> Result<Target> {
    Target::start(&Fixture::Churn.build()?, &["1", "100", "3"])
}

/// Follows `count` processes one after the other, each until it is killed.
fn come_and_go(session: &mut Session<'_>, count: usize) -> Result<()> {
    for _ in 0..count {
        let mut target = start()?;
        session.follow(target.pid().cast_signed())?;
        target.kill()?;
        session.poll()?;
    }
    Ok(())
}

/// The pids of all processes that a capture has.
fn recorded(capture: &Path) -> Result<Vec<u64>> {
    let json: serde_json::Value = serde_json::from_slice(&report(capture, "json")?.stdout)?;
    let processes = json["target"]["processes"]
        .as_array()
        .context("processes")?;
    Ok(processes
        .iter()
        .filter_map(|it| it["pid"].as_u64())
        .collect())
}

#[test]
fn places_are_used_again_five_thousand_times() -> Result<()> {
    let _turn = machine::alone();
    ensure_tracefs();
    let target = start()?;
    let directory = tempfile::tempdir()?;
    let capture = directory.path().join("many.residue");
    let config = config(target.pid(), false);
    let sinks = Sinks::default().and(CaptureFile::at(capture.clone()));
    let mut session = Session::start(&config, sinks)?;
    let count = 5000 + MAX_PROCESSES as usize;
    come_and_go(&mut session, count)?;
    let one = |session: &Session<'_>| session.recorded().count() == 1;
    let only_the_first = wait_until(PATIENCE, || session.poll().is_ok() && one(&session));
    assert!(only_the_first, "those that ended are followed still");
    session.finish().written?;
    assert_eq!(recorded(&capture)?.len(), count + 1);
    Ok(())
}

/// The process in a place that others had before has blocks, stacks and figures of its own.
#[test]
fn a_process_in_a_place_that_others_had_is_recorded_exactly() -> Result<()> {
    let _turn = machine::alone();
    ensure_tracefs();
    let mut first = start()?;
    let directory = tempfile::tempdir()?;
    let capture = directory.path().join("again.residue");
    let config = config(first.pid(), true);
    let sinks = Sinks::default().and(CaptureFile::at(capture.clone()));
    let mut session = Session::start(&config, sinks)?;
    let of_first = probes()?;
    let mut early = start()?;
    session.follow(early.pid().cast_signed())?;
    early.ask("fill", "filled")?;
    let of_early = early.ask_truth()?;
    early.kill()?;
    come_and_go(&mut session, MANY)?;
    let are_out = wait_until(PATIENCE, || {
        session.poll().is_ok() && probes().is_ok_and(|it| it <= of_first)
    });
    assert!(are_out, "{} probes, {of_first} of the first", probes()?);
    first.ask("fill", "filled")?;
    // Sixteen of the same program, whose blocks lie where those of the early one lay.
    let mut truth = of_early.bytes() + first.ask_truth()?.bytes();
    for _ in 0..16 {
        let mut late = start()?;
        session.follow(late.pid().cast_signed())?;
        late.ask("fill", "filled")?;
        truth += late.ask_truth()?.bytes();
        session.poll()?;
        late.kill()?;
        session.poll()?;
    }
    let finished = session.finish();
    finished.written?;
    finished.probes.take_out(&AtomicUsize::new(0));
    let report: Report = serde_json::from_slice(&report(&capture, "json")?.stdout)?;
    assert_eq!(report.outstanding_bytes(), truth);
    Ok(())
}
