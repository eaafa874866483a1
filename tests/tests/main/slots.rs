//! Processes that come and go in one recording, by the library: more of them than the kernel side has places for.

use std::{
    fs,
    path::Path,
    process::{Child, Command},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
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

/// A process that does nothing, and has loaded all that it needs.
fn idle() -> Result<Child> {
    let mut sleep = Command::new("sleep");
    let child = sleep.arg("600").spawn().context("failed to start sleep")?;
    let maps = format!("/proc/{}/maps", child.id());
    let has_c_library = || fs::read_to_string(&maps).is_ok_and(|maps| maps.contains("/libc.so"));
    ensure!(
        wait_until(PATIENCE, has_c_library),
        "sleep loads no C library"
    );
    Ok(child)
}

/// Follows `count` processes one after the other, each until it is killed.
fn come_and_go(session: &mut Session<'_>, count: usize) -> Result<()> {
    for _ in 0..count {
        let mut child = idle()?;
        session.follow(child.id().cast_signed())?;
        child.kill()?;
        child.wait()?;
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
    let target = Target::start(&Fixture::Churn.build()?, &["1", "100", "3"])?;
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
    let mut first = Target::start(&Fixture::Churn.build()?, &["1", "100", "3"])?;
    let directory = tempfile::tempdir()?;
    let capture = directory.path().join("again.residue");
    let config = config(first.pid(), true);
    let sinks = Sinks::default().and(CaptureFile::at(capture.clone()));
    let mut session = Session::start(&config, sinks)?;
    let mut early = Target::start(&Fixture::Churn.build()?, &["1", "100", "3"])?;
    session.follow(early.pid().cast_signed())?;
    early.ask("fill", "filled")?;
    let of_early = early.ask_truth()?;
    early.kill()?;
    come_and_go(&mut session, MAX_PROCESSES as usize + 8)?;
    first.ask("fill", "filled")?;
    // Sixteen of the same program, whose blocks lie where those of the early one lay.
    let mut truth = of_early.bytes() + first.ask_truth()?.bytes();
    for _ in 0..16 {
        let mut late = Target::start(&Fixture::Churn.build()?, &["1", "100", "3"])?;
        session.follow(late.pid().cast_signed())?;
        late.ask("fill", "filled")?;
        truth += late.ask_truth()?.bytes();
        session.poll()?;
        late.kill()?;
        session.poll()?;
    }
    session.finish().written?;
    let report: Report = serde_json::from_slice(&report(&capture, "json")?.stdout)?;
    assert_eq!(report.outstanding_bytes(), truth);
    Ok(())
}
