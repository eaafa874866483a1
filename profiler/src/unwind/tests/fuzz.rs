//! Hostile input makes nothing panic, and takes no more work or memory than is in proportion to its bytes.
//!
//! `RESIDUE_FUZZ_CASES=10000000 cargo test --release -p residue --lib unwind::tests::fuzz` runs that many cases.
//! Without the variable, the tests take a second or two.

use proptest::collection::vec;
use proptest::prelude::*;

use super::elf::{Cfi, TEXT, object};
use super::laid_out::{Maps, assert_same, places};
use super::oracle::{Gimli, Registers, Step, by_rule};
use crate::unwind::{StoreLimits, TableStore, UnwindTable};

/// Objects that `corpus/make.sh` has made.
const CORPUS: [&[u8]; 4] = [
    include_bytes!("corpus/called.elf"),
    include_bytes!("corpus/signal.elf"),
    include_bytes!("corpus/debug_frame.elf"),
    include_bytes!("corpus/without_sections.elf"),
];
/// Bytes of code in objects with random instructions.
const CODE_BYTES: u64 = 64;
/// How many places to look up after each case.
const LOOKUPS: usize = 32;

fn config() -> ProptestConfig {
    let cases = std::env::var("RESIDUE_FUZZ_CASES").ok();
    let cases = cases.and_then(|cases| cases.parse().ok());
    ProptestConfig {
        cases: cases.unwrap_or(100_000) / 2,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// Checks what holds for every object, sound or not.
fn check(object: &[u8]) {
    let Ok(table) = UnwindTable::read(object) else {
        return;
    };
    let (rows, stats) = (table.rows(), table.stats());
    assert!(rows.is_sorted_by(|a, b| a.offset < b.offset));
    assert!(
        rows.iter()
            .all(|row| table.rule_at(row.offset) == Some(row.rule))
    );
    assert!(rows.len() <= object.len());
    // An instruction takes a byte and an entry four, and both sections may claim the same bytes.
    assert!(stats.instructions <= 2 * object.len());
    assert!(stats.entries <= 2 * object.len() / 4);
    let limits = StoreLimits {
        row_chunks: 16,
        page_chunks: 1,
    };
    let (state, updates) = TableStore::new(limits).insert(&table).expect("it is small");
    let mut maps = Maps::default();
    maps.write(updates);
    places(&table)
        .take(LOOKUPS)
        .for_each(|at| assert_same(&maps, state, &table, at));
}

/// Opcodes that change a row, with operands that make sense, and any other byte.
fn instruction() -> impl Strategy<Value = Vec<u8>> {
    let register = prop_oneof![Just(6u8), Just(7), Just(16), 0..20u8];
    let kind = prop_oneof![0..16u8, 0..16u8, any::<u8>()];
    (kind, register, any::<[u8; 3]>()).prop_map(|(kind, register, [a, b, c])| match kind {
        0 => vec![0x40 | (a & 0x0f)],
        1 => vec![0x80 | register, a & 0x7f],
        2 => vec![0xc0 | register],
        3 => vec![0x0a],
        4 => vec![0x0b],
        5 => vec![0x0c, register, a],
        6 => vec![0x0d, register],
        7 => vec![0x0e, a],
        8 => vec![0x0f, 3, 0x70 | (register & 7), a & 0x7f, 0x06],
        9 => vec![
            0x0f,
            5,
            0x70 | (register & 7),
            a & 0x7f,
            0x06,
            0x23,
            b & 0x7f,
        ],
        10 => vec![0x10, register, 2, 0x70 | (b & 7), a & 0x7f],
        11 => vec![0x07 + (a & 1), register],
        12 => vec![0x09, register, b & 0x0f],
        13 => vec![0x02, a],
        14 => vec![0x2e, a & 0x7f],
        other => vec![other, a, b, c],
    })
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn objects_with_changed_bytes_are_read_or_refused(
        seed in 0..CORPUS.len(),
        changes in vec((any::<u16>(), any::<u8>()), 0..6),
        end in any::<u16>(),
    ) {
        let mut object = CORPUS[seed].to_vec();
        for (at, byte) in changes {
            let at = usize::from(at) % object.len();
            object[at] = byte;
        }
        // One in eight is cut off.
        if end % 8 == 0 {
            object.truncate(usize::from(end) % object.len());
        }
        check(&object);
    }

    #[test]
    fn any_instructions_say_what_gimli_says(
        initial in vec(instruction(), 0..3),
        instructions in vec(instruction(), 0..12),
        at in 0..CODE_BYTES,
        flavour in 0..2usize,
    ) {
        let mut cfi = Cfi::eh_frame();
        let initial = [super::elf::CALLED, &initial.concat()].concat();
        let cie = cfi.cie(["", "zR"][flavour], &initial);
        let fde = cfi.bytes.len();
        cfi.fde(cie, TEXT, CODE_BYTES, &instructions.concat());
        let object = object(&[0x90; CODE_BYTES as usize], &[&cfi]);
        check(&object);
        let Ok(table) = UnwindTable::read(&object[..]) else {
            return Ok(());
        };
        let (sp, bp, ip) = (0x7000_0000, 0x7fff_0008, TEXT + at);
        let now = Registers { sp, bp, ip };
        let offset = (super::elf::TEXT_OFFSET + at) as u32;
        let ours = by_rule(table.rule_at(offset).expect("it is code"), now);
        let said = Gimli::new(&cfi.bytes, Default::default()).step(fde, ip, now);
        // gimli stops at the fourth state to remember, and lets an FDE restore what its CIE did.
        let differs_by_depth = said == Step::Uncovered || initial.contains(&0x0a);
        prop_assert!(ours == said || ours == Step::Unknown || differs_by_depth);
    }
}
