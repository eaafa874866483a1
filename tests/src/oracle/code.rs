//! The executable mappings of a process, and what they map.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    fs::File,
    ops::Range,
    os::unix::fs::FileExt as _,
    path::Path,
    sync::Arc,
};

use anyhow::{Context as _, Result};
use framehop::Module;
use object::ReadCache;
use procfs::process::{MMPermissions, MMapPath, MemoryMap, Process};

use super::{object::ObjectFile, walk::Bytes};

/// Device and inode: what a file is, whatever its name.
type FileId = ((i32, i32), u64);

/// Everything that a process can execute. What is in no file is left out.
#[derive(Debug, Default)]
pub struct Code {
    /// By first address, AVMA.
    mappings: BTreeMap<u64, Mapping>,
    /// None for a file that is no object.
    objects: HashMap<FileId, Option<Arc<ObjectFile>>>,
    trampolines: Range<u64>,
}

#[derive(Debug)]
struct Mapping {
    /// Just behind the last byte, AVMA.
    end: u64,
    /// AVMA - SVMA.
    bias: u64,
    object: Arc<ObjectFile>,
}

impl Code {
    /// Takes in what is mapped now. What was mapped before stays, unless it is covered now: stacks
    /// that were taken then may be compared later.
    ///
    /// # Errors
    ///
    /// When the process is gone, or an object cannot be read.
    pub fn read(&mut self, pid: u32) -> Result<()> {
        let process = Process::new(i32::try_from(pid)?)?;
        let maps = process.maps().context("failed to read its mappings")?;
        for map in maps {
            let (start, end) = map.address;
            // kernel/events/uprobes.c, xol_add_vma
            if map.pathname == MMapPath::Other("uprobes".to_owned()) {
                self.trampolines = start..end;
            }
            if map.perms.contains(MMPermissions::EXECUTE)
                && let Some(object) = self.object(pid, &map)?
            {
                self.insert(&map, object);
            }
        }
        Ok(())
    }

    fn insert(&mut self, map: &MemoryMap, object: Arc<ObjectFile>) {
        let (start, end) = map.address;
        let Some(bias) = object.bias(start, map.offset) else {
            return;
        };
        self.mappings
            .retain(|&old_start, old| old.end <= start || end <= old_start);
        self.mappings.insert(start, Mapping { end, bias, object });
    }

    fn object(&mut self, pid: u32, map: &MemoryMap) -> Result<Option<Arc<ObjectFile>>> {
        let path = match &map.pathname {
            MMapPath::Path(path) => path,
            MMapPath::Vdso => return Ok(Some(Arc::new(vdso(pid, map)?))),
            // It has no inode either, and is no object: code that a program made itself.
            _ => return Ok(None),
        };
        let id = (map.dev, map.inode);
        if let Some(known) = self.objects.get(&id) {
            return Ok(known.clone());
        }
        let object = mapped_file(pid, map, path)?.map(Arc::new);
        self.objects.insert(id, object.clone());
        Ok(object)
    }

    /// One a mapping.
    pub fn framehop_modules(&self) -> impl Iterator<Item = Module<Bytes>> + '_ {
        self.mappings.iter().map(|(&start, mapping)| {
            Module::new(
                mapping.object.name.clone(),
                start..mapping.end,
                mapping.bias,
                mapping.object.unwind_sections(),
            )
        })
    }

    /// Where return addresses lead that a return probe has replaced, AVMA. Empty without probes.
    #[must_use]
    pub fn return_trampolines(&self) -> Range<u64> {
        self.trampolines.clone()
    }

    /// Whether two return addresses are behind the same call: some programs (V8) map a part of
    /// themselves a second time.
    #[must_use]
    pub fn is_same_place(&self, one: u64, other: u64) -> bool {
        let place = |address| {
            let (mapping, svma) = self.mapping_of_call(address)?;
            Some((Arc::as_ptr(&mapping.object), svma))
        };
        one == other || place(one).is_some_and(|it| place(other) == Some(it))
    }

    /// The mapping that holds the call before a return address, and the SVMA of its last byte.
    fn mapping_of_call(&self, return_address: u64) -> Option<(&Mapping, u64)> {
        let avma = return_address.wrapping_sub(1);
        let (_, mapping) = self.mappings.range(..=avma).next_back()?;
        (avma < mapping.end).then(|| (mapping, avma.wrapping_sub(mapping.bias)))
    }

    /// Where the call before a return address is.
    #[must_use]
    pub fn place_of_call(&self, return_address: u64) -> Place {
        let Some((mapping, svma)) = self.mapping_of_call(return_address) else {
            return Place::InNoFile;
        };
        Place::InObject {
            object: mapping.object.name.clone(),
            svma,
            function: mapping.object.function(svma).map(str::to_owned),
        }
    }
}

