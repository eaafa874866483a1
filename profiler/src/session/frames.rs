//! From addresses in a process to frames with names, each looked up once.

use std::{
    collections::HashMap,
    fs::File,
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
};

use crate::{
    capture::{Frame, Module, Stack},
    drain::RawStack,
    symbolize::{CodeAddress, ModuleFile, Symbol, Symbolizer},
    target::{Avma, FileKey, LoadedObject, Mapping, Process},
};

/// Every module and frame of a recording.
#[derive(Default)]
pub struct FrameTable {
    symbolizer: Symbolizer,
    modules: Vec<KnownModule>,
    module_ids: HashMap<(PathBuf, Option<FileKey>), u32>,
    frame_ids: HashMap<(Option<u32>, u64), u32>,
    new_modules: Vec<Module>,
    new_frames: Vec<(u32, Option<u32>, u64)>,
}

/// A module, with its file held open: the target, and the path through it, may be gone when the
/// module's first frame appears.
struct KnownModule {
    path: PathBuf,
    file: Option<File>,
    root: PathBuf,
    build_id: Option<Vec<u8>>,
}

impl FrameTable {
    /// Opens the files of a process's code.
    pub fn open_modules(&mut self, process: &Process, objects: &[LoadedObject]) {
        for object in objects {
            let key = (object.path.clone(), Some(object.file));
            if !self.module_ids.contains_key(&key) {
                let known = KnownModule {
                    path: object.path.clone(),
                    file: File::open(&object.open_path).ok(),
                    root: root_of(process),
                    build_id: object.facts.build_id.clone(),
                };
                self.add_module(key, known);
            }
        }
    }

    /// The stack in the capture's terms.
    pub fn intern(&mut self, process: &Process, stack: &RawStack) -> Stack {
        let frames = stack
            .frames
            .iter()
            .take_while(|&&address| may_be_code(process, Avma(address)))
            .map(|&address| self.frame(process, Avma(address)))
            .collect();
        Stack {
            id: stack.id,
            process: stack.process,
            frames,
            end: stack.end,
        }
    }

    /// The modules and frames that were not asked for before, with their symbols.
    pub fn take_new(&mut self) -> (Vec<Module>, Vec<Frame>) {
        let mut frames = Vec::with_capacity(self.new_frames.len());
        let mut by_module: HashMap<Option<u32>, Vec<(u32, u64)>> = HashMap::new();
        for (id, module, offset) in self.new_frames.drain(..) {
            by_module.entry(module).or_default().push((id, offset));
        }
        for (module, places) in by_module {
            let symbols = self.symbols(module, &places);
            frames.extend(
                places
                    .into_iter()
                    .zip(symbols)
                    .map(|((id, offset), symbols)| Frame {
                        id,
                        module,
                        offset,
                        symbols,
                    }),
            );
        }
        (std::mem::take(&mut self.new_modules), frames)
    }

    fn symbols(&mut self, module: Option<u32>, places: &[(u32, u64)]) -> Vec<Vec<Symbol>> {
        let nothing = || vec![Vec::new(); places.len()];
        let known = module.and_then(|id| self.modules.get(id as usize));
        let Some((known, file)) = known.and_then(|known| Some((known, known.file.as_ref()?)))
        else {
            return nothing();
        };
        let open = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        let module = ModuleFile {
            path: &known.path,
            open: &open,
            root: Some(&known.root),
            build_id: known.build_id.as_deref(),
        };
        let addresses: Vec<_> = places
            .iter()
            .map(|&(_, offset)| CodeAddress::Return(offset))
            .collect();
        // A file that cannot be read leaves its frames named by offset.
        self.symbolizer
            .symbolize(module, &addresses)
            .unwrap_or_else(|_| nothing())
    }

    fn frame(&mut self, process: &Process, address: Avma) -> u32 {
        // A return address may lie just behind its mapping, the call just before.
        let call = Avma(address.0.saturating_sub(1));
        let (module, offset) = match process.mappings().locate(call) {
            Some((mapping, offset)) if !mapping.path.as_os_str().is_empty() => (
                Some(self.module(process, mapping)),
                offset.0.saturating_add(1),
            ),
            _ => (None, address.0),
        };
        let next = self.frame_ids.len() as u32;
        *self.frame_ids.entry((module, offset)).or_insert_with(|| {
            self.new_frames.push((next, module, offset));
            next
        })
    }

    fn module(&mut self, process: &Process, mapping: &Mapping) -> u32 {
        let key = (mapping.path.clone(), mapping.file);
        if let Some(&id) = self.module_ids.get(&key) {
            return id;
        }
        let known = KnownModule {
            path: mapping.path.clone(),
            file: None,
            root: root_of(process),
            build_id: None,
        };
        self.add_module(key, known)
    }

    fn add_module(&mut self, key: (PathBuf, Option<FileKey>), known: KnownModule) -> u32 {
        let id = self.modules.len() as u32;
        self.new_modules.push(Module {
            id,
            path: known.path.display().to_string(),
            build_id: known.build_id.as_deref().map(hexadecimal),
        });
        self.modules.push(known);
        self.module_ids.insert(key, id);
        id
    }
}

/// Whether a return address can be one. Code without frame pointers leads the walk to words that
/// are none; the stack ends before them.
fn may_be_code(process: &Process, address: Avma) -> bool {
    match process.mappings().at(address) {
        Some(mapping) => mapping.executable,
        // Maybe code that was unmapped meanwhile; but nothing is mapped this low
        // (vm.mmap_min_addr).
        None => address.0 >= 64 << 10,
    }
}

fn root_of(process: &Process) -> PathBuf {
    Path::new("/proc")
        .join(process.pid().to_string())
        .join("root")
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
