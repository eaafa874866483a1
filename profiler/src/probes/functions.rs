//! The functions of one object that somebody asks for by name, with their code.

use object::LittleEndian;
use object::elf::{self, FileHeader64, Sym64};
use object::read::ReadRef;
use object::read::elf::{FileHeader as _, Sym as _};

use super::FunctionCode;
use super::symbols::{DamagedSymbols, each_symbol};
use crate::target::address::TextSegments;
use crate::target::{FileOffset, Svma};

const ENDIAN: LittleEndian = LittleEndian;

/// A defined function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionSymbol {
    /// Its symbol.
    pub name: String,
    /// Not local to one compilation unit.
    pub global: bool,
    /// `STT_GNU_IFUNC`: it only returns the address of the real function.
    pub indirect: bool,
    /// Where it is, in the file's terms.
    pub address: Svma,
    /// Where it is in the file; `None` when its address is in no executable segment.
    pub file_offset: Option<FileOffset>,
    /// Its code.
    pub code: FunctionCode,
}

/// A symbol as it is shown to whoever chooses among them.
#[derive(Clone, Copy, Debug)]
pub struct SymbolName<'a> {
    /// The symbol.
    pub name: &'a str,
    /// Whether it is a function that is defined here.
    pub is_function: bool,
    /// Whether it is defined here at all.
    pub is_defined: bool,
}

/// Reads the functions that `wants` accepts. It is shown every symbol of both tables; what it says to
/// one that is no function does not matter. A function that has several names is there under each.
///
/// # Errors
/// When the section headers or a table contradict themselves.
pub fn functions<'data>(
    data: impl ReadRef<'data>,
    text: &TextSegments,
    mut wants: impl FnMut(SymbolName<'_>) -> bool,
) -> Result<Vec<FunctionSymbol>, DamagedSymbols> {
    let header = FileHeader64::<LittleEndian>::parse(data).map_err(|_| DamagedSymbols)?;
    let sections = header.sections(ENDIAN, data).map_err(|_| DamagedSymbols)?;
    let mut found: Vec<FunctionSymbol> = Vec::new();
    each_symbol(data, &sections, |symbol, name, _| {
        let shown = SymbolName {
            name,
            is_function: is_function(symbol),
            is_defined: !symbol.is_undefined(ENDIAN),
        };
        if wants(shown) && shown.is_function {
            found.push(FunctionSymbol::read(data, text, symbol, name));
        }
    })?;
    // What is exported is in both tables.
    found.sort_by(|a, b| (&a.name, a.address, b.global).cmp(&(&b.name, b.address, a.global)));
    found.dedup_by(|a, b| (&a.name, a.address) == (&b.name, b.address));
    Ok(found)
}

fn is_function(symbol: &Sym64<LittleEndian>) -> bool {
    !symbol.is_undefined(ENDIAN) && matches!(symbol.st_type(), elf::STT_FUNC | elf::STT_GNU_IFUNC)
}

impl FunctionSymbol {
    fn read<'data>(
        data: impl ReadRef<'data>,
        text: &TextSegments,
        symbol: &Sym64<LittleEndian>,
        name: &str,
    ) -> Self {
        let address = Svma(symbol.st_value(ENDIAN));
        let file_offset = text.file_offset(address);
        let size = symbol.st_size(ENDIAN);
        let code = file_offset.map(|start| FunctionCode::read(data, start, size));
        Self {
            name: name.to_owned(),
            global: symbol.st_bind() != elf::STB_LOCAL,
            indirect: symbol.st_type() == elf::STT_GNU_IFUNC,
            address,
            file_offset,
            code: code.unwrap_or_default(),
        }
    }
}
