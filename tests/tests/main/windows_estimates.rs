//! Servers with event loops, where no thread belongs to a request: every request is counted all the same,
//! and what those of each route leave behind is estimated, and called so.

use std::{
    collections::BTreeMap, fs, net::TcpListener, os::unix::fs::PermissionsExt as _,
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use residue_tests::{
    fixtures::{Fixture, sources},
    http::{Answer, Connection, Mix, Request},
    machine::{self, EXPORTER, NGINX, NODE, PATIENCE},
    recorder::{Recorder, Recording},
    report::Report,
    target::Target,
    windows::RouteRow,
};
use tempfile::TempDir;

/// As every server here has them.
const PATHS: [&str; 3] = ["/leak", "/some", "/clean"];

/// How far an estimate may be off, in parts of the truth.
const TOLERANCE: f64 = 0.1;

/// 5,000 requests in five seconds.
const LOAD: Mix<'_> = Mix {
    name: "mix",
    clients: 8,
    requests: 5000,
    rate: 1000,
    paths: &PATHS,
};

struct Server {
    process: Target,
    port: u16,
}

impl Server {
    fn start(command: &mut Command) -> Result<Self> {
        let process = Target::spawn(command)?;
        let said = process.await_line("ready ")?;
        let port = said.rsplit(' ').next().context("a port")?.parse()?;
        Ok(Self { process, port })
    }

    /// Records it under load, when its caches are full and its threads started.
    fn recorded(&self, arguments: &[&str]) -> Result<(Recording, Vec<Answer>)> {
        self.recorded_under(&LOAD, arguments)
    }

    fn recorded_under(
        &self,
        load: &Mix<'_>,
        arguments: &[&str],
    ) -> Result<(Recording, Vec<Answer>)> {
        Mix {
            name: "warm-up",
            requests: 1000,
            rate: 2000,
            ..*load
        }
        .run(self.port)?;
        let recorder = Recorder::start(&[self.process.pid()], arguments)?;
        let answers = load.run(self.port)?;
        Ok((recorder.stop()?, answers))
    }
}

fn counted(answers: &[Answer]) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for answer in answers {
        let route = match answer.path.starts_with('/') {
            true => format!("GET {}", answer.path),
            false => answer.path.clone(),
        };
        *counts.entry(route).or_default() += 1;
    }
    counts
}

fn assert_all_counted(report: &Report, answers: &[Answer]) {
    let rows = report.routes.iter();
    let windows: BTreeMap<_, _> = rows.map(|it| (it.route.clone(), it.requests)).collect();
    assert_eq!(windows, counted(answers));
    assert_eq!(report.losses(), BTreeMap::new());
}

fn row<'a>(report: &'a Report, path: &str) -> &'a RouteRow {
    let route = format!("GET {path}");
    let row = report.routes.iter().find(|it| it.route == route);
    row.expect("the route was requested")
}

/// Estimates are near the truth, and the text calls them estimates.
fn assert_estimated(recording: &Recording, leak: f64, from: &str) -> Result<()> {
    let report = recording.report()?;
    for (path, truth) in [("/leak", leak), ("/some", 0.0), ("/clean", 0.0)] {
        let row = row(&report, path);
        let estimate = row.estimated_bytes_per_request;
        let is_near = estimate.is_some_and(|it| (it - truth).abs() <= TOLERANCE * leak);
        eprintln!(
            "{path} leaves {estimate:?}, give or take {:?}",
            row.estimate_standard_error
        );
        assert!(is_near, "{path} leaves {truth} bytes:\n{row:#?}");
        assert_eq!(row.estimated_from.as_deref(), Some(from), "{row:#?}");
        assert_eq!(row.retained_bytes_per_request, None, "nothing was bound");
    }
    let text = recording.render("text")?;
    assert!(text.contains("left behind a request"), "{text}");
    let scope = match from {
        "blocks" => "from blocks of no single request",
        _ => "from the resident set",
    };
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains(scope), "{text}");
    Ok(())
}

#[test]
fn node_has_all_its_requests_counted_and_its_leak_estimated() -> Result<()> {
    let _alone = machine::alone();
    if !machine::has(NODE) {
        return Ok(());
    }
    let script = sources().join("event_loops/server.js");
    let server = Server::start(Command::new(NODE.program).arg(script))?;
    let (recording, answers) = server.recorded(&[])?;
    assert_all_counted(&recording.report()?, &answers);
    assert_estimated(&recording, 20_000.0, "blocks")
}

#[test]
fn tokio_has_all_its_requests_counted_and_its_leak_estimated() -> Result<()> {
    let _alone = machine::alone();
    if !Fixture::TokioServer.can_be_had() {
        return Ok(());
    }
    let server = Server::start(&mut Command::new(Fixture::TokioServer.build()?))?;
    let (recording, answers) = server.recorded(&[])?;
    assert_all_counted(&recording.report()?, &answers);
    assert_estimated(&recording, 20_000.0, "blocks")
}

#[test]
fn go_has_all_its_requests_counted_and_its_leak_estimated() -> Result<()> {
    let _alone = machine::alone();
    if !Fixture::GoServer.can_be_had() {
        return Ok(());
    }
    let server = Server::start(&mut Command::new(Fixture::GoServer.build()?))?;
    let (recording, answers) = server.recorded(&["--rss-only"])?;
    assert_all_counted(&recording.report()?, &answers);
    assert_estimated(&recording, 65_536.0, "resident-set")
}

