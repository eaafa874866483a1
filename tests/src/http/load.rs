//! Many requests at the same time, each with an id of its own.

use std::thread;

use anyhow::{Context as _, Result, ensure};

use super::{Connection, Request};

/// What clients do that run side by side.
#[derive(Clone, Copy, Debug)]
pub struct Load<'a> {
    /// What ids begin with.
    pub name: &'a str,
    /// Clients.
    pub clients: usize,
    /// How often each client asks for all of `paths`.
    pub rounds: usize,
    /// What is asked for, in this order; each client begins with another one.
    pub paths: &'a [&'a str],
    /// Whether a client has one connection for all of its requests, or one for each.
    pub keep_alive: bool,
}

/// A request that was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Of the request.
    pub id: String,
    /// Of the request: its path has nothing in it that a route leaves out.
    pub path: String,
    /// Of the response.
    pub status: u16,
}

impl Load<'_> {
    /// One client that asks for each path once, on one connection.
    #[must_use]
    pub const fn once<'a>(name: &'a str, paths: &'a [&'a str]) -> Load<'a> {
        Load {
            name,
            clients: 1,
            rounds: 1,
            paths,
            keep_alive: true,
        }
    }

    /// Sends all requests and returns what was answered.
    ///
    /// # Errors
    ///
    /// When a request is not answered.
    pub fn run(&self, port: u16) -> Result<Vec<Answer>> {
        thread::scope(|scope| {
            let client = |client| scope.spawn(move || self.run_client(port, client));
            let clients: Vec<_> = (0..self.clients).map(client).collect();
            let mut answers = Vec::new();
            for client in clients {
                answers.extend(client.join().ok().context("no client panics")??);
            }
            Ok(answers)
        })
    }

    fn run_client(&self, port: u16, client: usize) -> Result<Vec<Answer>> {
        let Self { paths, .. } = self;
        let mut connection = None;
        let mut answers = Vec::new();
        let count = self.rounds * paths.len();
        for number in 0..count {
            let path = paths[(client + number) % paths.len()];
            let id = format!("{}-{client}-{number}", self.name);
            let is_last = !self.keep_alive || number + 1 == count;
            let status = ask(&mut connection, port, (path, &id), is_last)?;
            let path = path.to_owned();
            answers.push(Answer { id, path, status });
        }
        Ok(answers)
    }
}

/// Asks on the connection that is open, or on a new one.
pub(super) fn ask(
    open: &mut Option<Connection>,
    port: u16,
    (path, id): (&str, &str),
    is_last: bool,
) -> Result<u16> {
    let request = Request::get(path, id);
    let mut connection = match open.take() {
        Some(connection) => connection,
        None => Connection::open(port)?,
    };
    if is_last {
        let response = connection.ask(&request.closing())?;
        connection.close()?;
        return Ok(response.status);
    }
    let response = connection.ask(&request)?;
    ensure!(response.status < 500, "{path} was answered {response:?}");
    *open = Some(connection);
    Ok(response.status)
}
