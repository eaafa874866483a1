//! Routes that keep what is known of each request. Prints `ready PORT` and ends with its input.

use std::{collections::VecDeque, io, sync::Mutex, time::Duration};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    runtime,
    time::sleep,
};

const KEPT_BYTES: usize = 20_000;
const HELD: usize = 50;
static HOLDS: Mutex<VecDeque<Vec<u8>>> = Mutex::new(VecDeque::new());

fn serve(path: &str) -> bool {
    let block = vec![1_u8; KEPT_BYTES];
    match path {
        "/leak" => std::mem::forget(block),
        "/some" => {
            let mut holds = HOLDS.lock().unwrap();
            holds.push_back(block);
            if holds.len() > HELD {
                holds.pop_front();
            }
        }
        "/clean" => {}
        _ => return false,
    }
    true
}

async fn answer(stream: TcpStream) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut first = String::new();
        if stream.read_line(&mut first).await? == 0 {
            return Ok(());
        }
        let mut line = String::new();
        while stream.read_line(&mut line).await? > 2 {
            line.clear();
        }
        sleep(Duration::from_millis(1)).await;
        let path = first.split(' ').nth(1).unwrap_or_default();
        let status = if serve(path) { "200 OK" } else { "404 Not Found" };
        sleep(Duration::from_millis(1)).await;
        let response = format!("HTTP/1.1 {status}\r\nContent-Length: 4\r\n\r\ndone");
        stream.get_mut().write_all(response.as_bytes()).await?;
    }
}

async fn listen() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("ready {}", listener.local_addr()?.port());
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(answer(stream));
    }
}

fn main() -> io::Result<()> {
    let mut threads = runtime::Builder::new_multi_thread();
    let runtime = threads.worker_threads(4).enable_all().build()?;
    runtime.spawn(listen());
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}
