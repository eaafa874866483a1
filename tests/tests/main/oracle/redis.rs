//! Debian's redis-server under load: jemalloc, many kinds of values, and Lua.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    process::Command,
};

use anyhow::{Result, ensure};
use residue_tests::{
    machine::{self, PATIENCE, REDIS, wait_until},
    target::Target,
};

use super::{assert_agreement, load::Load};

/// Makes tables and strings, calls back into redis, and raises errors that it catches.
const SCRIPT: &str = "local t = {} for i = 1, 30 do t[i] = string.rep(ARGV[1], i % 7) end \
    redis.pcall('SET', KEYS[1], table.concat(t, ',')) redis.pcall('LPOP', KEYS[1]) \
    return cjson.encode({t, cmsgpack.pack(t), redis.call('TYPE', KEYS[1])})";

#[test]
fn redis_has_the_stacks_that_framehop_finds() -> Result<()> {
    let _turn = machine::beside_others();
    if !machine::has(REDIS) {
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    let socket = directory.path().join("redis.sock");
    let target = Target::spawn(
        Command::new(REDIS.program)
            .args(["--port", "0", "--save", "", "--appendonly", "no"])
            .args(["--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru"])
            .arg("--unixsocket")
            .arg(&socket)
            .arg("--dir")
            .arg(directory.path()),
    )?;
    ensure!(
        wait_until(PATIENCE, || UnixStream::connect(&socket).is_ok()),
        "redis-server does not listen"
    );
    let load = Load::start(move |round| exchange(&socket, round));
    assert_agreement("redis", target.pid())?;
    load.finish()
}

/// A connection's worth of commands. The answers are not looked at, up to a last one.
fn exchange(socket: &Path, round: u64) -> Result<()> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut requests = Vec::new();
    for step in 0..40 {
        for command in commands(round * 40 + step) {
            encode(&command, &mut requests);
        }
    }
    let last = format!("the end of round {round}");
    encode(&["ECHO".to_owned(), last.clone()], &mut requests);
    stream.write_all(&requests)?;
    let mut answers = Vec::new();
    let mut part = [0; 1 << 16];
    while !answers.ends_with(format!("{last}\r\n").as_bytes()) {
        let length = stream.read(&mut part)?;
        ensure!(length > 0, "redis closed the connection");
        answers.extend(&part[..length]);
    }
    Ok(())
}

fn commands(step: u64) -> Vec<Vec<String>> {
    let key = step.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54;
    let value = "v".repeat(usize::try_from(step % 900).unwrap_or(0));
    let lines = match step % 12 {
        0 => format!("SET string:{key} {value}.\nEXPIRE string:{key} 5"),
        1 => format!("GET string:{key}\nAPPEND string:{key} {value}."),
        2 => format!("LPUSH list:{key} a b {value}.\nLTRIM list:{key} 0 60"),
        3 => format!("ZADD zset:{key} {step} m{step} 2 {value}.\nZREMRANGEBYRANK zset:{key} 0 -80"),
        4 => format!("HSET hash:{key} f{step} {value}. g 1\nHGETALL hash:{key}"),
        5 => format!("SADD set:{key} {step} {key} word\nSUNIONSTORE set:all set:{key} set:1"),
        6 => format!("DEL string:{key} hash:{key}\nSORT list:{key} ALPHA"),
        7 => format!("XADD stream:{key} MAXLEN 50 * field {value}.\nXRANGE stream:{key} - +"),
        8 => format!("SETRANGE string:{key} 300 {value}.\nOBJECT ENCODING string:{key}"),
        9 => format!("PFADD log:{key} {step} {key}\nINFO memory"),
        10 => format!("MULTI\nINCR number:{key}\nKEYS number:{key}*\nEXEC"),
        _ => return vec![evaluate(key, &value)],
    };
    lines
        .lines()
        .map(|line| line.split(' ').map(str::to_owned).collect())
        .collect()
}

fn evaluate(key: u64, value: &str) -> Vec<String> {
    let key = format!("lua:{key}");
    ["EVAL", SCRIPT, "1", &key, value]
        .map(str::to_owned)
        .to_vec()
}

/// In redis's protocol (RESP): an array of strings.
fn encode(words: &[String], requests: &mut Vec<u8>) {
    requests.extend(format!("*{}\r\n", words.len()).bytes());
    for word in words {
        requests.extend(format!("${}\r\n{word}\r\n", word.len()).bytes());
    }
}
