//! Checks whole tables: which entry covers which byte.

use residue_ebpf::abi::unwind::{Rule, RuleKind};

use super::elf::{CALLED, Cfi, TEXT, TEXT_OFFSET, object};
use crate::process::elf::NotUsable;
use crate::unwind::rule::GAP;
use crate::unwind::{UnwindError, UnwindTable};

const CODE: [u8; 256] = [0x90; 256];

fn read(code: &[u8], sections: &[&Cfi]) -> Result<UnwindTable, UnwindError> {
    UnwindTable::read(&object(code, sections)[..])
}

/// The rows of a table: the distance from the start of the code in bytes, and the rule.
fn rows(table: &UnwindTable) -> Vec<(u32, Rule)> {
    let rows = table.rows().iter();
    rows.map(|row| (row.offset - TEXT_OFFSET as u32, row.rule))
        .collect()
}

fn sp(offset: i32) -> Rule {
    Rule::new(RuleKind::Sp, offset)
}

/// A section with these functions: the first byte, the length, and the CFA offset of each.
fn functions(functions: &[(u64, u64, u8)]) -> Cfi {
    described(Cfi::eh_frame(), functions)
}

fn described(mut cfi: Cfi, functions: &[(u64, u64, u8)]) -> Cfi {
    let cie = cfi.cie("", CALLED);
    for (start, length, offset) in functions {
        cfi.fde(cie, TEXT + start, *length, &[0x0e, *offset]);
    }
    cfi
}

#[test]
fn code_between_functions_is_a_gap() {
    let table = read(&CODE, &[&functions(&[(16, 16, 16), (64, 32, 24)])]).expect("sound");
    let expected = [(0, GAP), (16, sp(16)), (32, GAP), (64, sp(24)), (96, GAP)];
    assert_eq!(rows(&table), expected);
    let outside = [TEXT_OFFSET as u32 - 1, TEXT_OFFSET as u32 + 256];
    assert_eq!(outside.map(|at| table.rule_at(at)), [None, None]);
}

#[test]
fn neighbours_with_the_same_rule_are_one_row() {
    let table = read(&CODE, &[&functions(&[(0, 16, 16), (16, 240, 16)])]).expect("sound");
    assert_eq!(rows(&table), [(0, sp(16))]);
}

#[test]
fn a_row_for_each_change_and_none_for_what_is_left_aside() {
    let instructions = [
        0x41, 0x0e, 16, // advance 1; cfa offset 16
        0x40, 0x0e, 24, // advance 0: the row before it is empty
        0x41, 0x83, 4, // advance 1; rbx is saved, which changes nothing here
        0x2e, 16, // GNU_args_size
        0x41, 0x0a, 0x0e, 8, // advance 1; remember state; cfa offset 8
        0x41, 0x0b, // advance 1; restore state
    ];
    let table = read(&CODE, &[&Cfi::function(16, &instructions)]).expect("sound");
    let expected = [(0, sp(8)), (1, sp(24)), (3, sp(8)), (4, sp(24)), (16, GAP)];
    assert_eq!(rows(&table), expected);
}

#[test]
fn of_functions_that_overlap_the_later_one_holds_from_its_start() {
    let overlapping = functions(&[(0, 64, 16), (32, 16, 24), (32, 8, 32)]);
    let table = read(&CODE, &[&overlapping]).expect("sound");
    assert_eq!(rows(&table), [(0, sp(16)), (32, sp(24)), (48, GAP)]);
}

#[test]
fn functions_without_length_or_outside_the_code_say_nothing() {
    let odd = functions(&[
        (8, 0, 16),
        (16, u64::MAX, 24),
        (1 << 40, 16, 32),
        (32, 16, 40),
    ]);
    let table = read(&CODE, &[&odd]).expect("sound");
    assert_eq!(rows(&table), [(0, GAP), (32, sp(40)), (48, GAP)]);
}

#[test]
fn a_function_that_ends_behind_the_code_ends_with_it() {
    let table = read(&CODE, &[&functions(&[(128, 1 << 20, 16)])]).expect("sound");
    assert_eq!(rows(&table), [(0, GAP), (128, sp(16))]);
    assert_eq!(table.stats().covered_bytes, 128);
}

#[test]
fn debug_frame_covers_what_eh_frame_does_not() {
    let eh_frame = functions(&[(32, 32, 16), (128, 32, 16)]);
    let debug_frame = described(
        Cfi::debug_frame(),
        &[(0, 48, 24), (48, 100, 32), (200, 8, 40)],
    );
    let table = read(&CODE, &[&eh_frame, &debug_frame]).expect("sound");
    let expected = [
        (0, sp(24)),
        (32, sp(16)),
        (64, sp(32)),
        (128, sp(16)),
        (160, GAP),
        (200, sp(40)),
        (208, GAP),
    ];
    assert_eq!(rows(&table), expected);
}

