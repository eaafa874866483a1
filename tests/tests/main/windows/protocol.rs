//! The corners of HTTP/1.1, on a strict and blocking server: whatever comes, each request that was answered
//! has exactly one window, and nothing else has any.

mod broken;
mod late;
mod odd;

use std::time::Duration;

use anyhow::Result;
use residue_tests::{
    http::{Answer, Connection, Load, Request, Response},
    machine,
    servers::Server,
    windows::{Watcher, Window, matched},
};

/// Long enough for the kernel to hand over what was sent so far as a piece of its own.
pub const A_MOMENT: Duration = Duration::from_millis(1);

/// A server that is watched, and what it has answered.
struct Watching {
    server: Server,
    watcher: Watcher,
    answers: Vec<Answer>,
}

impl Watching {
    fn start(arguments: &[&str]) -> Result<Self> {
        let server = Server::thread_per_connection(arguments)?;
        Ok(Self {
            watcher: Watcher::json(server.pid)?,
            server,
            answers: Vec::new(),
        })
    }

    fn connect(&self) -> Result<Connection> {
        Connection::open(self.server.port)
    }

    fn answered(&mut self, id: &str, path: &str, response: &Response) {
        self.answers.push(Answer {
            id: id.to_owned(),
            path: path.to_owned(),
            status: response.status,
        });
    }

    /// Asks for a path, on a connection of its own if none is given.
    fn ask(&mut self, connection: &mut Connection, path: &str, id: &str) -> Result<()> {
        let response = connection.ask(&Request::get(path, id))?;
        self.answered(id, path, &response);
        Ok(())
    }

    /// A few requests as any client's: they are counted whatever came before.
    fn ask_as_usual(&mut self, name: &str) -> Result<()> {
        let load = Load {
            rounds: 3,
            ..Load::once(name, &["/clean", "/hundred"])
        };
        self.answers.extend(load.run(self.server.port)?);
        Ok(())
    }

    /// All windows, in the order of the answers. Connections have to be closed.
    fn end(self) -> Result<Vec<Window>> {
        let answers = self.answers.clone();
        let windows = self.end_with(0)?;
        Ok(matched(&windows, &answers)?.into_iter().cloned().collect())
    }

    /// All windows in their order, of which `more` have no answer.
    fn end_with(mut self, more: usize) -> Result<Vec<Window>> {
        assert_eq!(
            self.server.answered()?,
            self.answers.len(),
            "by both accounts"
        );
        self.watcher.await_lines(self.answers.len() + more)?;
        self.watcher.stop()?.windows()
    }
}

fn assert_all_done(windows: &[Window]) {
    for window in windows {
        assert_eq!(
            (&*window.ended, &*window.confidence),
            ("done", "exact"),
            "{window:#?}"
        );
    }
}

#[test]
fn every_way_to_read_and_to_send_is_seen() -> Result<()> {
    let _turn = machine::alone();
    let mut watching = Watching::start(&["ways"])?;
    let load = Load {
        name: "way",
        // As many connections as there are pairs of ways.
        clients: 20,
        rounds: 4,
        paths: &["/thousand"],
        keep_alive: true,
    };
    watching.answers = load.run(watching.server.port)?;
    let windows = watching.end()?;
    assert_all_done(&windows);
    assert!(
        windows.iter().all(|it| it.retained_bytes == 1000),
        "{windows:#?}"
    );
    Ok(())
}

#[test]
fn every_method_has_a_route() -> Result<()> {
    let _turn = machine::alone();
    let mut watching = Watching::start(&[])?;
    let mut connection = watching.connect()?;
    let methods = [
        "GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE",
    ];
    for method in methods {
        let response = connection.ask(&Request::new(method, "/clean", method))?;
        watching.answered(method, "/clean", &response);
    }
    connection.close()?;
    let windows = watching.end()?;
    assert_all_done(&windows);
    let seen: Vec<_> = windows
        .iter()
        .filter_map(|it| it.method.as_deref())
        .collect();
    assert_eq!(seen, methods);
    Ok(())
}

#[test]
fn a_head_in_two_pieces_is_one_head_wherever_it_is_cut() -> Result<()> {
    let _turn = machine::alone();
    let mut watching = Watching::start(&[])?;
    let mut connection = watching.connect()?;
    for at in 1..Request::get("/thousand", "cut-00").head().len() {
        let id = format!("cut-{at:02}");
        let request = Request::get("/thousand", &id);
        let head = request.head();
        let (first, second) = head.split_at(at);
        connection.send(first)?;
        std::thread::sleep(A_MOMENT);
        connection.send(second)?;
        let response = connection.receive_to(&request)?;
        watching.answered(&id, "/thousand", &response);
    }
    connection.close()?;
    let windows = watching.end()?;
    assert_all_done(&windows);
    assert!(
        windows.iter().all(|it| it.retained_bytes == 1000),
        "{windows:#?}"
    );
    Ok(())
}

