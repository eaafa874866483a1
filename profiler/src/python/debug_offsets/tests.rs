//! Reads debug offsets that the tests write as an interpreter would.

use super::*;
use crate::python::memory_of;

const RUNTIME_AT: u64 = 0x1000;

/// The groups of a version with an offset for each field. A field that `named` does not mention is one word after
/// the previous field.
fn written(hex: u64, free_threaded: u64, groups: &[Group], named: &[(&str, &str, u64)]) -> Vec<u8> {
    let mut words = vec![u64::from_le_bytes(*COOKIE), hex, free_threaded];
    for group in groups {
        for (index, field) in fields(group).enumerate() {
            let given = named
                .iter()
                .find(|named| named.0 == group.0 && named.1 == field);
            let otherwise = if index == 0 { 8000 } else { index as u64 * 8 };
            words.push(given.map_or(otherwise, |given| given.2));
        }
    }
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// The offsets that no version has changed.
const KNOWN: [(&str, &str, u64); 7] = [
    ("object", "size", 16),
    ("object", "ob_type", 8),
    ("bytes", "ob_size", 16),
    ("bytes", "ob_sval", 32),
    ("unicode", "length", 16),
    ("unicode", "state", 32),
    ("unicode", "asciiobject_size", 40),
];

fn read(bytes: Vec<u8>) -> Option<DebugOffsets> {
    DebugOffsets::read(&memory_of([(RUNTIME_AT, bytes)]), Avma(RUNTIME_AT))
}

#[test]
fn fields_are_found_by_the_groups_of_their_version() {
    let mut named = KNOWN.to_vec();
    named.extend([
        ("code", "firstlineno", 68),
        ("frame", "owner", 74),
        ("interpreter", "gil", 100),
        ("interpreter", "gil_holder", 108),
        ("interpreter", "gil_locked", 116),
    ]);
    for (hex, groups) in [(0x030d_00f0, OF_3_13), (0x030e_00f0, OF_3_14)] {
        let read = read(written(hex, 0, groups, &named)).expect("there is a cookie");
        let offsets = read.offsets().expect("they are sound");
        assert_eq!(offsets.code.first_line, 68);
        assert_eq!(offsets.code.text, [40, 56]);
        assert_eq!((offsets.entry, offsets.previous), (74, 8));
        assert_eq!(offsets.thread_interpreter, 24);
        let Gil::Interpreter { holder, locked, .. } = offsets.gil else {
            panic!("each interpreter has its own");
        };
        assert_eq!((holder, locked), (8, 16));
    }
}

#[test]
fn what_contradicts_what_is_known_is_not_used() {
    let sound = written(0x030d_00f0, 0, OF_3_13, &KNOWN);
    assert!(read(sound).expect("there is a cookie").offsets().is_some());
    let order_of_another = written(0x030d_00f0, 0, OF_3_14, &KNOWN);
    let read_as_3_13 = read(order_of_another).expect("there is a cookie");
    assert_eq!(read_as_3_13.offsets(), None);
    let mut outside = KNOWN.to_vec();
    outside.push(("thread", "next", 8000));
    let outside = read(written(0x030d_00f0, 0, OF_3_13, &outside));
    assert_eq!(outside.expect("there is a cookie").offsets(), None);
}

#[test]
fn versions_without_them_and_free_threaded_builds_are_told_apart() {
    assert_eq!(read(vec![0; 4096]), None);
    assert_eq!(read(COOKIE.to_vec()), None, "torn off");
    let free = read(written(0x030d_00f0, 1, OF_3_13, &KNOWN)).expect("there is a cookie");
    assert!(free.free_threaded);
    let later = read(written(0x0310_00f0, 0, &[], &[])).expect("there is a cookie");
    assert_eq!(later.offsets(), None);
}
