//! Tests of heads as servers get them: whole, in pieces and cut.

use crate::requests::head::{
    HEAD_BYTES, Head, HeadParser, IdHeader, IdHeaderError, Method, RequestHead, ResponseHead,
    Target, Version,
};

fn parse(fragments: &[&[u8]]) -> Head {
    let mut parser = HeadParser::default();
    for fragment in fragments {
        parser.push(fragment, &IdHeader::default());
    }
    parser.finish()
}

fn request(head: &str) -> RequestHead {
    match parse(&[head.as_bytes()]) {
        Head::Request(request) => request,
        other => panic!("{other:?}"),
    }
}

fn response(head: &str) -> ResponseHead {
    match parse(&[head.as_bytes()]) {
        Head::Response(response) => response,
        other => panic!("{other:?}"),
    }
}

fn path(text: &str) -> Target {
    Target::Path {
        text: text.into(),
        cut: false,
    }
}

fn cut(text: &str) -> Target {
    Target::Path {
        text: text.into(),
        cut: true,
    }
}

#[test]
fn a_request_is_read_wherever_it_is_split() {
    let whole = b"POST /api/chat?q=1 HTTP/1.1\r\nHost: a\r\nX-Request-ID: abc123\r\n\r\nbody";
    let expected = parse(&[whole]);
    let Head::Request(head) = &expected else {
        panic!("{expected:?}");
    };
    assert_eq!(
        (head.method, &head.target),
        (Method::Post, &path("/api/chat"))
    );
    assert_eq!(head.version, Some(Version::Http11));
    assert_eq!(head.fields.id(), Some("abc123"));
    for at in 0..whole.len() {
        assert_eq!(parse(&[&whole[..at], &whole[at..]]), expected, "{at}");
    }
    let bytes: Vec<&[u8]> = whole.chunks(1).collect();
    assert_eq!(parse(&bytes), expected);
}

#[test]
fn every_form_of_a_target_gives_its_path_alone() {
    let cases = [
        ("GET /", path("/")),
        ("GET /a%20b/%C3%A9?x=%2F", path("/a%20b/%C3%A9")),
        ("GET /é", path("/%C3%A9")),
        ("GET /a#b?c", path("/a")),
        ("GET /?a/b", path("/")),
        ("GET //a//b", path("//a//b")),
        ("GET http://user:secret@host:80/p/q?x", path("/p/q")),
        ("GET HTTPS://host?x=1", path("/")),
        ("GET http://host", path("/")),
        ("OPTIONS *", Target::Asterisk),
        ("CONNECT host:443", Target::Authority),
        ("GET host:443", Target::Malformed),
        ("GET ?x=1", Target::Malformed),
        ("GET 1http://host/p", Target::Malformed),
        ("GET a://b@c", path("/")),
    ];
    for (line, target) in cases {
        let head = format!("{line} HTTP/1.0\r\n");
        assert_eq!(request(&head).target, target, "{line}");
        assert_eq!(request(&head).version, Some(Version::Http10));
    }
}

#[test]
fn a_path_that_is_longer_than_what_is_shipped_says_that_it_is_cut() {
    let long = "x".repeat(2 * HEAD_BYTES);
    let kept = |text: &str| text[..HEAD_BYTES - "GET ".len()].to_owned();
    let target = format!("/{long}");
    let line = format!("GET {target} HTTP/1.1\r\n\r\n");
    assert_eq!(request(&line).target, cut(&kept(&target)));
    assert_eq!(request(&line).version, None);
    // A long query or a cut version takes nothing from the path.
    assert_eq!(request(&format!("GET /a?{long}")).target, path("/a"));
    assert_eq!(request("GET /a HTT").target, path("/a"));
    assert_eq!(request("GET /a ").target, path("/a"));
    // A host has no path yet, and the parser keeps no user.
    assert_eq!(request("GET http://user:sec").target, cut(""));
    assert_eq!(request("GET http://user@host/p").target, cut("/p"));
    assert_eq!(request("GET *").target, Target::Malformed);
}

#[test]
fn too_little_is_unknown() {
    for head in [
        "",
        "G",
        "GET",
        "GET ",
        "\r\n",
        "HTTP/1.1",
        "HTTP/1.1 20",
        "\u{16}",
    ] {
        assert_eq!(parse(&[head.as_bytes()]), Head::Unknown, "{head:?}");
    }
    for head in [
        "GET  / HTTP/1.1\r\n",
        "GET /\r\n",
        "GET / HTTP/3.0\r\n",
        "\0\r\n",
    ] {
        assert_eq!(parse(&[head.as_bytes()]), Head::Unknown, "{head:?}");
    }
}

#[test]
fn the_id_header_counts_before_the_trace_and_only_if_it_is_whole() {
    let trace = "Traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n";
    let id = |headers: &str| {
        let head = request(&format!("GET / HTTP/1.1\r\n{headers}"));
        head.fields.id().map(str::to_owned)
    };
    let traced = Some("4bf92f3577b34da6a3ce929d0e0e4736".to_owned());
    assert_eq!(
        id(&format!("x-request-id:  a-1 \r\n{trace}")),
        Some("a-1".into())
    );
    assert_eq!(
        id(&format!("{trace}X-REQUEST-ID: a-1\r\n")),
        Some("a-1".into())
    );
    assert_eq!(
        id("X-Request-ID: a-1\r\nX-Request-ID: b\r\n"),
        Some("a-1".into())
    );
    assert_eq!(id(trace), traced);
    // A text that may still go on is no id, and neither is one that could forge the rest of a line.
    assert_eq!(id("X-Request-ID: a-1"), None);
    assert_eq!(id(&format!("X-Request-ID: a] ERROR\r\n{trace}")), traced);
    assert_eq!(id("X-Request-ID:\r\n"), None);
    assert_eq!(id(&format!("X-Request-ID: {}\r\n", "a".repeat(129))), None);
    for bad in [
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6",
        "secret",
    ] {
        assert_eq!(id(&format!("traceparent: {bad}\r\n")), None, "{bad}");
    }
}