#[test]
fn a_head_that_comes_byte_by_byte_is_one_head() -> Result<()> {
    let _turn = machine::alone();
    let mut watching = Watching::start(&["ways"])?;
    for number in 0..4 {
        let mut connection = watching.connect()?;
        let id = format!("bytes-{number}");
        let request = Request::get("/thousand", &id);
        connection.send_in_pieces(&request.head(), 1, A_MOMENT)?;
        let response = connection.receive_to(&request)?;
        watching.answered(&id, "/thousand", &response);
        connection.close()?;
    }
    let windows = watching.end()?;
    assert_all_done(&windows);
    // From the first byte of the head on.
    let least = u64::try_from(A_MOMENT.as_nanos())? * 60;
    assert!(
        windows.iter().all(|it| it.duration_ns >= Some(least)),
        "{windows:#?}"
    );
    Ok(())
}

#[test]
fn an_interim_response_does_not_end_a_request() -> Result<()> {
    let _turn = machine::alone();
    let mut watching = Watching::start(&[])?;
    let mut connection = watching.connect()?;
    for id in ["first", "second", "third"] {
        let request = Request::new("POST", "/echo", id).header("Expect", "100-continue");
        let request = request.body(b"what was asked for");
        let (head, body) = (request.head(), b"what was asked for");
        connection.send(&head)?;
        assert_eq!(connection.read_line()?, "HTTP/1.1 100 Continue");
        assert_eq!(connection.read_line()?, "");
        connection.send(body)?;
        let response = connection.receive_to(&request)?;
        assert_eq!(response.body, body);
        watching.answered(id, "/echo", &response);
    }
    connection.close()?;
    assert_all_done(&watching.end()?);
    Ok(())
}

#[test]
fn a_stream_is_one_request_to_its_last_chunk() -> Result<()> {
    let _turn = machine::alone();
    let mut watching = Watching::start(&[])?;
    let mut connection = watching.connect()?;
    for number in 0..10 {
        let id = format!("chunks-{number}");
        let response = connection.ask(&Request::get("/chunks", &id))?;
        assert_eq!(response.body.len(), 1500);
        watching.answered(&id, "/chunks", &response);
        let id = format!("echo-{number}");
        let body = b"GET / HTTP/1.1\r\n".repeat(60);
        let response = connection.ask(&Request::new("POST", "/echo", &id).chunked(&body, 300))?;
        assert_eq!(response.body, body);
        watching.answered(&id, "/echo", &response);
    }
    connection.close()?;
    let windows = watching.end()?;
    assert_all_done(&windows);
    for window in windows {
        // Each chunk is allocated when those before it have been sent.
        let kept = if window.route == "/chunks" {
            (1500, 5)
        } else {
            (0, 0)
        };
        let retained = (window.retained_bytes, window.retained_objects);
        assert_eq!(retained, kept, "{window:#?}");
    }
    Ok(())
}

#[test]
fn requests_that_arrive_together_are_all_counted() -> Result<()> {
    let _turn = machine::alone();
    let mut watching = Watching::start(&[])?;
    for count in [2, 5] {
        let mut connection = watching.connect()?;
        let ids: Vec<_> = (0..count).map(|it| format!("{count}-{it}")).collect();
        let requests: Vec<_> = ids.iter().map(|id| Request::get("/thousand", id)).collect();
        connection.send(&requests.iter().flat_map(Request::bytes).collect::<Vec<_>>())?;
        for (request, id) in requests.iter().zip(&ids) {
            let response = connection.receive_to(request)?;
            watching.answered(id, "/thousand", &response);
        }
        connection.close()?;
    }
    let windows = watching.end_with(0)?;
    assert_eq!(windows.len(), 7, "{windows:#?}");
    for window in &windows {
        assert_eq!(window.status, Some(200), "{window:#?}");
        // Read together, they are worked on in a row that nobody sees: a block is one of theirs.
        assert_eq!(window.confidence, "candidates", "{window:#?}");
        let together = window.candidates.map(u64::from);
        assert_eq!(together.map(|it| it * 1000), Some(window.retained_bytes));
    }
    let with_id = |id: &&str| {
        let ids = windows.iter().filter_map(|it| it.request_id.as_deref());
        ids.filter(|it| it == id).count()
    };
    // What is read is the first one's head.
    assert_eq!(
        ["2-0", "5-0"].map(|id| with_id(&id)),
        [1, 1],
        "{windows:#?}"
    );
    Ok(())
}