#[test]
fn instructions_that_are_damaged_end_their_function() {
    // advance 4; cfa offset 16; advance 4; restore state, though none was remembered
    let table = read(&CODE, &[&Cfi::function(16, &[0x44, 0x0e, 16, 0x44, 0x0b])]).expect("sound");
    assert_eq!(rows(&table), [(0, sp(8)), (4, sp(16)), (8, GAP)]);
    let deep: Vec<u8> = [vec![0x44], vec![0x0a; 1000]].concat();
    let table = read(&CODE, &[&Cfi::function(16, &deep)]).expect("sound");
    assert_eq!(rows(&table), [(0, sp(8)), (4, GAP)]);
}

#[test]
fn entries_behind_a_length_of_zero_and_damaged_ones_are_passed() {
    let mut cfi = Cfi::eh_frame();
    let damaged = cfi.cie("unknown", CALLED);
    cfi.fde(damaged, TEXT, 16, &[]);
    cfi.bytes.extend([0; 4]);
    let cie = cfi.cie("", CALLED);
    cfi.fde(cie, TEXT + 16, 16, &[]);
    cfi.bytes.extend([0xf0, 0xff, 0, 0, 1, 2, 3]);
    let table = read(&CODE, &[&cfi]).expect("one function is sound");
    assert_eq!(rows(&table), [(0, GAP), (16, sp(8)), (32, GAP)]);
    let stats = table.stats();
    assert_eq!((stats.entries, stats.unsound, stats.fdes), (4, 2, 1));
}

#[test]
fn signal_trampolines_are_known_by_their_code() {
    let signal = Rule::new(RuleKind::Signal, 40);
    let mut code = CODE;
    code[32..39].copy_from_slice(&[0xb8, 0x0f, 0, 0, 0, 0x0f, 0x05]);
    code[64..73].copy_from_slice(&[0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05]);
    let expected = [(0, GAP), (31, signal), (39, GAP), (63, signal), (73, GAP)];
    let table = read(&code, &[]).expect("a trampoline is enough for a table");
    assert_eq!(rows(&table), expected);
    // Where an FDE covers the code, the FDE counts.
    let table = read(&code, &[&functions(&[(0, 40, 16)])]).expect("sound");
    let expected = [(0, sp(16)), (40, GAP), (63, signal), (73, GAP)];
    assert_eq!(rows(&table), expected);
    code.copy_within(64..73, 0);
    let table = read(&code, &[]).expect("a trampoline is enough for a table");
    assert_eq!(rows(&table)[0], (0, signal), "nothing is before the code");
}

#[test]
fn glibcs_trampoline_holds_one_byte_earlier() {
    let object = include_bytes!("corpus/signal.elf");
    let table = UnwindTable::read(&object[..]).expect("sound");
    let code = object
        .windows(9)
        .position(|code| code == [0x48, 0xc7, 0xc0, 15, 0, 0, 0, 15, 5]);
    let start = code.expect("it is in there") as u32;
    let signal = Rule::new(RuleKind::Signal, 40);
    assert_eq!(table.row_at(start), Some((start - 1..start + 9, signal)));
}

#[test]
fn eh_frame_is_found_without_section_headers() {
    let object = include_bytes!("corpus/without_sections.elf");
    let table = UnwindTable::read(&object[..]).expect("sound");
    assert_eq!(table.stats().fdes, 1);
}

#[test]
fn objects_without_a_table_are_told_apart() {
    assert_eq!(read(&CODE, &[]), Err(UnwindError::NoCfi));
    assert_eq!(read(&CODE, &[&Cfi::eh_frame()]), Err(UnwindError::NoCfi));
    assert_eq!(read(&CODE, &[&functions(&[])]), Err(UnwindError::NoCfi));
    let mut damaged = Cfi::eh_frame();
    damaged.cie("unknown", CALLED);
    assert_eq!(read(&CODE, &[&damaged]), Err(UnwindError::Damaged));
    let script = UnwindTable::read(&b"#!/bin/sh\n"[..]);
    assert_eq!(script, Err(UnwindError::NotUsable(NotUsable::NotElf)));
}

#[test]
fn headers_that_lie_about_the_code_are_refused() {
    let patched = |at: usize, value: u64| {
        let mut object = object(&CODE, &[&functions(&[(0, 16, 16)])]);
        object[at..at + 8].copy_from_slice(&value.to_le_bytes());
        UnwindTable::read(&object[..])
    };
    let (p_offset, p_filesz) = (64 + 8, 64 + 32);
    assert_eq!(patched(p_filesz, 1 << 40), Err(UnwindError::Damaged));
    assert_eq!(patched(p_offset, u64::MAX), Err(UnwindError::Damaged));
}
