//! Finds the allocator functions that one object defines, with their code.

use std::collections::HashSet;

use object::LittleEndian;
use object::elf::{self, FileHeader64, SectionHeader64, Sym64, Versym};
use object::read::ReadRef;
use object::read::elf::{FileHeader as _, SectionHeader as _, SectionTable, Sym as _};

use super::allocators::{self, Known, MARKERS, RUST_CUSTOM, RUST_DEFAULT};
use super::plt::Plt;
use super::{site, walkers};
use crate::process::address::TextSegments;
use crate::process::{FileOffset, Svma};

/// The most code of a function to read, bytes. The longest allocator functions (jemalloc's) have 10 KiB. A longer
/// function gets its probe at the start, because residue cannot prove any other place safe.
const MAX_CODE_BYTES: u64 = 64 << 10;
/// How much code to read of a function whose symbol states no size, bytes: enough for the first instruction.
const UNSIZED_CODE_BYTES: u64 = 16;
/// The largest symbol table to read, bytes. Real tables are smaller.
const MAX_TABLE_BYTES: u64 = 256 << 20;
/// The most symbol tables to read. An object has one of each kind.
const MAX_TABLES: usize = 4;
/// How much of a symbol's name to read, bytes. No symbol of interest has a longer name.
const MAX_NAME_BYTES: usize = 16 << 10;
/// The most bytes of names to read from one file. In real files few names overlap. A hostile file can let millions
/// of names begin in one place, so that reading them would never end.
const MAX_NAMES_BYTES: usize = 1 << 30;
/// `VERSYM_HIDDEN` (elf.h): this is not the default version of the symbol.
const VERSYM_HIDDEN: u16 = 0x8000;
/// A symbol that glibc's dynamic linker exports. The linker has a small allocator, which only the linker itself
/// uses, before the process has loaded the C library.
const LINKER_MARK: &str = "_rtld_global";
/// The most local functions of one name to keep. Several exist where somebody has linked libraries into one that
/// each have an allocator of their own.
const MAX_LOCAL: usize = 8;
/// What GCC adds to the name of a copy that takes its arguments in another way, or that is the rest of a function
/// after GCC has inlined a part.
const CHANGES: [&str; 3] = ["constprop", "isra", "part"];
/// The most such copies to keep. Real objects have fewer.
const MAX_CHANGED: usize = 64;
/// The most marks to keep. There are two dozen names, and an object has each in one or two tables.
const MAX_MARKS: usize = 128;

const ENDIAN: LittleEndian = LittleEndian;
type Section = SectionHeader64<LittleEndian>;

/// Residue cannot read the symbol tables of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("its symbol tables are damaged, or too large")]
pub struct DamagedSymbols;

/// The machine code of a function.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FunctionCode {
    /// The bytes of the function, from its start.
    pub bytes: Vec<u8>,
    /// Whether these are all bytes of the function.
    pub complete: bool,
}

/// An allocator function that the object defines.
#[derive(Clone, Debug)]
pub struct AllocatorSymbol {
    /// The symbol of the function.
    pub name: String,
    /// What the registry knows about the function.
    pub known: Known,
    /// Whether other objects can resolve to the symbol: the dynamic symbol table has it, in the default version.
    pub exported: bool,
    /// Whether the symbol is global: neither local to one compilation unit, nor made local by the linker.
    pub global: bool,
    /// Whether the calls in this object go to the function although it is local: see [`ObjectSymbols::read`].
    pub localized: bool,
    /// `STT_GNU_IFUNC`: the function only returns the address of the real function.
    pub indirect: bool,
    /// Where the function begins, SVMA.
    pub address: Svma,
    /// Where the function begins in the file; `None` when its address is in no executable segment.
    pub file_offset: Option<FileOffset>,
    /// The machine code of the function.
    pub code: FunctionCode,
    /// The other function, if this one only jumps to another one.
    pub forwards: Option<Forward>,
}

/// The target of a function that only jumps to another function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Forward {
    /// A function in the same object.
    Address(Svma),
    /// The function that this symbol resolves to, through the procedure linkage table.
    Symbol(String),
}

