//! Probes on Python's own allocator: on the function that takes pools, wherever it can be found, and
//! on those that serve objects, if they are to be sampled.

use std::{collections::HashSet, num::NonZeroU32, time::Duration};

use object::{Object as _, ObjectSection as _, ObjectSymbol as _, ReadRef as _, read::Symbol};
use residue_ebpf::abi::{call_shape::CallShape, counters::Counter, heap::FunctionInfo};

use super::{Config, discovered::Discovered, followed::Followed, python::Python};
use crate::{
    attach::{AttachError, Kernel, ProbePoint},
    probes::{FunctionCode, SitePolicy},
    process::{Avma, FileOffset, LoadedObject, ProcessMemory, Svma},
    python::allocator::{
        AllocatorTable, Behind, NEW_POOL, OBJECT_FUNCTIONS, RAW_FUNCTIONS, SHAPES, inlined_at,
        new_pool_called_by, pool_bytes, site_offset,
    },
};

/// What our programs take themselves for one object, beside the kernel's part: two at its allocation,
/// one at its free, most of it for finding out that it was not sampled. Measured as the
/// difference from empty programs, on one machine.
const PROGRAMS: Duration = Duration::from_nanos(350);
/// A request to a small Django view makes so many objects.
const EXAMPLE_OBJECTS: u32 = 5000;
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
    done: HashSet<u16>,
    price_told: bool,
    objects: u64,
}

impl PythonHeaps {
    pub fn new(config: &Config) -> Self {
        Self {
            sampled: config.python_objects,
            sites: config.sites,
            done: HashSet::new(),
            price_told: false,
            objects: 0,
        }
    }

    /// Puts probes into a process whose Python was found, once. Returns what whoever records should
    /// know of it.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn attach(
        &mut self,
        kernel: &mut Kernel,
        followed: &Followed,
        discovered: &Discovered,
    ) -> Result<Vec<String>, AttachError> {
        let Some(python) = &followed.python else {
            return Ok(Vec::new());
        };
        if !self.done.insert(followed.slot) {
            return Ok(Vec::new());
        }
        let pid = followed.process.pid();
        let found = Heap::find(followed, discovered, python);
        let Some(heap) = found else {
            let text = "its own allocator was not found: no Python objects are sampled";
            return Ok(self.if_sampled(pid, text).into_iter().collect());
        };
        let mut notes = Vec::new();
        if heap.uses_malloc() {
            let text = "takes its objects from malloc (PYTHONMALLOC=malloc): every one of them is \
                        among the blocks, and none is sampled";
            notes.extend(self.if_sampled(pid, text));
            return Ok(notes);
        }
        heap.attach_pools(kernel, self.sites)?;
        if self.sampled {
            notes.extend(self.attach_objects(kernel, &heap)?);
        }
        Ok(notes)
    }

    /// Takes notice of how many objects there were.
    pub fn seen(&mut self, counters: &[(Counter, u64)]) {
        let objects = counters
            .iter()
            .find(|(it, _)| *it == Counter::PythonObjectCalls);
        self.objects = objects.map_or(0, |(_, value)| *value);
    }

    /// How many objects there were, if they were sampled.
    pub fn summary(&self) -> Option<String> {
        self.price_told.then(|| {
            let objects = self.objects;
            format!("{objects} Python objects of up to 512 bytes were allocated")
        })
    }

    fn attach_objects(
        &mut self,
        kernel: &mut Kernel,
        heap: &Heap<'_>,
    ) -> Result<Vec<String>, AttachError> {
        let pid = heap.followed.process.pid();
        match heap.inlined() {
            Some(0) => {}
            Some(copies) => {
                return Ok(vec![format!(
                    "Python in pid {pid} was built with its allocator inlined in {copies} places \
                     (profile-guided optimization): objects cannot be sampled there; start it with \
                     PYTHONMALLOC=malloc to have each of them counted as a block"
                )]);
            }
            None => {
                return Ok(self
                    .if_sampled(pid, "its code cannot be read")
                    .into_iter()
                    .collect());
            }
        }
        let mut notes = Vec::new();
        if heap.behind.hooks > 0 {
            notes.push(format!(
                "Python in pid {pid} has hooks before its allocator (tracemalloc, or \
                 PYTHONMALLOC=debug, which adds some 24 bytes to each object): sampled is what they \
                 ask the allocator for"
            ));
        }
        heap.attach_objects(kernel, self.sites)?;
        if !std::mem::replace(&mut self.price_told, true) {
            notes.push(price(kernel)?);
        }
        Ok(notes)
    }

    fn if_sampled(&self, pid: i32, text: &str) -> Option<String> {
        self.sampled.then(|| format!("Python in pid {pid}: {text}"))
    }
}

