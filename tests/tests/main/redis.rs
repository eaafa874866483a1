//! Debian's redis-server, as it is installed: jemalloc in a shared library, no symbols, no frame
//! pointers. What each `SET` leaves behind is known to the byte from redis's own sources.
//!
//! Each test overwrites keys that already exist and hold small integers. Redis shares the objects
//! of small integers, so nothing is freed, the key and its dictionary entry stay, no hash table
//! grows, and a `SET` leaves exactly two blocks (redis 7.0):
//!
//! - the object, `sizeof(robj)`: 16 bytes (server.h, createObject);
//! - the string: a header of 5 bytes (`sdshdr16`, for 256 to 65,535 bytes), the value, and a
//!   closing zero (sds.c, sdsnewlen). At these sizes tryObjectEncoding leaves it alone: what
//!   jemalloc gives beyond the request is less than a tenth.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::UnixStream,
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use residue_tests::{
    code_bytes::assert_clean,
    machine::{self, PATIENCE, REDIS, wait_until},
    recorder::Recorder,
    report::Report,
    target::Target,
};
use tempfile::TempDir;

const KEYS: u64 = 3000;
const OBJECT_BYTES: u64 = 16;
const STRING_OVERHEAD_BYTES: u64 = 5 + 1;
/// Long enough for every buffer of the connection to have the size that it keeps.
const SETTLING: Duration = Duration::from_secs(8);

struct Redis {
    process: Target,
    connection: BufReader<UnixStream>,
    _directory: TempDir,
}

impl Redis {
    /// Starts a server that listens on a socket file only and writes nothing to disk.
    fn start() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let socket = directory.path().join("redis.sock");
        let mut command = Command::new("redis-server");
        command
            .args([
                "--port",
                "0",
                "--save",
                "",
                "--appendonly",
                "no",
                "--activerehashing",
                "no",
            ])
            .args(["--enable-debug-command", "yes", "--unixsocket"])
            .arg(&socket)
            .arg("--dir")
            .arg(directory.path());
        let process = Target::spawn(&mut command)?;
        ensure!(
            wait_until(PATIENCE, || UnixStream::connect(&socket).is_ok()),
            "redis-server does not listen"
        );
        let stream = UnixStream::connect(&socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self {
            process,
            connection: BufReader::new(stream),
            _directory: directory,
        })
    }

    /// Sends one command in redis's protocol (RESP) and reads its answer: a line, or a blob.
    fn ask(&mut self, words: &[&str]) -> Result<String> {
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        self.connection.get_mut().write_all(request.as_bytes())?;
        let mut answer = String::new();
        self.connection.read_line(&mut answer)?;
        match answer.trim_end().split_at_checked(1) {
            Some(("$", length)) => self.read_blob(length.parse()?),
            Some(("-", error)) => bail!("redis says {error}"),
            Some((_, line)) => Ok(line.to_owned()),
            None => bail!("redis closed the connection"),
        }
    }

    fn read_blob(&mut self, length: usize) -> Result<String> {
        let mut blob = vec![0; length + 2];
        self.connection.read_exact(&mut blob)?;
        blob.truncate(length);
        Ok(String::from_utf8(blob)?)
    }

    fn set_all(&mut self, value: &str) -> Result<()> {
        for key in 0..KEYS {
            let answer = self.ask(&["SET", &format!("key:{key:08}"), value])?;
            ensure!(answer == "OK", "SET answered {answer}");
        }
        Ok(())
    }

    /// All keys exist, and nothing in the server grows or shrinks by itself any more.
    fn settle(&mut self) -> Result<()> {
        // Buffers as large as the requests to come.
        self.set_all(&"x".repeat(2000))?;
        self.ask(&["DEBUG", "REPLYBUFFER", "RESIZING", "0"])?;
        self.set_all("7")?;
        self.used_memory()?;
        thread::sleep(SETTLING);
        self.set_all("7")
    }

    /// What redis itself counts, in bytes of jemalloc's size classes.
    fn used_memory(&mut self) -> Result<u64> {
        let info = self.ask(&["INFO", "memory"])?;
        let line = info
            .lines()
            .find_map(|line| line.strip_prefix("used_memory:"));
        line.context("INFO has no used_memory")?
            .trim()
            .parse()
            .context("used_memory is a number")
    }
}

/// A client's query buffer: `PROTO_IOBUF_LEN`, and the header and final NUL of an `sdshdr16`.
const QUERY_BUFFER_BYTES: u64 = 16_384 + 6;

/// Asserts that redis keeps `bytes` in `objects` blocks, or those and its client's query buffer. It
/// gives that back when the client has been idle for two seconds (`clientsCronResizeQueryBuffer`),
/// which it may have been while the recorder started, and takes a new one with the next request.
fn assert_keeps(report: &Report, bytes: u64, objects: u64) {
    let kept = (report.outstanding_bytes(), report.outstanding_objects());
    let with_buffer = (bytes + QUERY_BUFFER_BYTES, objects + 1);
    assert!(
        kept == (bytes, objects) || kept == with_buffer,
        "redis keeps {kept:?}, not {:?} (or {with_buffer:?} with a query buffer)",
        (bytes, objects),
    );
}

#[test]
fn a_redis_that_overwrites_integers_by_integers_keeps_nothing() -> Result<()> {
    let _turn = machine::beside_others();
    if !machine::has(REDIS) {
        return Ok(());
    }
    let mut redis = Redis::start()?;
    redis.settle()?;
    let recorder = Recorder::start(&[redis.process.pid()], &[])?;
    redis.set_all("8")?;
    let report = recorder.stop()?.report()?;
    assert_keeps(&report, 0, 0);
    assert_eq!(report.losses().len(), 0, "{:?}", report.losses());
    let allocated: u64 = report.stacks.iter().map(|stack| stack.alloc_objects).sum();
    assert!(
        allocated >= 3 * KEYS,
        "a SET has three arguments, each an object: {allocated}"
    );
    assert_clean(redis.process.pid())
}

#[test]
fn each_set_in_redis_leaves_exactly_its_object_and_its_string() -> Result<()> {
    let _turn = machine::beside_others();
    if !machine::has(REDIS) {
        return Ok(());
    }
    // Requests of 1006 and 3014 bytes: jemalloc gives 1024 and 3072 (its size classes).
    for (value_bytes, class) in [(1000, 1024), (3008, 3072)] {
        let mut redis = Redis::start()?;
        redis.settle()?;
        let before = redis.used_memory()?;
        let recorder = Recorder::start(&[redis.process.pid()], &[])?;
        redis.set_all(&"v".repeat(usize::try_from(value_bytes)?))?;
        let report = recorder.stop()?.report()?;
        let grown = redis.used_memory()? - before;

        let a_set = OBJECT_BYTES + value_bytes + STRING_OVERHEAD_BYTES;
        assert_eq!(
            grown,
            KEYS * (OBJECT_BYTES + class),
            "by redis's own account"
        );
        assert_keeps(&report, KEYS * a_set, KEYS * 2);
        assert_eq!(report.losses().len(), 0, "{:?}", report.losses());
        assert_clean(redis.process.pid())?;
    }
    Ok(())
}