/// What the planning of probes needs to know about an object's symbols.
#[derive(Clone, Debug, Default)]
pub struct ObjectSymbols {
    /// The allocator functions that the object defines, in the order of the registry.
    pub functions: Vec<AllocatorSymbol>,
    /// The allocator that other symbols of the object tell of, if any.
    pub marked: Option<&'static str>,
    /// Whether the Rust code in the object, if there is any, has its own `#[global_allocator]`.
    pub has_rust_allocator: bool,
    /// Whether the object has any symbols at all.
    pub has_symbols: bool,
    /// Copies of allocator functions that the compiler has changed, if the function itself is not there for other
    /// objects. Residue does not see calls of these copies.
    pub changed: Vec<String>,
    /// Symbols that tell of code which [takes stacks](walkers), with the SVMA of those that the object defines.
    pub marks: Vec<(&'static str, Option<Svma>)>,
}

impl ObjectSymbols {
    /// Reads the dynamic and the full symbol table of an ELF file with these text segments.
    ///
    /// The linker makes a function local if no other object may call it: in a static position-independent
    /// executable, by a version script, or in link-time optimization. All calls in the object go to such a
    /// function. A `static` function of one source file that has such a name by chance looks the same, but the
    /// linker does not bind the object's other calls to a `static` function, so that the object imports the real
    /// one. So a local function counts if the object has both `malloc` and `free` and imports neither, and if the
    /// object imports no function with the name of the local one.
    ///
    /// # Errors
    /// When the section headers or a table contradict themselves.
    pub fn read<'data>(
        data: impl ReadRef<'data>,
        text: &TextSegments,
    ) -> Result<Self, DamagedSymbols> {
        let header = FileHeader64::<LittleEndian>::parse(data).map_err(|_| DamagedSymbols)?;
        let sections = header.sections(ENDIAN, data).map_err(|_| DamagedSymbols)?;
        let mut found = Found::default();
        each_symbol(data, &sections, |symbol, name, exported| {
            found.read_symbol(symbol, name, exported);
        })?;
        found.mark_localized();
        found.sort_out_changed();
        let mut symbols = found.symbols;
        symbols.has_symbols = found.any;
        symbols.has_rust_allocator = found.rust_custom || !found.rust_default;
        let mut functions = found.functions;
        functions.sort_by(|(a, _), (b, _)| {
            let key =
                |symbol: &AllocatorSymbol| (symbol.known.rank, !symbol.global, symbol.address);
            key(a).cmp(&key(b)).then_with(|| a.name.cmp(&b.name))
        });
        let plt = Plt::new(data, &sections, text);
        for (mut function, size) in functions {
            function.locate(data, text, size);
            function.forwards = forward(&function, &plt);
            symbols.functions.push(function);
        }
        Ok(symbols)
    }

    /// Whether the object defines or imports this symbol, which tells of code that takes stacks.
    #[must_use]
    pub fn mentions(&self, mark: &str) -> bool {
        self.marks.iter().any(|(name, _)| *name == mark)
    }

    /// The SVMA of such a symbol, if the object defines it.
    #[must_use]
    pub fn place_of(&self, mark: &str) -> Option<Svma> {
        let mut marks = self.marks.iter().filter(|(name, _)| *name == mark);
        marks.find_map(|(_, place)| *place)
    }
}

impl AllocatorSymbol {
    fn locate<'data>(&mut self, data: impl ReadRef<'data>, text: &TextSegments, size: u64) {
        self.file_offset = text.file_offset(self.address);
        if let Some(start) = self.file_offset {
            self.code = FunctionCode::read(data, start, size);
        }
    }
}

impl FunctionCode {
    /// Reads the code of a function whose symbol states `size` bytes, or zero if it states no size.
    pub(super) fn read<'data>(data: impl ReadRef<'data>, start: FileOffset, size: u64) -> Self {
        let length = if size == 0 {
            UNSIZED_CODE_BYTES
        } else {
            size.min(MAX_CODE_BYTES)
        };
        let bytes = data
            .read_bytes_at(start.0, length)
            .unwrap_or_default()
            .to_vec();
        let complete = size > 0 && bytes.len() as u64 == size;
        Self { bytes, complete }
    }
}

fn forward<'data, R: ReadRef<'data>>(
    function: &AllocatorSymbol,
    plt: &Plt<'_, 'data, R>,
) -> Option<Forward> {
    // In code that is compiled without a linkage table, the function itself jumps through a slot.
    if let Some(symbol) = plt.symbol(function.address) {
        return Some(Forward::Symbol(symbol));
    }
    let distance = site::forwards_to(&function.code)?;
    let target = Svma(function.address.0.wrapping_add_signed(distance));
    let symbol = plt.symbol(target).map(Forward::Symbol);
    Some(symbol.unwrap_or(Forward::Address(target)))
}

#[derive(Default)]
struct Found {
    symbols: ObjectSymbols,
    /// The functions, each with the size that its symbol states, bytes.
    functions: Vec<(AllocatorSymbol, u64)>,
    /// The names of allocator functions that the object imports.
    imports: HashSet<String>,
    is_linker: bool,
    rust_custom: bool,
    rust_default: bool,
    any: bool,
}

