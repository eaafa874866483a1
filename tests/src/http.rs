//! A client of HTTP/1.1 that counts what servers answer, and can be slow, rude or wrong.

mod load;
mod mix;

use std::{
    io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _},
    net::{Shutdown, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::net::sockopt::set_socket_linger;

pub use load::{Answer, Load};
pub use mix::Mix;

use crate::machine::PATIENCE;

/// A request, as it will be sent.
#[derive(Clone, Debug)]
pub struct Request {
    head: String,
    body: Vec<u8>,
    is_head: bool,
}

impl Request {
    /// A request with an id, which stands first among its headers: of a head only the beginning is looked
    /// at.
    #[must_use]
    pub fn new(method: &str, target: &str, id: &str) -> Self {
        Self {
            head: format!(
                "{method} {target} HTTP/1.1\r\nX-Request-ID: {id}\r\nHost: 127.0.0.1\r\n"
            ),
            body: Vec::new(),
            is_head: method == "HEAD",
        }
    }

    /// A request that wants a resource.
    #[must_use]
    pub fn get(target: &str, id: &str) -> Self {
        Self::new("GET", target, id)
    }

    /// With one more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.head.push_str(&format!("{name}: {value}\r\n"));
        self
    }

    /// The last one on its connection.
    #[must_use]
    pub fn closing(self) -> Self {
        self.header("Connection", "close")
    }

    /// With a body of known length.
    #[must_use]
    pub fn body(self, body: &[u8]) -> Self {
        let with = self.header("Content-Length", &body.len().to_string());
        Self {
            body: body.to_vec(),
            ..with
        }
    }

    /// With a body in chunks of at most `size` bytes (RFC 9112, section 7.1).
    #[must_use]
    pub fn chunked(self, body: &[u8], size: usize) -> Self {
        let mut chunks = Vec::new();
        for chunk in body.chunks(size) {
            chunks.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
            chunks.extend(chunk);
            chunks.extend(b"\r\n");
        }
        chunks.extend(b"0\r\n\r\n");
        Self {
            body: chunks,
            ..self.header("Transfer-Encoding", "chunked")
        }
    }

    /// Up to the empty line, which is included.
    #[must_use]
    pub fn head(&self) -> Vec<u8> {
        format!("{}\r\n", self.head).into_bytes()
    }

    /// All of it.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        [self.head(), self.body.clone()].concat()
    }
}

/// A final response: one that is not interim, or 101.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// From the status line.
    pub status: u16,
    /// Interim responses (1xx) that came before it.
    pub interim: usize,
    /// Its body, decoded.
    pub body: Vec<u8>,
}

/// What says how a response goes on.
#[derive(Default)]
struct Head {
    status: u16,
    length: Option<usize>,
    chunked: bool,
}

/// A connection of the client.
#[derive(Debug)]
pub struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    /// Connects to a port of this machine. What is sent goes out at once, as it is.
    ///
    /// # Errors
    ///
    /// When nobody listens.
    pub fn open(port: u16) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).context("nobody listens")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let stream = BufReader::new(stream);
        Ok(Self { stream })
    }

    /// Sends bytes in one call.
    ///
    /// # Errors
    ///
    /// When the server no longer reads.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        let stream = self.stream.get_mut();
        stream.write_all(bytes).context("the server does not read")
    }

    /// Sends bytes in pieces of `size`, with a pause before each but the first.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub fn send_in_pieces(&mut self, bytes: &[u8], size: usize, pause: Duration) -> Result<()> {
        for (number, piece) in bytes.chunks(size).enumerate() {
            if number > 0 {
                std::thread::sleep(pause);
            }
            self.send(piece)?;
        }
        Ok(())
    }

    /// Sends a request and waits for its response.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn ask(&mut self, request: &Request) -> Result<Response> {
        self.send(&request.bytes())?;
        self.receive_to(request)
    }

    /// The response to a request that was sent.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn receive_to(&mut self, request: &Request) -> Result<Response> {
        let mut interim = 0;
        let head = loop {
            let head = self.read_head()?;
            if head.status >= 200 || head.status == 101 {
                break head;
            }
            interim += 1;
        };
        let bodiless = request.is_head || matches!(head.status, 101 | 204 | 304);
        let body = match head {
            _ if bodiless => Vec::new(),
            Head { chunked: true, .. } => self.read_chunks()?,
            Head {
                length: Some(length),
                ..
            } => self.read_exactly(length)?,
            Head { .. } => bail!("the response does not say how long it is"),
        };
        Ok(Response {
            status: head.status,
            interim,
            body,
        })
    }

    fn read_head(&mut self) -> Result<Head> {
        let first = self.read_line()?;
        let status = first.strip_prefix("HTTP/1.").and_then(|it| it.get(2..5));
        let status = status.with_context(|| format!("a status line, and not {first:?}"))?;
        let mut head = Head {
            status: status.parse()?,
            ..Head::default()
        };
        loop {
            let line = self.read_line()?.to_ascii_lowercase();
            match line.split_once(": ") {
                Some(("content-length", length)) => head.length = Some(length.parse()?),
                Some(("transfer-encoding", "chunked")) => head.chunked = true,
                Some(_) => {}
                None => return Ok(head),
            }
        }
    }

    fn read_chunks(&mut self) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let length = usize::from_str_radix(&self.read_line()?, 16)?;
            body.extend(self.read_exactly(length)?);
            ensure!(self.read_line()?.is_empty(), "a chunk has its length");
            if length == 0 {
                return Ok(body);
            }
        }
    }

    /// One line, without its end.
    ///
    /// # Errors
    ///
    /// When the connection is closed.
    pub fn read_line(&mut self) -> Result<String> {
        let mut line = String::new();
        let read = self.stream.read_line(&mut line)?;
        ensure!(read > 0, "the server closed the connection");
        Ok(line.trim_end_matches(['\r', '\n']).to_owned())
    }

    /// So many bytes.
    ///
    /// # Errors
    ///
    /// When the connection is closed before.
    pub fn read_exactly(&mut self, length: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Closes its own side, and waits until the server has closed its.
    ///
    /// # Errors
    ///
    /// When the server does not.
    pub fn close(mut self) -> Result<()> {
        match self.stream.get_ref().shutdown(Shutdown::Write) {
            Err(error) if error.kind() != ErrorKind::NotConnected => return Err(error.into()),
            _ => {}
        }
        match self.stream.read_to_end(&mut Vec::new()) {
            Err(error) if error.kind() != ErrorKind::ConnectionReset => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Ends the connection by a reset.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn reset(self) -> Result<()> {
        set_socket_linger(self.stream.get_ref(), Some(Duration::ZERO))?;
        Ok(())
    }
}
