//! What requests say is nobody's business: nothing of it is in anything that residue writes.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use residue_tests::{
    http::{Connection, Request},
    machine,
    recorder::{Recorder, report, residue},
    servers::Server,
    windows::Watcher,
};

/// A word, so that it does not go unseen for looking like an identifier.
const SECRET: &str = "xylophonesecret";
const FORMATS: [&str; 5] = ["flamegraph", "folded", "pprof", "json", "text"];

/// Wherever a request may have a secret: in the target, in headers, in the body, and at the beginning of
/// what is read, where heads begin.
fn requests() -> Vec<Request> {
    let query = format!("/thousand?token={SECRET}&{SECRET}=1#{SECRET}");
    let long_query = format!("/thousand?{}{SECRET}", "a".repeat(210));
    let bearer = format!("Bearer {SECRET}");
    let cookie = format!("session={SECRET}");
    let body = format!("{SECRET} and {}", SECRET.repeat(100));
    let like_a_head = format!("GET /{SECRET} HTTP/1.1\r\nX-Request-ID: {SECRET}\r\n\r\n");
    let in_paths = [
        format!("/{}", SECRET.to_uppercase()),
        format!("/reset/{SECRET}-1"),
        format!("/reset/{SECRET}.token"),
        format!("/reset/{SECRET}%21"),
        format!("/{SECRET}@example.com/reset"),
    ];
    let in_paths = in_paths.iter().map(|it| Request::get(it, "path"));
    let elsewhere = vec![
        Request::get(&query, "query"),
        Request::get(&long_query, "long-query"),
        Request::get(&format!("http://{SECRET}@127.0.0.1/thousand"), "user"),
        Request::get(&format!("/thousand;jsessionid={SECRET}"), "parameter"),
        Request::get("/thousand", "header").header("Authorization", &bearer),
        Request::get("/thousand", "own-header").header(SECRET, SECRET),
        Request::get("/echo", "cookie").header("Cookie", &cookie),
        Request::new("POST", "/echo", "body").body(body.as_bytes()),
        Request::new("POST", "/echo", "chunks").chunked(body.as_bytes(), 40),
        Request::new("POST", "/echo", "hidden").body(like_a_head.as_bytes()),
        Request::new("POST", "/echo", "hidden-chunk").chunked(like_a_head.as_bytes(), 500),
    ];
    in_paths.chain(elsewhere).collect()
}

/// What only the strict rule leaves out: what reads like a word of the route.
fn a_word() -> Request {
    Request::get(&format!("/reset/{SECRET}"), "word")
}

/// Sends each request at once, and again with its body, or the second half of its head, as a piece of its
/// own.
fn tell_secrets(port: u16, requests: &[Request]) -> Result<usize> {
    let mut connection = Connection::open(port)?;
    for request in requests {
        connection.ask(request)?;
        let (head, all) = (request.head(), request.bytes());
        let secret = head
            .windows(SECRET.len())
            .position(|it| it == SECRET.as_bytes());
        let (first, second) = all.split_at(secret.unwrap_or(head.len()));
        connection.send(first)?;
        std::thread::sleep(super::protocol::A_MOMENT);
        connection.send(second)?;
        connection.receive_to(request)?;
    }
    connection.close()?;
    Ok(2 * requests.len())
}

fn assert_silent(what: &str, bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes).to_lowercase();
    let at = text.find(SECRET).or_else(|| text.find("xylophone"));
    if let Some(at) = at {
        let around: String = text[..at].chars().rev().take(100).collect();
        let around: String = around.chars().rev().collect();
        panic!("{what} tells a secret behind {around:?}");
    }
}

#[test]
fn no_secret_of_a_request_is_in_what_watch_says() -> Result<()> {
    let _turn = machine::beside_others();
    let strictly = [requests(), vec![a_word()]].concat();
    for (arguments, requests) in [
        (&["--json"][..], requests()),
        (&["--routes", "strict"], strictly),
    ] {
        let server = Server::thread_per_connection(&[])?;
        let watcher = Watcher::start(server.pid, arguments)?;
        let requests = tell_secrets(server.port, &requests)?;
        watcher.await_lines(requests)?;
        let watched = watcher.stop()?;
        assert_eq!(
            watched.stdout.lines().count(),
            requests,
            "{}",
            watched.stdout
        );
        assert_silent("the lines", watched.stdout.as_bytes());
        assert_silent("the table", watched.stderr.as_bytes());
    }
    Ok(())
}

/// The capture and all that is beside it: nobody else may read it, and it tells nothing.
fn assert_files_silent(capture: &Path) -> Result<()> {
    let directory = capture.parent().context("a file is in a directory")?;
    for file in fs::read_dir(directory)? {
        let path = file?.path();
        let mode = fs::metadata(&path)?.permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "the mode of {}", path.display());
        assert_silent(&path.display().to_string(), &fs::read(&path)?);
    }
    Ok(())
}

#[test]
fn no_secret_of_a_request_is_in_a_capture_or_a_report() -> Result<()> {
    let _turn = machine::beside_others();
    let server = Server::thread_per_connection(&[])?;
    let recorder = Recorder::start(&[server.pid], &["--interval", "200ms"])?;
    let requests = tell_secrets(server.port, &requests())?;
    std::thread::sleep(super::protocol::A_MOMENT * 500);
    assert_files_silent(&recorder.capture())?;
    let recording = recorder.stop()?;
    assert_files_silent(&recording.capture())?;
    let counted: u64 = recording
        .report()?
        .routes
        .iter()
        .map(|row| row.requests)
        .sum();
    assert_eq!(counted, requests as u64, "all of them were seen");
    for format in FORMATS {
        let output = report(&recording.capture(), format)?;
        ensure!(output.status.success(), "no report as {format}");
        assert_silent(format, &output.stdout);
        assert_silent(format, &output.stderr);
        if format == "pprof" {
            assert_silent("pprof, unpacked", &gunzip(&output.stdout)?);
        }
        let file = recording.capture().with_extension(format);
        report_into(&recording.capture(), format, &file)?;
    }
    assert_files_silent(&recording.capture())
}

fn report_into(capture: &Path, format: &str, file: &Path) -> Result<()> {
    let mut command = Command::new(residue()?);
    command.arg("report").arg(capture);
    command.args(["--format", format, "-o"]).arg(file);
    ensure!(command.status()?.success(), "no report as {format}");
    Ok(())
}

fn gunzip(packed: &[u8]) -> Result<Vec<u8>> {
    let file = tempfile::NamedTempFile::new()?;
    fs::write(file.path(), packed)?;
    let input = Stdio::from(fs::File::open(file.path())?);
    let output = Command::new("gzip").args(["-dc"]).stdin(input).output()?;
    ensure!(output.status.success(), "the profile is gzip's");
    Ok(output.stdout)
}
