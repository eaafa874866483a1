//! Names and lines of CPython's code objects, read from the memory of the process that runs them.

mod lines;

#[cfg(test)]
mod tests;

use residue_ebpf::abi::{
    frame::NOT_STARTED,
    python::{CodePointers, FreedCode},
};

use super::VARIABLE_SIZE;
use crate::process::{Avma, Memory};
use lines::Lines;

/// The longest name that residue reads, in bytes of text as stored; of a longer name it reads the
/// beginning.
const MAX_NAME: usize = 256;
/// The longest file name, in the same terms.
const MAX_PATH: usize = 1 << 10;
/// The longest line table that residue reads, in bytes; of a longer one it reads the beginning. The
/// table of a function of 100,000 lines is half as long.
const MAX_LINE_TABLE: u64 = 1 << 20;
/// `PyASCIIObject.length` and `.state` (Include/cpython/unicodeobject.h).
const STRING_LENGTH: u64 = 16;
const STRING_STATE: u64 = 32;
/// Where the content of bytes objects begins (Include/cpython/bytesobject.h).
const BYTES_DATA: u64 = 32;

/// How a version writes its line tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineTable {
    /// `co_lnotab` (to 3.9).
    Lnotab,
    /// `co_linetable` of 3.10 (PEP 626).
    Ranges,
    /// `co_linetable` from 3.11 on (Objects/locations.md).
    Locations,
}

/// Where a version keeps the parts of a code object and of strings, in bytes. The offsets come from the
/// debug information of the same builds as the layouts of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodeOffsets {
    /// `co_firstlineno`
    pub first_line: u64,
    /// `co_filename`
    pub filename: u64,
    /// `co_qualname`, or `co_name` where there is none.
    pub name: u64,
    /// `co_linetable`, or `co_lnotab` where there is none.
    pub line_table: u64,
    /// The format of the line table.
    pub format: LineTable,
    /// Where the text of an ASCII string begins, and the text of any other.
    pub text: [u64; 2],
}

impl CodeOffsets {
    /// The pointers to what names a code object. The kernel side follows them to keep the names of freed
    /// code.
    #[must_use]
    pub const fn pointers(&self) -> CodePointers {
        CodePointers([
            self.name as u32,
            self.filename as u32,
            self.line_table as u32,
        ])
    }

    /// The offsets of a version, given as major and minor number.
    #[must_use]
    pub const fn of(version: (u8, u8)) -> Option<Self> {
        let old = Self {
            first_line: 40,
            filename: 104,
            name: 112,
            line_table: 120,
            format: LineTable::Lnotab,
            text: [48, 72],
        };
        let new = Self {
            first_line: 68,
            filename: 112,
            name: 128,
            line_table: 136,
            format: LineTable::Locations,
            text: [40, 56],
        };
        Some(match version {
            (3, 8 | 9) => old,
            (3, 10) => Self {
                format: LineTable::Ranges,
                ..old
            },
            (3, 11) => Self {
                first_line: 72,
                text: old.text,
                ..new
            },
            (3, 12 | 13) => new,
            _ => return None,
        })
    }
}

/// What a code object says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodeObject {
    name: String,
    filename: String,
    first_line: u32,
    /// Empty where residue could not read the table.
    lines: Lines,
}

impl CodeObject {
    /// Reads the code object at `address`; `None` if there is none, or residue cannot read it.
    pub fn read(memory: &impl Memory, offsets: &CodeOffsets, address: Avma) -> Option<Self> {
        let field = |offset| address.checked_add(offset);
        let text = |offset, limit| string(memory, offsets, memory.pointer(field(offset)?)?, limit);
        let first_line = memory.u32(field(offsets.first_line)?)?;
        let table = bytes(memory, memory.pointer(field(offsets.line_table)?)?);
        let decode = match offsets.format {
            LineTable::Lnotab => lines::of_lnotab,
            LineTable::Ranges => lines::of_ranges,
            LineTable::Locations => lines::of_locations,
        };
        Some(Self {
            name: text(offsets.name, MAX_NAME)?,
            filename: text(offsets.filename, MAX_PATH)?,
            first_line,
            // A name without lines is better than none.
            lines: table.map_or_else(Lines::default, |table| {
                decode(&table, i64::from(first_line))
            }),
        })
    }

    /// How many bytes of memory the code object takes here.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        let text = self.name.capacity() + self.filename.capacity();
        size_of::<Self>() + text + self.lines.bytes()
    }

    /// The qualified name from 3.11 on, else the bare name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file, as the interpreter names it.
    #[must_use]
    pub fn filename(&self) -> &str {
        &self.filename
    }

    /// The line of an instruction, which is a number of code units of two bytes; before the first
    /// instruction, the line of the definition. `None` where the instruction belongs to no line.
    #[must_use]
    pub fn line(&self, instruction: u32) -> Option<u32> {
        if instruction == NOT_STARTED {
            return Some(self.first_line);
        }
        self.lines.of(instruction)
    }
}

/// The parts of a code object that the kernel side has kept.
impl Memory for FreedCode {
    fn read(&self, address: Avma, into: &mut [u8]) -> Option<()> {
        self.parts.iter().find_map(|part| {
            let start = usize::try_from(address.0.checked_sub(part.address)?).ok()?;
            let known = part.bytes.get(..usize::try_from(part.len).ok()?)?;
            let found = known.get(start..start.checked_add(into.len())?)?;
            into.copy_from_slice(found);
            Some(())
        })
    }
}

/// A string, up to `limit` characters.
fn string(
    memory: &impl Memory,
    offsets: &CodeOffsets,
    address: Avma,
    limit: usize,
) -> Option<String> {
    let length = memory.u64(address.checked_add(STRING_LENGTH)?)?;
    let state = memory.u32(address.checked_add(STRING_STATE)?)?;
    // `interned` takes two bits, `kind` three, `compact` and `ascii` one each, in 3.8 to 3.13 alike.
    let (width, compact, ascii) = (state >> 2 & 7, state >> 5 & 1, state >> 6 & 1);
    if compact == 0 || !matches!(width, 1 | 2 | 4) {
        return None;
    }
    let start = address.checked_add(offsets.text[usize::from(ascii == 0)])?;
    let kept = usize::try_from(length).ok()?.min(limit);
    let mut raw = vec![0; kept * width as usize];
    memory.read(start, &mut raw)?;
    let character = |unit: &[u8]| {
        let mut code = [0; 4];
        code[..unit.len()].copy_from_slice(unit);
        char::from_u32(u32::from_le_bytes(code)).unwrap_or(char::REPLACEMENT_CHARACTER)
    };
    let mut text: String = raw.chunks_exact(width as usize).map(character).collect();
    if length > kept as u64 {
        text.push('…');
    }
    Some(text)
}

fn bytes(memory: &impl Memory, address: Avma) -> Option<Vec<u8>> {
    let size = memory.u64(address.checked_add(VARIABLE_SIZE)?)?;
    let mut content = vec![0; size.min(MAX_LINE_TABLE) as usize];
    memory.read(address.checked_add(BYTES_DATA)?, &mut content)?;
    Some(content)
}
