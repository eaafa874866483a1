//! Counts the samples of a file that is being written.

use std::{fs::File, os::unix::fs::FileExt as _, path::Path};

use anyhow::{Context as _, Result};

use super::sample::{HEADER_BYTES, Header};

/// A file of samples that is being written.
#[derive(Debug)]
pub struct Growing {
    file: File,
    offset: u64,
    whole: u32,
}

impl Growing {
    /// Watches a file.
    ///
    /// # Errors
    ///
    /// When it cannot be opened.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).context("failed to open the samples")?;
        Ok(Self {
            file,
            offset: 0,
            whole: 0,
        })
    }

    /// How many complete samples there are by now whose frames are all there.
    ///
    /// # Errors
    ///
    /// When there is something else in the file.
    pub fn whole_samples(&mut self) -> Result<u32> {
        let length = self.file.metadata()?.len();
        let mut header = [0; HEADER_BYTES];
        while self.offset + HEADER_BYTES as u64 <= length {
            self.file.read_exact_at(&mut header, self.offset)?;
            let header = Header::parse(&header)?;
            let next = self.offset + (HEADER_BYTES + header.body_bytes()) as u64;
            if next > length {
                break;
            }
            self.offset = next;
            self.whole += u32::from(header.left_out == 0);
        }
        Ok(self.whole)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::oracle::sample::tests::record;

    #[test]
    fn a_growing_file_counts_its_complete_samples() -> Result<()> {
        let mut file = tempfile::NamedTempFile::new()?;
        let mut growing = Growing::open(file.path())?;
        assert_eq!(growing.whole_samples()?, 0);
        let bytes = record(&[1, 2], &[10]);
        let (half, rest) = bytes.split_at(50);
        file.write_all(&[&bytes, half].concat())?;
        assert_eq!(growing.whole_samples()?, 1);
        file.write_all(rest)?;
        assert_eq!(growing.whole_samples()?, 2);
        Ok(())
    }
}
