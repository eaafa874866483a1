//! What a request costs more: a trivial Django view under gunicorn, with one worker and one client
//! that asks again as soon as it has its answer.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    path::PathBuf,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use residue_tests::{fixtures::sources, recorder::Recorder, target::Target};

use crate::{
    probe_cost::complete_report,
    progress,
    sample::Sample,
    table::{Bound, Row, Section},
};

const ROUNDS: usize = 5;
/// Requests before the measured ones: every shallow context has had its first walks then.
const WARM_UP: u32 = 300;
const REQUESTS: u32 = 1000;
const PATIENCE: Duration = Duration::from_secs(10);

/// Of residue as it comes to the floor, and with every stack walked.
const MOST_OVER_FLOOR: f64 = 1.25;
const MOST_WITH_ALL_STACKS: f64 = 2.5;

/// What is attached while requests are served: `record`'s arguments, or nothing.
const VARIANTS: [Option<&[&str]>; 5] = [
    None,
    Some(&["--empty-programs"]),
    Some(&["--stacks", "none"]),
    Some(&["--stacks", "auto"]),
    Some(&["--stacks", "all"]),
];

/// Alternates the variants on one worker, so that a slow minute slows all of them.
pub fn measure() -> Result<Section> {
    let worker = Worker::start()?;
    let calls = worker.calls_of_a_request()?;
    let mut samples = VARIANTS.map(|_| Vec::with_capacity(ROUNDS));
    for round in 1..=ROUNDS {
        progress(&format!("requests to Django, round {round} of {ROUNDS}"));
        for (variant, sample) in VARIANTS.iter().zip(&mut samples) {
            sample.push(worker.measure(*variant)?);
        }
    }
    let [nothing, floor, none, auto, all] = samples.map(Sample::of);
    let row = |what: &str, sample: &Sample| {
        let per_second = 1e6 / sample.median();
        Row::of(what, sample, "us").compared(
            &sample.ratio_to(&floor),
            &format!("floor, {per_second:.0}/s"),
        )
    };
    Ok(Section {
        title: format!(
            "A request to a trivial Django view under gunicorn, {calls} allocations, {ROUNDS} \
             alternating rounds of {REQUESTS}"
        ),
        rows: vec![
            row("no probes", &nothing),
            row("empty programs (floor)", &floor),
            row("residue --stacks none", &none),
            row("residue (--stacks auto)", &auto).bound(Bound::at_most(
                MOST_OVER_FLOOR,
                auto.ratio_to(&floor).median(),
            )),
            row("residue --stacks all", &all).bound(Bound::at_most(
                MOST_WITH_ALL_STACKS,
                all.ratio_to(&floor).median(),
            )),
        ],
    })
}

/// gunicorn with one worker.
pub struct Worker {
    /// Held: gunicorn ends with it.
    _gunicorn: Target,
    pub pid: u32,
    port: u16,
}

impl Worker {
    pub fn start() -> Result<Self> {
        let directory = sources().join("python");
        let mut gunicorn = Command::new(python()?);
        gunicorn
            .current_dir(&directory)
            .args(["-m", "gunicorn", "-c", "django_view.py"])
            .args(["--log-level", "error", "django_view:application"]);
        let gunicorn = Target::spawn(&mut gunicorn)?;
        let said = gunicorn.await_line("worker ")?;
        let mut words = said.split(' ').skip(1);
        let mut number = || words.next()?.parse().ok();
        let (pid, port) = number().zip(number()).context("a pid and a port")?;
        let port = u16::try_from(port).context("a port")?;
        Ok(Self {
            _gunicorn: gunicorn,
            pid,
            port,
        })
    }

    /// Microseconds a request.
    fn measure(&self, recorded: Option<&[&str]>) -> Result<f64> {
        let recorder = recorded
            .map(|arguments| Recorder::start(&[self.pid], arguments))
            .transpose()?;
        self.ask(WARM_UP)?;
        let took = self.ask(REQUESTS)?;
        if let Some(recorder) = recorder {
            complete_report(&recorder.stop()?)?;
        }
        Ok(took.as_secs_f64() * 1e6 / f64::from(REQUESTS))
    }

    /// How many allocations a request makes.
    fn calls_of_a_request(&self) -> Result<u64> {
        let recorder = Recorder::start(&[self.pid], &[])?;
        self.ask(WARM_UP)?;
        let report = complete_report(&recorder.stop()?)?;
        let calls: u64 = report.stacks.iter().map(|stack| stack.alloc_objects).sum();
        Ok(calls / u64::from(WARM_UP))
    }

    /// Asks so many times, and returns how long that took.
    pub fn ask(&self, requests: u32) -> Result<Duration> {
        self.ask_at_once(1, requests)
    }

    /// Has so many clients ask so many times each, at once, and returns how long that took.
    pub fn ask_at_once(&self, clients: u32, requests: u32) -> Result<Duration> {
        let port = self.port;
        let began = Instant::now();
        let clients: Vec<_> = (0..clients)
            .map(|_| thread::spawn(move || ask(port, requests)))
            .collect();
        for client in clients {
            client.join().expect("a client does not panic")?;
        }
        Ok(began.elapsed())
    }
}

fn ask(port: u16, requests: u32) -> Result<()> {
    for _ in 0..requests {
        let mut connection = TcpStream::connect(("127.0.0.1", port))?;
        connection.set_read_timeout(Some(PATIENCE))?;
        connection.write_all(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        connection.read_to_end(&mut answer)?;
        ensure!(
            answer.starts_with(b"HTTP/1.1 200"),
            "gunicorn answered {}",
            String::from_utf8_lossy(&answer)
        );
    }
    Ok(())
}

/// The Python of a virtual environment with Django and gunicorn, which `cargo xtask bench` makes.
fn python() -> Result<PathBuf> {
    let python = std::env::var_os("RESIDUE_DJANGO_PYTHON");
    python
        .map(PathBuf::from)
        .context("RESIDUE_DJANGO_PYTHON does not name a Python with Django: use cargo xtask bench")
}
