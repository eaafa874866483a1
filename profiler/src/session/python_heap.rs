//! Probes on Python's own allocator: on the function that takes pools, wherever it can be found, and
//! on those that serve objects, if they are to be sampled.

use std::time::Duration;

use object::{Object as _, ObjectSection as _, ObjectSymbol as _, ReadRef as _, read::Symbol};
use residue_ebpf::abi::{call_shape::CallShape, heap::FunctionInfo};

use super::{Config, discovered::Discovered, followed::Followed, python::Python};
use crate::{
    attach::{AttachError, Kernel, ProbePoint},
    probes::{FunctionCode, SitePolicy},
    process::{Avma, FileOffset, LoadedObject, ProcessMemory, Svma},
    python::allocator::{
        AllocatorTable, Behind, NEW_POOL, OBJECT_FUNCTIONS, RAW_FUNCTIONS, SHAPES, inlined_at,
        new_pool_called_by, pool_bytes, site_offset,
    },
    remark::{NotSampled, Remark},
};

/// What our programs take themselves for one object, beside the kernel's part: two at its allocation,
/// one at its free, most of it for finding out that it was not sampled. Measured as the
/// difference from empty programs, on one machine.
const PROGRAMS: Duration = Duration::from_nanos(350);
/// Of an allocator's function whose length is not known, this much is looked at; those of pymalloc
/// are of 100 to 300 bytes.
const UNSIZED_CODE_BYTES: u64 = 256;
/// No function that is looked at is longer.
const MAX_CODE_BYTES: u64 = 64 << 10;
/// No interpreter's file is larger, debug information included.
const MAX_FILE_BYTES: u64 = 512 << 20;
/// No interpreter has more code.
const MAX_TEXT_BYTES: u64 = 256 << 20;

/// The allocators of a recording's Pythons.
pub struct PythonHeaps {
    sampled: bool,
    sites: SitePolicy,
    price_told: bool,
}

impl PythonHeaps {
    pub const fn new(config: &Config) -> Self {
        Self {
            sampled: config.python_objects,
            sites: config.sites,
            price_told: false,
        }
    }

    /// Puts the probes into a process whose Python was found. Returns what a person should know of that.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn attach(
        &mut self,
        kernel: &mut Kernel,
        followed: &Followed,
        python: &Python,
        discovered: &Discovered,
    ) -> Result<Vec<Remark>, AttachError> {
        let Some(heap) = Heap::find(followed, discovered, python) else {
            return Ok(self.not_sampled(followed, NotSampled::AllocatorUnknown));
        };
        if heap.uses_malloc() {
            return Ok(self.not_sampled(followed, NotSampled::UsesMalloc));
        }
        heap.attach_pools(kernel, self.sites)?;
        match self.sampled {
            true => self.attach_objects(kernel, &heap),
            false => Ok(Vec::new()),
        }
    }

    /// Whether some process has its objects sampled.
    pub const fn samples_any(&self) -> bool {
        self.price_told
    }

    fn attach_objects(
        &mut self,
        kernel: &mut Kernel,
        heap: &Heap<'_>,
    ) -> Result<Vec<Remark>, AttachError> {
        match heap.inlined() {
            Some(0) => {}
            Some(copies) => {
                return Ok(self.not_sampled(heap.followed, NotSampled::Inlined(copies)));
            }
            None => return Ok(self.not_sampled(heap.followed, NotSampled::CodeUnreadable)),
        }
        let mut remarks = Vec::new();
        if heap.behind.hooks > 0 {
            let pid = heap.followed.process.pid();
            remarks.push(Remark::PythonHooked { pid });
        }
        heap.attach_objects(kernel, self.sites)?;
        if !std::mem::replace(&mut self.price_told, true) {
            let cost = kernel.probe_cost()?;
            remarks.push(Remark::PythonPrice(cost.pair + cost.entry + PROGRAMS));
        }
        Ok(remarks)
    }

    /// Nobody misses samples that were not asked for.
    fn not_sampled(&self, followed: &Followed, why: NotSampled) -> Vec<Remark> {
        let pid = followed.process.pid();
        let remark = self
            .sampled
            .then_some(Remark::PythonNotSampled { pid, why });
        remark.into_iter().collect()
    }
}

