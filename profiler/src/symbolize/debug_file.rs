//! Finds the separate debug file of a module, and the file that several debug files share.
//!
//! The target says where a debug file lies: by its root, by the name that a module states (`.gnu_debuglink`),
//! and by the build id that the module states. So this follows names inside a root only. A stated name has to
//! be that of a file, without a directory. And a file counts only if it is of the same build: it has the
//! module's build id, or the checksum that the module states.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use object::{Object, ObjectSegment};

use crate::{
    process::{FileData, Root, TargetFile, elf::MAX_SEGMENTS},
    symbolize::ModuleFile,
};

/// Where distributions install debug files (GDB manual, "Separate Debug Files").
const DEBUG_DIRECTORIES: [&str; 2] = ["usr/lib/debug", "lib/debug"];
/// Build ids are 16 bytes (MD5, UUID) or 20 (SHA-1); shorter ones are no identity.
const MIN_BUILD_ID_BYTES: usize = 8;
/// The largest file whose checksum residue takes, in bytes: that takes reading all of it.
const MAX_CHECKED: u64 = 1 << 30;
/// How many bytes residue reads at a time for a checksum.
const PIECE: u64 = 1 << 20;

/// A file that the search has found, and where.
pub(super) struct Found<'a> {
    /// The file.
    pub(super) file: TargetFile,
    root: &'a Root,
    /// The file's name in that root.
    path: PathBuf,
}

/// A loaded part of a module: `svma = offset - file_offset + svma`.
#[derive(Debug)]
pub(super) struct Segment {
    file_offset: u64,
    bytes: u64,
    svma: u64,
}

/// The parts of a module that lie in its file.
pub(super) fn segments(module: &TargetFile) -> Option<Vec<Segment>> {
    with_elf(module, |elf| {
        let segments = elf.segments().take(MAX_SEGMENTS).map(|segment| {
            let (file_offset, bytes) = segment.file_range();
            Segment {
                file_offset,
                bytes,
                svma: segment.address(),
            }
        });
        segments.collect()
    })
}

/// The address, in the file's own terms, of the byte at `offset` in the module. An offset in no segment becomes
/// an address where nothing is.
pub(super) fn svma(segments: &[Segment], offset: u64) -> u64 {
    let found = segments.iter().find_map(|segment| {
        let within = offset.checked_sub(segment.file_offset)?;
        (within < segment.bytes).then(|| segment.svma.wrapping_add(within))
    });
    found.unwrap_or(u64::MAX)
}

/// The search for the files that belong to one module: in the target's root, and in residue's own.
pub(super) struct Search<'a> {
    module: ModuleFile<'a>,
    roots: Vec<&'a Root>,
}

impl<'a> Search<'a> {
    pub(super) fn new(module: ModuleFile<'a>, host: Option<&'a Root>) -> Self {
        let roots = module.root.into_iter().chain(host).collect();
        Self { module, roots }
    }

    /// The module's debug file.
    pub(super) fn debug_file(&self) -> Option<Found<'a>> {
        let build_id = self.module.build_id;
        let found = build_id.and_then(|id| by_build_id(&self.roots, id));
        found.or_else(|| self.by_link())
    }

    /// The file that the module, or its debug file, shares with others, and that file's build id. The search
    /// looks only in the root in which it found the debug file: the owner of a file decides what the file may
    /// refer to.
    pub(super) fn shared(&self, debug: Option<&Found<'a>>) -> Option<(TargetFile, Vec<u8>)> {
        let of = debug.map_or(self.module.file, |found| &found.file);
        let (name, build_id) = with_elf(of, |elf| {
            let (name, build_id) = elf.gnu_debugaltlink().ok()??;
            Some((name.to_vec(), build_id.to_vec()))
        })??;
        let (root, path) = match debug {
            Some(found) => (found.root, &*found.path),
            None => (self.module.root?, self.path()),
        };
        let beside = || {
            let file = root.open(&path.parent()?.join(OsStr::from_bytes(&name)));
            file.ok().filter(|file| has_build_id(file, &build_id))
        };
        let found = by_build_id(&[root], &build_id).map(|found| found.file);
        let file = found.or_else(beside)?;
        Some((file, build_id))
    }

    /// The module's name in the target's root.
    fn path(&self) -> &'a Path {
        let path = self.module.path;
        self.module.root.map_or(path, |root| root.inside(path))
    }

    fn by_link(&self) -> Option<Found<'a>> {
        let (name, checksum) = with_elf(self.module.file, |elf| {
            let (name, checksum) = elf.gnu_debuglink().ok()??;
            Some((file_name(name)?.to_owned(), checksum))
        })??;
        let places = self.roots.iter().enumerate().flat_map(|(index, &root)| {
            let is_targets = index == 0 && self.module.root.is_some();
            let paths = linked(self.path(), &name, is_targets);
            paths.into_iter().filter_map(|path| open(root, path))
        });
        let mut others = places.filter(|found| found.file.key() != self.module.file.key());
        others.find(|found| has_checksum(&found.file, checksum))
    }
}

