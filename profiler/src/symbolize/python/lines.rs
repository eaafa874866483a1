//! Line tables: from an instruction to its line. All three formats list the instructions in order, so
//! a lookup goes over the table once; a table that is cut or damaged ends it.
//!
//! Instructions are counted in code units of two bytes.

/// Bytes of an instruction.
const UNIT: i64 = 2;

/// `co_lnotab` (Objects/lnotab_notes.txt of 3.9): pairs of an address increment and a signed line
/// increment.
pub fn in_lnotab(table: &[u8], first: i64, instruction: u32) -> Option<i64> {
    let wanted = i64::from(instruction) * UNIT;
    let (mut address, mut line) = (0, first);
    for &[bytes, lines] in table.as_chunks::<2>().0 {
        address += i64::from(bytes);
        if address > wanted {
            break;
        }
        line += i64::from(lines.cast_signed());
    }
    Some(line)
}

/// `co_linetable` of 3.10 (Objects/lnotab_notes.txt): pairs of a range's length in bytes and a signed
/// line increment; -128 stands for no line.
pub fn in_ranges(table: &[u8], first: i64, instruction: u32) -> Option<i64> {
    const NO_LINE: i8 = -128;
    let wanted = i64::from(instruction) * UNIT;
    let (mut end, mut line) = (0, first);
    for &[bytes, lines] in table.as_chunks::<2>().0 {
        let lines = lines.cast_signed();
        end += i64::from(bytes);
        if lines != NO_LINE {
            line += i64::from(lines);
        }
        if wanted < end {
            return (lines != NO_LINE).then_some(line);
        }
    }
    None
}

/// `co_linetable` from 3.11 on (Objects/locations.md): entries whose first byte has the top bit set, a
/// code of four bits, and the number of instructions less one in three.
pub fn in_locations(table: &[u8], first: i64, instruction: u32) -> Option<i64> {
    const NO_LOCATION: u8 = 15;
    const LONG: u8 = 14;
    const NO_COLUMNS: u8 = 13;
    let wanted = i64::from(instruction);
    let (mut end, mut line) = (0, first);
    let mut rest = table;
    while let Some((&head, behind)) = rest.split_first() {
        let code = head >> 3 & 15;
        // No other byte of an entry has the top bit set.
        let length = behind.iter().take_while(|byte| **byte & 0x80 == 0).count();
        line += match code {
            NO_COLUMNS | LONG => signed(behind),
            10..=12 => i64::from(code) - 10,
            _ => 0,
        };
        end += i64::from(head & 7) + 1;
        if wanted < end {
            return (code != NO_LOCATION).then_some(line);
        }
        rest = &behind[length..];
    }
    None
}

/// A signed number in six bits a byte, the lowest first, whose lowest bit is the sign.
fn signed(bytes: &[u8]) -> i64 {
    /// So many bytes hold any 32-bit number.
    const LONGEST: usize = 6;
    let mut value = 0_i64;
    for (index, byte) in bytes.iter().take(LONGEST).enumerate() {
        value |= i64::from(byte & 0x3f) << (6 * index);
        if byte & 0x40 == 0 {
            break;
        }
    }
    if value & 1 == 0 {
        value >> 1
    } else {
        -(value >> 1)
    }
}