/// What sampling costs the target.
fn price(kernel: &mut Kernel) -> Result<String, AttachError> {
    let cost = kernel.probe_cost()?;
    let object = cost.pair + cost.entry + PROGRAMS;
    Ok(format!(
        "every Python object costs about {:.1} us more while it is recorded: a request that makes \
         {EXAMPLE_OBJECTS} objects takes {:.0} ms longer",
        object.as_secs_f64() * 1e6,
        (object * EXAMPLE_OBJECTS).as_secs_f64() * 1e3,
    ))
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
        let data = &*data;
        let file = object::File::parse(data).ok()?;
        let memory = ProcessMemory::of(&followed.process)?;
        let mappings = followed.process.mappings();
        let is_code = |it: Avma| mappings.at(it).is_some_and(|mapping| mapping.executable);
        let bias = interpreter.load_bias;
        let functions = |names: &[&str; 4]| -> Option<[(Avma, FunctionCode); 4]> {
            let found: Vec<_> = names
                .iter()
                .map(|name| {
                    let symbol = file.dynamic_symbols().find(|it| is_called(it, name))?;
                    let address = Svma(symbol.address());
                    let offset = interpreter.facts.text.file_offset(address)?;
                    let bytes = data
                        .read_bytes_at(offset.0, symbol.size().min(MAX_CODE_BYTES))
                        .ok()?;
                    let code = FunctionCode {
                        bytes: bytes.to_vec(),
                        complete: true,
                    };
                    Some((bias.avma(address), code))
                })
                .collect::<Option<_>>()?;
            found.try_into().ok()
        };
        let table = |names| {
            let functions = functions(names)?;
            Some(AllocatorTable::find(&functions, &memory, &is_code)?.behind(&memory, &is_code))
        };
        let behind: Behind = table(&OBJECT_FUNCTIONS)?;
        let defined: Vec<_> = file
            .symbols()
            .chain(file.dynamic_symbols())
            .filter(object::ObjectSymbol::is_definition)
            .collect();
        let version = python.interpreter.version;
        let mut heap = Self {
            followed,
            discovered,
            interpreter,
            behind,
            raw: table(&RAW_FUNCTIONS).map(|raw| raw.table),
            new_pool: None,
            pool_bytes: pool_bytes((version.major, version.minor)),
            lengths: defined
                .iter()
                .map(|it| (bias.avma(Svma(it.address())), it.size()))
                .collect(),
        };
        let named = defined.iter().find(|it| it.name() == Ok(NEW_POOL));
        let named = named.map(|it| bias.avma(Svma(it.address())));
        let text = file.section_by_name(".text");
        let is_own_local = |address: Avma| {
            let svma = bias.svma(address).0;
            let mut exported = file.dynamic_symbols();
            text.as_ref().is_some_and(|it| {
                (it.address()..it.address().saturating_add(it.size())).contains(&svma)
            }) && !exported.any(|it| it.address() == svma)
        };
        let called = || {
            let malloc = behind.table.functions[0];
            let code = heap.code(malloc)?.2;
            new_pool_called_by(malloc, &code.bytes, |it| !is_own_local(it))
        };
        heap.new_pool = named.or_else(called);
        Some(heap)
    }

    fn uses_malloc(&self) -> bool {
        self.raw
            .is_some_and(|raw| raw.functions[0] == self.behind.table.functions[0])
    }

    /// The object that a function lies in, where it begins in its file, and its code.
    fn code(&self, function: Avma) -> Option<(&'a LoadedObject, FileOffset, FunctionCode)> {
        let (mapping, offset) = self.followed.process.mappings().locate(function)?;
        let mut objects = self.discovered.objects.iter();
        let holder = objects.find(|object| Some(object.file) == mapping.file)?;
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
        let point = ProbePoint {
            object: holder.opened.path(),
            name: &holder.path,
            file_offset: start.0.saturating_add(into),
            shape,
        };
        let pid = self.followed.process.pid().cast_unsigned();
        let Some(pid) = NonZeroU32::new(pid) else {
            return Ok(());
        };
        kernel.attach_function(self.followed.slot, pid, &point, FunctionInfo::default())?;
        Ok(())
    }
}

fn is_called(symbol: &Symbol<'_, '_>, name: &str) -> bool {
    symbol.is_definition() && symbol.name() == Ok(name)
}
