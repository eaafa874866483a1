//! Tests with random heads, hostile or not, at random splits. The tests compare the result with
//! what httparse says of the whole head.
//!
//! `RESIDUE_FUZZ_CASES=10000000 cargo test --release -p residue --lib window::tests::fuzz` runs ten
//! million cases. Without the variable the tests take a second or two.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::requests::head::{HEAD_BYTES, Head, HeadParser, IdHeader, Method, Target, Version};
use crate::requests::route::Routes;

fn config() -> ProptestConfig {
    let cases = std::env::var("RESIDUE_FUZZ_CASES").ok();
    let cases = cases.and_then(|cases| cases.parse().ok());
    ProptestConfig {
        cases: cases.unwrap_or(100_000) / 3,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

fn parse(head: &[u8], splits: &[usize]) -> Head {
    let mut parser = HeadParser::default();
    let id = IdHeader::default();
    let mut at: Vec<_> = splits
        .iter()
        .map(|split| split % (head.len() + 1))
        .collect();
    at.extend([0, head.len()]);
    at.sort_unstable();
    at.windows(2).for_each(|ends| {
        parser.push(&head[ends[0]..ends[1]], &id);
    });
    parser.finish()
}

/// Checks what holds for any head.
fn check(head: &[u8], splits: &[usize]) -> Head {
    let told = parse(head, splits);
    assert_eq!(told, parse(head, &[]), "by splits");
    let shipped = &head[..head.len().min(HEAD_BYTES)];
    assert_eq!(told, parse(shipped, &[]), "by what was not shipped");
    if let Head::Request(request) = &told {
        if let Target::Path { text, .. } = &request.target {
            assert!(text.len() <= 3 * HEAD_BYTES);
            assert!(
                text.bytes()
                    .all(|byte| byte.is_ascii_graphic() && byte != b'?')
            );
        }
        let mut routes = Routes::default();
        let route = routes.route(request.method, &request.target).to_string();
        let is_printable = |c: char| c == ' ' || c == '…' || c.is_ascii_graphic();
        assert!(route.len() <= 4 * HEAD_BYTES && route.chars().all(is_printable));
    }
    told
}

/// Makes pieces of heads, most of them in their place.
fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let method = select(vec![
        "GET",
        "POST",
        "CONNECT",
        "get",
        "PRI",
        "HTTP/1.1",
        "",
        "\u{16}\u{3}",
    ]);
    let target = prop_oneof![
        "[ -~é]{0,20}",
        "/[a-z0-9/%?#.]{0,30}",
        "/[a-zA-Z0-9/%]{0,300}",
        "https?://[a-z@:]{0,9}[/?]?[a-z/?]{0,9}",
        select(vec!["*", "200", "100"]).prop_map(str::to_owned),
    ];
    let version = select(vec!["HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "OK", ""]);
    let end = || select(vec!["\r\n", "\n", "\r\n", "\r"]);
    let name = select(vec![
        "X-Request-ID",
        "traceparent",
        "Connection",
        "upgrade",
        "Host",
        " ",
    ]);
    let value = prop_oneof!["[ -~\r\n]{0,12}", "[a-z0-9-]{1,150}", "[a-z]{0,3}close"];
    let header = (name, select(vec![":", ": ", ""]), value, end())
        .prop_map(|(name, colon, value, end)| format!("{name}{colon}{value}{end}"));
    let line = (method, target, version, end());
    (line, vec(header, 0..6), end(), ".{0,20}").prop_map(
        |((method, target, version, end), headers, blank, body)| {
            let headers = headers.concat();
            format!("{method} {target} {version}{end}{headers}{blank}{body}").into_bytes()
        },
    )
}

/// Checks that both parsers agree on everything, or on the first line if httparse refuses some of
/// the headers.
fn assert_agrees_with_httparse(head: &[u8], told: &Head) {
    let mut headers = [httparse::EMPTY_HEADER; HEAD_BYTES];
    let mut request = httparse::Request::new(&mut headers);
    let result = request.parse(head);
    // httparse may also refuse a header for its end, which says nothing about the first line.
    let told_before_headers = !matches!(result, Err(httparse::Error::NewLine));
    let (Some(minor), true) = (request.version, told_before_headers) else {
        let is_cut = result == Ok(httparse::Status::Partial);
        let is_request = matches!(told, Head::Request(_));
        assert!(
            is_cut || !is_request || !told_before_headers || !head.is_ascii(),
            "{told:?}"
        );
        return;
    };
    let Head::Request(ours) = told else {
        panic!("{told:?}");
    };
    if ours.version.is_none() {
        // The first line has no end yet, so the version might go on.
        assert!(!head.trim_ascii_start().contains(&b'\n'));
        return;
    }
    let version = [Version::Http10, Version::Http11][usize::from(minor)];
    assert_eq!(ours.version, Some(version));
    assert_eq!(Some(ours.method), request.method.map(Method::of));
    let theirs = request.path.unwrap_or_default();
    if let (Target::Path { text, cut }, true) = (&ours.target, theirs.is_ascii()) {
        assert!(!cut && (theirs.contains(&text[..]) || text == "/"));
        assert!(!theirs.starts_with('/') || theirs.split(['?', '#']).next() == Some(text));
    }
    if !matches!(result, Ok(httparse::Status::Complete(_))) {
        return;
    }
    let named = |name: &str| {
        let values = request
            .headers
            .iter()
            .filter(|header| header.name.eq_ignore_ascii_case(name));
        values
            .map(|header| String::from_utf8_lossy(header.value).into_owned())
            .collect::<Vec<_>>()
    };
    let ids = named("x-request-id");
    let is_id = |id: &&String| {
        (1..=128).contains(&id.len())
            && !id.contains(|c: char| !c.is_ascii_graphic() || "[]".contains(c))
    };
    assert_eq!(ours.fields.request_id.as_ref(), ids.iter().find(is_id));
    let close = |value: &String| {
        value
            .split(',')
            .any(|token| token.trim().eq_ignore_ascii_case("close"))
    };
    assert_eq!(ours.fields.close, named("connection").iter().any(close));
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_bytes_at_any_splits_are_read_alike(head in vec(any::<u8>(), 0..600), splits in vec(any::<usize>(), 0..5)) {
        check(&head, &splits);
    }

    #[test]
    fn whatever_looks_like_a_head_is_read_alike(head in pieces(), splits in vec(any::<usize>(), 0..5)) {
        check(&head, &splits);
    }

    #[test]
    fn what_is_shipped_says_what_httparse_makes_of_it(
        mut head in pieces(),
        splits in vec(any::<usize>(), 0..5),
    ) {
        head.truncate(HEAD_BYTES);
        let told = check(&head, &splits);
        assert_agrees_with_httparse(&head, &told);
    }
}
