//! Paths in, templates out.

use proptest::prelude::*;

use super::*;

fn routed(path: &str) -> String {
    template(path, false)
}

#[test]
fn what_names_one_thing_becomes_an_id() {
    for path in [
        "/users/123",
        "/users/9f1c7a2e-0b3d-4c5e-8f6a-1b2c3d4e5f60",
        "/users/9F1C7A2E0B3D4C5E8F6A1B2C3D4E5F60",
        "/users/507f1f77bcf86cd799439011",
        "/users/deadbeefcafe",
        "/users/01ARZ3NDEKTSV4RRFFQ69G5FAV",
        "/users/cjld2cjxh0000qzrmn831i7rn",
        "/users/9m4e2mr0ui3e8a215n4g",
        "/users/V1StGXR8_Z5jdHi6B-myT",
        "/users/cus_NffrFeUfNV2Hib",
        "/users/dGhpcyBpcyBhIHRlc3Q%3D",
        "/users/dGhpcyBpcyBhIHRlc3Q=",
        "/users/2024-01-31",
        "/users/-5",
        "/users/bob@example.com",
        "/users/bob%40example.com",
        "/users/7;jsessionid=0AFE",
    ] {
        assert_eq!(routed(path), "/users/{id}", "{path}");
    }
}

#[test]
fn words_stay_words() {
    for path in [
        "/",
        "",
        "/api/v1/users/",
        "/api/v2.1/1.0/chat",
        "/facade/decade/fabaceae/effaced",
        "/bad-cafe-facade",
        "/OAuth2Callback",
        "/getUserByIdAndName",
        "/Report2024Summary",
        "/my-post-about-2024-elections",
        "/My-Blog-Post-Title-2024",
        "/internationalization/authentication",
        "/.well-known/openid-configuration",
        "/static/bootstrap.min.css",
        "/XMLHttpRequestEventTarget",
        "/login_with_facebook_callback",
        "/@alice",
        "//a//b",
        "/a%20b",
    ] {
        assert_eq!(routed(path), path);
    }
}

#[test]
fn a_file_keeps_its_type() {
    assert_eq!(routed("/img/123.jpeg"), "/img/{id}.jpeg");
    assert_eq!(routed("/js/app.9f1c7a2e0b3d.js"), "/js/app.9f1c7a2e0b3d.js");
    assert_eq!(routed("/d/9f1c7a2e0b3d.woff2"), "/d/{id}.woff2");
    assert_eq!(routed("/v/10.5"), "/v/10.5");
}

#[test]
fn a_token_is_left_out_whatever_stands_beside_it() {
    for token in [
        "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJ1aWQiOjd9.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
        "ImFsaWNlQGV4YW1wbGUub3JnIg.ZxQm0A.J1ZBvqN5l2cV9bq3tYkG0w8xPQs",
        "42:1rZ8Qa:uH4vJ0x3mTqZbW9sYc7LkP2dNfE6gRhV5iXoA1tB8yM",
        "token=9fK2mQ7xR4tV8bN1cZ6w",
        "dGhpc0lz%2BYVNlY3JldA%2F9fK2mQ7xR4%3D%3D",
    ] {
        assert_eq!(
            routed(&format!("/verify/{token}")),
            "/verify/{id}",
            "{token}"
        );
    }
    assert_eq!(routed("/js/app.min.9fK2mQ7xR4tV8bN1cZ6w.js"), "/js/{id}.js");
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
    assert_eq!(template("/users/7/no", true), "/users/{id}/…");
    assert_eq!(template("/no", true), "/…");
    assert_eq!(template("", true), "…");
}

#[test]
fn a_pattern_counts_before_what_a_segment_looks_like() {
    let patterns = ["/blog/{slug}", "/files/*", "/users/0"];
    let patterns = patterns
        .map(|it| it.parse().expect("it is a pattern"))
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
            .all(|it| it.to_string() == "GET other" && it.row() == Route::OTHER)
    );
    assert_eq!(get("/a"), first);
    assert_eq!(routes.overflowed(), 3);
}

/// What is missed makes a row of its own, so few may be.
#[test]
fn nineteen_of_twenty_random_ids_are_recognized() {
    const BASE64: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut state = 1u64;
    let mut next = || {
        // Knuth's MMIX generator; its high bits are good.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    for (length, alphabet) in [(22, 64), (22, 62), (27, 62), (43, 64)] {
        let ids = (0..10_000).map(|_| {
            let chars = (0..length).map(|_| char::from(BASE64[next() % alphabet]));
            chars.collect::<String>()
        });
        let known = ids.filter(|id| segment::generalize(id) == "{id}").count();
        assert!(
            known >= 9_500,
            "{known} of {length} characters out of {alphabet}"
        );
    }
}

proptest! {
    #[test]
    fn a_template_is_its_own_template(path in "(/[a-zA-Z0-9._;@=%{}-]{0,30}){0,6}") {
        let once = routed(&path);
        prop_assert_eq!(routed(&once), once);
    }

    #[test]
    fn numbers_and_uuids_are_always_ids(number: u64, id: u128) {
        let [a, b, c, d, e] = [id >> 96, (id >> 80) & 0xffff, (id >> 64) & 0xffff, (id >> 48) & 0xffff, id & 0xffff_ffff_ffff];
        let uuid = format!("{a:08x}-{b:04x}-{c:04x}-{d:04x}-{e:012x}");
        let path = format!("/a/{number}/{uuid}");
        // One in a hundred million has no number in it.
        prop_assume!(uuid.bytes().any(|it| it.is_ascii_digit()));
        prop_assert_eq!(routed(&path), "/a/{id}/{id}");
    }
}