fn by_build_id<'a>(roots: &[&'a Root], build_id: &[u8]) -> Option<Found<'a>> {
    let name = build_id_name(build_id)?;
    let mut found = roots.iter().flat_map(|&root| {
        let paths = DEBUG_DIRECTORIES.map(|directory| Path::new(directory).join(&name));
        paths.into_iter().filter_map(|path| open(root, path))
    });
    found.find(|found| has_build_id(&found.file, build_id))
}

fn open(root: &Root, path: PathBuf) -> Option<Found<'_>> {
    let file = root.open(&path).ok()?;
    Some(Found { file, root, path })
}

/// The places of a debug file that a module names (GDB manual, "Separate Debug Files"). The places beside the
/// module are in the target's root only.
fn linked(module: &Path, name: &OsStr, is_targets: bool) -> Vec<PathBuf> {
    let directory = module.parent().unwrap_or(Path::new("/"));
    let below = directory.strip_prefix("/").unwrap_or(directory);
    let mut places = Vec::new();
    if is_targets {
        places.push(directory.join(name));
        places.push(directory.join(".debug").join(name));
    }
    for debug in DEBUG_DIRECTORIES {
        places.push(Path::new(debug).join(below).join(name));
        places.push(Path::new(debug).join(name));
    }
    places
}

/// The name, if it is that of a file without a directory.
fn file_name(name: &[u8]) -> Option<&OsStr> {
    let name = OsStr::from_bytes(name);
    (Path::new(name).file_name() == Some(name)).then_some(name)
}

/// The name of a debug file by its build id: `.build-id/xx/yyyy.debug`.
fn build_id_name(build_id: &[u8]) -> Option<PathBuf> {
    let hex: String = build_id.iter().map(|byte| format!("{byte:02x}")).collect();
    let is_identity = build_id.len() >= MIN_BUILD_ID_BYTES;
    let (first, rest) = hex.split_at_checked(2).filter(|_| is_identity)?;
    Some(
        Path::new(".build-id")
            .join(first)
            .join(format!("{rest}.debug")),
    )
}

pub(super) fn has_build_id(file: &TargetFile, build_id: &[u8]) -> bool {
    with_elf(file, |elf| elf.build_id().ok().flatten() == Some(build_id)).unwrap_or(false)
}

/// Whether the file has the CRC-32 that a debug link states.
fn has_checksum(file: &TargetFile, stated: u32) -> bool {
    let mut checksum = flate2::Crc::new();
    let mut piece = vec![0; PIECE.min(file.bytes()) as usize];
    let mut at = 0;
    while file.bytes() <= MAX_CHECKED && at < file.bytes() {
        let length = PIECE.min(file.bytes() - at);
        let piece = &mut piece[..length as usize];
        if file.read_exact_at(piece, at).is_err() {
            return false;
        }
        checksum.update(piece);
        at += length;
    }
    at == file.bytes() && checksum.sum() == stated
}

/// Calls a function with the ELF file. Reads only the parts that the function needs: debug files are large.
fn with_elf<T>(
    file: &TargetFile,
    read: impl FnOnce(&object::File<'_, &FileData<'_>>) -> T,
) -> Option<T> {
    let data = file.data();
    object::File::parse(&data).ok().map(|elf| read(&elf))
}
