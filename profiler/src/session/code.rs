//! The code of all followed processes: which objects there are, what maps them, and their unwind
//! tables, each made once, in the background, however many processes run the object.

mod loader;

use std::{
    collections::{HashMap, hash_map::Entry},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use residue_ebpf::abi::{
    frame::{NO_OBJECT, PYTHON},
    unwind::{CodeMapping, Page, Row, Rule, TableState},
};

use crate::{
    attach::{AttachError, Kernel},
    process::{FileKey, Mapping, Process, Root, RootId, TargetFile},
    sink::Tables,
    unwind::{StoreUsage, TableStore},
};
use loader::{Loader, Source};

/// Objects can be told apart by 16 bits, of which the last value stands for Python.
const MAX_OBJECTS: usize = PYTHON as usize - 1;

/// Which object it is. A file that was seen once is held open, so its inode stays its own. In another root it is
/// another object: debug files there name its functions, and a process may choose those of its own root only.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    File(FileKey, RootId),
    /// The kernel's own, which every process has alike.
    Vdso,
}

/// What code lies in.
#[derive(Debug)]
pub struct Object {
    /// Its path as the target names it.
    pub path: PathBuf,
    /// Held open: the target, and the path through it, may be gone when it is read.
    pub file: Option<Arc<TargetFile>>,
    /// The target's root directory.
    pub root: Arc<Root>,
    /// The GNU build id, if it has one.
    pub build_id: Option<Vec<u8>>,
    /// Whether it holds a language's interpreter.
    pub interpreter: bool,
}

/// The code of all followed processes.
pub struct Code {
    /// By id; what has the id 0 (`NO_OBJECT`) is no object.
    objects: Vec<Object>,
    ids: HashMap<Key, u16>,
    loader: Loader,
    store: TableStore,
    with_table: usize,
    /// Objects without a table to wait for, which the kernel side was not told yet.
    without_table: Vec<u16>,
}

impl Code {
    /// Nothing is known yet; `store` holds the tables of this recording.
    pub fn new(store: TableStore) -> Self {
        Self {
            objects: Vec::new(),
            ids: HashMap::new(),
            loader: Loader::default(),
            store,
            with_table: 0,
            without_table: vec![NO_OBJECT],
        }
    }

    /// Every object, in the order of their ids, which begin at 1.
    pub fn objects(&self) -> &[Object] {
        &self.objects
    }

    /// Notes that a file holds an interpreter; before its module is written.
    pub fn set_interpreter(&mut self, file: FileKey) {
        let is_it = |key: &Key| matches!(key, Key::File(it, _) if *it == file);
        for (_, id) in self.ids.iter().filter(|(key, _)| is_it(key)) {
            self.objects[usize::from(*id) - 1].interpreter = true;
        }
    }

    /// An object by its id.
    pub fn object(&self, id: u16) -> Option<&Object> {
        self.objects.get(usize::from(id).checked_sub(1)?)
    }

    /// The executable mappings of a process at its last snapshot, in ascending order. Tables of
    /// objects that were not seen before begin to load.
    pub fn mappings(&mut self, process: &Process) -> Vec<CodeMapping> {
        let executable = process.mappings().iter().filter(|m| m.executable);
        let walkable = executable.filter(|m| !is_kernels(m));
        walkable
            .map(|mapping| CodeMapping {
                start: mapping.start.0,
                end: mapping.end.0,
                offset: mapping.offset.0,
                object: u32::from(self.object_of(process, mapping)),
                reserved: 0,
            })
            .collect()
    }

    /// Hands the tables that are ready to the kernel side, and returns what there was no room for.
    ///
    /// # Errors
    ///
    /// When the kernel refuses a map update, which it has no reason to.
    pub fn deliver(&mut self, kernel: &mut Kernel) -> Result<Vec<PathBuf>, AttachError> {
        for object in self.without_table.drain(..) {
            let state = match object {
                // Just-in-time compilers keep frame pointers: V8, .NET and LLVM's do.
                NO_OBJECT => TableState::FramePointers,
                _ => TableState::Missing,
            };
            kernel.set_no_table(object, state)?;
        }
        let mut no_room = Vec::new();
        while let Some((object, table)) = self.loader.next_ready() {
            let Some(table) = table else {
                kernel.set_no_table(object, TableState::Missing)?;
                continue;
            };
            match self.store.insert(&table) {
                Ok((state, updates)) => {
                    kernel.set_table(object, state, &updates)?;
                    self.with_table += 1;
                }
                Err(_) => {
                    kernel.set_no_table(object, TableState::NoRoom)?;
                    no_room.extend(self.object(object).map(|object| object.path.clone()));
                }
            }
        }
        Ok(no_room)
    }

    /// What was delivered so far, and that it was waited for so long.
    pub fn tables(&self, waited: Duration) -> Tables {
        let StoreUsage { rows, pages, rules } = self.store.usage();
        Tables {
            objects: self.with_table,
            bytes: rows * size_of::<Row>() + pages * size_of::<Page>() + rules * size_of::<Rule>(),
            waited,
        }
    }

    /// Waits until every table is ready to be delivered, or until `deadline`.
    pub fn wait_for_tables(&mut self, deadline: Instant) {
        self.loader.wait(deadline);
    }

    fn object_of(&mut self, process: &Process, mapping: &Mapping) -> u16 {
        let key = match mapping.file {
            Some(file) => Key::File(file, process.root().id()),
            None if is_vdso(mapping) => Key::Vdso,
            None => return NO_OBJECT,
        };
        let next = self.objects.len();
        let id = match self.ids.entry(key) {
            Entry::Occupied(known) => return *known.get(),
            Entry::Vacant(_) if next >= MAX_OBJECTS => return NO_OBJECT,
            Entry::Vacant(new) => *new.insert(next as u16 + 1),
        };
        let (object, source) = open(process, mapping);
        match source {
            Some(source) => self.loader.start(id, source),
            None => self.without_table.push(id),
        }
        self.objects.push(object);
        id
    }
}

/// Code that no frame of the target can be in, or that goes away with the probes.
fn is_kernels(mapping: &Mapping) -> bool {
    ["[uprobes]", "[uprobes-trampoline]", "[vsyscall]"]
        .iter()
        .any(|name| mapping.path == Path::new(name))
}

fn is_vdso(mapping: &Mapping) -> bool {
    mapping.path == Path::new("[vdso]")
}

/// What is known of the object behind a mapping, and where its unwind table can be read, if it may
/// have one.
fn open(process: &Process, mapping: &Mapping) -> (Object, Option<Source>) {
    let mut object = Object {
        path: mapping.path.clone(),
        file: None,
        root: Arc::clone(process.root()),
        build_id: None,
        interpreter: false,
    };
    if is_vdso(mapping) {
        let image = process.image(mapping);
        return (object, image.map(Source::Image));
    }
    // Not an ELF file, or none that can be read: its frames are named by offset.
    let Ok(Some(loaded)) = process.object_at(mapping) else {
        return (object, None);
    };
    object.build_id = loaded.facts.build_id;
    object.file = Some(Arc::clone(&loaded.opened));
    (object, Some(Source::File(loaded.opened)))
}
