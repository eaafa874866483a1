//! Tests of routes: paths go in, templates come out.

use proptest::prelude::*;

use super::*;

fn routed(path: &str) -> String {
    template(path, false, |_, _| true)
}

#[test]
fn what_has_a_digit_becomes_an_id() {
    for text in [
        "123",
        "-5",
        "10.5",
        "2024-01-31",
        "9f1c7a2e-0b3d-4c5e-8f6a-1b2c3d4e5f60",
        "9F1C7A2E0B3D4C5E8F6A1B2C3D4E5F60",
        "507f1f77bcf86cd799439011",
        "01ARZ3NDEKTSV4RRFFQ69G5FAV",
        "cjld2cjxh0000qzrmn831i7rn",
        "V1StGXR8_Z5jdHi6B-myT",
        "cus_NffrFeUfNV2Hib",
        "dGhpcyBpcyBhIHRlc3Q%3D",
        "eyJhbGciOiJIUzI1NiJ9.eyJ1aWQiOjd9.dBjftJeZ4CVP-mB92K27uhbUJU1p1r",
        "42:1rZ8Qa:uH4vJ0x3mTqZbW9sYc7LkP2dNfE6gRhV5iXoA1tB8yM",
        "token=9fK2mQ7xR4tV8bN1cZ6w",
        "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
        "xoxb-17653672481-19874698323-pdFZKVeTuE8sk7oOcHrzzqgy",
        "hunter2",
        "Tr0ub4dor&3",
        "+4915112345678",
        "0151-12345678",
        "2b-or-not-2b",
        "7;jsessionid=0AFE",
    ] {
        assert_eq!(routed(&format!("/users/{text}")), "/users/{id}", "{text}");
    }
}

#[test]
fn other_text_that_reads_as_no_word_is_masked() {
    for text in [
        "Alice",
        "AliceSmith",
        "getUsers",
        "john.smith",
        "alice@example.com",
        "alice%40example.com",
        "John%20Smith",
        "caf%C3%A9",
        "%D0%BF%D1%80%D0%B8%D0%B2%D0%B5%D1%82",
        "CorrectHorse!",
        "correcthorsebatterystaple",
        "qwhjkasdlkjzmxncb",
        "kJhGfDsAqWeRtY",
        "xoxb-pdFZKVeTuEsk-oOcHrzzqgy",
        "@alice",
        "~alice",
        "token=secret",
        "alice,bob",
        "my-long-story-about-cancer",
        "{id}",
        "{name}",
        "-",
    ] {
        assert_eq!(routed(&format!("/users/{text}")), "/users/{…}", "{text}");
    }
}

/// Tests both sides: a thing with a number is one of many, a version is a part of the route.
#[test]
fn a_digit_stays_in_a_version_and_in_the_name_of_a_technique() {
    for number in 1..=5 {
        assert_eq!(routed(&format!("/order/shirt-{number}")), "/order/{id}");
    }
    for segment in ["shirt2", "v", "vv2", "2v", "v1234", "v2.", "v2x"] {
        let path = format!("/order/{segment}");
        assert_eq!(routed(&path) == path, segment == "v", "{path}");
    }
    for path in [
        "/v2/api",
        "/api/v1.12",
        "/apis/v1beta1",
        "/users-v2",
        "/oauth2/token",
        "/oauth2-callback",
        "/s3/upload",
        "/mfa/2fa",
        "/i18n",
        "/hash/sha256",
    ] {
        assert_eq!(routed(path), path);
    }
}

#[test]
fn words_stay_words() {
    for path in [
        "/",
        "",
        "/api/users/",
        "/facade/decade/bad-cafe-facade",
        "/users/me/orders",
        "/acknowledgements/authentication",
        "/.well-known/openid-configuration",
        "/login_with_facebook_callback",
        "/_search",
        "/favicon.ico",
        "/robots.txt",
        "/wp-login.php",
        "/index.html",
        "/static/bootstrap.min.css",
        "//a//b",
    ] {
        assert_eq!(routed(path), path);
    }
}