/// A pool has allocated something meanwhile, so that nobody knows what else is theirs.
#[test]
fn what_their_own_threads_leave_is_in_the_estimates_of_requests_that_are_not_bound() -> Result<()> {
    let _alone = machine::alone();
    let server = Server::start(Command::new(Fixture::Queued.build()?).arg("blocking"))?;
    let load = Mix {
        paths: &["/own", "/clean"],
        ..LOAD
    };
    let (recording, answers) = server.recorded_under(&load, &[])?;
    let report = recording.report()?;
    assert_all_counted(&report, &answers);
    for (path, truth) in [("/own", 10_000.0), ("/clean", 0.0)] {
        let row = row(&report, path);
        let bound = row.requests - row.confidences["candidates"];
        assert!(bound * 2 < row.requests, "{row:#?}");
        let estimate = row.estimated_bytes_per_request;
        let within = row.estimate_standard_error.map(|it| 2.0 * it);
        eprintln!("{path} leaves {estimate:?}, give or take {within:?}, {bound} bound");
        let is_near = estimate.is_some_and(|it| (it - truth).abs() <= TOLERANCE * 10_000.0);
        assert!(is_near, "{path} leaves {truth} bytes: {row:#?}");
    }
    Ok(())
}

/// As it is installed, made by Go's own compiler.
#[test]
fn a_go_program_of_the_distribution_has_all_its_requests_counted() -> Result<()> {
    let _turn = machine::beside_others();
    if !machine::has(EXPORTER) {
        return Ok(());
    }
    let port = free_port()?;
    let address = format!("--web.listen-address=127.0.0.1:{port}");
    let server = Server {
        process: Target::spawn(Command::new(EXPORTER.program).arg(address))?,
        port,
    };
    await_listener(port)?;
    let recorder = Recorder::start(&[server.process.pid()], &["--rss-only"])?;
    let load = Mix {
        requests: 1000,
        paths: &["/", "/metrics"],
        rate: 500,
        ..LOAD
    };
    let answers = load.run(server.port)?;
    assert_all_counted(&recorder.stop()?.report()?, &answers);
    Ok(())
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn await_listener(port: u16) -> Result<()> {
    let is_up = machine::wait_until(PATIENCE, || Connection::open(port).is_ok());
    ensure!(is_up, "nobody listens at port {port}");
    Ok(())
}

/// What nginx is started with: a proxy with connections kept on both sides, and a file.
const NGINX_CONF: &str = "
daemon off;
worker_processes 1;
pid DIRECTORY/nginx.pid;
error_log DIRECTORY/error.log;
events { worker_connections 256; }
http {
    access_log off;
    sendfile on;
    client_body_temp_path DIRECTORY/body;
    proxy_temp_path DIRECTORY/proxy;
    fastcgi_temp_path DIRECTORY/fastcgi;
    uwsgi_temp_path DIRECTORY/uwsgi;
    scgi_temp_path DIRECTORY/scgi;
    upstream behind { server 127.0.0.1:BEHIND; keepalive 8; }
    server {
        listen 127.0.0.1:PORT;
        proxy_http_version 1.1;
        proxy_set_header Connection \"\";
        location / { proxy_pass http://behind; }
        location /file { root DIRECTORY; }
        location /gone { proxy_pass http://127.0.0.1:1; }
    }
}
";

/// nginx, and the server behind it.
struct Proxy {
    nginx: Target,
    port: u16,
    _behind: Server,
    _directory: TempDir,
}

impl Proxy {
    fn start() -> Result<Self> {
        let behind = Server::start(&mut Command::new(Fixture::TokioServer.build()?))?;
        let directory = tempfile::tempdir()?;
        let root = directory.path();
        // Workers run as another user.
        fs::set_permissions(root, fs::Permissions::from_mode(0o777))?;
        fs::write(root.join("file"), vec![b'x'; 100_000])?;
        let port = free_port()?;
        let configuration = NGINX_CONF
            .replace("DIRECTORY", &root.display().to_string())
            .replace("BEHIND", &behind.port.to_string())
            .replace("PORT", &port.to_string());
        let file = root.join("nginx.conf");
        fs::write(&file, configuration)?;
        let nginx = Target::spawn(Command::new(NGINX.program).arg("-c").arg(file))?;
        await_listener(port)?;
        Ok(Self {
            nginx,
            port,
            _behind: behind,
            _directory: directory,
        })
    }
}

#[test]
fn nginx_has_what_clients_ask_counted_once_and_leaks_nothing() -> Result<()> {
    let _alone = machine::alone();
    if !machine::has(NGINX) || !Fixture::TokioServer.can_be_had() {
        return Ok(());
    }
    let proxy = Proxy::start()?;
    let load = Mix {
        paths: &["/leak", "/clean", "/file"],
        ..LOAD
    };
    Mix {
        name: "warm-up",
        requests: 500,
        ..load
    }
    .run(proxy.port)?;
    let recorder = Recorder::start(&[proxy.nginx.pid()], &["--children"])?;
    let mut answers = load.run(proxy.port)?;
    let mut connection = Connection::open(proxy.port)?;
    let others = [
        ("HEAD", "/file", 200),
        ("HEAD", "/clean", 200),
        ("GET", "/gone", 502),
    ];
    for (number, (method, path, expected)) in others.iter().cycle().take(30).enumerate() {
        let id = format!("other-{number}");
        let status = connection.ask(&Request::new(method, path, &id))?.status;
        ensure!(status == *expected, "{method} {path} was answered {status}");
        let path = format!("{method} {path}");
        answers.push(Answer { id, path, status });
    }
    let report = recorder.stop()?.report()?;
    assert_all_counted(&report, &answers);
    for row in report.routes.iter().filter(|it| it.requests > 100) {
        let estimate = row.estimated_bytes_per_request;
        assert!(estimate.is_some_and(|it| it < 500.0), "{row:#?}");
    }
    Ok(())
}
