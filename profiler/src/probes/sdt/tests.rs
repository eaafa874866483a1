use proptest::prelude::*;

use super::*;
use crate::process::address::Segment;

/// The bytes of a note as the macros of `sys/sdt.h` lay them out.
fn note(owner: &[u8], kind: u32, [address, base, semaphore]: [u64; 3], text: &[u8]) -> Vec<u8> {
    let mut description: Vec<u8> = [address, base, semaphore]
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect();
    description.extend(text);
    let words = [owner.len() as u32, description.len() as u32, kind];
    let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    for part in [owner, &description] {
        bytes.extend(part);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}

fn text() -> TextSegments {
    TextSegments::new([Segment {
        offset: FileOffset(0x100),
        address: Svma(0x1100),
        file_bytes: 0x100,
        executable: true,
    }])
}

#[test]
fn notes_of_others_and_damaged_ones_are_passed_over() {
    let section = [
        note(b"GNU\0", TYPE, [0; 3], b""),
        note(OWNER, 4, [0; 3], b"a\0b\0\0"),
        note(OWNER, TYPE, [0; 3], b"\xff\0b\0\0"),
        note(OWNER, TYPE, [1, 2, 3], b"app\0job_start\08@%rax\0"),
    ]
    .concat();
    let found: Vec<_> = Notes(&section).collect();
    let wanted = Note {
        address: 1,
        base: 2,
        semaphore: 3,
        provider: "app",
        name: "job_start",
    };
    assert_eq!(found, [wanted]);
}

#[test]
fn an_address_moves_with_the_base() {
    let section = note(OWNER, TYPE, [0x2110, 0x3000, 0x4000], b"app\0job\0\0");
    let note = Notes(&section).next().expect("it is whole");
    let mut file = vec![0_u8; 0x200];
    file[0x110] = 0x90;
    let placed = |base| note.place(base, &file[..], &text());
    let probe = placed(Some(0x2000));
    assert_eq!(probe.file_offset, Some(FileOffset(0x110)));
    assert_eq!(probe.semaphore, Some(Svma(0x3000)));
    assert_eq!(probe.nop, Some(vec![0x90]));
    assert_eq!(placed(None).file_offset, None, "it is in no text segment");
}

#[test]
fn what_is_no_nop_is_no_place_for_a_probe() {
    assert_eq!(nop(&[0x55, 0x90]), None);
    assert_eq!(nop(&[]), None);
    assert_eq!(
        nop(&[0x0f, 0x1f, 0x44, 0, 0]),
        Some(vec![0x0f, 0x1f, 0x44, 0, 0])
    );
}

#[test]
fn lengths_beyond_the_section_end_the_list() {
    let mut section = note(OWNER, TYPE, [0; 3], b"app\0job\0\0");
    section[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(Notes(&section).count(), 0);
    section[..4].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(Notes(&section).count(), 0);
}

proptest! {
    #[test]
    fn any_section_ends(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        let _ = Notes(&bytes).count();
    }

    #[test]
    fn damaged_notes_have_names_of_their_own_section(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        cut in any::<prop::sample::Index>(),
        addresses in any::<[u64; 3]>(),
        base in any::<Option<u64>>(),
    ) {
        let mut section = note(OWNER, TYPE, addresses, b"app\0job_start\0\0").repeat(3);
        for (at, byte) in damage {
            let at = at.index(section.len());
            section[at] = byte;
        }
        section.truncate(cut.index(section.len() + 1));
        let file = [0x90_u8; 0x180];
        for note in Notes(&section) {
            prop_assert!(note.provider.len() + note.name.len() < section.len());
            let probe = note.place(base, &file[..], &text());
            prop_assert!(probe.nop.is_none() || probe.file_offset.is_some());
        }
    }
}