/// As the process has it, even if it was deleted or is in another mount namespace.
fn mapped_file(pid: u32, map: &MemoryMap, path: &Path) -> Result<Option<ObjectFile>> {
    let (start, end) = map.address;
    let link = format!("/proc/{pid}/map_files/{start:x}-{end:x}");
    let file = File::open(link).with_context(|| format!("failed to open {}", path.display()))?;
    let name = path.file_name().unwrap_or(path.as_os_str());
    let name = name.to_string_lossy().into_owned();
    Ok(ObjectFile::read(name, &ReadCache::new(file)).ok())
}

fn vdso(pid: u32, map: &MemoryMap) -> Result<ObjectFile> {
    let (start, end) = map.address;
    let memory = File::open(format!("/proc/{pid}/mem"))?;
    let mut image = vec![0; usize::try_from(end - start)?];
    memory
        .read_exact_at(&mut image, start)
        .context("failed to read the vDSO")?;
    ObjectFile::read("[vdso]".to_owned(), image.as_slice())
}

/// What an address is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Code that a program made itself, or no code.
    InNoFile,
    /// An object.
    InObject {
        /// Its file's name.
        object: String,
        /// Of the call's last byte.
        svma: u64,
        /// If a symbol says so.
        function: Option<String>,
    },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InNoFile => f.write_str("code in no file"),
            Self::InObject {
                object,
                svma,
                function,
            } => {
                write!(f, "{object}+{svma:#x}")?;
                function
                    .as_ref()
                    .map_or(Ok(()), |name| write!(f, " ({name})"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[inline(never)]
    fn here() -> u64 {
        here as *const () as u64
    }

    #[test]
    fn an_address_of_this_process_has_its_function() -> Result<()> {
        let mut code = Code::default();
        code.read(std::process::id())?;
        code.read(std::process::id())?;
        let place = code.place_of_call(here() + 1);
        assert!(place.to_string().contains("here"), "{place}");
        assert_eq!(code.place_of_call(1), Place::InNoFile);
        Ok(())
    }

    #[test]
    fn code_that_is_mapped_twice_is_one_place() -> Result<()> {
        let mut code = Code::default();
        code.read(std::process::id())?;
        let (&start, mapping) = code.mappings.iter().next().context("a process has code")?;
        let again = Mapping {
            end: 0x2000,
            bias: mapping.bias.wrapping_sub(start).wrapping_add(0x1000),
            object: Arc::clone(&mapping.object),
        };
        code.mappings.insert(0x1000, again);
        assert!(code.is_same_place(start + 8, 0x1008));
        assert!(!code.is_same_place(start + 8, 0x1009));
        assert!(!code.is_same_place(0x8, 0x9) && code.is_same_place(0x8, 0x8));
        Ok(())
    }

    #[test]
    fn the_vdso_is_a_module_as_well() -> Result<()> {
        let mut code = Code::default();
        code.read(std::process::id())?;
        let modules: Vec<_> = code.framehop_modules().collect();
        let has = |name: &str| modules.iter().any(|module| module.name().contains(name));
        assert!(has("[vdso]") && has("libc"));
        Ok(())
    }
}
