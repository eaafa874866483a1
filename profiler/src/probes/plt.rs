//! Finds the symbol that a stub of the procedure linkage table leads to. The stub is `jmp [rip + slot]`, and a
//! relocation names the symbol whose address the dynamic linker puts into the slot.

use iced_x86::{Code, Decoder, DecoderOptions};
use object::LittleEndian;
use object::elf::{self, FileHeader64, Rela64, Sym64};
use object::read::ReadRef;
use object::read::elf::{SectionHeader as _, SectionTable};

use super::symbols::{DamagedSymbols, array, name};
use crate::process::Svma;
use crate::process::address::TextSegments;

const ENDIAN: LittleEndian = LittleEndian;
/// The longest stub: `endbr64`, then the jump, padded.
const STUB_BYTES: u64 = 16;

/// The most tables of relocations to read. A linked object has two.
const MAX_TABLES: usize = 8;

/// An object's procedure linkage table: its sections, among them the relocations, and its code.
pub(super) struct Plt<'a, 'data, R: ReadRef<'data>> {
    data: R,
    sections: &'a SectionTable<'data, FileHeader64<LittleEndian>, R>,
    text: &'a TextSegments,
}

impl<'a, 'data, R: ReadRef<'data>> Plt<'a, 'data, R> {
    pub fn new(
        data: R,
        sections: &'a SectionTable<'data, FileHeader64<LittleEndian>, R>,
        text: &'a TextSegments,
    ) -> Self {
        Self {
            data,
            sections,
            text,
        }
    }

    /// The symbol that a jump to `stub` ends at; `None` if there is no stub at that address.
    pub fn symbol(&self, stub: Svma) -> Option<String> {
        let slot = self.slot(stub)?;
        let sections = self.sections.iter();
        let tables = sections.filter(|section| section.sh_type(ENDIAN) == elf::SHT_RELA);
        tables.take(MAX_TABLES).find_map(|section| {
            let relocations: &[Rela64<LittleEndian>] = array(section, self.data).ok()?;
            let relocation = relocations
                .iter()
                .find(|relocation| relocation.r_offset.get(ENDIAN) == slot)?;
            self.symbol_name(section.sh_link(ENDIAN), relocation.r_sym(ENDIAN, false))
                .ok()?
        })
    }

    /// The SVMA of the stub's slot.
    fn slot(&self, stub: Svma) -> Option<u64> {
        let start = self.text.file_offset(stub)?;
        let bytes = self.data.read_bytes_at(start.0, STUB_BYTES).ok()?;
        let mut decoder = Decoder::with_ip(64, bytes, stub.0, DecoderOptions::NONE);
        let jump = decoder
            .iter()
            .find(|instruction| instruction.code() != Code::Endbr64)?;
        let through_slot = jump.code() == Code::Jmp_rm64 && jump.is_ip_rel_memory_operand();
        through_slot.then(|| jump.ip_rel_memory_address())
    }

    fn symbol_name(&self, table: u32, index: u32) -> Result<Option<String>, DamagedSymbols> {
        let section = |index: u32| {
            let index = object::SectionIndex(index as usize);
            self.sections.section(index).map_err(|_| DamagedSymbols)
        };
        let table = section(table)?;
        let strings: &[u8] = array(section(table.sh_link(ENDIAN))?, self.data)?;
        let symbols: &[Sym64<LittleEndian>] = array(table, self.data)?;
        let symbol = symbols.get(index as usize).filter(|_| index != 0);
        Ok(symbol
            .and_then(|symbol| name(symbol, strings))
            .map(str::to_owned))
    }
}
