//! The resident set of a line is the kernel's.

use std::{fs, thread, time::Duration};

use anyhow::{Context as _, Result};
use residue_tests::{
    http::{Connection, Request},
    machine,
    servers::Server,
    windows::Watcher,
};

const REQUESTS: usize = 200;
const KEPT_BYTES: u64 = 100_000;
const PAGE: u64 = 4096;
/// Counters of resident pages: of files, anonymous, and shared memory.
const COUNTERS: u64 = 3;
/// Pages that a CPU keeps to itself, at most, before it adds them to a counter (`percpu_counter_batch`,
/// lib/percpu_counter.c): at least, and for each CPU.
const BATCH: u64 = 32;
/// The same for each CPU that there is.
const BATCH_PER_CPU: u64 = 2;

/// Bytes by which the kernel's counters, read without what each CPU keeps to itself, may be off.
fn page_batch() -> Result<u64> {
    let cpus = thread::available_parallelism()?.get() as u64;
    Ok(COUNTERS * cpus * BATCH.max(BATCH_PER_CPU * cpus) * PAGE)
}

fn resident_bytes(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/statm"))?;
    let pages = text.split_whitespace().nth(1).context("a second number")?;
    Ok(pages.parse::<u64>()? * PAGE)
}

#[test]
fn memory_agrees_with_proc_at_quiet_moments() -> Result<()> {
    let _turn = machine::beside_others();
    let server = Server::thread_per_connection(&[])?;
    let watcher = Watcher::start(server.pid, &["--json", "--rss-only"])?;
    let before = resident_bytes(server.pid)?;
    let mut connection = Connection::open(server.port)?;
    for number in 0..REQUESTS {
        connection.ask(&Request::get("/hundred-thousand", &number.to_string()))?;
    }
    connection.close()?;
    // Until then the server's thread may be at work on the last one.
    thread::sleep(Duration::from_millis(100));
    let after = resident_bytes(server.pid)?;
    watcher.await_lines(REQUESTS)?;
    let windows = watcher.stop()?.windows()?;
    let near = |own: Option<u64>, of_proc: u64| -> Result<()> {
        let own = own.context("the kernel says how large the resident set is")?;
        let batch = page_batch()?;
        assert!(
            own.abs_diff(of_proc) <= batch,
            "{own}, and /proc says {of_proc}"
        );
        Ok(())
    };
    near(windows[0].rss_open_bytes, before)?;
    near(windows[REQUESTS - 1].rss_close_bytes, after)?;
    assert!(
        windows.iter().all(|it| it.retained_bytes.is_none()),
        "no allocation was followed"
    );
    let grown: i64 = windows.iter().filter_map(|window| window.delta_bytes).sum();
    let kept = REQUESTS as u64 * KEPT_BYTES;
    assert!(
        grown.unsigned_abs().abs_diff(kept) <= 2 * page_batch()?,
        "the deltas add up to {grown}, where {kept} were kept"
    );
    Ok(())
}