/// The file that holds an interpreter, as it lies in the memory of one process.
struct Image<'a> {
    file: object::File<'a>,
    data: &'a [u8],
    interpreter: &'a LoadedObject,
}

impl<'a> Image<'a> {
    /// The symbols of functions and data that the file defines.
    fn defined(&self) -> impl Iterator<Item = Symbol<'a, '_>> {
        let all = self.file.symbols().chain(self.file.dynamic_symbols());
        all.filter(object::ObjectSymbol::is_definition)
    }

    fn avma(&self, symbol: &Symbol<'_, '_>) -> Avma {
        self.interpreter.load_bias.avma(Svma(symbol.address()))
    }

    /// Where the symbol of this name lies.
    fn named(&self, name: &str) -> Option<Avma> {
        let mut defined = self.defined();
        let symbol = defined.find(|symbol| symbol.name() == Ok(name))?;
        Some(self.avma(&symbol))
    }

    /// All symbols, with their lengths in bytes.
    fn lengths(&self) -> Vec<(Avma, u64)> {
        let defined = self.defined();
        defined
            .map(|symbol| (self.avma(&symbol), symbol.size()))
            .collect()
    }

    /// The exported functions of these names, with their code.
    fn functions(&self, names: &[&str; 4]) -> Option<[(Avma, FunctionCode); 4]> {
        let found: Option<Vec<_>> = names.iter().map(|name| self.function(name)).collect();
        found?.try_into().ok()
    }

    fn function(&self, name: &str) -> Option<(Avma, FunctionCode)> {
        let mut exported = self.file.dynamic_symbols();
        let symbol = exported.find(|symbol| is_called(symbol, name))?;
        let address = Svma(symbol.address());
        let offset = self.interpreter.facts.text.file_offset(address)?;
        let length = symbol.size().min(MAX_CODE_BYTES);
        let code = FunctionCode {
            bytes: self.data.read_bytes_at(offset.0, length).ok()?.to_vec(),
            complete: true,
        };
        Some((self.avma(&symbol), code))
    }

    /// Whether an address is of a function that the file does not export.
    fn is_own_local(&self, address: Avma) -> bool {
        let svma = self.interpreter.load_bias.svma(address).0;
        let mut exported = self.file.dynamic_symbols();
        self.file.section_by_name(".text").is_some_and(|text| {
            let end = text.address().saturating_add(text.size());
            (text.address()..end).contains(&svma)
        }) && !exported.any(|symbol| symbol.address() == svma)
    }
}

/// The allocator of one Python.
struct Heap<'a> {
    followed: &'a Followed,
    discovered: &'a Discovered,
    /// What holds the interpreter.
    interpreter: &'a LoadedObject,
    behind: Behind,
    raw: Option<AllocatorTable>,
    new_pool: Option<Avma>,
    pool_bytes: u64,
    /// Functions by their AVMA, with their length, bytes.
    lengths: Vec<(Avma, u64)>,
}

impl<'a> Heap<'a> {
    fn find(followed: &'a Followed, discovered: &'a Discovered, python: &Python) -> Option<Self> {
        let mut objects = discovered.objects.iter();
        let interpreter = objects.find(|object| object.file == python.file)?;
        // In one read: a symbol's name alone would take a system call each.
        let data = interpreter.opened.read_whole(MAX_FILE_BYTES).ok()?;
        let image = Image {
            file: object::File::parse(&*data).ok()?,
            data: &data,
            interpreter,
        };
        let memory = ProcessMemory::of(&followed.process)?;
        let mappings = followed.process.mappings();
        let is_code = |it: Avma| mappings.at(it).is_some_and(|mapping| mapping.executable);
        let table = |names| {
            let functions = image.functions(names)?;
            Some(AllocatorTable::find(&functions, &memory, &is_code)?.behind(&memory, &is_code))
        };
        let mut heap = Self {
            followed,
            discovered,
            interpreter,
            behind: table(&OBJECT_FUNCTIONS)?,
            raw: table(&RAW_FUNCTIONS).map(|raw| raw.table),
            new_pool: image.named(NEW_POOL),
            pool_bytes: pool_bytes(python.interpreter.version.series()),
            lengths: image.lengths(),
        };
        heap.new_pool = heap.new_pool.or_else(|| heap.called_new_pool(&image));
        Some(heap)
    }