#[test]
fn a_file_keeps_what_is_known_as_a_type() {
    for (path, route) in [
        ("/img/123.jpeg", "/img/{id}.jpeg"),
        ("/static/js/app.3f9a.js", "/static/js/{id}.js"),
        ("/js/app.min.9fK2mQ7xR4tV8bN1cZ6w.js", "/js/{id}.js"),
        ("/js/3f9a.min.js", "/js/{id}.min.js"),
        ("/d/Alice.pdf", "/d/{…}.pdf"),
        ("/d/report.alice", "/d/{…}"),
        ("/d/report.k4", "/d/{id}"),
    ] {
        assert_eq!(routed(path), route);
    }
}

#[test]
fn session_ids_in_parameters_are_left_out() {
    assert_eq!(
        routed("/shop/cart;jsessionid=0AFE/view;v=1"),
        "/shop/cart/view"
    );
}

#[test]
fn a_cut_path_keeps_whole_segments_only() {
    assert_eq!(template("/users/7/no", true, |_, _| true), "/users/{id}/…");
    assert_eq!(template("/no", true, |_, _| true), "/…");
    assert_eq!(template("", true, |_, _| true), "…");
}

#[test]
fn a_pattern_counts_before_what_a_segment_looks_like() {
    let patterns = ["/blog/{slug}", "/files/*", "/users/0"];
    let patterns = patterns
        .map(|text| text.parse().expect("it is a pattern"))
        .to_vec();
    let mut routes = Routes::new(RouteRules {
        patterns,
        ..RouteRules::default()
    });
    let mut routed = |path: &str, cut| {
        let text = path.to_owned();
        routes
            .route(Method::Get, &Target::Path { text, cut })
            .to_string()
    };
    assert_eq!(routed("/blog/how-it-began", false), "GET /blog/{slug}");
    assert_eq!(routed("/blog/how/it", false), "GET /blog/how/it");
    assert_eq!(routed("/blog/", false), "GET /blog/");
    assert_eq!(routed("/files/a/b/7", false), "GET /files/*");
    assert_eq!(routed("/files", false), "GET /files");
    assert_eq!(routed("/users/0", false), "GET /users/0");
    assert_eq!(routed("/users/1", false), "GET /users/{id}");
    assert_eq!(routed("/blog/how-it", true), "GET /blog/…");
}

#[test]
fn what_is_no_pattern_says_why() {
    let error = |text: &str| text.parse::<Pattern>().expect_err("it is none");
    assert_eq!(error("files/*"), PatternError::NoPath("files/*".into()));
    assert_eq!(error("/a?b=*"), PatternError::NotInPaths("/a?b=*".into()));
    assert_eq!(error("/*/a"), PatternError::AfterAll("/*/a".into()));
}

#[test]
fn what_has_no_path_has_a_route() {
    let mut routes = Routes::default();
    assert_eq!(
        routes.route(Method::Options, &Target::Asterisk).to_string(),
        "OPTIONS *"
    );
    let authority = routes.route(Method::Connect, &Target::Authority);
    assert_eq!(authority.to_string(), "CONNECT {authority}");
    assert_eq!(Route::named("handle_job").to_string(), "handle_job");
    assert_eq!(Route::named("a\n\x1b[2J").to_string(), r"a\u{a}\u{1b}[2J");
}

#[test]
fn routes_beyond_the_cap_are_other_and_counted() {
    let mut routes = Routes::new(RouteRules {
        max_routes: 2,
        ..RouteRules::default()
    });
    let mut get = |text: &str| {
        let target = Target::Path {
            text: text.into(),
            cut: false,
        };
        routes.route(Method::Get, &target)
    };
    let [first, ..] = ["/a", "/b"].map(&mut get);
    let beyond = ["/c", "/d", "/c"].map(&mut get);
    assert!(
        beyond
            .iter()
            .all(|route| route.to_string() == "GET other" && route.row() == Route::OTHER)
    );
    assert_eq!(get("/a"), first);
    assert_eq!(routes.overflowed(), 3);
}