#[test]
fn another_header_can_hold_the_id_but_not_one_with_a_secret() {
    let name = IdHeader::new("x-correlation-id").expect("it is a name");
    let mut parser = HeadParser::default();
    parser.push(
        b"GET / HTTP/1.1\r\nX-Request-ID: a\r\nX-Correlation-ID: b\r\n",
        &name,
    );
    let Head::Request(head) = parser.finish() else {
        panic!("it is a request");
    };
    assert_eq!(head.fields.id(), Some("b"));
    assert_eq!(
        IdHeader::new("Cookie"),
        Err(IdHeaderError::Secret("Cookie".into()))
    );
    assert_eq!(
        IdHeader::new("a b"),
        Err(IdHeaderError::NotAName("a b".into()))
    );
    assert!(IdHeader::new("").is_err());
}

#[test]
fn a_connection_that_ends_or_changes_is_seen() {
    let fields = |headers: &str| request(&format!("GET / HTTP/1.1\r\n{headers}")).fields;
    assert!(fields("Connection: keep-alive, Close\r\n").close);
    assert!(!fields("Connection: closed\r\n").close);
    assert!(fields("Connection: upgrade\r\n").upgrade);
    assert!(fields("Upgrade: h2c\r\n").upgrade);
    assert!(
        response("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n")
            .fields
            .upgrade
    );
}

#[test]
fn a_malformed_header_hides_no_other() {
    let head = request("GET / HTTP/1.1\r\n folded\r\nno colon\r\n\0: x\r\nX-Request-ID: a\r\n");
    assert_eq!(head.fields.id(), Some("a"));
}

#[test]
fn the_status_is_that_of_the_response_and_not_of_an_interim_one() {
    assert_eq!(
        response("HTTP/1.1 200 OK\r\nX-Request-ID: a\r\n\r\n").status,
        200
    );
    assert_eq!(response("HTTP/1.0 404\r\n").version, Version::Http10);
    assert_eq!(response("HTTP/1.1 500 Internal Ser").status, 500);
    let both = "HTTP/1.1 103 Early Hints\r\nX-Request-ID: b\r\n\r\nHTTP/1.1 204 No Content\r\n";
    assert_eq!(
        (response(both).status, response(both).fields.id()),
        (204, None)
    );
    for only in [
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 100 Cont",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 2",
        "HTTP/1.1 100 Continue\r\n\r\nGET / HTTP/1.1\r\n\r\n",
    ] {
        assert_eq!(parse(&[only.as_bytes()]), Head::Interim { status: 100 });
    }
}

#[test]
fn what_is_not_http_1_is_recognized() {
    assert_eq!(parse(&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]), Head::Http2);
    assert_eq!(parse(&[b"PRI * HT", b"TP/2.0"]), Head::Http2);
    assert_eq!(parse(&[b"\x16", b"\x03\x01\x02\x00\x01"]), Head::Tls);
    assert_eq!(parse(&[b"\x17\x03\x03"]), Head::Unknown);
}

#[test]
fn a_head_is_complete_at_its_end_or_when_all_was_shipped() {
    let mut parser = HeadParser::default();
    let id = IdHeader::default();
    parser.push(b"GET / HTTP/1.1\r\n", &id);
    assert!(!parser.is_complete());
    parser.push(b"\r\nX-Request-ID: of-the-body\r\n", &id);
    assert!(parser.is_complete());
    assert_eq!(parser.finish(), parse(&[b"GET / HTTP/1.1\r\n\r\n"]));
    let mut parser = HeadParser::default();
    parser.push(&[b'x'; 1000], &id);
    assert!(parser.is_complete());
}

/// Checks `Debug`, derived or written by hand, because it shows whatever a type holds.
#[test]
fn nothing_secret_is_in_any_type_at_any_moment() {
    let request = b"POST http://SECRET@SECRET/p?SECRET#SECRET HTTP/1.1\r\nHost: SECRET\r\n\
        Cookie: SECRET\r\nX-Request-ID: a\r\nUpgrade: SECRET\r\nConnection: SECRET, close\r\n\r\nSECRET";
    let response = b"HTTP/1.1 200 SECRET\r\nSet-Cookie: SECRET\r\n\r\nSECRET";
    let connect = b"CONNECT SECRET:443 HTTP/1.1\r\n\r\n";
    let malformed = b"SECRET SECRET HTTP/1.1\r\n\r\n";
    for head in [&request[..], response, connect, malformed] {
        for at in 0..=head.len() {
            let mut parser = HeadParser::default();
            parser.push(&head[..at], &IdHeader::default());
            let while_it_comes = format!("{parser:?}");
            let told = format!("{:?}", parser.finish());
            for shown in [while_it_comes, told] {
                // Wherever the head is cut, not even the beginning of a secret may be there.
                assert!(!shown.contains("SE"), "{at}: {shown}");
            }
        }
    }
}