impl Found {
    fn read_symbol(&mut self, symbol: &Sym64<LittleEndian>, name: &str, exported: bool) {
        self.any = true;
        let is_undefined = symbol.is_undefined(ENDIAN);
        self.read_mark(name, (!is_undefined).then(|| Svma(symbol.st_value(ENDIAN))));
        if is_undefined {
            if exported && allocators::find(name).is_some() {
                self.imports.insert(name.to_owned());
            }
            return;
        }
        self.is_linker |= exported && name == LINKER_MARK;
        if let Some((_, allocator)) = MARKERS.iter().find(|(marker, _)| *marker == name) {
            self.symbols.marked.get_or_insert(allocator);
        }
        match allocators::unmangled(name) {
            RUST_CUSTOM => self.rust_custom = true,
            RUST_DEFAULT => self.rust_default = true,
            _ => {}
        }
        if matches!(symbol.st_type(), elf::STT_FUNC | elf::STT_GNU_IFUNC) {
            self.read_function(symbol, name, exported);
        }
    }

    fn read_function(&mut self, symbol: &Sym64<LittleEndian>, name: &str, exported: bool) {
        self.read_change(name);
        let Some(known) = allocators::find(name) else {
            return;
        };
        let global = symbol.st_bind() != elf::STB_LOCAL;
        let found = AllocatorSymbol {
            name: name.to_owned(),
            known,
            exported: exported && global,
            global,
            localized: false,
            indirect: symbol.st_type() == elf::STT_GNU_IFUNC,
            address: Svma(symbol.st_value(ENDIAN)),
            file_offset: None,
            code: FunctionCode::default(),
            forwards: None,
        };
        self.keep(found, symbol.st_size(ENDIAN));
    }

    /// Keeps, among global functions of one name, the one that other objects would resolve to, and every local
    /// function.
    fn keep(&mut self, found: AllocatorSymbol, size: u64) {
        let alike =
            |known: &AllocatorSymbol| known.name == found.name && known.global == found.global;
        let mut alike = self.functions.iter_mut().filter(|(known, _)| alike(known));
        if found.global {
            match alike.next() {
                Some(known) if !known.0.exported && found.exported => *known = (found, size),
                Some(_) => {}
                None => self.functions.push((found, size)),
            }
            return;
        }
        let addresses: Vec<_> = alike.map(|(known, _)| known.address).collect();
        if !addresses.contains(&found.address) && addresses.len() < MAX_LOCAL {
            self.functions.push((found, size));
        }
    }

    fn read_mark(&mut self, name: &str, place: Option<Svma>) {
        if let Some(mark) = walkers::known(name) {
            let marks = &mut self.symbols.marks;
            if !marks.contains(&(mark, place)) && marks.len() < MAX_MARKS {
                marks.push((mark, place));
            }
        }
    }

    fn read_change(&mut self, name: &str) {
        let changed = &mut self.symbols.changed;
        let change = name.split_once('.').filter(|(function, change)| {
            CHANGES.iter().any(|known| change.starts_with(known))
                && allocators::find(function).is_some()
        });
        if change.is_some() && changed.len() < MAX_CHANGED {
            changed.push(name.to_owned());
        }
    }

    /// Drops the changed copies of functions that the object also has as global functions, or that it imports.
    fn sort_out_changed(&mut self) {
        let (functions, imports) = (&self.functions, &self.imports);
        self.symbols.changed.retain(|name| {
            let function = name.split('.').next().unwrap_or_default();
            let is_global =
                |(known, _): &(AllocatorSymbol, u64)| known.global && known.name == function;
            !imports.contains(function) && !functions.iter().any(is_global)
        });
    }

    /// Marks local functions that the calls in this object go to, as [`ObjectSymbols::read`] explains.
    fn mark_localized(&mut self) {
        let has_own = |name: &str| {
            let mut functions = self.functions.iter();
            functions.any(|(function, _)| function.name == name) && !self.imports.contains(name)
        };
        if self.is_linker || !has_own("malloc") || !has_own("free") {
            return;
        }
        for (function, _) in &mut self.functions {
            function.localized = !function.global && !self.imports.contains(&function.name);
        }
    }
}

