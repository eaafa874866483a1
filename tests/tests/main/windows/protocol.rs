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
    let _turn = machine::beside_others();
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
        windows.iter().all(|it| it.retained_bytes == Some(1000)),
        "{windows:#?}"
    );
    Ok(())
}

/// In two pieces.
fn cut_anywhere(watching: &mut Watching) -> Result<()> {
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
    Ok(())
}

/// As slowly as can be.
fn byte_by_byte(watching: &mut Watching) -> Result<()> {
    for number in 0..4 {
        let mut connection = watching.connect()?;
        let id = format!("bytes-{number}");
        let request = Request::get("/thousand", &id);
        connection.send_in_pieces(&request.head(), 1, A_MOMENT)?;
        let response = connection.receive_to(&request)?;
        watching.answered(&id, "/thousand", &response);
        connection.close()?;
    }
    Ok(())
}

/// Of which only the beginning is looked at.
fn of_64_kib(watching: &mut Watching) -> Result<()> {
    let mut connection = watching.connect()?;
    for id in ["first", "second"] {
        let request = Request::get("/thousand", id).header("X-Padding", &"GET / ".repeat(11_000));
        let response = connection.ask(&request)?;
        assert_eq!(response.status, 200);
        watching.answered(id, "/thousand", &response);
        watching.ask(&mut connection, "/clean", &format!("after-{id}"))?;
    }
    connection.close()?;
    Ok(())
}

#[test]
fn a_head_is_one_head_however_it_comes() -> Result<()> {
    let _turn = machine::beside_others();
    let mut watching = Watching::start(&["ways"])?;
    cut_anywhere(&mut watching)?;
    byte_by_byte(&mut watching)?;
    of_64_kib(&mut watching)?;
    let windows = watching.end()?;
    assert_all_done(&windows);
    for window in &windows {
        assert!(
            window.retained_bytes == Some(1000) || window.route == "/clean",
            "{window:#?}"
        );
    }
    let id = |window: &&Window| {
        window
            .request_id
            .as_deref()
            .is_some_and(|id| id.starts_with("bytes"))
    };
    // From the first byte of the head on.
    let least = u64::try_from(A_MOMENT.as_nanos())? * 60;
    assert!(
        windows
            .iter()
            .filter(id)
            .all(|it| it.duration_ns >= Some(least)),
        "{windows:#?}"
    );
    Ok(())
}

const METHODS: [&str; 8] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE",
];

fn every_method(watching: &mut Watching) -> Result<()> {
    let mut connection = watching.connect()?;
    for method in METHODS {
        let response = connection.ask(&Request::new(method, "/clean", method))?;
        watching.answered(method, "/clean", &response);
    }
    connection.close()?;
    Ok(())
}

/// Which servers skip.
fn empty_lines(watching: &mut Watching) -> Result<()> {
    let mut connection = watching.connect()?;
    for method in METHODS {
        let id = format!("line-{method}");
        let request = Request::new(method, "/clean", &id);
        connection.send(&[b"\r\n", &*request.head()].concat())?;
        let response = connection.receive_to(&request)?;
        watching.answered(&id, "/clean", &response);
    }
    connection.close()?;
    Ok(())
}

/// The response is still to come after them.
fn interim_responses(watching: &mut Watching) -> Result<()> {
    let mut connection = watching.connect()?;
    for id in ["interim-1", "interim-2", "interim-3"] {
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
    Ok(())
}

/// Both ways; each chunk of a stream is allocated when those before it have been sent.
fn chunked_bodies(watching: &mut Watching) -> Result<()> {
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
    Ok(())
}

/// A body that looks like a request is none.
fn bodies_like_heads(watching: &mut Watching) -> Result<()> {
    let mut connection = watching.connect()?;
    let body = Request::get("/hidden", "hidden").bytes();
    for id in ["body-1", "body-2"] {
        let request = Request::new("POST", "/echo", id).body(&body);
        connection.send(&request.head())?;
        std::thread::sleep(A_MOMENT);
        connection.send(&body)?;
        let response = connection.receive_to(&request)?;
        assert_eq!(response.body, body);
        watching.answered(id, "/echo", &response);
    }
    connection.close()?;
    Ok(())
}

#[test]
fn a_request_is_one_request_whatever_belongs_to_it() -> Result<()> {
    let _turn = machine::beside_others();
    let mut watching = Watching::start(&[])?;
    every_method(&mut watching)?;
    empty_lines(&mut watching)?;
    interim_responses(&mut watching)?;
    chunked_bodies(&mut watching)?;
    bodies_like_heads(&mut watching)?;
    let windows = watching.end()?;
    assert_all_done(&windows);
    let seen = windows.iter().filter_map(|it| it.method.as_deref());
    assert_eq!(seen.take(METHODS.len()).collect::<Vec<_>>(), METHODS);
    for window in windows {
        let kept = if window.route == "/chunks" {
            (Some(1500), Some(5))
        } else {
            (Some(0), Some(0))
        };
        let retained = (window.retained_bytes, window.retained_objects);
        assert_eq!(retained, kept, "{window:#?}");
    }
    Ok(())
}

#[test]
fn requests_that_arrive_together_are_all_counted() -> Result<()> {
    let _turn = machine::beside_others();
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
        assert_eq!(together.map(|it| it * 1000), window.retained_bytes);
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
