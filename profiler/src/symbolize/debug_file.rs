//! Finds separate debug files by build id.
//!
//! blazesym looks into `.build-id` directories only for a file that also has a `.gnu_debuglink`
//! section, which distributions such as Fedora and images built with `strip` leave out.

use std::fs::File;
use std::path::{Path, PathBuf};

use object::read::ReadCache;
use object::{Object, ObjectSegment};

use crate::symbolize::ModuleFile;

/// Where distributions install debug files (GDB manual, "Separate Debug Files").
const DEBUG_DIRECTORIES: [&str; 2] = ["usr/lib/debug", "lib/debug"];

/// Build ids are 16 bytes (MD5, UUID) or 20 (SHA-1); shorter ones are no identity.
const MIN_BUILD_ID_BYTES: usize = 8;

/// A debug file that has the build id of its module.
#[derive(Debug)]
pub(super) struct DebugFile {
    /// Where to open it.
    pub(super) path: PathBuf,
    segments: Vec<Segment>,
}

/// A loaded part of the module: `svma = offset - file_offset + svma`.
#[derive(Debug)]
struct Segment {
    file_offset: u64,
    bytes: u64,
    svma: u64,
}

impl DebugFile {
    /// The module's debug file, when there is one that truly has its build id.
    pub(super) fn find(module: ModuleFile<'_>) -> Option<Self> {
        let build_id = module
            .build_id
            .filter(|id| id.len() >= MIN_BUILD_ID_BYTES)?;
        let name = build_id_name(build_id);
        let path = directories(module.root)
            .into_iter()
            .map(|directory| directory.join(&name))
            .find(|path| has_build_id(path, build_id))?;
        Some(Self {
            path,
            segments: segments(module.open)?,
        })
    }

    /// The address, in the file's own terms, of what lies at `offset` in the module. Offsets in no
    /// segment become an address where nothing is.
    pub(super) fn svma(&self, offset: u64) -> u64 {
        self.segments
            .iter()
            .find_map(|segment| {
                let within = offset.checked_sub(segment.file_offset)?;
                (within < segment.bytes).then(|| segment.svma.wrapping_add(within))
            })
            .unwrap_or(u64::MAX)
    }
}

/// Where to look for debug files, the target's own first.
pub(super) fn directories(root: Option<&Path>) -> Vec<PathBuf> {
    [root, Some(Path::new("/"))]
        .into_iter()
        .flatten()
        .flat_map(|root| DEBUG_DIRECTORIES.map(|directory| root.join(directory)))
        .collect()
}

/// `.build-id/xx/yyyy.debug`.
fn build_id_name(build_id: &[u8]) -> PathBuf {
    let hex: String = build_id.iter().map(|byte| format!("{byte:02x}")).collect();
    let (first, rest) = hex.split_at(2);
    Path::new(".build-id")
        .join(first)
        .join(format!("{rest}.debug"))
}

fn has_build_id(path: &Path, build_id: &[u8]) -> bool {
    with_elf(path, |elf| elf.build_id().ok().flatten() == Some(build_id)).unwrap_or(false)
}

fn segments(path: &Path) -> Option<Vec<Segment>> {
    with_elf(path, |elf| {
        elf.segments()
            .map(|segment| {
                let (file_offset, bytes) = segment.file_range();
                Segment {
                    file_offset,
                    bytes,
                    svma: segment.address(),
                }
            })
            .collect()
    })
}

/// Reads only what is asked for: debug files are large.
fn with_elf<T>(
    path: &Path,
    read: impl FnOnce(&object::File<'_, &ReadCache<File>>) -> T,
) -> Option<T> {
    let file = File::open(path)
        .ok()
        .filter(|file| file.metadata().is_ok_and(|m| m.is_file()))?;
    let cache = ReadCache::new(file);
    object::File::parse(&cache).ok().map(|elf| read(&elf))
}