/// Applies the strict rule, after so many requests for `/reset/xylophone`.
fn strict_after(times: u64, patterns: &[&str]) -> Routes {
    let parse = |text: &&str| text.parse().expect("it is a pattern");
    let mut routes = Routes::new(RouteRules {
        patterns: patterns.iter().map(parse).collect(),
        kept: Kept::Strict,
        ..RouteRules::default()
    });
    for _ in 0..times {
        get(&mut routes, "/reset/xylophone");
    }
    routes
}

fn get(routes: &mut Routes, path: &str) -> String {
    let text = path.to_owned();
    routes
        .route(Method::Get, &Target::Path { text, cut: false })
        .to_string()
}

#[test]
fn the_strict_rule_shows_a_segment_from_its_hundredth_request_on() {
    let mut routes = strict_after(98, &[]);
    assert_eq!(get(&mut routes, "/reset/xylophone"), "GET /{…}/{…}");
    assert_eq!(get(&mut routes, "/reset/elsewhere"), "GET /reset/{…}");
    assert_eq!(
        get(&mut routes, "/reset/xylophone/7"),
        "GET /reset/xylophone/{id}"
    );
    assert_eq!(
        get(&mut routes, "/xylophone/reset"),
        "GET /{…}/{…}",
        "each at its place"
    );
    assert_eq!(get(&mut routes, "/"), "GET /");
}

#[test]
fn the_strict_rule_keeps_what_a_pattern_names_and_masks_what_is_no_word() {
    let mut routes = strict_after(200, &["/shop/{name}"]);
    assert_eq!(get(&mut routes, "/shop/alice"), "GET /shop/{name}");
    for _ in 0..200 {
        assert_eq!(get(&mut routes, "/reset/Alice"), "GET /reset/{…}");
    }
}

#[test]
fn a_scanner_neither_fills_the_strict_rule_s_table_nor_hides_what_repeats() {
    let mut routes = strict_after(0, &[]);
    let letter = |number: u32| char::from(b'a' + (number % 26) as u8);
    let word = |number: u32| -> String {
        [number, number / 26, number / 676, number / 17_576]
            .map(letter)
            .iter()
            .collect()
    };
    for number in 0..20_000 {
        get(&mut routes, &format!("/{}", word(number)));
        if number % 20 == 0 {
            get(&mut routes, "/login");
        }
    }
    assert_eq!(get(&mut routes, "/login"), "GET /login");
    assert!(routes.repeated.places() <= repeated::MAX_PLACES);
}

#[test]
fn whoever_has_many_segments_shown_does_not_keep_others_from_it() {
    let mut repeated = Repeated::default();
    let mut is_shown = |segment: &str| (0..100).map(|_| repeated.count(0, segment)).last();
    for number in 0..repeated::MAX_PLACES + 100 {
        assert_eq!(is_shown(&number.to_string()), Some(true));
    }
    assert_eq!(is_shown("login"), Some(true));
    assert!(repeated.places() <= repeated::MAX_PLACES);
}

proptest! {
    /// Checks that every template holds only masks, words, versions and types of files.
    #[test]
    fn nothing_but_words_is_in_a_template(path in "(/[a-zA-Z0-9._;@=%{}-]{0,40}){0,6}") {
        let template = routed(&path).replace("{id}", "").replace("{…}", "");
        prop_assert!(template.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "/._-".contains(c)), "{template}");
        prop_assert!(template.split(['/', '.', '-', '_']).all(|word| word.len() <= 16));
    }

    #[test]
    fn numbers_and_uuids_are_always_ids(number: u64, id: u128) {
        let [a, b, c, d, e] = [id >> 96, (id >> 80) & 0xffff, (id >> 64) & 0xffff, (id >> 48) & 0xffff, id & 0xffff_ffff_ffff];
        let uuid = format!("{a:08x}-{b:04x}-{c:04x}-{d:04x}-{e:012x}");
        let path = format!("/a/{number}/{uuid}");
        // One UUID in a hundred million has no digit in it.
        prop_assume!(uuid.bytes().any(|byte| byte.is_ascii_digit()));
        prop_assert_eq!(routed(&path), "/a/{id}/{id}");
    }
}
