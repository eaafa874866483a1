//! The files that a process runs code from, in the order in which its symbols resolve.

use std::collections::HashMap;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use super::elf::{ElfFacts, NotUsable};
use super::file::map_file;
use super::search_order::{Linkage, loaded_at_startup};
use super::{
    Avma, FileData, FileKey, LoadBias, Mapping, Process, ReadBudget, TargetFile, link_map,
};

/// How many files a process runs code from at most. The largest have some hundred libraries.
const MAX_OBJECTS: usize = 4096;
/// What may be read of them, bytes, all together: of most some kilobytes, and their symbol tables.
const MAX_READ: u64 = 4 << 30;

/// When an object came into the process, which decides what its symbols override.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// The program itself.
    Executable,
    /// Linked or preloaded: in the global search order.
    Startup,
    /// By dlopen, or in a way that the dynamic linker does not know.
    Later,
}

/// An ELF file that a process runs code from.
#[derive(Clone, Debug)]
pub struct LoadedObject {
    /// As the target names it.
    pub path: PathBuf,
    /// The very file that the process has mapped, held open.
    pub opened: Arc<TargetFile>,
    /// Which file it is, as the process's mappings state it.
    pub file: FileKey,
    /// When it was loaded.
    pub load: Load,
    /// Its headers.
    pub facts: ElfFacts,
    /// Where it was loaded.
    pub load_bias: LoadBias,
    /// What may still be read of it, and of those that were found with it.
    budget: ReadBudget,
}

/// A file that the process runs code from, and that residue could not read.
#[derive(Debug, thiserror::Error)]
#[error("cannot look into {path}: {reason}; allocators in it are not seen")]
pub struct UnreadableObject {
    /// As the target names it.
    pub path: PathBuf,
    /// What was wrong.
    pub reason: io::Error,
}

/// What [`Process::loaded_objects`] found.
#[derive(Debug, Default)]
pub struct LoadedObjects {
    /// In search order: the executable, preloaded and linked objects, then later ones.
    pub objects: Vec<LoadedObject>,
    /// Left out, with the reason.
    pub unreadable: Vec<UnreadableObject>,
    /// How many more files there are, which nobody looked into.
    pub left_out: usize,
}

impl LoadedObjects {
    /// Says that files were left out, if some were.
    #[must_use]
    pub fn left_out(&self) -> Option<String> {
        let left_out = self.left_out;
        (left_out > 0).then(|| {
            format!(
                "it runs code of more than {MAX_OBJECTS} files: {left_out} are not looked into, and allocators \
                 in them are not seen"
            )
        })
    }
}

impl Process {
    /// The files that it runs code from at the last snapshot, in search order.
    #[must_use]
    pub fn loaded_objects(&self) -> LoadedObjects {
        let mut found = LoadedObjects::default();
        let mappings = self.text_mappings();
        found.left_out = mappings.len().saturating_sub(MAX_OBJECTS);
        let budget = ReadBudget::new(MAX_READ);
        for mapping in mappings.into_iter().take(MAX_OBJECTS) {
            match LoadedObject::open(self, mapping, &budget) {
                Ok(Some(object)) => found.objects.push(object),
                Ok(None) => {}
                Err(reason) => {
                    let path = mapping.path.clone();
                    found.unreadable.push(UnreadableObject { path, reason });
                }
            }
        }
        self.sort_by_search_order(&mut found.objects);
        found
    }

    /// The file behind one mapping; `None` if it is no ELF file.
    ///
    /// # Errors
    ///
    /// When the file is gone or damaged.
    pub fn object_at(&self, mapping: &Mapping) -> io::Result<Option<LoadedObject>> {
        LoadedObject::open(self, mapping, &ReadBudget::new(MAX_READ))
    }

    /// The first executable mapping of each file.
    fn text_mappings(&self) -> Vec<&Mapping> {
        let mut seen = std::collections::HashSet::new();
        let mapped = self.mappings().iter().filter(|mapping| mapping.executable);
        mapped
            .filter(|mapping| mapping.file.is_some_and(|file| seen.insert(file)))
            .collect()
    }

