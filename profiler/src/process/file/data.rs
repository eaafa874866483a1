//! Parts of a file, which residue reads when somebody asks for them.

use std::{cell::Cell, ops::Range, os::unix::fs::FileExt as _, rc::Rc};

use object::read::{ReadCache, ReadCacheOps, ReadRef};

use super::TargetFile;

/// The most bytes that one reader reads of one file. The largest symbol tables of real programs take some 200
/// MiB. A file without end, or one that names the same part in a thousand ways, stops here.
const MOST: u64 = 512 << 20;

/// How many bytes residue may still read.
#[derive(Clone, Debug)]
pub struct ReadBudget(Rc<Cell<u64>>);

impl ReadBudget {
    /// A budget of `bytes` bytes.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        Self(Rc::new(Cell::new(bytes)))
    }

    fn left(&self) -> u64 {
        self.0.get()
    }

    fn take(&self, bytes: u64) -> Result<(), ()> {
        self.0.set(self.left().checked_sub(bytes).ok_or(())?);
        Ok(())
    }
}

/// Reads the file by positions, each part once. Three bounds hold: the length that the file had when residue
/// opened it, half a GiB for all reads together, and a budget for several files. Beyond them a read fails, as it
/// does for a damaged file.
#[derive(Debug)]
pub struct FileData<'a> {
    parts: ReadCache<Positioned<'a>>,
    budgets: [ReadBudget; 2],
}

impl<'a> FileData<'a> {
    pub(super) fn of(file: &'a TargetFile, all: Option<&ReadBudget>) -> Self {
        let own = ReadBudget::new(MOST);
        let all = all.cloned().unwrap_or_else(|| ReadBudget::new(MOST));
        let budgets = [own, all];
        let positioned = Positioned {
            file,
            at: 0,
            budgets: budgets.clone(),
        };
        Self {
            parts: ReadCache::new(positioned),
            budgets,
        }
    }
}

impl<'data> ReadRef<'data> for &'data FileData<'_> {
    fn len(self) -> Result<u64, ()> {
        self.parts.len()
    }

    fn read_bytes_at(self, offset: u64, size: u64) -> Result<&'data [u8], ()> {
        // The check is here, because the cache makes room for a part before it reads the part. A reader that
        // asks again for a part needs a budget for as much, although the cache has it.
        match self.budgets.iter().all(|budget| size <= budget.left()) {
            true => self.parts.read_bytes_at(offset, size),
            false => Err(()),
        }
    }

    fn read_bytes_at_until(self, range: Range<u64>, delimiter: u8) -> Result<&'data [u8], ()> {
        self.parts.read_bytes_at_until(range, delimiter)
    }
}

/// A file, and where the next read begins.
#[derive(Debug)]
struct Positioned<'a> {
    file: &'a TargetFile,
    at: u64,
    budgets: [ReadBudget; 2],
}

impl Positioned<'_> {
    fn take(&mut self, bytes: u64) -> Result<(), ()> {
        self.budgets
            .iter()
            .try_for_each(|budget| budget.take(bytes))?;
        self.at = self.at.checked_add(bytes).ok_or(())?;
        Ok(())
    }
}

impl ReadCacheOps for Positioned<'_> {
    fn len(&mut self) -> Result<u64, ()> {
        Ok(self.file.bytes)
    }

    fn seek(&mut self, to: u64) -> Result<u64, ()> {
        self.at = to;
        Ok(to)
    }

    fn read(&mut self, into: &mut [u8]) -> Result<usize, ()> {
        let read = self.file.file.read_at(into, self.at).map_err(|_| ())?;
        self.take(read as u64)?;
        Ok(read)
    }

    fn read_exact(&mut self, into: &mut [u8]) -> Result<(), ()> {
        let from = self.at;
        self.take(into.len() as u64)?;
        self.file.read_exact_at(into, from).map_err(|_| ())
    }
}
