//! What residue costs its target, and how fast it is itself: one table, with the bounds that the
//! project keeps. `cargo xtask bench` starts it; docs/benchmarks.md says how to read it.

mod bystander;
mod drawing;
mod kernel_memory;
mod live_set;
mod objects;
mod pairs;
mod probe_cost;
mod requests;
mod sample;
mod stacks;
mod start;
mod table;
mod windows;

use std::{env, process::ExitCode};

use anyhow::{Context as _, Result, ensure};

use table::Section;

/// The name by which an argument selects it, and what measures it.
type Benchmark = (&'static str, fn() -> Result<Section>);

const BENCHMARKS: [Benchmark; 9] = [
    ("probes", probe_cost::measure),
    ("stacks", stacks::measure),
    ("requests", requests::measure),
    ("windows", windows::measure),
    ("bystander", bystander::measure),
    ("objects", objects::measure),
    ("live", live_set::measure),
    ("start", start::measure),
    ("drawing", drawing::measure),
];

fn main() -> Result<ExitCode> {
    let wanted: Vec<String> = env::args().skip(1).collect();
    let mut all_kept = true;
    for (name, measure) in selected(&wanted)? {
        let section = measure().with_context(|| format!("failed to measure {name:?}"))?;
        println!("{section}");
        all_kept &= section.all_kept();
    }
    if !all_kept {
        eprintln!(
            "bench: a bound was missed: see the rows marked {}",
            table::MISSED
        );
    }
    Ok(ExitCode::from(u8::from(!all_kept)))
}

/// Those that are named, or all.
fn selected(wanted: &[String]) -> Result<Vec<Benchmark>> {
    let names = BENCHMARKS.map(|(name, _)| name);
    for word in wanted {
        ensure!(
            names.contains(&word.as_str()),
            "there is no benchmark {word:?}: name any of {names:?}, or none for all"
        );
    }
    let chosen = |name: &str| wanted.is_empty() || wanted.iter().any(|word| word == name);
    Ok(BENCHMARKS
        .into_iter()
        .filter(|(name, _)| chosen(name))
        .collect())
}

/// Says on standard error what goes on; standard output has the tables only.
fn progress(what: &str) {
    eprintln!("bench: {what}");
}
