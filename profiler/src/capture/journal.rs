//! Undoes, in memory, a transaction that was cut off, as SQLite would in the file itself. The format:
//! <https://www.sqlite.org/fileformat.html#the_rollback_journal>, and `pager_playback` in SQLite's
//! `pager.c`.
//!
//! A journal is as hostile as a capture. This module refuses one thing that SQLite honours: the name of a
//! super-journal, which SQLite deletes afterwards. Residue writes no such name, so a stranger did.

use std::collections::HashSet;

/// The first bytes of every segment of a journal. A journal that names a super-journal also ends with
/// them.
pub(super) const MAGIC: [u8; 8] = [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];
/// Bytes of a segment's header that mean something; the header takes a whole sector.
const HEADER_BYTES: usize = 28;
/// The number of records of a segment that goes on to the end of the journal.
const TO_THE_END: u32 = u32::MAX;
/// Bytes of a record beside its page: the page number before the page, and the checksum behind.
const AROUND_A_PAGE: usize = 8;
/// The offset of the byte whose page is for locks. The journal never holds that page.
const LOCK_BYTE: usize = 0x4000_0000;

/// The journal names a file, which SQLite would delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NamesAFile;

/// Puts the pages back that the journal holds, and cuts `image` to the length that it had before the
/// transaction. Stops at the first record that is not whole: SQLite had not needed anything behind it
/// yet.
pub(super) fn undo(image: &mut Vec<u8>, journal: &[u8]) -> Result<(), NamesAFile> {
    if journal.ends_with(&MAGIC) {
        return Err(NamesAFile);
    }
    let Some(first) = Segment::at(journal, 0) else {
        return Ok(());
    };
    let pages = first.original_pages as usize;
    image.truncate(pages.saturating_mul(first.page_bytes));
    let mut done = HashSet::new();
    let mut next = Some(first);
    while let Some(segment) = next {
        next = play(&segment, journal, image, &mut done)
            .and_then(|end| Segment::at(journal, end.next_multiple_of(segment.sector_bytes)))
            .filter(|next| next.page_bytes == segment.page_bytes);
    }
    Ok(())
}

/// A segment of a journal: a header, and the records that follow.
#[derive(Clone, Copy, Debug)]
struct Segment {
    records: u32,
    checksum: u32,
    original_pages: u32,
    sector_bytes: usize,
    page_bytes: usize,
    /// Where the segment's records begin.
    start: usize,
}

impl Segment {
    fn at(journal: &[u8], at: usize) -> Option<Self> {
        let header = journal.get(at..at.checked_add(HEADER_BYTES)?)?;
        let numbers = header.strip_prefix(&MAGIC)?;
        let number = |index: usize| number_at(numbers, 4 * index);
        let (sector_bytes, page_bytes) = (number(3)? as usize, number(4)? as usize);
        let is_size =
            |bytes: usize, least| (least..=65536).contains(&bytes) && bytes.is_power_of_two();
        let start = at.checked_add(sector_bytes)?;
        let is_whole = start <= journal.len();
        (is_whole && is_size(sector_bytes, 32) && is_size(page_bytes, 512)).then_some(Self {
            records: number(0)?,
            checksum: number(1)?,
            original_pages: number(2)?,
            sector_bytes,
            page_bytes,
            start,
        })
    }

    /// The number and the bytes of the page in a record, if the record is whole.
    fn page_in<'a>(&self, record: &'a [u8]) -> Option<(u32, &'a [u8])> {
        let page = record.get(4..4 + self.page_bytes)?;
        let is_whole = number_at(record, 4 + self.page_bytes)? == checksum(self.checksum, page);
        is_whole.then_some((number_at(record, 0)?, page))
    }

    /// Where the page with this number begins in the file; `None` if there is no such page.
    fn place_of(&self, number: u32) -> Option<usize> {
        let before = (number as usize).checked_sub(1)?;
        let at = before.checked_mul(self.page_bytes)?;
        (at != LOCK_BYTE).then_some(at)
    }
}

/// Puts one segment's pages back. Returns where the segment ends, or `None` if it is not whole.
fn play(
    segment: &Segment,
    journal: &[u8],
    image: &mut [u8],
    done: &mut HashSet<u32>,
) -> Option<usize> {
    let records = journal.get(segment.start..)?;
    let record_bytes = segment.page_bytes + AROUND_A_PAGE;
    let stated = match segment.records {
        TO_THE_END => usize::MAX,
        records => records as usize,
    };
    let mut played = 0;
    for record in records.chunks_exact(record_bytes).take(stated) {
        let (number, page) = segment.page_in(record)?;
        let at = segment.place_of(number)?;
        // The first record of a page holds the page as it was before the transaction. SQLite undoes
        // nothing behind the original end.
        if done.insert(number)
            && let Some(place) = image.get_mut(at..at + segment.page_bytes)
        {
            place.copy_from_slice(page);
        }
        played += 1;
    }
    (played == stated).then_some(segment.start + played * record_bytes)
}

/// Adds every two hundredth byte from the end to `start`, without the first byte of the page.
fn checksum(start: u32, page: &[u8]) -> u32 {
    let at = (1..).map(|index| page.len().checked_sub(200 * index));
    at.map_while(|at| at.filter(|at| *at > 0))
        .fold(start, |sum, at| sum.wrapping_add(u32::from(page[at])))
}

fn number_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}
