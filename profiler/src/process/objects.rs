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

/// The most files with code that residue looks into in one process. The largest processes have some
/// hundred libraries.
const MAX_OBJECTS: usize = 4096;
/// The most bytes that residue reads of all these files together. Of most it reads some kilobytes,
/// and their symbol tables.
const MAX_READ: u64 = 4 << 30;

/// When an object came into the process. That decides what its symbols override.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// The program itself.
    Executable,
    /// Linked or preloaded, so the object is in the global search order.
    Startup,
    /// Loaded by dlopen, or in a way that the dynamic linker does not know.
    Later,
}

/// An ELF file that a process runs code from.
#[derive(Clone, Debug)]
pub struct LoadedObject {
    /// The object's path as the target names it.
    pub path: PathBuf,
    /// The very file that the process has mapped, held open.
    pub opened: Arc<TargetFile>,
    /// The identity of the file, as the process's mappings state it.
    pub file: FileKey,
    /// When the object was loaded.
    pub load: Load,
    /// The object's headers.
    pub facts: ElfFacts,
    /// Where the object was loaded.
    pub load_bias: LoadBias,
    /// How many bytes residue may still read of the object, and of those that it found together
    /// with it.
    budget: ReadBudget,
}

/// A file that the process runs code from, and that residue could not read.
#[derive(Debug, thiserror::Error)]
#[error("cannot look into {path}: {reason}; allocators in it are not seen")]
pub struct UnreadableObject {
    /// The file's path as the target names it.
    pub path: PathBuf,
    /// Why residue could not read the file.
    pub reason: io::Error,
}

/// What [`Process::loaded_objects`] found.
#[derive(Debug, Default)]
pub struct LoadedObjects {
    /// In search order: the executable, preloaded and linked objects, then later ones.
    pub objects: Vec<LoadedObject>,
    /// The objects that residue leaves out, with the reason.
    pub unreadable: Vec<UnreadableObject>,
    /// How many more files there are, which residue did not look into.
    pub left_out: usize,
}

impl LoadedObjects {
    /// A remark that residue left files out, if it did.
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
    /// The files that the process runs code from at the last snapshot, in search order.
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
        let linkage = objects.iter().take_while(in_list);
        let linkage: Vec<_> = linkage.map(LoadedObject::linkage).collect();
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

    /// The object's file. A reader reads no more of it than the budget for all files of the process
    /// allows.
    #[must_use]
    pub fn data(&self) -> FileData<'_> {
        self.opened.data_within(&self.budget)
    }
}

/// Opens the mapped file: by its name in the target's root or, if that name is gone or leads to
/// another file by now, through the mapping itself.
fn open_same_file(process: &Process, mapping: &Mapping, mapped: FileKey) -> io::Result<TargetFile> {
    let named = process.root().open_if(&mapping.path, mapped);
    match named {
        Ok(Some(file)) if file.key() == mapped => return Ok(file),
        _ => {}
    }
    let link = map_file(process.pid(), mapping.start.0, mapping.end.0);
    match (TargetFile::behind(&link), named) {
        (Ok(file), _) => Ok(file),
        // btrfs and overlayfs state one device in maps and another in stat; map_files asks for more
        // privileges than the name does.
        (Err(_), Ok(Some(file))) => Ok(file),
        (Err(error), _) => Err(error),
    }
}
