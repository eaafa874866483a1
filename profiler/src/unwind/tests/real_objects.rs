//! Checks the rows that compilers, assemblers and linkers have written into the objects of this machine.

use std::collections::BTreeMap;
use std::fs;

use gimli::{BaseAddresses, EhFrameHdr, EndianSlice, LittleEndian};
use object::{Object as _, ObjectSection as _};
use residue_ebpf::abi::unwind::RuleKind;

use super::oracle::{Gimli, Registers, Step, by_rule};
use crate::machine::skipped;
use crate::process::FileOffset;
use crate::process::elf::text_segments;
use crate::unwind::UnwindTable;

/// Compares what a table states at the first and the last byte of every `stride`-th row with gimli. Returns for how
/// many bytes of code the rule is unsupported.
fn compare(object: &[u8], stride: usize) -> u64 {
    let table = UnwindTable::read(object).expect("a real object can be read");
    let text = text_segments(object).expect("it is an ELF file");
    let file = object::File::parse(object).expect("it is an ELF file");
    let section = |name| file.section_by_name(name).expect("a real object has it");
    let (hdr, eh_frame) = (section(".eh_frame_hdr"), section(".eh_frame"));
    let bases = BaseAddresses::default()
        .set_eh_frame_hdr(hdr.address())
        .set_eh_frame(eh_frame.address())
        .set_text(section(".text").address());
    let mut gimli = Gimli::new(eh_frame.data().expect("it can be read"), bases.clone());
    let hdr = EhFrameHdr::from(EndianSlice::new(
        hdr.data().expect("it can be read"),
        LittleEndian,
    ));
    let hdr = hdr.parse(&bases, 8).expect("the linker wrote it");
    let search = hdr.table().expect("the linker wrote one");
    let mut unsupported = BTreeMap::new();
    for row in table.rows().iter().step_by(stride) {
        let (range, rule) = table.row_at(row.offset).expect("a row is in the text");
        assert_eq!(rule, row.rule);
        for offset in [range.start, range.end - 1] {
            let address = text
                .svma(FileOffset(offset.into()))
                .expect("it is in the text")
                .0;
            let pointer = search.lookup(address, &bases).expect("the linker wrote it");
            let fde = search
                .pointer_to_offset(pointer)
                .expect("it points to an FDE")
                .0;
            let now = Registers {
                sp: 0x7000_0000,
                bp: 0x7fff_0008,
                ip: address,
            };
            let said = gimli.step(fde, address, now);
            let ours = by_rule(rule, now);
            match ours {
                // The table knows a trampoline by its code, where CFI states nothing.
                Step::To(_) if rule.kind == RuleKind::Signal as u8 && said == Step::Uncovered => {}
                Step::Unknown => {
                    unsupported.insert(range.start, (range.end - range.start, said));
                }
                _ => assert_eq!(ours, said, "at {address:#x}: {rule:?}"),
            }
        }
    }
    // Whatever compilers write has a rule, if the three registers suffice.
    let known = unsupported
        .values()
        .filter(|(_, said)| matches!(said, Step::To(_)));
    assert!(known.count() * 100 <= table.rows().len(), "{unsupported:?}");
    unsupported
        .values()
        .map(|(bytes, _)| u64::from(*bytes))
        .sum()
}

fn library(name: &str) -> Vec<u8> {
    let maps = fs::read_to_string("/proc/self/maps").expect("a program can read its maps");
    let path = maps
        .split_whitespace()
        .find(|word| {
            word.rsplit('/')
                .next()
                .is_some_and(|file| file.starts_with(name))
        })
        .expect("this program is linked with it");
    fs::read(path).expect("it was read before")
}

#[test]
fn every_row_of_libc_says_what_gimli_says() {
    let unsupported = compare(&library("libc.so"), 1);
    assert!(unsupported < 4096, "{unsupported} bytes of code");
}

#[test]
fn every_row_of_the_dynamic_linker_says_what_gimli_says() {
    compare(&library("ld-linux"), 1);
}

#[test]
fn rows_of_this_program_say_what_gimli_says() {
    compare(
        &fs::read("/proc/self/exe").expect("a program can read itself"),
        97,
    );
}

#[test]
fn rows_of_large_programs_say_what_gimli_says() {
    let programs = [
        ("nodejs", "/usr/bin/node"),
        (
            "libpython3.11",
            "/usr/lib/x86_64-linux-gnu/libpython3.11.so.1.0",
        ),
    ];
    for (package, path) in programs {
        match fs::read(path) {
            Ok(object) => {
                compare(&object, 97);
            }
            Err(_) => skipped("rows_of_large_programs_say_what_gimli_says", package),
        }
    }
}

#[test]
fn the_vdso_has_a_table() {
    use std::os::unix::fs::FileExt as _;
    let maps = fs::read_to_string("/proc/self/maps").expect("a program can read its maps");
    let line = maps
        .lines()
        .find(|line| line.ends_with("[vdso]"))
        .expect("x86-64 has one");
    let (range, _) = line.split_once(' ').expect("a range comes first");
    let ends = range
        .split('-')
        .map(|end| u64::from_str_radix(end, 16).expect("it is hexadecimal"));
    let ends: Vec<_> = ends.collect();
    let mut image = vec![0; (ends[1] - ends[0]) as usize];
    let memory = fs::File::open("/proc/self/mem").expect("a program can read itself");
    memory
        .read_exact_at(&mut image, ends[0])
        .expect("it is mapped");
    compare(&image, 1);
}
