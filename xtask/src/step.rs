//! Named steps. Each is printed with its time.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

/// The steps of one task, in the order in which they ran.
#[derive(Default)]
pub struct Steps {
    done: Vec<(&'static str, Duration)>,
}

impl Steps {
    /// Announces a step, runs it, and notes how long it took. An error carries the name of the
    /// step.
    pub fn run<T>(&mut self, name: &'static str, step: impl FnOnce() -> Result<T>) -> Result<T> {
        println!("\n==> {name}");
        let started = Instant::now();
        let result = step().with_context(|| format!("{name}: failed"))?;
        let took = started.elapsed();
        println!("    {name}: ok, {:.1} s", took.as_secs_f64());
        self.done.push((name, took));
        Ok(result)
    }

    /// Prints every step again, with its time, and the sum of the times.
    pub fn summarize(&self) {
        let total: Duration = self.done.iter().map(|(_, took)| *took).sum();
        println!();
        for (name, took) in self.done.iter().chain([&("total", total)]) {
            println!("{:>8.1} s  {name}", took.as_secs_f64());
        }
    }
}
