//! What is unusual, and in order.

use anyhow::{Context as _, Result};
use residue_tests::{
    http::{Connection, Load, Request},
    machine,
    recorder::Recorder,
    servers::Server,
};

use super::{A_MOMENT, Watching, assert_all_done};

/// Of a client, masked with zeros, so that it can be read (RFC 6455, section 5.2).
fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).expect("frames here are short");
    [&[0x80 | opcode, 0x80 | length, 0, 0, 0, 0], payload].concat()
}

const TEXT: u8 = 1;
const CLOSE: u8 = 8;

#[test]
fn a_connection_that_is_upgraded_speaks_http_no_more() -> Result<()> {
    let _turn = machine::beside_others();
    let mut watching = Watching::start(&[])?;
    let mut connection = watching.connect()?;
    watching.ask(&mut connection, "/clean", "before")?;
    let request = Request::get("/socket", "socket").header("Connection", "Upgrade");
    let response = connection.ask(&request.header("Upgrade", "websocket"))?;
    assert_eq!(response.status, 101);
    watching.answered("socket", "/socket", &response);
    let payloads = [
        &b"hello"[..],
        b"GET /hidden HTTP/1.1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
    ];
    for payload in payloads.into_iter().cycle().take(12) {
        let frame = frame(TEXT, payload);
        // The payload is a piece of its own.
        let (head, payload) = frame.split_at(6);
        connection.send(head)?;
        std::thread::sleep(A_MOMENT);
        connection.send(payload)?;
        let echo = connection.read_exactly(2 + payload.len())?;
        assert_eq!(&echo[2..], payload);
    }
    connection.send(&frame(CLOSE, b""))?;
    connection.close()?;
    watching.ask_as_usual("then")?;
    assert_all_done(&watching.end()?);
    Ok(())
}

#[test]
fn a_client_that_takes_its_time_is_one_request() -> Result<()> {
    let _turn = machine::beside_others();
    let mut watching = Watching::start(&[])?;
    let mut connection = watching.connect()?;
    let request = Request::get("/big", "slow");
    let pause = 100 * A_MOMENT;
    connection.send_in_pieces(&request.head(), 30, pause)?;
    let mut other = watching.connect()?;
    watching.ask(&mut other, "/clean", "meanwhile")?;
    other.close()?;
    std::thread::sleep(pause);
    let response = connection.receive_to(&request)?;
    watching.answered("slow", "/big", &response);
    connection.close()?;
    let windows = watching.end()?;
    assert_all_done(&windows);
    let least = u64::try_from(pause.as_nanos())? * 2;
    assert!(windows[1].duration_ns >= Some(least), "{windows:#?}");
    // Asked and answered while the other was on its way.
    assert!(windows[0].closed_ns < windows[1].closed_ns, "{windows:#?}");
    assert!(windows[0].opened_ns > windows[1].opened_ns, "{windows:#?}");
    Ok(())
}

/// What is answered by a line, all of them on one connection; nothing of it is HTTP.
fn assert_no_windows(lines: &[&str]) -> Result<()> {
    let mut watching = Watching::start(&[])?;
    let port = watching.server.lines_port.context("it speaks lines")?;
    let mut connection = Connection::open(port)?;
    for line in lines {
        connection.send(format!("{line}\r\n").as_bytes())?;
        assert_eq!(connection.read_line()?, format!("+{line}"));
    }
    connection.close()?;
    watching.ask_as_usual("then")?;
    assert_all_done(&watching.end()?);
    Ok(())
}

#[test]
fn other_protocols_have_no_windows() -> Result<()> {
    let _turn = machine::beside_others();
    assert_no_windows(&[
        "PING",
        "get key",
        "*2",
        "\u{1}\u{2}",
        "HTTP/1.1 200 OK",
        "GETRANGE key 0 1",
        "HEADER",
        "OPTIONS",
    ])
}

/// Redis takes commands in lines, and RTSP and SIP have heads that differ by their last word.
#[test]
fn other_protocols_whose_commands_look_like_methods_have_no_windows() -> Result<()> {
    let _turn = machine::beside_others();
    assert_no_windows(&[
        "GET key",
        "DELETE key",
        "OPTIONS rtsp://127.0.0.1/stream RTSP/1.0",
        "OPTIONS sip:someone@127.0.0.1 SIP/2.0",
        "GET / HTTP/0.9",
    ])
}

/// A scanner makes up any number of paths, and none of these looks like an identifier.
#[test]
fn ten_thousand_paths_are_a_thousand_routes_and_the_others() -> Result<()> {
    const PATHS: usize = 10_000;
    const MOST_ROUTES: usize = 1000;
    let _turn = machine::beside_others();
    let server = Server::thread_per_connection(&[])?;
    let recorder = Recorder::start(&[server.pid], &[])?;
    let letter = |number: usize| char::from(b'a' + u8::try_from(number % 26).unwrap_or(0));
    let name = |number: usize| (0..3).map(move |at| letter(number / 26_usize.pow(at)));
    let paths: Vec<_> = (0..PATHS)
        .map(|it| format!("/{}", name(it).collect::<String>()))
        .collect();
    let paths: Vec<_> = paths.iter().map(String::as_str).collect();
    let answers = Load::once("scan", &paths).run(server.port)?;
    let report = recorder.stop()?.report()?;
    assert_eq!(report.losses().len(), 0, "{:?}", report.losses());
    let requests: u64 = report.routes.iter().map(|row| row.requests).sum();
    assert_eq!(requests, answers.len() as u64);
    assert_eq!(report.routes.len(), MOST_ROUTES + 1);
    let others = report.route("other").expect("there are too many");
    assert_eq!(others.requests, (PATHS - MOST_ROUTES) as u64);
    Ok(())
}
