//! Connections that break, and clients that say nothing sensible.

use anyhow::Result;
use residue_tests::{
    http::{Connection, Request},
    machine,
    windows::Window,
};

use super::{A_MOMENT, Watching, assert_all_done};

/// Those with answers, and those without.
fn apart(windows: Vec<Window>, unanswered: &[&str]) -> (Vec<Window>, Vec<Window>) {
    let is_answered = |window: &Window| {
        let id = window.request_id.as_deref().unwrap_or_default();
        !unanswered.contains(&id)
    };
    windows.into_iter().partition(is_answered)
}

/// A request without an answer has one window at most, and that was cut off.
fn assert_cut_off(windows: &[Window], unanswered: &[&str]) {
    for id in unanswered {
        let of_request = windows
            .iter()
            .filter(|it| it.request_id.as_deref() == Some(*id));
        assert!(of_request.count() <= 1, "{windows:#?}");
    }
    for window in windows {
        assert!(
            ["cut-off", "reset"].contains(&&*window.ended),
            "{window:#?}"
        );
    }
}

#[test]
fn a_connection_that_is_reset_cuts_its_request_off_and_no_other() -> Result<()> {
    let _turn = machine::beside_others();
    let mut watching = Watching::start(&[])?;
    let unanswered = ["in-head", "in-body", "in-response"];
    let mut connection = watching.connect()?;
    watching.ask(&mut connection, "/clean", "before")?;
    connection.send(&Request::get("/clean", unanswered[0]).head()[..60])?;
    std::thread::sleep(A_MOMENT);
    connection.reset()?;

    let mut connection = watching.connect()?;
    let with_body = Request::new("POST", "/echo", unanswered[1]).body(&[b'x'; 1000]);
    connection.send(&with_body.bytes()[..300])?;
    std::thread::sleep(A_MOMENT);
    connection.reset()?;

    let mut connection = watching.connect()?;
    connection.send(&Request::get("/big", unanswered[2]).bytes())?;
    connection.read_exactly(1000)?;
    connection.reset()?;

    watching.ask_as_usual("then")?;
    let answers = watching.answers.clone();
    let windows = watching.end_with(0)?;
    let (answered, cut_off) = apart(windows, &unanswered);
    assert_cut_off(&cut_off, &unanswered);
    // Its response had begun.
    assert!(cut_off.iter().any(|it| it.route == "/big"), "{cut_off:#?}");
    let answered = residue_tests::windows::matched(&answered, &answers)?;
    assert_all_done(&answered.into_iter().cloned().collect::<Vec<_>>());
    Ok(())
}

fn refused(connection: &mut Connection) -> Result<()> {
    assert_eq!(connection.read_line()?, "HTTP/1.1 400 Bad Request");
    Ok(())
}

/// The server refuses them with a response; there was no request.
#[test]
fn garbage_and_silence_have_no_windows() -> Result<()> {
    let _turn = machine::beside_others();
    let mut watching = Watching::start(&[])?;
    for _ in 0..5 {
        watching.connect()?.close()?;
        watching.connect()?.reset()?;
    }
    // A generator of Lehmer's: the same bytes in every run.
    let noise: Vec<u8> = (0..2000_u32)
        .scan(1_u32, |state, _| {
            *state = state.wrapping_mul(48_271) % 0x7fff_ffff;
            Some((*state >> 8) as u8)
        })
        .collect();
    let garbage = [
        &b"\x00GET / HTTP/1.1\r\n\r\n"[..],
        b"\x16\x03garbage",
        b"get / HTTP/1.1\r\n\r\n",
        b"GETX / HTTP/1.1\r\n\r\n",
        &noise,
    ];
    for (number, bytes) in garbage.into_iter().enumerate() {
        let mut connection = watching.connect()?;
        connection.send(bytes)?;
        refused(&mut connection)?;
        drop(connection);
        // Behind a request, on the same connection.
        let mut connection = watching.connect()?;
        watching.ask(&mut connection, "/hundred", &format!("before-{number}"))?;
        connection.send(bytes)?;
        refused(&mut connection)?;
        connection.close()?;
    }
    watching.ask_as_usual("then")?;
    let windows = watching.end()?;
    assert!(
        windows.iter().all(|it| it.confidence == "exact"),
        "{windows:#?}"
    );
    Ok(())
}
