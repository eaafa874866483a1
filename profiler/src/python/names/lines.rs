//! Line tables in the three formats, read into rows in the order of the instructions. A table that is
//! cut or damaged ends early.
//!
//! The numbers of instructions count code units of two bytes.

/// A row: the instructions up to an end, and their line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The first instruction behind the row.
    end: u32,
    /// The line; zero for none.
    line: u32,
}

/// The lines of a code object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lines(Vec<Row>);

impl Lines {
    /// The line of an instruction, if it has one.
    pub fn of(&self, instruction: u32) -> Option<u32> {
        let index = self.0.partition_point(|row| row.end <= instruction);
        self.0
            .get(index)
            .map(|row| row.line)
            .filter(|line| *line != 0)
    }

    /// How many bytes of memory the rows take.
    pub const fn bytes(&self) -> usize {
        self.0.capacity() * size_of::<Row>()
    }

    /// Adds a row for the instructions up to `end`.
    fn push(&mut self, end: i64, line: Option<i64>) {
        let end = u32::try_from(end).unwrap_or(u32::MAX);
        let line = line.and_then(|line| u32::try_from(line).ok()).unwrap_or(0);
        match self.0.last_mut() {
            Some(last) if last.line == line => last.end = last.end.max(end),
            Some(last) if last.end >= end => {}
            _ => self.0.push(Row { end, line }),
        }
    }
}

/// Reads `co_lnotab` (Objects/lnotab_notes.txt of 3.9): pairs of an address increment and a signed
/// line increment.
pub fn of_lnotab(table: &[u8], first: i64) -> Lines {
    let mut lines = Lines::default();
    let (mut address, mut line) = (0, first);
    for &[bytes, more] in table.as_chunks::<2>().0 {
        address += i64::from(bytes);
        if bytes > 0 {
            lines.push(units(address), Some(line));
        }
        line += i64::from(more.cast_signed());
    }
    lines.push(i64::MAX, Some(line));
    lines
}

/// Reads `co_linetable` of 3.10 (Objects/lnotab_notes.txt): pairs of a range's length in bytes and a
/// signed line increment; -128 stands for no line.
pub fn of_ranges(table: &[u8], first: i64) -> Lines {
    const NO_LINE: i8 = -128;
    let mut lines = Lines::default();
    let (mut end, mut line) = (0, first);
    for &[bytes, more] in table.as_chunks::<2>().0 {
        let more = more.cast_signed();
        end += i64::from(bytes);
        if more != NO_LINE {
            line += i64::from(more);
        }
        if bytes > 0 {
            lines.push(units(end), (more != NO_LINE).then_some(line));
        }
    }
    lines
}

/// Reads `co_linetable` from 3.11 on (Objects/locations.md): entries whose first byte has the top bit
/// set, a code in four bits, and the number of instructions less one in three.
pub fn of_locations(table: &[u8], first: i64) -> Lines {
    const NO_LOCATION: u8 = 15;
    const LONG: u8 = 14;
    const NO_COLUMNS: u8 = 13;
    let mut lines = Lines::default();
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
        lines.push(end, (code != NO_LOCATION).then_some(line));
        rest = &behind[length..];
    }
    lines
}

/// Converts an end in bytes to one in code units.
const fn units(bytes: i64) -> i64 {
    (bytes + 1) / 2
}

/// Reads a signed number, six bits a byte, the lowest first; the lowest bit of all is the sign.
fn signed(bytes: &[u8]) -> i64 {
    /// The number of bytes that hold any 32-bit number.
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
