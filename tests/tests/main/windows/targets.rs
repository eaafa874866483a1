//! The servers themselves, without residue: they have to serve what the tests ask for, and the client has
//! to count it.

use std::time::Duration;

use anyhow::Result;
use residue_tests::{
    http::{Connection, Load, Request},
    machine,
    python::pythons,
    servers::{DEFERRED, INDEPENDENT, Kind, ROUTES, Server},
};

use super::servers::{PACKAGES, PYTHON};

/// Side by side, and then one after the other.
fn assert_serves(server: &Server, keep_alive: bool) -> Result<()> {
    let load = Load {
        name: "load",
        clients: 8,
        rounds: 5,
        paths: &INDEPENDENT,
        keep_alive,
    };
    let one_by_one = Load {
        name: "one-by-one",
        clients: 1,
        rounds: 6,
        paths: &DEFERRED,
        keep_alive,
    };
    server.begin_background()?;
    let answers = [load.run(server.port)?, one_by_one.run(server.port)?].concat();
    assert_eq!(
        answers.len(),
        8 * 5 * INDEPENDENT.len() + 6 * DEFERRED.len()
    );
    assert!(
        answers.iter().all(|answer| answer.status == 200),
        "{answers:#?}"
    );
    server.await_background()?;
    Ok(())
}

#[test]
fn every_route_belongs_to_one_kind_of_load() {
    let mut paths: Vec<_> = ROUTES.iter().map(|route| route.path).collect();
    let mut loaded = [&INDEPENDENT[..], &DEFERRED[..]].concat();
    paths.sort_unstable();
    loaded.sort_unstable();
    assert_eq!(paths, loaded);
}

#[test]
fn the_servers_in_c_and_rust_answer_every_request() -> Result<()> {
    let _turn = machine::beside_others();
    for keep_alive in [true, false] {
        let mut server = Server::thread_per_connection(&[])?;
        assert_serves(&server, keep_alive)?;
        // And those of the thread in the background.
        assert!(server.answered()? > 252);
        assert_serves(&Server::thread_pool()?, keep_alive)?;
    }
    Ok(())
}

#[test]
fn the_servers_in_python_answer_every_request() -> Result<()> {
    let _turn = machine::beside_others();
    let python = pythons().into_iter().find(|it| it.name == PYTHON);
    let Some(python) = python.map(|it| it.with_packages(&PACKAGES)).transpose()? else {
        return Ok(());
    };
    for kind in [Kind::GunicornSync, Kind::GunicornThreads, Kind::Flask] {
        if let Some(python) = &python {
            assert_serves(&Server::python(python, kind)?, kind.keeps_alive())?;
        }
    }
    Ok(())
}

#[test]
fn the_strict_server_reads_and_sends_in_every_way() -> Result<()> {
    let _turn = machine::beside_others();
    let mut server = Server::thread_per_connection(&["ways"])?;
    let body = b"x".repeat(3000);
    for way in 0..20 {
        let mut connection = Connection::open(server.port)?;
        let chunked = Request::new("POST", "/echo", "a").chunked(&body, 700);
        assert_eq!(connection.ask(&chunked)?.body, body, "way {way}");
        let chunks = connection.ask(&Request::get("/chunks", "b"))?;
        assert_eq!(chunks.body.len(), 1500, "way {way}");
        let head = Request::new("HEAD", "/big", "c");
        assert_eq!(connection.ask(&head)?.body.len(), 0, "way {way}");
        let expects = Request::new("POST", "/echo", "d");
        let expects = expects.header("Expect", "100-continue").body(&body);
        assert_eq!(connection.ask(&expects)?.interim, 1, "way {way}");
        connection.send_in_pieces(&expects.bytes(), 500, Duration::from_micros(10))?;
        assert_eq!(connection.receive_to(&expects)?.body, body, "way {way}");
        connection.close()?;
    }
    assert_eq!(server.answered()?, 20 * 5);
    Ok(())
}
