//! Captures and journals with random damage: a reader ends soon, takes memory in proportion, and never
//! panics.
//!
//! `RESIDUE_FUZZ_CASES=10000000 cargo test --release -p residue --lib capture::tests::fuzz` reads that
//! many; without the variable the tests take a few seconds.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::capture::reader::from_bytes;
use crate::capture::{Capture, journal};
use crate::profile::{Languages, Profile};
use crate::report::{Format, Options};

/// Far less than the reader's own bound, so that the test notices a case which needs that bound.
const LONGEST: Duration = Duration::from_secs(5);

static CAPTURES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| samples::all().expect("it is written"));
static CUT_OFF: LazyLock<(Vec<u8>, Vec<u8>)> =
    LazyLock::new(|| samples::cut_off().expect("it is written"));

/// Half of the cases, for each of the two tests.
fn config() -> ProptestConfig {
    let cases = std::env::var("RESIDUE_FUZZ_CASES").ok();
    let cases: Option<u32> = cases.and_then(|cases| cases.parse().ok());
    ProptestConfig {
        cases: cases.unwrap_or(6_000) / 2,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// Numbers that depend on the seed alone (<https://prng.di.unimi.it/splitmix64.c>).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

/// Changes up to eight places, most of them where numbers and structure are.
fn harm(bytes: &mut Vec<u8>, numbers: &mut Numbers) {
    for _ in 0..=numbers.below(8) {
        harm_once(bytes, numbers);
    }
}

fn harm_once(bytes: &mut Vec<u8>, numbers: &mut Numbers) {
    const NUMBERS: [u32; 8] = [0, 1, 2, 0x7f, 0xff, 0x7fff_ffff, 0x8000_0000, u32::MAX];
    let length = bytes.len();
    let page = 512 * numbers.below(length / 512);
    let at = match numbers.below(4) {
        // A page's own header, and the offsets of its cells.
        0 => page + numbers.below(24),
        _ => numbers.below(length),
    };
    let from = numbers.below(length);
    let room = (length - at).min(length - from);
    match numbers.below(12) {
        0..4 => bytes[at] ^= 1 << numbers.below(8),
        4 => bytes[at] = numbers.next() as u8,
        5 | 6 => {
            let number = NUMBERS[numbers.below(NUMBERS.len())].to_be_bytes();
            let width = numbers.below(5).min(length - at);
            bytes[at..at + width].copy_from_slice(&number[..width]);
        }
        7 => bytes.copy_within(from..from + room.min(4), at),
        8 => bytes.copy_within(from..from + room.min(numbers.below(64)), at),
        9 => {
            let from = 512 * numbers.below(length / 512);
            bytes.copy_within(from..from + 512, page.min(length - 512));
        }
        10 => bytes[at..at + room.min(numbers.below(600))].fill(numbers.next() as u8),
        _ => match numbers.below(64) {
            0 => bytes.truncate(512.max(at)),
            1 => bytes.resize(length + 512, 0),
            _ => {}
        },
    }
}

/// Reads a capture, and checks what holds for every capture.
fn check(bytes: Vec<u8>) -> Option<Capture> {
    let length = bytes.len();
    let began = Instant::now();
    let read = from_bytes(Path::new("fuzzed"), bytes);
    assert!(began.elapsed() < LONGEST, "{:?}", began.elapsed());
    match read {
        Ok(capture) => {
            assert!(rows(&capture) <= length, "more rows than bytes");
            Some(capture)
        }
        Err(error) => {
            assert!(!error.to_string().contains(char::is_control), "{error:?}");
            None
        }
    }
}

fn rows(capture: &Capture) -> usize {
    let symbols: usize = capture.frames.iter().map(|frame| frame.symbols.len()).sum();
    let frames: usize = capture.stacks.iter().map(|stack| stack.frames.len()).sum();
    let windows = &capture.windows;
    symbols
        + frames
        + capture.frames.len()
        + capture.totals.len()
        + capture.snapshots.len()
        + windows.records.len()
        + windows.memory.len()
}

fn harmed_capture(seed: u64) -> Vec<u8> {
    let mut numbers = Numbers(seed);
    let mut bytes = CAPTURES[numbers.below(CAPTURES.len())].clone();
    harm(&mut bytes, &mut numbers);
    bytes
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_capture_is_read_or_refused(seed in any::<u64>()) {
        check(harmed_capture(seed));
    }

    #[test]
    fn any_journal_is_undone_or_refused(seed in any::<u64>()) {
        let mut numbers = Numbers(seed);
        let (mut image, mut journal) = CUT_OFF.clone();
        harm(&mut journal, &mut numbers);
        if numbers.below(4) == 0 {
            harm(&mut image, &mut numbers);
        }
        let length = image.len();
        if journal::undo(&mut image, &journal).is_ok() {
            prop_assert!(image.len() <= length);
            check(image);
        }
    }
}

/// Renders the captures that can be read, too.
#[test]
fn twenty_six_hundred_mutations_are_reported_or_refused() -> TestResult {
    let mut reported = 0;
    for seed in 0..2_600 {
        let Some(capture) = check(harmed_capture(seed)) else {
            continue;
        };
        reported += 1;
        let profile = Profile::of(&capture, Languages::Both);
        for format in [
            Format::Text,
            Format::Json,
            Format::Folded,
            Format::Flamegraph,
            Format::Pprof,
        ] {
            // The writer refuses a flamegraph of nothing.
            let _ = format.write(&profile, Options::default(), &mut Vec::new());
        }
    }
    assert!(reported > 200, "only {reported} were not refused");
    Ok(())
}