    fn sort_by_search_order(&self, objects: &mut Vec<LoadedObject>) {
        let listed = self.linkers_list();
        let mut places = HashMap::new();
        for (place, file) in listed.iter().flatten().enumerate() {
            places.entry(*file).or_insert(place);
        }
        let place = |object: &LoadedObject| {
            let place = places.get(&object.file).copied();
            (object.path != self.exe(), place.is_none(), place)
        };
        objects.sort_by_key(place);
        let in_list = |object: &&LoadedObject| listed.is_none() || !place(object).1;
        let linkage: Vec<_> = objects
            .iter()
            .take_while(in_list)
            .map(LoadedObject::linkage)
            .collect();
        let startup = loaded_at_startup(&linkage, listed.is_some());
        let mut ranks = vec![usize::MAX; objects.len()];
        for (order, index) in startup.into_iter().enumerate() {
            ranks[index] = order;
            objects[index].load = if order == 0 {
                Load::Executable
            } else {
                Load::Startup
            };
        }
        let mut ranked: Vec<_> = ranks.into_iter().zip(objects.drain(..)).collect();
        ranked.sort_by_key(|(rank, _)| *rank);
        objects.extend(ranked.into_iter().map(|(_, object)| object));
    }

    /// The files in the dynamic linker's own list.
    fn linkers_list(&self) -> Option<Vec<FileKey>> {
        let dynamic = self.executable().dynamic?;
        let text = self
            .text_mappings()
            .into_iter()
            .find(|mapping| mapping.path == self.exe())?;
        let bias = self.executable().text.load_bias(text.start, text.offset)?;
        let memory = self.memory()?;
        let read = |address: Avma, into: &mut [u8]| memory.read_exact_at(into, address.0).ok();
        let sections = link_map::read_list(&read, bias.avma(dynamic))?;
        let file = |section: &Avma| self.mappings().at(*section)?.file;
        Some(sections.iter().filter_map(file).collect())
    }
}

impl LoadedObject {
    /// `Ok(None)` for a file that is no ELF file, such as a mapped heap of a just-in-time compiler.
    fn open(process: &Process, mapping: &Mapping, budget: &ReadBudget) -> io::Result<Option<Self>> {
        let Some(file) = mapping.file else {
            return Ok(None);
        };
        let opened = open_same_file(process, mapping, file)?;
        let facts = match ElfFacts::read(&opened.data_within(budget)) {
            Ok(facts) => facts,
            Err(NotUsable::NotElf) => return Ok(None),
            Err(reason) => return Err(io::Error::other(reason)),
        };
        let bias = facts.text.load_bias(mapping.start, mapping.offset);
        let load_bias =
            bias.ok_or_else(|| io::Error::other("its headers do not fit its mapping"))?;
        let path = mapping.path.clone();
        Ok(Some(Self {
            path,
            opened: Arc::new(opened),
            file,
            load: Load::Later,
            facts,
            load_bias,
            budget: budget.clone(),
        }))
    }

    fn linkage(&self) -> Linkage<'_> {
        Linkage {
            needed: &self.facts.needed,
            soname: self.facts.soname.as_deref(),
            file_name: self
                .path
                .file_name()
                .map(OsStrExt::as_bytes)
                .unwrap_or_default(),
        }
    }

    /// The object's file, of which no more is read than all files of the process together may take.
    #[must_use]
    pub fn data(&self) -> FileData<'_> {
        self.opened.data_within(&self.budget)
    }
}

/// Opens the file that is mapped: by its name as the target's root has it, or, when another file
/// has that name by now (or none), through the mapping itself.
fn open_same_file(process: &Process, mapping: &Mapping, mapped: FileKey) -> io::Result<TargetFile> {
    let named = process.root().open_if(&mapping.path, mapped);
    match named {
        Ok(Some(file)) if file.key() == mapped => return Ok(file),
        _ => {}
    }
    let link = map_file(process.pid(), mapping.start.0, mapping.end.0);
    match (TargetFile::behind(&link), named) {
        (Ok(file), _) => Ok(file),
        // btrfs and overlayfs state one device in maps and another in stat; map_files asks for
        // more privileges than the name does.
        (Err(_), Ok(Some(file))) => Ok(file),
        (Err(error), _) => Err(error),
    }
}
