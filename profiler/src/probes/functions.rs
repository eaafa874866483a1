//! Finds functions of one object by name, with their code.

use object::LittleEndian;
use object::elf::{self, FileHeader64, Sym64};
use object::read::ReadRef;
use object::read::elf::{FileHeader as _, Sym as _};

use super::FunctionCode;
use super::symbols::{DamagedSymbols, each_symbol};
use crate::process::address::TextSegments;
use crate::process::{FileOffset, Svma};

const ENDIAN: LittleEndian = LittleEndian;

/// A defined function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionSymbol {
    /// The symbol of the function.
    pub name: String,
    /// Whether other compilation units can refer to the function.
    pub global: bool,
    /// `STT_GNU_IFUNC`: the function only returns the address of the real function.
    pub indirect: bool,
    /// Where the function begins, SVMA.
    pub address: Svma,
    /// Where the function begins in the file; `None` when its address is in no executable segment.
    pub file_offset: Option<FileOffset>,
    /// The machine code of the function.
    pub code: FunctionCode,
}

/// A symbol as [`functions`] shows it to its caller, who accepts or refuses.
#[derive(Clone, Copy, Debug)]
pub struct SymbolName<'a> {
    /// The symbol.
    pub name: &'a str,
    /// Whether the symbol names a function that this object defines.
    pub is_function: bool,
    /// Whether this object defines the symbol.
    pub is_defined: bool,
}

/// Reads the functions that `wants` accepts. This function shows `wants` every symbol of both symbol tables,
/// and ignores the answer for a symbol that is no function. A function with several names appears once for
/// each accepted name.
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
    // An exported function is in both tables.
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
