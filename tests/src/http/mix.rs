//! Requests as they come in life: of several routes, at a steady rate, with shares that change.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::{Answer, load::ask};

/// Clients that keep their connections, each asking for one path after the other.
#[derive(Clone, Copy, Debug)]
pub struct Mix<'a> {
    /// What ids begin with.
    pub name: &'a str,
    /// Clients.
    pub clients: usize,
    /// Requests of all clients together.
    pub requests: usize,
    /// Requests a second of all clients together, at most.
    pub rate: u32,
    /// What is asked for.
    pub paths: &'a [&'a str],
}

/// Requests after which the shares of paths change.
const PHASE: usize = 100;
/// How much more often than another a path may be asked for.
const LARGEST_SHARE: u64 = 10;

impl Mix<'_> {
    /// Sends all requests and returns what was answered.
    ///
    /// # Errors
    ///
    /// When a request is not answered.
    pub fn run(&self, port: u16) -> Result<Vec<Answer>> {
        let start = Instant::now();
        thread::scope(|scope| {
            let client = |client| scope.spawn(move || self.run_client(port, client, start));
            let clients: Vec<_> = (0..self.clients).map(client).collect();
            let mut answers = Vec::new();
            for client in clients {
                answers.extend(client.join().ok().context("no client panics")??);
            }
            Ok(answers)
        })
    }

    fn run_client(&self, port: u16, client: usize, start: Instant) -> Result<Vec<Answer>> {
        let mut connection = None;
        let mut answers = Vec::new();
        for number in (client..self.requests).step_by(self.clients) {
            let due = start + Duration::from_secs(1) * number as u32 / self.rate;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let path = self.path(number);
            let id = format!("{}-{number}", self.name);
            let is_last = number + self.clients >= self.requests;
            let status = ask(&mut connection, port, (path, &id), is_last)?;
            let path = path.to_owned();
            answers.push(Answer { id, path, status });
        }
        Ok(answers)
    }

    /// The same in every run.
    fn path(&self, number: usize) -> &str {
        let phase = number / PHASE;
        let paths = self.paths.iter().enumerate();
        let shares = paths.map(|(index, _)| 1 + scrambled(phase, index) % LARGEST_SHARE);
        let shares: Vec<_> = shares.collect();
        let mut at = scrambled(number, self.paths.len()) % shares.iter().sum::<u64>();
        for (path, share) in self.paths.iter().zip(shares) {
            match at.checked_sub(share) {
                Some(rest) => at = rest,
                None => return path,
            }
        }
        ""
    }
}

/// Knuth's multiplicative hash, of which the upper bits are good.
fn scrambled(a: usize, b: usize) -> u64 {
    let word = (a as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (b as u64 + 1);
    word.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_change_and_are_the_same_in_every_run() {
        let mix = Mix {
            name: "",
            clients: 1,
            requests: 1000,
            rate: 1,
            paths: &["/a", "/b"],
        };
        let of_a = |phase: usize| {
            let numbers = phase * PHASE..(phase + 1) * PHASE;
            numbers.filter(|it| mix.path(*it) == "/a").count()
        };
        let shares: Vec<_> = (0..10).map(of_a).collect();
        let (least, most) = (shares.iter().min(), shares.iter().max());
        assert!(least < Some(&35) && most > Some(&65), "{shares:?}");
        assert_eq!(shares, (0..10).map(of_a).collect::<Vec<_>>());
    }
}