/// Shows each symbol of the dynamic and the full table that has a name, and whether other objects would resolve
/// that name to the symbol, because the dynamic table has it in the default version.
pub(super) fn each_symbol<'data, R: ReadRef<'data>>(
    data: R,
    sections: &SectionTable<'data, FileHeader64<LittleEndian>, R>,
    mut show: impl FnMut(&Sym64<LittleEndian>, &'data str, bool),
) -> Result<(), DamagedSymbols> {
    let mut left = MAX_NAMES_BYTES;
    let is_table =
        |section: &&Section| matches!(section.sh_type(ENDIAN), elf::SHT_DYNSYM | elf::SHT_SYMTAB);
    for section in sections.iter().filter(is_table).take(MAX_TABLES) {
        let dynamic = section.sh_type(ENDIAN) == elf::SHT_DYNSYM;
        let link = object::SectionIndex(section.sh_link(ENDIAN) as usize);
        let strings = sections.section(link).map_err(|_| DamagedSymbols)?;
        let table: &[Sym64<LittleEndian>] = array(section, data)?;
        let strings: &[u8] = array(strings, data)?;
        let versions = dynamic.then(|| versions(data, sections)).transpose()?;
        // The first entry of a table is no symbol.
        for (index, symbol) in table.iter().enumerate().skip(1) {
            let version = versions.and_then(|versions| versions.get(index));
            let hidden = version.is_some_and(|version| version.0.get(ENDIAN) & VERSYM_HIDDEN != 0);
            if let Some(name) = name(symbol, strings) {
                left = left.checked_sub(name.len()).ok_or(DamagedSymbols)?;
                show(symbol, name, dynamic && !hidden);
            }
        }
    }
    Ok(())
}

/// The version of each dynamic symbol, from `.gnu.version`; empty when symbols have no versions.
fn versions<'data, R: ReadRef<'data>>(
    data: R,
    sections: &SectionTable<'data, FileHeader64<LittleEndian>, R>,
) -> Result<&'data [Versym<LittleEndian>], DamagedSymbols> {
    let versym = |section: &&Section| section.sh_type(ENDIAN) == elf::SHT_GNU_VERSYM;
    sections
        .iter()
        .find(versym)
        .map_or(Ok(&[]), |section| array(section, data))
}

/// Reads the content of a section at once. Reading names one by one would take a system call for each.
pub(super) fn array<'data, T: object::pod::Pod, R: ReadRef<'data>>(
    section: &Section,
    data: R,
) -> Result<&'data [T], DamagedSymbols> {
    if section.sh_size(ENDIAN) > MAX_TABLE_BYTES {
        return Err(DamagedSymbols);
    }
    section
        .data_as_array(ENDIAN, data)
        .map_err(|_| DamagedSymbols)
}

pub(super) fn name<'data>(
    symbol: &Sym64<LittleEndian>,
    strings: &'data [u8],
) -> Option<&'data str> {
    let rest = strings.get(usize::try_from(symbol.st_name(ENDIAN)).ok()?..)?;
    let rest = &rest[..rest.len().min(MAX_NAME_BYTES)];
    str::from_utf8(rest.split(|byte| *byte == 0).next()?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::probes::ScopeObject;
    use crate::process::Process;
    use crate::process::elf::ElfFacts;

    /// The C library that this test runs with.
    fn libc() -> Vec<u8> {
        let process = Process::open(std::process::id().cast_signed()).expect("it is us");
        let objects = process.loaded_objects().objects;
        let malloc = |symbols: &ObjectSymbols| symbols.functions.iter().any(|f| f.name == "malloc");
        let defines = |object: &&crate::process::LoadedObject| {
            ScopeObject::of(object).is_ok_and(|object| malloc(&object.symbols))
        };
        let libc = objects
            .iter()
            .find(defines)
            .expect("something defines malloc");
        libc.opened.read_whole(1 << 30).expect("nobody cuts it off")
    }

    fn read(bytes: &[u8]) -> Result<ObjectSymbols, DamagedSymbols> {
        let facts = ElfFacts::read(bytes).map_err(|_| DamagedSymbols)?;
        ObjectSymbols::read(bytes, &facts.text)
    }

    #[test]
    fn a_c_librarys_functions_are_found_with_all_their_code() {
        let symbols = read(&libc()).expect("a library in use is whole");
        for name in [
            "malloc",
            "calloc",
            "realloc",
            "free",
            "posix_memalign",
            "mmap",
        ] {
            let function = symbols
                .functions
                .iter()
                .find(|function| function.name == name);
            let function = function.expect("every C library has it");
            assert!(
                function.exported && function.file_offset.is_some(),
                "{name}"
            );
            assert!(
                function.code.complete && !function.code.bytes.is_empty(),
                "{name}"
            );
        }
    }

    #[test]
    fn damaged_files_never_panic() {
        let whole = libc();
        let end = whole.len();
        // Headers are at both ends of the file, symbols near its beginning.
        let place = prop_oneof![0..4096_usize, 0..256_000_usize, end - 4096..end];
        let damage = prop::collection::vec((place, any::<u8>()), 1..64);
        proptest!(ProptestConfig::with_cases(64), |(damage in damage)| {
            let mut bytes = whole.clone();
            for (place, byte) in damage {
                bytes[place.min(end - 1)] = byte;
            }
            let _ = read(&bytes);
        });
    }
}
