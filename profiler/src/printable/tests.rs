//! Tests of what is printable, and of what sinks do with the rest.

use std::io::Write as _;

use proptest::prelude::*;

use super::hostile::{NAMES, is_unclean};
use super::*;

fn sunk(notation: Notation, bytes: &[u8]) -> String {
    let mut out = Vec::new();
    let mut sink = Sink::new(&mut out, notation);
    sink.write_all(bytes).expect("a vector takes all");
    String::from_utf8(out).expect("it is text")
}

#[test]
fn hostile_names_become_one_clean_line_each() {
    assert!(NAMES.len() >= 100);
    for name in NAMES {
        let shown = printable(name);
        assert!(!shown.contains(is_unclean), "{shown:?}");
    }
}

#[test]
fn what_anyone_can_read_stays_as_it_is() {
    for name in [
        "malloc",
        "Größe<T>::new",
        "木シス",
        "🦀",
        "e\u{301}",
        "مرحبا",
        "a b",
        "\u{fffd}",
    ] {
        assert_eq!(printable(name), name);
    }
    assert_eq!(printable("a\u{202e}b\nc"), "a\\u{202e}b\\u{a}c");
}

#[test]
fn every_character_that_std_calls_a_control_or_a_blank_is_no_printable_one() {
    for c in (0..=0x10_ffff).filter_map(char::from_u32) {
        let unclean = is_unclean(c);
        assert!(!(unclean && is_printable(c)), "{c:?}");
    }
}

#[test]
fn no_line_of_a_message_can_be_forged() {
    let text = message("no capture at x\nresidue: all is well\r\u{1b}[2J\n  GET /a");
    let expected = "no capture at x\n  residue: all is well\\u{d}\\u{1b}[2J\n  GET /a";
    assert_eq!(text, expected);
}

#[test]
fn a_sink_passes_lines_and_nothing_that_is_not_printable() {
    assert_eq!(
        sunk(Notation::Text, b"a\nb\tc\x1b[1m"),
        "a\nb\\u{9}c\\u{1b}[1m"
    );
    assert_eq!(sunk(Notation::Text, b"cut \xe2\x80"), "cut ");
    assert_eq!(sunk(Notation::Text, b"\xff\xe2\x80!"), "\u{fffd}\u{fffd}!");
}

#[test]
fn colours_pass_where_there_are_some_and_nothing_else_does() {
    let text = "\x1b[1;31mLOST\x1b[0m \x1b[2J \x1b]0;x\x07 \x1b[1".as_bytes();
    let expected = "\x1b[1;31mLOST\x1b[0m \\u{1b}[2J \\u{1b}]0;x\\u{7} \\u{1b}[1";
    assert_eq!(sunk(Notation::Coloured, text), expected);
}

#[test]
fn json_keeps_every_character_of_a_string() {
    for name in NAMES {
        let json = serde_json::to_vec(name).expect("it is a string");
        let json = sunk(Notation::Json, &json);
        assert!(!json.contains(is_unclean), "{json:?}");
        let read: String = serde_json::from_str(&json).expect("it is still JSON");
        assert_eq!(read, *name);
    }
}

proptest! {
    #[test]
    fn a_sink_says_the_same_however_its_text_arrives(text: String, at: usize) {
        let bytes = text.as_bytes();
        let (first, second) = bytes.split_at(at % (bytes.len() + 1));
        let mut out = Vec::new();
        let mut sink = Sink::new(&mut out, Notation::Text);
        sink.write_all(first)?;
        sink.write_all(second)?;
        prop_assert_eq!(out, sunk(Notation::Text, bytes).into_bytes());
    }
}
