//! The header, the first 100 bytes of a file. A check of it gives foreign and cut files a better answer
//! than SQLite's. Offsets are those of <https://www.sqlite.org/fileformat.html>.

use std::path::Path;

use crate::capture::CaptureError;
use crate::capture::schema::APPLICATION_ID;

/// The first bytes of an SQLite file.
const SQLITE_MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// The versions of the file format, for writing and for reading, that files without a write-ahead log
/// state.
const ROLLBACK_JOURNAL: [u8; 2] = [1, 1];
/// How long the header is, in bytes.
pub(super) const HEADER_BYTES: usize = 100;

/// Whether a file that begins with `header` is a capture of any schema version.
pub(super) fn is_capture(header: &[u8]) -> bool {
    header.starts_with(SQLITE_MAGIC)
        && header.get(68..72) == Some(APPLICATION_ID.to_be_bytes().as_slice())
}

/// Checks that `image`, the bytes of the file at `path`, is a whole capture.
pub(super) fn check(path: &Path, image: &[u8]) -> Result<(), CaptureError> {
    let path = || path.to_owned();
    let found = image.len() as u64;
    let truncated = |expected| CaptureError::Truncated {
        path: path(),
        found,
        expected,
    };
    if image.is_empty() {
        return Err(CaptureError::Empty { path: path() });
    }
    if found < HEADER_BYTES as u64 && SQLITE_MAGIC.starts_with(&image[..image.len().min(16)]) {
        return Err(truncated(HEADER_BYTES as u64));
    }
    if !is_capture(image) {
        return Err(CaptureError::NotACapture { path: path() });
    }
    if image.get(18..20) != Some(&ROLLBACK_JOURNAL) {
        return Err(CaptureError::Altered {
            path: path(),
            what: "its journal is of another kind".to_owned(),
        });
    }
    match stated_length(image) {
        Some(expected) if found < expected => Err(truncated(expected)),
        Some(_) => Ok(()),
        None => Err(CaptureError::NotACapture { path: path() }),
    }
}

/// Page size times page count, in bytes. A page size of 1 stands for 65536.
fn stated_length(image: &[u8]) -> Option<u64> {
    let page_bytes = match u16::from_be_bytes(image.get(16..18)?.try_into().ok()?) {
        1 => 65536,
        bytes => u64::from(bytes),
    };
    let pages = u32::from_be_bytes(image.get(28..32)?.try_into().ok()?);
    Some(page_bytes * u64::from(pages))
}
