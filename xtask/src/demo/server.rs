//! Runs the demo application under gunicorn: one master and a few synchronous workers, on loopback
//! only.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::{load, venv::App};
use crate::command;

const WORKERS: usize = 2;
const START: Duration = Duration::from_secs(30);
const STOP: Duration = Duration::from_secs(10);

/// A running server. The server ends with this value, and with this process.
pub struct Server {
    master: Child,
    address: SocketAddr,
    log: PathBuf,
}

impl Server {
    /// Starts the server and waits until it answers.
    pub fn start(app: &App, out: &Path) -> Result<Self> {
        let address = free_address()?;
        let log = out.join("gunicorn.log");
        let output = File::create(&log).context("failed to make gunicorn.log")?;
        let master = gunicorn(app, address)
            .stdout(Stdio::from(output.try_clone()?))
            .stderr(Stdio::from(output))
            .spawn()
            .context("failed to start gunicorn through setpriv (package util-linux)")?;
        let mut server = Self {
            master,
            address,
            log,
        };
        server.wait_until_it_answers()?;
        println!("    gunicorn {} on http://{address}/", server.master.id());
        Ok(server)
    }

    /// Returns the address on which the server listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lists the processes that serve requests.
    pub fn workers(&self) -> Result<Vec<u32>> {
        let workers = children(self.master.id())?;
        ensure!(
            workers.len() == WORKERS,
            "gunicorn has {} workers instead of {WORKERS}; see {}",
            workers.len(),
            self.log.display()
        );
        Ok(workers)
    }

    /// Ends the server. Returns an error if the server does not end well.
    pub fn stop(&mut self) -> Result<()> {
        let workers = children(self.master.id())?;
        terminate(&self.master)?;
        let status = command::wait_within(&mut self.master, STOP)?
            .context("gunicorn did not end when asked, and was killed")?;
        ensure!(
            status.success(),
            "gunicorn ended with {status}; see {}",
            self.log.display()
        );
        let left: Vec<_> = workers.into_iter().filter(|pid| is_alive(*pid)).collect();
        ensure!(left.is_empty(), "workers {left:?} outlived gunicorn");
        Ok(())
    }

    fn wait_until_it_answers(&mut self) -> Result<()> {
        let deadline = Instant::now() + START;
        while load::get(self.address, "/").is_err() || self.workers().is_err() {
            let ended = self.master.try_wait()?;
            ensure!(
                ended.is_none() && Instant::now() < deadline,
                "gunicorn did not start; {} ends with:\n{}",
                self.log.display(),
                last_lines(&self.log)
            );
            thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Ok(None) = self.master.try_wait() {
            // Nobody is left to report to: whoever drops a running server is failing already.
            let _ = self.stop();
        }
    }
}

/// Makes the command that runs gunicorn. With `setpriv`, the kernel ends gunicorn when this process
/// ends, no matter how.
fn gunicorn(app: &App, address: SocketAddr) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "TERM"])
        .arg(app.venv.join("bin/python"))
        .args(["-m", "gunicorn", "assistant.wsgi", "--worker-class", "sync"])
        .args([
            "--workers",
            &WORKERS.to_string(),
            "--bind",
            &address.to_string(),
        ])
        .current_dir(&app.source)
        .env("THUMBNAIL_LIBRARY", &app.library)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        // Newer gunicorns keep a control socket in the home directory.
        .env("HOME", &app.venv)
        .stdin(Stdio::null());
    command
}

/// Returns an address that was free a moment ago.
fn free_address() -> Result<SocketAddr> {
    let any_port = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);
    let listener = TcpListener::bind(any_port).context("failed to find a free port")?;
    Ok(listener.local_addr()?)
}

fn terminate(child: &Child) -> Result<()> {
    kill_process(Pid::from_child(child), Signal::TERM).context("failed to end gunicorn")
}

/// Lists the processes whose parent is `parent`.
fn children(parent: u32) -> Result<Vec<u32>> {
    let entries = fs::read_dir("/proc").context("failed to read /proc")?;
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    Ok(pids.filter(|pid| parent_of(*pid) == Some(parent)).collect())
}

fn parent_of(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    line.trim().parse().ok()
}

fn is_alive(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

fn last_lines(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}