    /// The function that takes pools, by the call of that function in the allocator's malloc.
    fn called_new_pool(&self, image: &Image<'_>) -> Option<Avma> {
        let malloc = self.behind.table.functions[0];
        let code = self.code(malloc)?.2;
        new_pool_called_by(malloc, &code.bytes, |it| !image.is_own_local(it))
    }

    fn uses_malloc(&self) -> bool {
        self.raw
            .is_some_and(|raw| raw.functions[0] == self.behind.table.functions[0])
    }

    /// The object that a function lies in, where it begins in its file, and its code.
    fn code(&self, function: Avma) -> Option<(&'a LoadedObject, FileOffset, FunctionCode)> {
        let (holder, offset) = self.discovered.holder(&self.followed.process, function)?;
        let known = self
            .lengths
            .iter()
            .find(|(it, size)| *it == function && *size > 0);
        let length = known.map_or(UNSIZED_CODE_BYTES, |(_, size)| (*size).min(MAX_CODE_BYTES));
        let data = holder.opened.data();
        let bytes = data.read_bytes_at(offset.0, length).ok()?.to_vec();
        let complete = known.is_some();
        Some((holder, offset, FunctionCode { bytes, complete }))
    }

    /// How often the allocator's functions are inlined in the interpreter.
    fn inlined(&self) -> Option<usize> {
        let data = self.interpreter.opened.data();
        // Which malloc is in use, the interpreter asks in other places, too.
        let functions = &self.behind.table.functions[1..];
        let mut found = 0;
        for segment in self.interpreter.facts.text.iter() {
            let length = segment.file_bytes.min(MAX_TEXT_BYTES);
            let text = data.read_bytes_at(segment.offset.0, length).ok()?;
            let address = self.interpreter.load_bias.avma(segment.address);
            found += inlined_at(text, address, functions);
        }
        Some(found)
    }

    fn attach_pools(&self, kernel: &mut Kernel, sites: SitePolicy) -> Result<(), AttachError> {
        let Some(function) = self.new_pool else {
            return Ok(());
        };
        kernel.set_python_pools(self.followed.slot, self.pool_bytes)?;
        self.attach(kernel, function, CallShape::PythonNewPool, sites)
    }

    /// What frees objects first.
    fn attach_objects(&self, kernel: &mut Kernel, sites: SitePolicy) -> Result<(), AttachError> {
        let functions = self.behind.table.functions;
        let mut functions: Vec<_> = SHAPES.into_iter().zip(functions).collect();
        functions.sort_by_key(|(shape, _)| shape.attach_rank());
        let mut functions = functions.into_iter();
        functions.try_for_each(|(shape, function)| self.attach(kernel, function, shape, sites))
    }

    fn attach(
        &self,
        kernel: &mut Kernel,
        function: Avma,
        shape: CallShape,
        sites: SitePolicy,
    ) -> Result<(), AttachError> {
        let Some((holder, start, code)) = self.code(function) else {
            return Ok(());
        };
        let into = site_offset(&code, shape, sites).unwrap_or(0);
        let site = FileOffset(start.0.saturating_add(into));
        let point = ProbePoint::new(holder, site, shape);
        let Followed { slot, .. } = *self.followed;
        kernel.attach_function(slot, self.followed.pid(), &point, FunctionInfo::default())?;
        Ok(())
    }
}

fn is_called(symbol: &Symbol<'_, '_>, name: &str) -> bool {
    symbol.is_definition() && symbol.name() == Ok(name)
}
