//! Residue comes when requests are under way already, or goes before they are over.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};
use residue_tests::{
    http::{Answer, Connection, Request},
    lines::Lines,
    machine::{self, PATIENCE, wait_until},
    recorder::residue,
    servers::Server,
    windows::{Watcher, matched},
};

use super::A_MOMENT;

fn ask(connection: &mut Connection, path: &str, id: &str) -> Result<Answer> {
    let response = connection.ask(&Request::get(path, id))?;
    Ok(Answer {
        id: id.to_owned(),
        path: path.to_owned(),
        status: response.status,
    })
}

/// A request whose head was read before may have a window or none; those that come later on its connection
/// have one each.
#[test]
fn requests_that_were_under_way_disturb_no_later_ones() -> Result<()> {
    let _turn = machine::beside_others();
    let server = Server::thread_per_connection(&[])?;
    let early = ["in-work", "in-head"].map(|id| Request::get("/thousand", id));
    let mut in_work = Connection::open(server.port)?;
    let slow = Request::get("/slow", "in-work");
    in_work.send(&slow.head())?;
    let mut in_head = Connection::open(server.port)?;
    let half = early[1].head();
    let (first, second) = half.split_at(20);
    in_head.send(first)?;
    std::thread::sleep(50 * A_MOMENT);

    let watcher = Watcher::json(server.pid)?;
    let mut answers = Vec::new();
    let mut other = Connection::open(server.port)?;
    answers.push(ask(&mut other, "/release", "release")?);
    // Until its line is there, the window of this request is open, and what threads allocate for requests without a window
    // counts as this one's.
    watcher.await_lines(answers.len())?;
    assert_eq!(in_work.receive_to(&slow)?.status, 200);
    in_head.send(second)?;
    assert_eq!(in_head.receive_to(&early[1])?.status, 200);
    for number in 0..5 {
        answers.push(ask(&mut in_work, "/thousand", &format!("work-{number}"))?);
        answers.push(ask(&mut in_head, "/thousand", &format!("head-{number}"))?);
    }
    for connection in [in_work, in_head, other] {
        connection.close()?;
    }
    watcher.await_lines(answers.len())?;
    let mut windows = watcher.stop()?.windows()?;
    let is_late = |id: &str| answers.iter().any(|answer| answer.id == id);
    let unknown = windows
        .iter()
        .filter(|it| !it.request_id.as_deref().is_some_and(is_late))
        .count();
    assert!(unknown <= early.len(), "{windows:#?}");
    windows.retain(|it| it.request_id.as_deref().is_some_and(is_late));
    for window in matched(&windows, &answers)? {
        let kept = if window.route == "/thousand" { 1000 } else { 0 };
        assert_eq!(window.retained_bytes, Some(kept), "{window:#?}");
    }
    Ok(())
}

#[test]
fn a_request_that_is_under_way_at_the_end_says_so() -> Result<()> {
    let _turn = machine::beside_others();
    let server = Server::thread_per_connection(&[])?;
    let watcher = Watcher::json(server.pid)?;
    let mut connection = Connection::open(server.port)?;
    let answers = [ask(&mut connection, "/hundred", "before")?];
    connection.send(&Request::get("/slow", "under-way").head())?;
    watcher.await_lines(answers.len())?;
    std::thread::sleep(50 * A_MOMENT);
    let mut windows = watcher.stop()?.windows()?;
    let is_open = |id: Option<&str>| id == Some("under-way");
    let open: Vec<_> = windows
        .iter()
        .filter(|it| is_open(it.request_id.as_deref()))
        .collect();
    assert_eq!(open.len(), 1, "{windows:#?}");
    assert_eq!((&*open[0].ended, open[0].status), ("still-open", None));
    windows.retain(|it| !is_open(it.request_id.as_deref()));
    matched(&windows, &answers)?;
    Ok(())
}

/// As in `residue watch … | head`: probes that nobody looks at must not stay in a server.
#[test]
fn a_watch_that_nobody_reads_ends() -> Result<()> {
    let _turn = machine::beside_others();
    let server = Server::thread_per_connection(&[])?;
    let mut watch = Command::new(residue()?);
    watch
        .args(["watch", "--rss-only", "-p", &server.pid.to_string()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut watch = watch.spawn()?;
    let stderr = Lines::of(watch.stderr.take().context("a piped stderr")?);
    stderr.next_starting("watching", PATIENCE)?;
    drop(watch.stdout.take());
    ask(&mut Connection::open(server.port)?, "/clean", "unread")?;
    let ended = wait_until(PATIENCE, || matches!(watch.try_wait(), Ok(Some(_))));
    watch.kill()?;
    assert!(ended, "it goes on: {}", stderr.all());
    assert!(watch.wait()?.success(), "{}", stderr.all());
    Ok(())
}
