//! Puts load on the demo application, bounded in rate, count and time.

use std::{
    fmt,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

/// The paths to request, in turn, so that each gets the same share.
pub const PATHS: [&str; 5] = [
    "/api/login",
    "/api/tools",
    "/api/chat",
    "/api/thumbnail",
    "/api/preview",
];
const TIMEOUT: Duration = Duration::from_secs(5);
/// The most bytes of an answer. The application's answers have a few hundred bytes.
const MAX_ANSWER_BYTES: u64 = 64 * 1024;

/// What the load may never exceed.
#[derive(Clone, Copy)]
pub struct Limits {
    /// Connections at the same time.
    pub threads: u32,
    /// Requests in a second, over all threads.
    pub per_second: u32,
    /// Requests in total.
    pub total: u32,
    /// Time in total.
    pub lasting: Duration,
}

/// Load that is going on.
pub struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// What came of a load.
pub struct Summary {
    /// Requests answered with status 200.
    pub answered: u32,
    /// Requests with any other result.
    pub failed: u32,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    taken: AtomicU32,
    answered: AtomicU32,
    failed: AtomicU32,
}

impl Load {
    /// Starts the load. It goes on until [`Load::stop`] or until it reaches a limit.
    pub fn start(address: SocketAddr, limits: Limits) -> Self {
        let shared = Arc::new(Shared::default());
        let started = Instant::now();
        let threads = (0..limits.threads)
            .map(|_| {
                let shared = Arc::clone(&shared);
                thread::spawn(move || shared.send(address, limits, started))
            })
            .collect();
        Self { shared, threads }
    }

    /// Ends the load, and waits for the requests that are under way.
    pub fn stop(self) -> Summary {
        self.shared.stop.store(true, Relaxed);
        for thread in self.threads {
            thread.join().expect("the threads of the load do not panic");
        }
        Summary {
            answered: self.shared.answered.load(Relaxed),
            failed: self.shared.failed.load(Relaxed),
        }
    }
}

impl Shared {
    /// Sends requests. Each request has its time: a thread takes the next request and waits for
    /// that time.
    fn send(&self, address: SocketAddr, limits: Limits, started: Instant) {
        let pace = Duration::from_secs(1) / limits.per_second;
        while !self.stop.load(Relaxed) && started.elapsed() < limits.lasting {
            let number = self.taken.fetch_add(1, Relaxed);
            if number >= limits.total {
                return;
            }
            thread::sleep((pace * number).saturating_sub(started.elapsed()));
            let path = PATHS[number as usize % PATHS.len()];
            let count = match get(address, path) {
                Ok(()) => &self.answered,
                Err(_) => &self.failed,
            };
            count.fetch_add(1, Relaxed);
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} requests answered, {} failed",
            self.answered, self.failed
        )
    }
}

/// Sends one GET request. Anything but status 200 is an error.
pub fn get(address: SocketAddr, path: &str) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT).context("failed to connect")?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER_BYTES).read_to_end(&mut answer)?;
    ensure!(is_ok(&answer), "{path} was not answered with status 200");
    Ok(())
}

fn is_ok(answer: &[u8]) -> bool {
    answer.starts_with(b"HTTP/1.1 200 ") || answer.starts_with(b"HTTP/1.0 200 ")
}

#[cfg(test)]
mod tests {
    use std::{io::BufRead as _, io::BufReader, net::TcpListener};

    use super::*;

    /// Starts a server that answers every request with `status`, until the test ends.
    fn server(status: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound");
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut lines = BufReader::new(&stream).lines();
                while lines
                    .next()
                    .is_some_and(|line| line.is_ok_and(|line| !line.is_empty()))
                {}
                let _ = write!(&stream, "HTTP/1.1 {status}\r\n\r\n");
            }
        });
        address
    }

    fn limits(total: u32) -> Limits {
        Limits {
            threads: 2,
            per_second: 200,
            total,
            lasting: Duration::from_secs(20),
        }
    }

    fn run_out(load: Load, total: u32) -> Summary {
        let deadline = Instant::now() + Duration::from_secs(20);
        let done = |shared: &Shared| shared.answered.load(Relaxed) + shared.failed.load(Relaxed);
        while done(&load.shared) < total && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(10));
        }
        load.stop()
    }

    #[test]
    fn load_ends_at_its_total() {
        let summary = run_out(Load::start(server("200 OK"), limits(25)), 25);
        assert_eq!((summary.answered, summary.failed), (25, 0));
    }

    #[test]
    fn an_error_of_the_server_counts_as_failed() {
        let summary = run_out(Load::start(server("500 Oops"), limits(5)), 5);
        assert_eq!((summary.answered, summary.failed), (0, 5));
    }

    #[test]
    fn load_ends_when_its_time_is_up() {
        let limits = Limits {
            lasting: Duration::from_millis(100),
            ..limits(1_000_000)
        };
        let load = Load::start(server("200 OK"), limits);
        thread::sleep(Duration::from_millis(300));
        assert!(load.threads.iter().all(JoinHandle::is_finished));
        assert!(load.stop().answered < 100);
    }
}
